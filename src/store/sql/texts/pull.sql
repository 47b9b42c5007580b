-- Pull queues. Texts that every database can share.

-- Whether a message is visible, and if not, when the first will be.
-- name: next_message
SELECT id, due_at - :now AS at FROM jobs WHERE lane = :lane AND finished_at IS NULL
ORDER BY due_at LIMIT 1;

-- name: bury
UPDATE jobs SET state = 'dead', finished_at = :now, last_error = :error
WHERE id IN (:ids...) AND finished_at IS NULL;

-- Messages whose last receive ended without an acknowledgement.
-- name: unacknowledged
SELECT id FROM jobs
WHERE lane = :lane AND state = 'leased' AND target_kind = 'queue' AND finished_at IS NULL
  AND due_at <= :now AND attempt + 1 >= :attempts_max
ORDER BY due_at LIMIT :most;

-- name: queue_counts
SELECT lane AS id,
    COUNT(CASE WHEN due_at <= :now THEN 1 END) AS visible,
    COUNT(CASE WHEN due_at > :now AND state = 'leased' THEN 1 END) AS in_flight,
    COUNT(CASE WHEN due_at > :now AND state = 'pending' THEN 1 END) AS delayed_count,
    MIN(created_at) AS oldest_at
FROM jobs WHERE lane IN (:lanes...) AND finished_at IS NULL GROUP BY lane;

-- name: dead_messages
SELECT lane AS id, COUNT(*) AS at FROM jobs
WHERE state = 'dead' AND lane IN (:lanes...) GROUP BY lane;

-- name: peek_open
SELECT id, event_id, target_kind, target_name, state, attempt, lost, deaths, claim, due_at,
    created_at, finished_at, last_error
FROM jobs WHERE lane = :lane AND finished_at IS NULL ORDER BY due_at, id LIMIT :most;

-- name: peek_dead
SELECT id, event_id, target_kind, target_name, state, attempt, lost, deaths, claim, due_at,
    created_at, finished_at, last_error
FROM jobs WHERE lane = :lane AND state = 'dead' ORDER BY id LIMIT :most;
