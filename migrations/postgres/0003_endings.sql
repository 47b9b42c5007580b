-- What workflows can do besides: runs that wait for their turn or are being undone, runs that are kept longer than the rest,
-- and who runs and who waits under a concurrency key.
ALTER TABLE runs DROP CONSTRAINT runs_status_check;
ALTER TABLE runs ADD CONSTRAINT runs_status_check
    CHECK (status IN ('queued', 'running', 'paused', 'compensating', 'completed', 'failed', 'cancelled'));
ALTER TABLE runs ADD COLUMN prune_at BIGINT;

-- One row per concurrency key; `state` is who is inside and who waits, as JSON. `version` is the fence.
CREATE TABLE gates (
    id         TEXT COLLATE "C" PRIMARY KEY,
    version    BIGINT NOT NULL,
    state      TEXT   NOT NULL,
    changed_at BIGINT NOT NULL
);
