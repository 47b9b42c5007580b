-- Housekeeping: the schema, retention, checks. Texts that every database can share.

-- name: migrated
SELECT COUNT(*) AS n FROM _sqlx_migrations WHERE success;

-- name: newest_migration
SELECT COALESCE(MAX(version), 0) AS n FROM _sqlx_migrations WHERE success;

-- name: now
SELECT :now AS now;

-- Ids are in the order of time, so a page without an old event ends the pass, however many events
-- are kept.
-- name: old_events
SELECT page.id FROM (
    SELECT id, created_at FROM events WHERE id > :from ORDER BY id LIMIT :most
) AS page
WHERE page.created_at < :now - :age OR page.id < :before ORDER BY page.id;

-- name: oldest_kept
SELECT id FROM jobs ORDER BY id DESC LIMIT 1 OFFSET :behind;

-- name: oldest_kept_dead
SELECT id FROM jobs WHERE state = 'dead' ORDER BY id DESC LIMIT 1 OFFSET :behind;

-- No workflow keeps a job; the column is there for the row that both queries yield.
-- name: jobs_of_events
SELECT id, event_id, state, finished_at, finished_at AS kept_until, :now AS now
FROM jobs WHERE event_id IN (:events...);

-- A run that its workflow keeps longer keeps its event.
-- name: runs_of_events
SELECT id, event_id, status AS state, finished_at, prune_at AS kept_until, :now AS now
FROM runs WHERE event_id IN (:events...);

-- name: delete_attempts
DELETE FROM attempts WHERE job_id IN (:jobs...);

-- name: delete_jobs
DELETE FROM jobs WHERE id IN (:jobs...);

-- name: delete_history
DELETE FROM history WHERE run_id IN (:runs...);

-- name: delete_tokens
DELETE FROM tokens WHERE run_id IN (:runs...);

-- name: delete_runs
DELETE FROM runs WHERE id IN (:runs...);

-- name: delete_events
DELETE FROM events WHERE id IN (:events...);

-- name: old_gates
DELETE FROM gates WHERE state = :empty AND changed_at < :now - :age;

-- name: old_keys
SELECT scope, word, event_id, fingerprint, expires_at, :now AS now
FROM keys WHERE expires_at <= :now ORDER BY expires_at LIMIT :most;

-- Which chores have work, in one query before any of them starts a transaction. Each looks at the
-- head of an index.
-- name: chores
SELECT 'expire' AS name WHERE (
    SELECT expires_at FROM jobs
    WHERE finished_at IS NULL AND expires_at IS NOT NULL AND state = 'pending'
    ORDER BY expires_at LIMIT 1) <= :now
UNION ALL SELECT 'prune' AS name WHERE (
    SELECT created_at FROM events ORDER BY id LIMIT 1) < :now - :age OR :counts = 1
    OR EXISTS (SELECT 1 FROM gates WHERE state = :empty AND changed_at < :now - :age)
UNION ALL SELECT 'forget' AS name WHERE (
    SELECT expires_at FROM keys ORDER BY expires_at LIMIT 1) <= :now;

-- name: moves
SELECT role, other FROM moves ORDER BY role LIMIT 1;

-- name: set_move
INSERT INTO moves (role, other, at) VALUES (:role, :other, :now);

-- name: end_move
DELETE FROM moves WHERE role = :role;
