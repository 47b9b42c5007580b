-- When a lane's circuit breaker opens and closes, as JSON; nothing for the defaults.
ALTER TABLE lanes ADD COLUMN rules TEXT;

-- The claim under which a send was about to begin, and how many of those ended with the death of their worker: a claim that never
-- reached a sender is nobody's fault.
ALTER TABLE jobs ADD COLUMN begun BIGINT;
ALTER TABLE jobs ADD COLUMN deaths BIGINT NOT NULL DEFAULT 0;
