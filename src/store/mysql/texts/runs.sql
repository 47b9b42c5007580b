-- Workflows on MySQL and MariaDB.

-- name: define
INSERT INTO definitions (hash, name, body, created_at)
SELECT r.hash, r.name, r.body, :now
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    hash VARCHAR(64) PATH '$.hash', name LONGTEXT PATH '$.name', body LONGTEXT PATH '$.body')) AS r
ON DUPLICATE KEY UPDATE hash = definitions.hash;

-- name: insert_runs
INSERT INTO runs (id, workflow, definition, event_id, parent_run, parent_visit, status, error,
    version, noted, state, created_at, finished_at, prune_at)
SELECT r.id, r.workflow, r.definition, r.event_id, r.parent_run, r.parent_visit, r.status, r.error,
    1, r.notes, r.state, :now, :now + r.ended, :now + r.keep
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    id VARCHAR(26) PATH '$.id', workflow LONGTEXT PATH '$.workflow',
    definition VARCHAR(64) PATH '$.definition', event_id VARCHAR(26) PATH '$.event_id',
    parent_run VARCHAR(26) PATH '$.parent_run', parent_visit BIGINT PATH '$.parent_visit',
    status VARCHAR(20) PATH '$.status', error LONGTEXT PATH '$.error', notes BIGINT PATH '$.notes',
    state LONGTEXT PATH '$.state', ended BIGINT PATH '$.ended', keep BIGINT PATH '$.keep')) AS r;

-- name: update_runs
UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
    id VARCHAR(26) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$.id',
    status VARCHAR(20) PATH '$.status', definition VARCHAR(64) PATH '$.definition',
    error LONGTEXT PATH '$.error', notes BIGINT PATH '$.notes', state LONGTEXT PATH '$.state',
    ended BIGINT PATH '$.ended', keep BIGINT PATH '$.keep')) AS r
STRAIGHT_JOIN runs ON runs.id = r.id
SET runs.status = r.status, runs.definition = r.definition, runs.error = r.error,
    runs.version = runs.version + 1, runs.noted = runs.noted + r.notes, runs.state = r.state,
    runs.finished_at = :now + r.ended, runs.prune_at = :now + r.keep;

-- name: insert_run_jobs
INSERT INTO jobs (id, event_id, target_kind, target_name, lane, state, attempt, lost, claim, due_at,
    created_at)
SELECT r.id, r.event_id, r.target_kind, r.target_name, r.lane, 'pending', 0, 0, 0,
    COALESCE(r.due, :now + r.delay), :now
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    id VARCHAR(26) PATH '$.id', event_id VARCHAR(26) PATH '$.event_id',
    target_kind VARCHAR(20) PATH '$.target_kind', target_name LONGTEXT PATH '$.target_name',
    lane VARCHAR(400) PATH '$.lane', due BIGINT PATH '$.due', delay BIGINT PATH '$.delay')) AS r;

-- Ids of gates are bytes, so that trailing spaces count. They are read as text.
-- name: lock_gates
SELECT CONVERT(id USING utf8mb4) AS id, version, state FROM gates
WHERE id IN (:ids...) ORDER BY gates.id FOR UPDATE;

-- name: gate
SELECT CONVERT(id USING utf8mb4) AS id, version, state FROM gates WHERE gates.id = :id;

-- Every gate has a row before it is locked, so that two first runs wait for each other.
-- name: make_gates
INSERT INTO gates (id, version, state, changed_at)
SELECT r.id, 0, r.state, :now
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    id VARCHAR(700) PATH '$.id', state LONGTEXT PATH '$.state')) AS r
ON DUPLICATE KEY UPDATE version = gates.version;

-- name: update_gates
UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
    id VARCHAR(700) PATH '$.id', state LONGTEXT PATH '$.state')) AS r
STRAIGHT_JOIN gates ON gates.id = r.id
SET gates.version = gates.version + 1, gates.state = r.state, gates.changed_at = :now;

-- name: insert_history
INSERT INTO history (run_id, seq, at, kind, step, visit, data)
SELECT r.run_id, r.seq, :now, r.kind, r.step, r.visit, r.data
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    run_id VARCHAR(26) PATH '$.run_id', seq BIGINT PATH '$.seq', kind VARCHAR(100) PATH '$.kind',
    step LONGTEXT PATH '$.step', visit BIGINT PATH '$.visit', data LONGTEXT PATH '$.data')) AS r;

-- name: insert_tokens
INSERT INTO tokens (hash, run_id, visit, answer)
SELECT r.hash, r.run_id, r.visit, NULL
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    hash VARCHAR(64) PATH '$.hash', run_id VARCHAR(26) PATH '$.run_id',
    visit BIGINT PATH '$.visit')) AS r;

-- name: spend_tokens
UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
    hash VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$.hash',
    answer VARCHAR(100) PATH '$.answer')) AS r
STRAIGHT_JOIN tokens ON tokens.hash = r.hash
SET tokens.answer = r.answer;
