-- Instants are milliseconds since 1970; ids are ULIDs as text, compared byte by byte; see migrations/README.md.

CREATE TABLE events (
    id         TEXT COLLATE "C" PRIMARY KEY,
    source     TEXT   NOT NULL,
    kind       TEXT   NOT NULL,
    headers    TEXT   NOT NULL,
    body       BYTEA  NOT NULL,
    unique_key TEXT,
    created_at BIGINT NOT NULL
);

CREATE TABLE jobs (
    id          TEXT COLLATE "C" PRIMARY KEY,
    event_id    TEXT COLLATE "C" NOT NULL,
    target_kind TEXT   NOT NULL,
    target_name TEXT   NOT NULL,
    lane        TEXT COLLATE "C" NOT NULL,
    state       TEXT   NOT NULL CHECK (state IN ('pending', 'leased', 'done', 'dead', 'cancelled')),
    attempt     BIGINT NOT NULL,
    lost        BIGINT NOT NULL,
    claim       BIGINT NOT NULL,
    due_at      BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT,
    finished_at BIGINT,
    last_error  TEXT
) WITH (fillfactor = 80);
-- Room on each page for the versions a job goes through: claimed, recorded.

-- The one hot question: what is due in this lane? Ended jobs are not in it, so kept rows cost nothing.
CREATE INDEX jobs_due ON jobs (lane, due_at) WHERE finished_at IS NULL;
CREATE INDEX jobs_event ON jobs (event_id);
CREATE INDEX jobs_dead ON jobs (id) WHERE state = 'dead';
CREATE INDEX jobs_expiry ON jobs (expires_at) WHERE expires_at IS NOT NULL AND finished_at IS NULL;

CREATE TABLE attempts (
    job_id      TEXT COLLATE "C" NOT NULL,
    claim       BIGINT NOT NULL,
    number      BIGINT NOT NULL,
    ending      TEXT   NOT NULL CHECK (ending IN ('delivered', 'failed', 'interrupted', 'stale')),
    code        TEXT,
    status      BIGINT,
    error       TEXT,
    duration_ms BIGINT NOT NULL,
    response    BYTEA  NOT NULL,
    at          BIGINT NOT NULL,
    PRIMARY KEY (job_id, claim)
);

-- Idempotency keys: who came first with this word in this scope.
CREATE TABLE keys (
    scope       TEXT COLLATE "C" NOT NULL,
    word        TEXT COLLATE "C" NOT NULL,
    event_id    TEXT   NOT NULL,
    fingerprint TEXT,
    expires_at  BIGINT NOT NULL,
    PRIMARY KEY (scope, word)
);
CREATE INDEX keys_expiry ON keys (expires_at);

CREATE TABLE lanes (
    id          TEXT COLLATE "C" PRIMARY KEY,
    tenant      TEXT   NOT NULL,
    paused      BIGINT NOT NULL,
    failures    BIGINT NOT NULL,
    open_until  BIGINT,
    probe_until BIGINT,
    ramp        BIGINT NOT NULL,
    rate        BIGINT,
    tokens      DOUBLE PRECISION NOT NULL,
    refilled_at BIGINT NOT NULL,
    turn        BIGINT NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);
-- A few rows, each written with every claim: room for new versions on the same page, and vacuumed by count.

-- Totals, one row per name and process shard, so that processes do not wait for each other.
CREATE TABLE counters (
    name  TEXT   NOT NULL,
    shard BIGINT NOT NULL,
    value BIGINT NOT NULL,
    PRIMARY KEY (name, shard)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);

-- Refused requests: counted by source and reason, without their bodies.
CREATE TABLE rejections (
    source   TEXT   NOT NULL,
    reason   TEXT   NOT NULL,
    count    BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at  BIGINT NOT NULL,
    PRIMARY KEY (source, reason)
);
