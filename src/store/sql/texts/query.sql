-- Lists, single rows and totals. Texts that every database can share.

-- name: events
SELECT id, source, kind, headers, SUBSTR(body, 1, 0) AS body, unique_key, created_at
FROM events WHERE 1 = 1;

-- name: events_by_id
SELECT id, source, kind, headers, body, unique_key, created_at FROM events WHERE id IN (:ids...);

-- name: jobs
SELECT id, event_id, target_kind, target_name, state, attempt, lost, deaths, claim, due_at,
    created_at, finished_at, last_error
FROM jobs WHERE 1 = 1;

-- The attempt that delivered a job may be in the job's row.
-- name: attempts
SELECT number, claim, ending, code, status, error, duration_ms, response, at
FROM attempts WHERE job_id = :job
UNION ALL
SELECT attempt, claim, 'delivered', NULL, status, NULL, took_ms, response, finished_at
FROM jobs WHERE id = :job AND took_ms IS NOT NULL
ORDER BY claim;

-- name: totals
SELECT name, CAST(SUM(value) AS BIGINT) AS value FROM counters GROUP BY name;

-- name: rejections
SELECT source, reason, count, last_at FROM rejections ORDER BY source, reason;
