-- Claims, leases and outcomes on SQLite. A claim is a query and an update inside a transaction that
-- excludes other writers.

-- name: due
SELECT id, event_id, target_kind, target_name, lane, attempt, lost, deaths, begun, claim, due_at,
    created_at, state AS was, :now AS now
FROM jobs WHERE lane = :lane AND finished_at IS NULL AND due_at <= :now
ORDER BY due_at LIMIT :most;

-- name: due_of
SELECT id, event_id, target_kind, target_name, lane, attempt, lost, deaths, begun, claim, due_at,
    created_at, state AS was, :now AS now
FROM jobs
WHERE id IN (:only...) AND lane = :lane AND finished_at IS NULL AND due_at <= :now
ORDER BY due_at LIMIT :most;

-- name: lease
UPDATE jobs SET state = 'leased', claim = claim + 1, due_at = r.value ->> 'until',
    attempt = r.value ->> 'sent', lost = r.value ->> 'interrupted', deaths = r.value ->> 'crashes'
FROM json_each(:rows) AS r WHERE jobs.id = r.value ->> 'job';

-- name: update_lanes
UPDATE lanes SET failures = r.value ->> 'failures', open_until = r.value ->> 'open_until',
    probe_until = r.value ->> 'probe_until', ramp = r.value ->> 'ramp',
    tokens = (r.value ->> 'millitokens') / 1000.0, refilled_at = r.value ->> 'refilled_at',
    turn = r.value ->> 'turn'
FROM json_each(:rows) AS r WHERE lanes.id = r.value ->> 'lane';

-- Has lanes looked at in time for jobs that become due at an instant or after a delay. Writes
-- nothing where somebody looks before that, or where pause or breaker hold the lane.
-- name: wake_lanes
UPDATE lanes SET rest = 0, ready = d.at <= :now, look_at = d.at
FROM (
    SELECT l.id, CASE WHEN l.look_at <= :now + 1000 THEN :now
        ELSE MAX(n.at, COALESCE(l.open_until, 0), COALESCE(l.probe_until, 0)) END AS at
    FROM (SELECT value ->> 'lane' AS lane,
              MAX(:now, MIN(COALESCE(value ->> 'due', 9000000000000000),
                            :now + COALESCE(value ->> 'delay', 9000000000000000))) AS at
          FROM json_each(:rows)) AS n
    CROSS JOIN lanes l ON l.id = n.lane
    WHERE l.ready = 0 AND l.paused = 0
      AND (l.look_at IS NULL OR l.look_at <= :now + 1000
           OR l.look_at > MAX(n.at, COALESCE(l.open_until, 0), COALESCE(l.probe_until, 0)))
) AS d
WHERE lanes.id = d.id;

-- name: set_looks
UPDATE lanes SET ready = r.value ->> 'ready', look_at = r.value ->> 'look_at',
    rest = r.value ->> 'rest', turn = :now
FROM json_each(:rows) AS r WHERE lanes.id = r.value ->> 'lane';

-- name: insert_attempts
INSERT INTO attempts (job_id, claim, number, ending, code, status, error, duration_ms, response, at)
SELECT value ->> 'job_id', value ->> 'claim', value ->> 'number', value ->> 'ending',
    value ->> 'code', value ->> 'status', value ->> 'error', value ->> 'duration_ms',
    unhex(value ->> 'response'), :now
FROM json_each(:rows) WHERE true
ON CONFLICT (job_id, claim) DO UPDATE
SET number = excluded.number, ending = excluded.ending, code = excluded.code,
    status = excluded.status, error = excluded.error, duration_ms = excluded.duration_ms,
    response = excluded.response, at = excluded.at
WHERE attempts.ending = 'interrupted';

-- Finds records that were committed although their answer was lost: the claim is still the last
-- one, and the job is not leased any more.
-- name: recorded
SELECT jobs.id FROM json_each(:rows) AS r CROSS JOIN jobs ON jobs.id = r.value ->> 'job'
WHERE jobs.claim = r.value ->> 'claim' AND jobs.state = r.value ->> 'next';

-- `due_at` of a leased job is the end of its lease: from then on it may be claimed again.
-- name: extend
UPDATE jobs SET due_at = :now + :by FROM json_each(:rows) AS r
WHERE jobs.id = r.value ->> 'job' AND jobs.claim = r.value ->> 'claim' AND jobs.state = 'leased'
RETURNING jobs.id;

-- `after` moves the due time, `ended` is 0 for a job that ends here and null for one that goes on;
-- `took` is set for the attempt that delivered the job.
-- name: record
UPDATE jobs SET state = r.value ->> 'next', attempt = r.value ->> 'sent',
    lost = jobs.lost + (r.value ->> 'lost'), due_at = :now + (r.value ->> 'after'),
    finished_at = :now + (r.value ->> 'ended'),
    took_ms = r.value ->> 'took', status = r.value ->> 'status',
    response = unhex(r.value ->> 'response'),
    last_error = COALESCE(r.value ->> 'error', jobs.last_error)
FROM json_each(:rows) AS r
WHERE jobs.id = r.value ->> 'job' AND jobs.claim = r.value ->> 'claim' AND jobs.state = 'leased'
RETURNING jobs.id;

-- Records deliveries with their total, for those that still hold their lease; only for attempts that
-- ended their job and of which nothing is known but status, duration and response.
-- name: record_delivered
UPDATE jobs SET state = 'done', attempt = r.value ->> 'sent', due_at = :now, finished_at = :now,
    took_ms = r.value ->> 'took', status = r.value ->> 'status',
    response = unhex(r.value ->> 'response')
FROM json_each(:rows) AS r
WHERE jobs.id = r.value ->> 'job' AND jobs.claim = r.value ->> 'claim' AND jobs.state = 'leased'
RETURNING jobs.id;
INSERT INTO counters (name, shard, value)
SELECT 'finished', :shard, changes() WHERE changes() > 0
ON CONFLICT (name, shard) DO UPDATE SET value = counters.value + excluded.value;
