-- Lanes: pauses, backlogs, renames. Texts that every database can share. `ready` is 2 for the lanes
-- of pull queues: no claim looks at them, and nothing makes them ready.

-- name: lanes
SELECT id, tenant, paused, failures, open_until, probe_until, ramp, rate, tokens, refilled_at, turn,
    rules, ready, rest, :now AS now
FROM lanes ORDER BY id;

-- name: pause
UPDATE lanes SET paused = 1 WHERE id = :id AND ready <> 2;

-- name: unpause
UPDATE lanes SET paused = 0, ready = 1, look_at = :now, rest = 0 WHERE id = :id AND ready <> 2;

-- An open breaker admits one probe now, even if an earlier probe is unfinished.
-- name: resume
UPDATE lanes SET paused = 0, ready = 1, look_at = :now, rest = 0,
    open_until = CASE WHEN open_until > :now THEN :now ELSE open_until END,
    probe_until = CASE WHEN open_until IS NULL THEN probe_until END
WHERE id = :id AND ready <> 2;

-- One index lookup per lane, whatever the backlog.
-- name: backlog
SELECT w.id, w.at FROM (
    SELECT l.id, (SELECT MIN(j.due_at) FROM jobs j
                  WHERE j.lane = l.id AND j.finished_at IS NULL) AS at
    FROM lanes l WHERE l.ready <> 2
) AS w
WHERE w.at <= :now ORDER BY w.id;

-- name: open_jobs
SELECT lane AS id, COUNT(*) AS at FROM jobs
WHERE lane IN (:lanes...) AND finished_at IS NULL GROUP BY lane;

-- Locked rows are being claimed or recorded. The next pass finds them.
-- name: lock_renamed
SELECT id FROM jobs WHERE lane = :old AND finished_at IS NULL AND state = 'pending'
ORDER BY due_at LIMIT :most :skip_locked;

-- name: rename
UPDATE jobs SET target_name = :name, lane = :new WHERE id IN (:ids...) AND state = 'pending';

-- The lanes of a rename, of which the old one is paused.
-- name: paused_lane
SELECT id FROM lanes WHERE id = :old AND paused = 1 :for_update;
