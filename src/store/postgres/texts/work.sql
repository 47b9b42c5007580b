-- Claims, leases and outcomes on Postgres. Every plan goes by key or by the index of due jobs,
-- whatever the statistics say: ids come as arrays, and joins with a table of values are narrowed by
-- a list beside them.

-- The lanes to look at, in one statement: the tenants behind one by name and then those before it,
-- one step along the index for each; of each tenant the lanes that wait longest; and the lanes
-- whose time has come. What one statement cannot do elsewhere are several there (see the shared
-- texts `ready_tenants`, `ready_lanes`, `timed_lanes`).
-- name: pick
WITH RECURSIVE a (tenant, n) AS (
    (SELECT tenant, 1 FROM lanes WHERE ready = 1 AND tenant > :behind ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT MIN(l.tenant) FROM lanes l WHERE l.ready = 1 AND l.tenant > a.tenant), a.n + 1
    FROM a WHERE a.tenant IS NOT NULL AND a.n < :most
), b (tenant, n) AS (
    (SELECT tenant, 1 FROM lanes WHERE ready = 1 AND tenant <= :behind ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT MIN(l.tenant) FROM lanes l
            WHERE l.ready = 1 AND l.tenant > b.tenant AND l.tenant <= :behind), b.n + 1
    FROM b WHERE b.tenant IS NOT NULL AND b.n < :most
), turns AS (
    SELECT tenant, n FROM a WHERE tenant IS NOT NULL
    UNION ALL SELECT tenant, n + 100000 FROM b WHERE tenant IS NOT NULL
)
SELECT l.id, l.tenant, l.paused, l.failures, l.open_until, l.probe_until, l.ramp, l.rate, l.tokens,
    l.refilled_at, l.turn, l.rules, l.ready, l.rest, :now AS now, t.n, l.look_at
FROM (SELECT tenant, n FROM turns ORDER BY n LIMIT :most) AS t
CROSS JOIN LATERAL (
    SELECT * FROM lanes
    WHERE lanes.ready = 1 AND lanes.tenant = t.tenant AND NOT (lanes.id IN (:skip...))
    ORDER BY lanes.look_at, lanes.id LIMIT :most
) AS l
UNION ALL
SELECT l.id, l.tenant, l.paused, l.failures, l.open_until, l.probe_until, l.ramp, l.rate, l.tokens,
    l.refilled_at, l.turn, l.rules, l.ready, l.rest, :now AS now, 1000000, l.look_at
FROM (
    SELECT * FROM lanes
    WHERE lanes.ready = 0 AND lanes.look_at <= :now AND NOT (lanes.id IN (:skip...))
    ORDER BY lanes.look_at, lanes.id LIMIT :most
) AS l
ORDER BY n, look_at, id;

-- The jobs are read by their ids first. A plan that was made for empty tables would look through the
-- index of due jobs.
-- name: lanes_of_jobs
WITH j AS MATERIALIZED (SELECT lane, finished_at, due_at FROM jobs WHERE id IN (:only...))
SELECT id, tenant, paused, failures, open_until, probe_until, ramp, rate, tokens, refilled_at, turn,
    rules, ready, rest, :now AS now
FROM lanes
WHERE NOT (id IN (:skip...)) AND ready <> 2
  AND id = ANY(ARRAY(SELECT j.lane FROM j WHERE j.finished_at IS NULL AND j.due_at <= :now))
ORDER BY turn, id LIMIT :most;

-- The lists are in queries of their own, so that no plan is better for knowing them: otherwise each
-- call is planned again, which costs as much as what it does.
-- name: take
WITH due AS MATERIALIZED (
    SELECT j.id, j.state
    FROM unnest((SELECT :rows.lane::text[]), (SELECT :rows.most::bigint[])) AS want(lane, most)
    CROSS JOIN LATERAL (
        SELECT id, state FROM jobs
        WHERE jobs.lane = want.lane AND jobs.finished_at IS NULL AND jobs.due_at <= :now
        ORDER BY jobs.due_at LIMIT want.most FOR UPDATE SKIP LOCKED
    ) AS j
)
UPDATE jobs SET state = 'leased', claim = claim + 1, due_at = :now + :lease,
    attempt = attempt + CAST(state = 'leased' AS INTEGER),
    lost = lost + CAST(state = 'leased' AS INTEGER),
    deaths = deaths + CAST(state = 'leased' AND COALESCE(begun, 0) = claim AS INTEGER)
WHERE id = ANY(ARRAY(SELECT due.id FROM due))
RETURNING id, event_id, target_kind, target_name, lane, attempt, lost, deaths, begun, claim, due_at,
    created_at, :now AS now,
    CASE WHEN id = ANY(ARRAY(SELECT due.id FROM due WHERE due.state = 'leased')) THEN 'leased'
        ELSE 'pending' END AS was;

-- name: take_of
WITH due AS MATERIALIZED (
    SELECT j.id, j.state
    FROM unnest((SELECT :rows.lane::text[]), (SELECT :rows.most::bigint[])) AS want(lane, most)
    CROSS JOIN LATERAL (
        SELECT id, state FROM jobs
        WHERE jobs.id IN (:only...) AND jobs.lane = want.lane AND jobs.finished_at IS NULL
          AND jobs.due_at <= :now
        ORDER BY jobs.due_at LIMIT want.most FOR UPDATE SKIP LOCKED
    ) AS j
)
UPDATE jobs SET state = 'leased', claim = claim + 1, due_at = :now + :lease,
    attempt = attempt + CAST(state = 'leased' AS INTEGER),
    lost = lost + CAST(state = 'leased' AS INTEGER),
    deaths = deaths + CAST(state = 'leased' AND COALESCE(begun, 0) = claim AS INTEGER)
WHERE id = ANY(ARRAY(SELECT due.id FROM due))
RETURNING id, event_id, target_kind, target_name, lane, attempt, lost, deaths, begun, claim, due_at,
    created_at, :now AS now,
    CASE WHEN id = ANY(ARRAY(SELECT due.id FROM due WHERE due.state = 'leased')) THEN 'leased'
        ELSE 'pending' END AS was;

-- name: update_lanes
UPDATE lanes SET failures = r.failures, open_until = r.open_until, probe_until = r.probe_until,
    ramp = r.ramp, tokens = r.millitokens / 1000.0, refilled_at = r.refilled_at, turn = r.turn
FROM unnest(:rows.lane::text[], :rows.failures::bigint[], :rows.open_until::bigint[],
            :rows.probe_until::bigint[], :rows.ramp::bigint[], :rows.millitokens::bigint[],
            :rows.refilled_at::bigint[], :rows.turn::bigint[])
    AS r(lane, failures, open_until, probe_until, ramp, millitokens, refilled_at, turn)
WHERE lanes.id = ANY(:rows.lane::text[]) AND lanes.id = r.lane;

-- Has lanes looked at in time for jobs that become due at an instant or after a delay. Writes
-- nothing where somebody looks before that, or where pause or breaker hold the lane.
-- name: wake_lanes
UPDATE lanes SET ready = CASE WHEN d.at <= :now THEN 1 ELSE 0 END, look_at = d.at, rest = 0
FROM (
    SELECT l.id, CASE WHEN l.look_at <= :now + 1000 THEN :now
        ELSE GREATEST(n.at, l.open_until, l.probe_until) END AS at
    FROM (SELECT r.lane, GREATEST(:now, LEAST(r.due, :now + r.delay)) AS at
          FROM unnest(:rows.lane::text[], :rows.due::bigint[], :rows.delay::bigint[])
              AS r(lane, due, delay)) AS n
    JOIN lanes l ON l.id = n.lane
    WHERE l.id = ANY(:rows.lane::text[]) AND l.ready = 0 AND l.paused = 0
      AND (l.look_at IS NULL OR l.look_at <= :now + 1000
           OR l.look_at > GREATEST(n.at, l.open_until, l.probe_until))
    ORDER BY l.id FOR UPDATE OF l
) AS d
WHERE lanes.id = ANY(:rows.lane::text[]) AND lanes.id = d.id;

-- name: set_looks
UPDATE lanes SET ready = r.ready, look_at = r.look_at, rest = r.rest, turn = :now
FROM unnest(:rows.lane::text[], :rows.ready::bigint[], :rows.look_at::bigint[], :rows.rest::bigint[])
    AS r(lane, ready, look_at, rest)
WHERE lanes.id = ANY(:rows.lane::text[]) AND lanes.id = r.lane;

-- name: insert_attempts
INSERT INTO attempts (job_id, claim, number, ending, code, status, error, duration_ms, response, at)
SELECT r.job_id, r.claim, r.number, r.ending, r.code, r.status, r.error, r.duration_ms, r.response,
    :now
FROM unnest(:rows.job_id::text[], :rows.claim::bigint[], :rows.number::bigint[],
            :rows.ending::text[], :rows.code::text[], :rows.status::bigint[], :rows.error::text[],
            :rows.duration_ms::bigint[], :rows.response::bytea[])
    AS r(job_id, claim, number, ending, code, status, error, duration_ms, response)
ON CONFLICT (job_id, claim) DO UPDATE
SET number = excluded.number, ending = excluded.ending, code = excluded.code,
    status = excluded.status, error = excluded.error, duration_ms = excluded.duration_ms,
    response = excluded.response, at = excluded.at
WHERE attempts.ending = 'interrupted';

-- Finds records that were committed although their answer was lost: the claim is still the last
-- one, and the job is not leased any more.
-- name: recorded
SELECT jobs.id
FROM unnest(:rows.job::text[], :rows.claim::bigint[], :rows.next::text[]) AS r(job, claim, next)
JOIN jobs ON jobs.id = r.job
WHERE jobs.id = ANY(:rows.job::text[]) AND jobs.claim = r.claim AND jobs.state = r.next;

-- `due_at` of a leased job is the end of its lease: from then on it may be claimed again.
-- name: extend
UPDATE jobs SET due_at = :now + :by
FROM unnest(:rows.job::text[], :rows.claim::bigint[]) AS r(job, claim)
WHERE jobs.id = ANY(:rows.job::text[]) AND jobs.id = r.job AND jobs.claim = r.claim
  AND jobs.state = 'leased'
RETURNING jobs.id;

-- `after` moves the due time, `ended` is 0 for a job that ends here and null for one that goes on;
-- `took` is set for the attempt that delivered the job.
-- name: record
UPDATE jobs SET state = r.next, attempt = r.sent, lost = jobs.lost + r.lost,
    due_at = :now + r.after, finished_at = :now + r.ended, took_ms = r.took, status = r.status,
    response = r.response,
    last_error = COALESCE(r.error, jobs.last_error)
FROM unnest(:rows.job::text[], :rows.claim::bigint[], :rows.next::text[], :rows.sent::bigint[],
            :rows.after::bigint[], :rows.lost::bigint[], :rows.ended::bigint[], :rows.error::text[],
            :rows.took::bigint[], :rows.status::bigint[], :rows.response::bytea[])
    AS r(job, claim, next, sent, after, lost, ended, error, took, status, response)
WHERE jobs.id = ANY(:rows.job::text[]) AND jobs.id = r.job AND jobs.claim = r.claim
  AND jobs.state = 'leased'
RETURNING jobs.id;

-- Records deliveries with their total in one statement, for those that still hold their lease; only
-- for attempts that ended their job and of which nothing is known but status, duration and
-- response.
-- name: record_delivered
WITH held AS (
    UPDATE jobs SET state = 'done', attempt = r.sent, due_at = :now, finished_at = :now,
        took_ms = r.took, status = r.status, response = r.response
    FROM unnest(:rows.job::text[], :rows.claim::bigint[], :rows.sent::bigint[],
                :rows.took::bigint[], :rows.status::bigint[], :rows.response::bytea[])
        AS r(job, claim, sent, took, status, response)
    WHERE jobs.id = ANY(:rows.job::text[]) AND jobs.id = r.job AND jobs.claim = r.claim
      AND jobs.state = 'leased'
    RETURNING jobs.id
), c AS (
    INSERT INTO counters (name, shard, value)
    SELECT 'finished', :shard, n.finished FROM (SELECT COUNT(*) AS finished FROM held) AS n
    WHERE n.finished > 0
    ON CONFLICT (name, shard) DO UPDATE SET value = counters.value + excluded.value
)
SELECT id FROM held;
