-- Lanes, hints and housekeeping on MySQL and MariaDB.

-- A changed rate starts with a full second's worth; an unchanged one keeps its tokens.
-- name: upsert_lanes
INSERT INTO lanes (id, tenant, paused, failures, ramp, rate, tokens, refilled_at, turn, rules, ready)
SELECT r.id, r.tenant, 0, 0, 0, r.rate, COALESCE(r.rate, 0), :now, 0, r.rules, r.ready
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    id VARCHAR(400) PATH '$.id', tenant VARCHAR(200) PATH '$.tenant', rate BIGINT PATH '$.rate',
    rules LONGTEXT PATH '$.rules', ready BIGINT PATH '$.ready')) AS r
ON DUPLICATE KEY UPDATE tenant = VALUES(tenant), rate = VALUES(rate), rules = VALUES(rules);

-- If another tick has announced these jobs meanwhile, there are none to lock.
-- name: lock_announce
SELECT jobs.id FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    job VARCHAR(26) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$.job',
    after_ms BIGINT PATH '$.after')) AS r
STRAIGHT_JOIN jobs ON jobs.id = r.job
WHERE jobs.finished_at IS NULL
  AND (jobs.woken_until IS NULL OR jobs.woken_until <= :now + r.after_ms)
FOR UPDATE;

-- name: announce
UPDATE JSON_TABLE(:rows, '$[*]' COLUMNS (
    job VARCHAR(26) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$.job',
    after_ms BIGINT PATH '$.after')) AS r
STRAIGHT_JOIN jobs ON jobs.id = r.job
SET jobs.woken_until = :now + r.after_ms + :overdue
WHERE jobs.finished_at IS NULL
  AND (jobs.woken_until IS NULL OR jobs.woken_until <= :now + r.after_ms);

-- name: totals
SELECT name, CAST(SUM(value) AS SIGNED) AS value FROM counters GROUP BY name;

-- A dummy key. It expires a day after the last check.
-- name: probe
INSERT INTO `keys` (scope, word, event_id, fingerprint, expires_at)
VALUES ('probe', :word, '', :filler, :now + 86400000)
ON DUPLICATE KEY UPDATE fingerprint = VALUES(fingerprint), expires_at = VALUES(expires_at);

-- name: reject
INSERT INTO rejections (source, reason, count, first_at, last_at)
SELECT r.source, r.reason, r.n, :now, :now
FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
    source VARCHAR(200) PATH '$.source', reason VARCHAR(100) PATH '$.reason',
    n BIGINT PATH '$.n')) AS r
ON DUPLICATE KEY UPDATE count = rejections.count + VALUES(count), last_at = VALUES(last_at);

-- name: old_keys
SELECT CONVERT(scope USING utf8mb4) AS scope, CONVERT(word USING utf8mb4) AS word, event_id,
    fingerprint, expires_at, :now AS now
FROM `keys` WHERE expires_at <= :now ORDER BY expires_at LIMIT :most;

-- name: chores
SELECT 'expire' AS name FROM DUAL WHERE (
    SELECT expires_at FROM jobs FORCE INDEX (jobs_expiry)
    WHERE finished_at IS NULL AND expires_at IS NOT NULL AND state = 'pending'
    ORDER BY expires_at LIMIT 1) <= :now
UNION ALL SELECT 'prune' AS name FROM DUAL WHERE (
    SELECT created_at FROM events ORDER BY id LIMIT 1) < :now - :age OR :counts = 1
    OR EXISTS (SELECT 1 FROM gates WHERE state = :empty AND changed_at < :now - :age)
UNION ALL SELECT 'forget' AS name FROM DUAL WHERE (
    SELECT expires_at FROM `keys` ORDER BY expires_at LIMIT 1) <= :now;

-- name: tables
SELECT CAST(table_name AS CHAR) AS name FROM information_schema.tables
WHERE table_schema = DATABASE();

-- name: about
SELECT CONCAT(CASE WHEN VERSION() LIKE '%MariaDB%' THEN 'MariaDB ' ELSE 'MySQL ' END, VERSION())
    AS name
UNION ALL SELECT CONCAT('at most ', @@max_connections, ' connections');

-- name: settings
SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'innodb_flush_log_at_trx_commit',
    'sync_binlog', 'log_bin', 'innodb_doublewrite', 'max_allowed_packet', 'wsrep_on',
    'group_replication_group_name');
