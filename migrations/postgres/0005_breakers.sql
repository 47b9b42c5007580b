-- When a lane's circuit breaker opens and closes, as JSON; nothing for the defaults.
ALTER TABLE lanes ADD COLUMN rules TEXT;
