-- What workflows can do besides: runs that wait for their turn or are being undone, runs that are kept longer than the rest,
-- and who runs and who waits under a concurrency key. SQLite changes a check by making the table anew.
CREATE TABLE runs_new (
    id           TEXT PRIMARY KEY NOT NULL,
    workflow     TEXT   NOT NULL,
    definition   TEXT NOT NULL,
    event_id     TEXT NOT NULL,
    parent_run   TEXT,
    parent_visit BIGINT,
    status       TEXT   NOT NULL
        CHECK (status IN ('queued', 'running', 'paused', 'compensating', 'completed', 'failed', 'cancelled')),
    error        TEXT,
    version      BIGINT NOT NULL,
    noted        BIGINT NOT NULL,
    state        TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    finished_at  BIGINT,
    prune_at     BIGINT
);
INSERT INTO runs_new (id, workflow, definition, event_id, parent_run, parent_visit, status, error, version, noted, state,
    created_at, finished_at)
    SELECT id, workflow, definition, event_id, parent_run, parent_visit, status, error, version, noted, state, created_at,
    finished_at FROM runs;
DROP TABLE runs;
ALTER TABLE runs_new RENAME TO runs;
CREATE INDEX runs_event ON runs (event_id);
CREATE INDEX runs_status ON runs (status, id);

-- One row per concurrency key; `state` is who is inside and who waits, as JSON. `version` is the fence.
CREATE TABLE gates (
    id         TEXT PRIMARY KEY NOT NULL,
    version    BIGINT NOT NULL,
    state      TEXT   NOT NULL,
    changed_at BIGINT NOT NULL
);
