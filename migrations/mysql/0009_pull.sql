-- Nothing to do here: elsewhere a partial index finds the messages that consumers hold, and MySQL has
-- none. An index over all jobs would cost every delivery a write.
DO 0;
