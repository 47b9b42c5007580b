-- Workflows: what runs are pinned to, runs, their history, and tokens of callbacks.

-- A definition as it was written, before variables were replaced, by its hash. It holds no secret.
CREATE TABLE definitions (
    hash       TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT   NOT NULL,
    body       TEXT   NOT NULL,
    created_at BIGINT NOT NULL
);

-- One row per run; `state` is what the machine remembers, as JSON. `version` is the fence between two who change it.
CREATE TABLE runs (
    id           TEXT COLLATE "C" PRIMARY KEY,
    workflow     TEXT   NOT NULL,
    definition   TEXT COLLATE "C" NOT NULL,
    event_id     TEXT COLLATE "C" NOT NULL,
    parent_run   TEXT COLLATE "C",
    parent_visit BIGINT,
    status       TEXT   NOT NULL CHECK (status IN ('running', 'paused', 'completed', 'failed', 'cancelled')),
    error        TEXT,
    version      BIGINT NOT NULL,
    noted        BIGINT NOT NULL,
    state        TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    finished_at  BIGINT
) WITH (fillfactor = 80);
CREATE INDEX runs_event ON runs (event_id);
CREATE INDEX runs_status ON runs (status, id);

CREATE TABLE history (
    run_id TEXT COLLATE "C" NOT NULL,
    seq    BIGINT NOT NULL,
    at     BIGINT NOT NULL,
    kind   TEXT   NOT NULL,
    step   TEXT,
    visit  BIGINT,
    data   TEXT   NOT NULL,
    PRIMARY KEY (run_id, seq)
);

-- SHA-256 of a token, the visit that it answers, and the hash of the answer that used it up.
CREATE TABLE tokens (
    hash   TEXT COLLATE "C" PRIMARY KEY,
    run_id TEXT COLLATE "C" NOT NULL,
    visit  BIGINT NOT NULL,
    answer TEXT
);
CREATE INDEX tokens_run ON tokens (run_id);
