-- Jobs: claims, leases, and what operators do with jobs. Texts that every database can share.

-- The tenants that have lanes to look at, in the order of their names, behind one: one step along
-- the index for each.
-- name: ready_tenants
WITH RECURSIVE t (tenant, n) AS (
    SELECT first.tenant, first.n FROM (
        SELECT tenant, 1 AS n FROM lanes WHERE ready = 1 AND tenant > :behind
        ORDER BY tenant LIMIT 1
    ) AS first
    UNION ALL
    SELECT (SELECT MIN(l.tenant) FROM lanes l WHERE l.ready = 1 AND l.tenant > t.tenant), t.n + 1
    FROM t WHERE t.tenant IS NOT NULL AND t.n < :most
)
SELECT tenant AS name FROM t WHERE tenant IS NOT NULL;

-- The lanes of a tenant to look at, the one that waits longest first.
-- name: ready_lanes
SELECT id, tenant, paused, failures, open_until, probe_until, ramp, rate, tokens, refilled_at, turn,
    rules, ready, rest, :now AS now
FROM lanes
WHERE ready = 1 AND tenant = :tenant AND NOT (id IN (:skip...))
ORDER BY look_at, id LIMIT :most;

-- The lanes whose time to be looked at has come.
-- name: timed_lanes
SELECT id, tenant, paused, failures, open_until, probe_until, ramp, rate, tokens, refilled_at, turn,
    rules, ready, rest, :now AS now
FROM lanes
WHERE ready = 0 AND look_at <= :now AND NOT (id IN (:skip...))
ORDER BY look_at, id LIMIT :most;

-- name: lanes_by_id
SELECT id, tenant, paused, failures, open_until, probe_until, ramp, rate, tokens, refilled_at, turn,
    rules, ready, rest, :now AS now
FROM lanes WHERE id IN (:ids...) ORDER BY id;

-- The lanes of named jobs that are due, the least recently served first.
-- name: lanes_of_jobs
SELECT id, tenant, paused, failures, open_until, probe_until, ramp, rate, tokens, refilled_at, turn,
    rules, ready, rest, :now AS now
FROM lanes
WHERE NOT (id IN (:skip...)) AND ready <> 2
  AND id IN (SELECT lane FROM jobs
             WHERE id IN (:only...) AND finished_at IS NULL AND due_at <= :now)
ORDER BY turn, id LIMIT :most;

-- Locked in the order of their ids, so that two claims cannot deadlock.
-- name: lock_lanes
SELECT id, tenant, paused, failures, open_until, probe_until, ramp, rate, tokens, refilled_at, turn,
    rules, ready, rest, :now AS now
FROM lanes WHERE id IN (:ids...) ORDER BY id :for_update;

-- The same for lanes that nobody else has locked: what is not locked now stays to be looked at.
-- name: lock_free_lanes
SELECT id FROM lanes WHERE id IN (:ids...) ORDER BY id :skip_locked;

-- When the next open job of each lane is due, leased ones included.
-- name: next_due
SELECT l.id, (SELECT MIN(j.due_at) FROM jobs j WHERE j.lane = l.id AND j.finished_at IS NULL) AS at
FROM lanes l WHERE l.id IN (:ids...);

-- Whether any lane to look at has work that is due, lanes included that wait for the next token of
-- their rate limit. MIN(due_at) instead of EXISTS: a planner may
-- turn EXISTS into a scan of all open jobs.
-- name: due_lane
SELECT l.id FROM (
    SELECT * FROM (
        SELECT id, open_until, probe_until FROM lanes WHERE ready = 1 AND paused = 0
        ORDER BY tenant, look_at, id LIMIT 200
    ) AS r
    UNION ALL SELECT * FROM (
        SELECT id, open_until, probe_until FROM lanes
        WHERE ready = 0 AND look_at <= :now + 1100 AND paused = 0 ORDER BY look_at, id LIMIT 200
    ) AS t
) AS l
WHERE (l.open_until IS NULL OR l.open_until <= :now)
  AND (l.probe_until IS NULL OR l.probe_until <= :now)
  AND (SELECT MIN(j.due_at) FROM jobs j WHERE j.lane = l.id AND j.finished_at IS NULL) <= :now
LIMIT 1;

-- name: wake_all_lanes
UPDATE lanes SET ready = 1, look_at = :now, rest = 0
WHERE ready = 0 AND (SELECT MIN(j.due_at) FROM jobs j
                     WHERE j.lane = lanes.id AND j.finished_at IS NULL) <= :now;

-- name: lanes_of_ids
SELECT DISTINCT lane AS name FROM jobs WHERE id IN (:ids...) AND finished_at IS NULL;

-- Lanes of a page that nobody would look at although they have work that has been due for a while.
-- There are none, unless a process of an older version works on the same database.
-- name: stray_lanes
SELECT page.id, CASE WHEN page.ready = 0 AND page.paused = 0
        AND (page.look_at IS NULL OR page.look_at > :now)
        AND (page.open_until IS NULL OR page.open_until <= :now)
        AND (page.probe_until IS NULL OR page.probe_until <= :now)
        AND (SELECT MIN(j.due_at) FROM jobs j
             WHERE j.lane = page.id AND j.finished_at IS NULL) <= :now - :overdue
    THEN :now END AS at
FROM (SELECT id, ready, paused, look_at, open_until, probe_until FROM lanes
      WHERE id > :from ORDER BY id LIMIT :most) AS page
ORDER BY page.id;

-- name: reclaim
UPDATE jobs SET due_at = :now
WHERE state = 'leased' AND finished_at IS NULL AND due_at > :now AND target_kind <> 'queue';

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
