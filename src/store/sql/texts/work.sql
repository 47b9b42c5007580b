-- Jobs: claims, leases, and what operators do with jobs. Texts that every database can share.

-- Tenants take turns, then their lanes, the least recently served first. MIN(due_at) instead of
-- EXISTS: a planner may turn EXISTS into a scan of all open jobs.
-- name: pick_lanes
SELECT id FROM (
    SELECT id, turn, ROW_NUMBER() OVER (PARTITION BY tenant ORDER BY turn, id) AS place
    FROM lanes
    WHERE paused = 0 AND (open_until IS NULL OR open_until <= :now)
      AND (probe_until IS NULL OR probe_until <= :now)
      AND NOT (id IN (:skip...))
      AND (SELECT MIN(jobs.due_at) FROM jobs
           WHERE jobs.lane = lanes.id AND jobs.finished_at IS NULL) <= :now
) AS due
ORDER BY place, turn, id LIMIT :most;

-- The lanes of named jobs that are due, in the same order.
-- name: pick_lanes_of
SELECT id FROM lanes
WHERE paused = 0 AND (open_until IS NULL OR open_until <= :now)
  AND (probe_until IS NULL OR probe_until <= :now)
  AND NOT (id IN (:skip...))
  AND id IN (SELECT lane FROM jobs
             WHERE id IN (:only...) AND finished_at IS NULL AND due_at <= :now)
ORDER BY turn, id LIMIT :most;

-- Locked in the order of their ids, so that two claims cannot deadlock.
-- name: lock_lanes
SELECT id, tenant, paused, failures, open_until, probe_until, ramp, rate, tokens, refilled_at, turn,
    rules, :now AS now
FROM lanes WHERE id IN (:ids...) ORDER BY id :for_update;

-- name: reclaim
UPDATE jobs SET due_at = :now WHERE state = 'leased' AND finished_at IS NULL AND due_at > :now;

-- name: retry_one
UPDATE jobs SET state = 'pending', attempt = 0, lost = 0, deaths = 0, due_at = :now,
    finished_at = NULL, expires_at = NULL
WHERE id = :id AND state = :state;

-- name: retry_all
UPDATE jobs SET state = 'pending', attempt = 0, lost = 0, deaths = 0, due_at = :now,
    finished_at = NULL, expires_at = NULL
WHERE state = :state;

-- name: begin_send
UPDATE jobs SET begun = claim WHERE id = :job AND claim = :claim AND state = 'leased';

-- name: cancel
UPDATE jobs SET state = 'cancelled', claim = claim + 1, finished_at = :now
WHERE id = :id AND finished_at IS NULL;

-- name: lock_open_jobs
SELECT id FROM jobs WHERE lane = :lane AND finished_at IS NULL
ORDER BY due_at LIMIT :most :for_update;

-- name: cancel_jobs
UPDATE jobs SET state = 'cancelled', claim = claim + 1, finished_at = :now
WHERE id IN (:ids...) AND finished_at IS NULL;

-- name: expired
SELECT id FROM jobs WHERE finished_at IS NULL AND expires_at <= :now AND state = 'pending'
ORDER BY expires_at LIMIT :most;

-- name: lock_expired
SELECT id FROM jobs
WHERE id IN (:ids...) AND finished_at IS NULL AND expires_at <= :now AND state = 'pending'
ORDER BY id :for_update;

-- name: expire
UPDATE jobs SET state = 'dead', claim = claim + 1, finished_at = :now,
    last_error = 'event TTL expired'
WHERE id IN (:ids...);
