-- Lanes, hints and housekeeping on Postgres.

-- A changed rate starts with a full second's worth; an unchanged one keeps its tokens.
-- name: upsert_lanes
INSERT INTO lanes (id, tenant, paused, failures, ramp, rate, tokens, refilled_at, turn, rules, ready)
SELECT r.id, r.tenant, 0, 0, 0, r.rate, COALESCE(r.rate, 0), :now, 0, r.rules, r.ready
FROM unnest(:rows.id::text[], :rows.tenant::text[], :rows.rate::bigint[], :rows.rules::text[],
            :rows.ready::bigint[])
    AS r(id, tenant, rate, rules, ready)
ON CONFLICT (id) DO UPDATE
SET tenant = excluded.tenant, rate = excluded.rate, rules = excluded.rules
WHERE lanes.tenant <> excluded.tenant OR COALESCE(lanes.rate, -1) <> COALESCE(excluded.rate, -1)
   OR COALESCE(lanes.rules, '') <> COALESCE(excluded.rules, '');

-- One query per lane, so that a long or blocked backlog neither hides nor slows the others. The
-- text leaves the planner no other way. Whom it finds: see the shared text of this name.
-- name: unannounced
SELECT due.id, CASE WHEN due.at > :now THEN due.at - :now ELSE 0 END AS at FROM (
    SELECT place.id, CASE
        WHEN l.open_until > place.due_at AND l.open_until >= COALESCE(l.probe_until, 0)
            THEN l.open_until
        WHEN l.probe_until > place.due_at THEN l.probe_until
        ELSE place.due_at END AS at
    FROM (
        SELECT * FROM (
            SELECT id, open_until, probe_until FROM lanes WHERE ready = 1 AND paused = 0
            ORDER BY tenant, look_at, id LIMIT 400
        ) AS waiting
        UNION ALL SELECT * FROM (
            SELECT id, open_until, probe_until FROM lanes
            WHERE ready = 0 AND look_at <= :now + :ahead AND paused = 0
            ORDER BY look_at, id LIMIT 400
        ) AS timed
    ) AS l CROSS JOIN LATERAL (
        SELECT j.id, j.due_at FROM jobs j
        WHERE j.lane = l.id AND j.finished_at IS NULL AND j.due_at <= :now + :ahead
          AND (j.state = 'pending' OR j.due_at <= :now)
          AND (j.woken_until IS NULL OR j.woken_until <= :now OR j.woken_until < j.due_at
               OR j.woken_until < l.open_until OR j.woken_until < l.probe_until)
        ORDER BY j.due_at LIMIT :most
    ) AS place
) AS due
WHERE due.at <= :now + :ahead AND (due.at > :now OR due.at <= :now - :overdue)
ORDER BY due.at, due.id LIMIT :most;

-- If another tick has announced these jobs meanwhile, this returns no rows.
-- name: announce
UPDATE jobs SET woken_until = :now + r.after + :overdue
FROM unnest(:rows.job::text[], :rows.after::bigint[]) AS r(job, after)
WHERE jobs.id = ANY(:rows.job::text[]) AND jobs.id = r.job AND jobs.finished_at IS NULL
  AND (jobs.woken_until IS NULL OR jobs.woken_until <= :now + r.after)
RETURNING jobs.id;

-- A dummy key. It expires a day after the last check.
-- name: probe
INSERT INTO keys (scope, word, event_id, fingerprint, expires_at)
VALUES ('probe', :word, '', :filler, :now + 86400000)
ON CONFLICT (scope, word) DO UPDATE
SET fingerprint = excluded.fingerprint, expires_at = excluded.expires_at;

-- name: reject
INSERT INTO rejections (source, reason, count, first_at, last_at)
SELECT r.source, r.reason, r.n, :now, :now
FROM unnest(:rows.source::text[], :rows.reason::text[], :rows.n::bigint[]) AS r(source, reason, n)
ON CONFLICT (source, reason) DO UPDATE
SET count = rejections.count + excluded.count, last_at = excluded.last_at;

-- name: tables
SELECT table_name::text AS name FROM information_schema.tables
WHERE table_schema = current_schema();

-- name: about
SELECT 'Postgres ' || current_setting('server_version') AS name
UNION ALL SELECT CASE WHEN ssl THEN 'TLS ' || COALESCE(version, '') ELSE 'no TLS' END
    FROM pg_stat_ssl WHERE pid = pg_backend_pid()
UNION ALL SELECT 'at most ' || current_setting('max_connections') || ' connections';

-- name: weak_settings
SELECT name::text AS name FROM pg_settings
WHERE (name = 'fsync' AND setting = 'off') OR (name = 'full_page_writes' AND setting = 'off');

-- name: long_transactions
SELECT CAST(pid AS TEXT) AS name FROM pg_stat_activity
WHERE datname = current_database() AND xact_start < now() - interval '5 minutes';

-- name: setting
SELECT current_setting(:name) AS name;
