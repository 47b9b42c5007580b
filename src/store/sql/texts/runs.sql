-- Workflows: definitions, runs, history, gates, tokens. Texts that every database can share.

-- name: definition
SELECT hash, name, body FROM definitions WHERE hash = :hash;

-- name: runs_by_id
SELECT id, workflow, definition, event_id, parent_run, parent_visit, status, error, version, state,
    created_at, finished_at
FROM runs WHERE id IN (:ids...);

-- name: runs
SELECT id, workflow, definition, event_id, parent_run, parent_visit, status, error, version, state,
    created_at, finished_at
FROM runs WHERE 1 = 1;

-- name: history
SELECT seq, at, kind, step, visit, data FROM history WHERE run_id = :run ORDER BY seq;

-- name: token
SELECT hash, run_id, visit, answer FROM tokens WHERE hash = :hash;

-- Locked in the order of their ids, so that two batches cannot deadlock.
-- name: lock_runs
SELECT id, version, noted FROM runs WHERE id IN (:ids...) ORDER BY id :for_update;

-- A job of a paused run moves to a lane without a row in `lanes`, so no claim finds it.
-- name: pause_jobs
UPDATE jobs SET lane = 'held:' || lane
WHERE id IN (:ids...) AND finished_at IS NULL AND lane NOT LIKE 'held:%';

-- name: resume_jobs
UPDATE jobs SET lane = SUBSTR(lane, 6)
WHERE id IN (:ids...) AND finished_at IS NULL AND lane LIKE 'held:%';

-- name: lock_gates
SELECT id, version, state FROM gates WHERE id IN (:ids...) ORDER BY id :for_update;

-- name: gate
SELECT id, version, state FROM gates WHERE id = :id;

-- A timer that is no longer needed counts as done, not as cancelled.
-- name: end_jobs
UPDATE jobs SET state = CASE WHEN target_kind = 'timer' THEN 'done' ELSE 'cancelled' END,
    claim = claim + 1, finished_at = :now
WHERE id IN (:ids...) AND finished_at IS NULL;
