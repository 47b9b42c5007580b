-- The schema as the other databases have it after their sixth migration; later ones have the same
-- numbers everywhere. DDL is not transactional here, so every statement may run again after it was
-- interrupted.
--
-- Instants are milliseconds since 1970; ids are ULIDs, compared byte by byte. Character sets and
-- collations are those of the tables, whatever the database's default. What comes from outside and
-- must be told apart to the last byte (keys, gates) is binary: text comparisons would ignore
-- trailing spaces.

-- The first table: a database with `jobs` and without `lanes` belongs to another program.
CREATE TABLE IF NOT EXISTS lanes (
    id          VARCHAR(400) NOT NULL PRIMARY KEY,
    tenant      VARCHAR(200) NOT NULL,
    paused      BIGINT NOT NULL,
    failures    BIGINT NOT NULL,
    open_until  BIGINT,
    probe_until BIGINT,
    ramp        BIGINT NOT NULL,
    rate        BIGINT,
    tokens      DOUBLE NOT NULL,
    refilled_at BIGINT NOT NULL,
    turn        BIGINT NOT NULL,
    rules       LONGTEXT,
    ready       BIGINT NOT NULL DEFAULT 1,
    look_at     BIGINT DEFAULT 0,
    rest        BIGINT NOT NULL DEFAULT 0,
    KEY lanes_ready (ready, tenant, look_at, id),
    KEY lanes_look (ready, look_at, id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS events (
    id         VARCHAR(26) NOT NULL PRIMARY KEY,
    source     VARCHAR(400) NOT NULL,
    kind       LONGTEXT NOT NULL,
    headers    LONGTEXT NOT NULL,
    body       LONGBLOB NOT NULL,
    unique_key VARCHAR(400),
    created_at BIGINT   NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- The one hot question: what is due in this lane? There are no partial indexes, so `finished_at`
-- comes first: the rows of open jobs stand together, however many ended ones are kept.
CREATE TABLE IF NOT EXISTS jobs (
    id          VARCHAR(26) NOT NULL PRIMARY KEY,
    event_id    VARCHAR(26) NOT NULL,
    target_kind VARCHAR(20) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    target_name LONGTEXT NOT NULL,
    lane        VARCHAR(400) NOT NULL,
    state       VARCHAR(20) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
        CHECK (state IN ('pending', 'leased', 'done', 'dead', 'cancelled')),
    attempt     BIGINT NOT NULL,
    lost        BIGINT NOT NULL,
    claim       BIGINT NOT NULL,
    due_at      BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT,
    finished_at BIGINT,
    last_error  LONGTEXT,
    woken_until BIGINT,
    begun       BIGINT,
    deaths      BIGINT NOT NULL DEFAULT 0,
    KEY jobs_due (finished_at, lane, due_at),
    KEY jobs_event (event_id),
    KEY jobs_state (state, id),
    KEY jobs_expiry (finished_at, expires_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS attempts (
    job_id      VARCHAR(26) NOT NULL,
    claim       BIGINT   NOT NULL,
    number      BIGINT   NOT NULL,
    ending      VARCHAR(20) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
        CHECK (ending IN ('delivered', 'failed', 'interrupted', 'stale')),
    code        VARCHAR(100),
    status      BIGINT,
    error       LONGTEXT,
    duration_ms BIGINT   NOT NULL,
    response    LONGBLOB NOT NULL,
    at          BIGINT   NOT NULL,
    PRIMARY KEY (job_id, claim)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Idempotency keys: who came first with this word in this scope.
CREATE TABLE IF NOT EXISTS `keys` (
    scope       VARBINARY(400) NOT NULL,
    word        VARBINARY(400) NOT NULL,
    event_id    VARCHAR(26) NOT NULL,
    fingerprint LONGTEXT,
    expires_at  BIGINT NOT NULL,
    PRIMARY KEY (scope, word),
    KEY keys_expiry (expires_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Totals, one row per name and process shard, so that processes do not wait for each other.
CREATE TABLE IF NOT EXISTS counters (
    name  VARCHAR(40) NOT NULL,
    shard BIGINT NOT NULL,
    value BIGINT NOT NULL,
    PRIMARY KEY (name, shard)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Refused requests: counted by source and reason, without their bodies.
CREATE TABLE IF NOT EXISTS rejections (
    source   VARCHAR(400) NOT NULL,
    reason   VARCHAR(100) NOT NULL,
    count    BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at  BIGINT NOT NULL,
    PRIMARY KEY (source, reason)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Workflows: what runs are pinned to, runs, their history, and tokens of callbacks.

-- A definition as it was written, before variables were replaced, by its hash. It holds no secret.
CREATE TABLE IF NOT EXISTS definitions (
    hash       VARCHAR(64) NOT NULL PRIMARY KEY,
    name       LONGTEXT NOT NULL,
    body       LONGTEXT NOT NULL,
    created_at BIGINT   NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- One row per run; `state` is what the machine remembers, as JSON. `version` is the fence between
-- two who change it.
CREATE TABLE IF NOT EXISTS runs (
    id           VARCHAR(26) NOT NULL PRIMARY KEY,
    workflow     VARCHAR(400) NOT NULL,
    definition   VARCHAR(64) NOT NULL,
    event_id     VARCHAR(26) NOT NULL,
    parent_run   VARCHAR(26),
    parent_visit BIGINT,
    status       VARCHAR(20) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
        CHECK (status IN ('queued', 'running', 'paused', 'compensating', 'completed', 'failed', 'cancelled')),
    error        LONGTEXT,
    version      BIGINT   NOT NULL,
    noted        BIGINT   NOT NULL,
    state        LONGTEXT NOT NULL,
    created_at   BIGINT   NOT NULL,
    finished_at  BIGINT,
    prune_at     BIGINT,
    KEY runs_event (event_id),
    KEY runs_status (status, id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS history (
    run_id VARCHAR(26) NOT NULL,
    seq    BIGINT   NOT NULL,
    at     BIGINT   NOT NULL,
    kind   VARCHAR(100) NOT NULL,
    step   LONGTEXT,
    visit  BIGINT,
    data   LONGTEXT NOT NULL,
    PRIMARY KEY (run_id, seq)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- SHA-256 of a token, the visit that it answers, and the hash of the answer that used it up.
CREATE TABLE IF NOT EXISTS tokens (
    hash   VARCHAR(64) NOT NULL PRIMARY KEY,
    run_id VARCHAR(26) NOT NULL,
    visit  BIGINT NOT NULL,
    answer LONGTEXT,
    KEY tokens_run (run_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- One row per concurrency key; `state` is who is inside and who waits, as JSON. `version` is the
-- fence.
CREATE TABLE IF NOT EXISTS gates (
    id         VARBINARY(2000) NOT NULL PRIMARY KEY,
    version    BIGINT   NOT NULL,
    state      LONGTEXT NOT NULL,
    changed_at BIGINT   NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
