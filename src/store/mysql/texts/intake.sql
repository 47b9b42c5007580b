-- Accepting events on MySQL and MariaDB. A table of values is one JSON text, read by JSON_TABLE; it
-- comes first in its joins (STRAIGHT_JOIN), and its ids have the collation of the columns that they
-- are compared with, so that each row is found by its key and nothing else is locked.

-- name: insert_keys
INSERT INTO `keys` (scope, word, event_id, fingerprint, expires_at)
SELECT r.scope, r.word, r.event_id, r.fingerprint, :now + r.ttl
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    scope VARCHAR(200) PATH '$.scope', word VARCHAR(200) PATH '$.word',
    event_id VARCHAR(26) PATH '$.event_id', fingerprint VARCHAR(100) PATH '$.fingerprint',
    ttl BIGINT PATH '$.ttl')) AS r
ON DUPLICATE KEY UPDATE expires_at = `keys`.expires_at;

-- name: read_keys
SELECT CONVERT(k.scope USING utf8mb4) AS scope, CONVERT(k.word USING utf8mb4) AS word, k.event_id,
    k.fingerprint, k.expires_at, :now AS now
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    scope VARCHAR(200) PATH '$.scope', word VARCHAR(200) PATH '$.word')) AS r
STRAIGHT_JOIN `keys` k ON k.scope = r.scope AND k.word = r.word;

-- name: delete_keys
DELETE `keys` FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    scope VARCHAR(200) PATH '$.scope', word VARCHAR(200) PATH '$.word')) AS r
STRAIGHT_JOIN `keys` ON `keys`.scope = r.scope AND `keys`.word = r.word;

-- Bodies are bound as they are, not inside JSON.
-- name: insert_events
INSERT INTO events (id, source, kind, headers, body, unique_key, created_at)
VALUES (:rows.id, :rows.source, :rows.kind, :rows.headers, :rows.body, :rows.unique_key, :now)...;

-- name: packet_max
SELECT CAST(@@max_allowed_packet AS SIGNED) AS n;

-- Which of these are stored already: a slice is repeated when its answer was lost.
-- name: stored_events
SELECT id FROM events WHERE id IN (:ids...);

-- name: stored_jobs
SELECT id FROM jobs WHERE id IN (:ids...);

-- The lanes whose jobs may start with this commit: open, without a rate limit, and without a
-- failure that is remembered.
-- name: clean_lanes
SELECT id, :now AS at FROM lanes
WHERE id IN (:lanes...) AND paused = 0 AND open_until IS NULL AND failures = 0 AND ramp = 0
  AND rate IS NULL;

-- name: insert_jobs
INSERT INTO jobs (id, event_id, target_kind, target_name, lane, state, attempt, lost, claim, due_at,
    created_at, expires_at)
SELECT r.id, r.event_id, r.target_kind, r.target_name, r.lane,
    CASE WHEN r.lease IS NULL THEN 'pending' ELSE 'leased' END, 0, 0,
    CASE WHEN r.lease IS NULL THEN 0 ELSE 1 END,
    CASE WHEN r.lease IS NULL THEN GREATEST(:now, COALESCE(r.due, 0)) ELSE :now + r.lease END, :now,
    :now + r.ttl
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    id VARCHAR(26) PATH '$.id', event_id VARCHAR(26) PATH '$.event_id',
    target_kind VARCHAR(20) PATH '$.target_kind', target_name LONGTEXT PATH '$.target_name',
    lane VARCHAR(400) PATH '$.lane', ttl BIGINT PATH '$.ttl', due BIGINT PATH '$.due',
    lease BIGINT PATH '$.lease')) AS r;

-- name: count
INSERT INTO counters (name, shard, value) VALUES (:name, :shard, :by)
ON DUPLICATE KEY UPDATE value = counters.value + VALUES(value);
