-- Accepting events on Postgres.

-- name: insert_keys
INSERT INTO keys (scope, word, event_id, fingerprint, expires_at)
SELECT r.scope, r.word, r.event_id, r.fingerprint, :now + r.ttl
FROM unnest(:rows.scope::text[], :rows.word::text[], :rows.event_id::text[],
            :rows.fingerprint::text[], :rows.ttl::bigint[])
    AS r(scope, word, event_id, fingerprint, ttl)
ON CONFLICT (scope, word) DO NOTHING;

-- The lists beside the join keep the planner from starting at the wrong table.
-- name: read_keys
SELECT k.scope, k.word, k.event_id, k.fingerprint, k.expires_at, :now AS now
FROM keys k JOIN unnest(:rows.scope::text[], :rows.word::text[]) AS r(scope, word)
    ON k.scope = r.scope AND k.word = r.word
WHERE k.scope = ANY(:rows.scope::text[]) AND k.word = ANY(:rows.word::text[]);

-- name: delete_keys
DELETE FROM keys
WHERE (scope, word) IN (SELECT r.scope, r.word
                        FROM unnest(:rows.scope::text[], :rows.word::text[]) AS r(scope, word))
  AND scope = ANY(:rows.scope::text[]) AND word = ANY(:rows.word::text[]);

-- Stores events, their jobs and the total in one statement, and has a lane looked at in time: that
-- writes nothing as long as somebody looks at it anyway. Returns the events that were new, with
-- their instant, and the jobs that were new, with their claim. `lease` is set for a job that may
-- start with this commit. It does so only if its lane is open, has no rate limit and remembers no
-- failure; otherwise the job waits for a claim, which checks the lane under its lock.
-- name: store
WITH e AS (
    INSERT INTO events (id, source, kind, headers, body, unique_key, created_at)
    SELECT r.id, r.source, r.kind, r.headers, r.body, r.unique_key, :now
    FROM unnest(:events.id::text[], :events.source::text[], :events.kind::text[],
                :events.headers::text[], :events.body::bytea[], :events.unique_key::text[])
        AS r(id, source, kind, headers, body, unique_key)
    ON CONFLICT (id) DO NOTHING RETURNING id, created_at AS at
), j AS (
    INSERT INTO jobs (id, event_id, target_kind, target_name, lane, state, attempt, lost, claim,
        due_at, created_at, expires_at)
    SELECT r.id, r.event_id, r.target_kind, r.target_name, r.lane,
        CASE WHEN l.id IS NULL THEN 'pending' ELSE 'leased' END, 0, 0,
        CASE WHEN l.id IS NULL THEN 0 ELSE 1 END,
        CASE WHEN l.id IS NULL THEN GREATEST(:now, r.due) ELSE :now + r.lease END, :now,
        :now + r.ttl
    FROM unnest(:jobs.id::text[], :jobs.event_id::text[], :jobs.target_kind::text[],
                :jobs.target_name::text[], :jobs.lane::text[], :jobs.ttl::bigint[],
                :jobs.due::bigint[], :jobs.lease::bigint[])
        AS r(id, event_id, target_kind, target_name, lane, ttl, due, lease)
    LEFT JOIN lanes l ON l.id = r.lane AND r.lease IS NOT NULL
        AND l.paused = 0 AND l.open_until IS NULL AND l.failures = 0 AND l.ramp = 0
        AND l.rate IS NULL
    ON CONFLICT (id) DO NOTHING RETURNING id, claim, lane, due_at
), w AS (
    UPDATE lanes SET ready = CASE WHEN d.at <= :now THEN 1 ELSE 0 END, look_at = d.at, rest = 0
    FROM (
        SELECT l.id, CASE WHEN l.look_at <= :now + 1000 THEN :now
            ELSE GREATEST(n.at, l.open_until, l.probe_until) END AS at
        FROM (SELECT j.lane, MIN(j.due_at) AS at FROM j GROUP BY j.lane) AS n
        JOIN lanes l ON l.id = n.lane
        WHERE l.id = ANY(:jobs.lane::text[]) AND l.ready = 0 AND l.paused = 0
          AND (l.look_at IS NULL OR l.look_at <= :now + 1000
               OR l.look_at > GREATEST(n.at, l.open_until, l.probe_until))
        ORDER BY l.id FOR UPDATE OF l
    ) AS d
    WHERE lanes.id = ANY(:jobs.lane::text[]) AND lanes.id = d.id
), c AS (
    INSERT INTO counters (name, shard, value)
    SELECT 'created', :shard, made.n FROM (SELECT COUNT(*) AS n FROM j) AS made WHERE made.n > 0
    ON CONFLICT (name, shard) DO UPDATE SET value = counters.value + excluded.value
)
SELECT id, at, CAST(NULL AS BIGINT) AS claim FROM e
UNION ALL SELECT id, CAST(NULL AS BIGINT), claim FROM j;

-- name: count
INSERT INTO counters (name, shard, value) VALUES (:name, :shard, :by)
ON CONFLICT (name, shard) DO UPDATE SET value = counters.value + excluded.value;
