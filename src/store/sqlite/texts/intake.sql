-- Accepting events on SQLite: a table of values is one JSON text, and one process writes at a time.

-- name: insert_keys
INSERT INTO keys (scope, word, event_id, fingerprint, expires_at)
SELECT value ->> 'scope', value ->> 'word', value ->> 'event_id', value ->> 'fingerprint',
    :now + (value ->> 'ttl')
FROM json_each(:rows) WHERE true
ON CONFLICT (scope, word) DO NOTHING;

-- name: read_keys
SELECT k.scope, k.word, k.event_id, k.fingerprint, k.expires_at, :now AS now
FROM json_each(:rows) AS r CROSS JOIN keys k
    ON k.scope = r.value ->> 'scope' AND k.word = r.value ->> 'word';

-- name: delete_keys
DELETE FROM keys WHERE (scope, word) IN (
    SELECT value ->> 'scope', value ->> 'word' FROM json_each(:rows));

-- Stores events, their jobs and the total, and has a lane looked at in time. Returns the events that
-- were new, with their instant, and the jobs that were new, with their claim. `lease` is set for a
-- job that may start with this commit. It does so only if its lane is open, has no rate limit and
-- remembers no failure; otherwise the job waits for a claim.
-- name: store
INSERT INTO events (id, source, kind, headers, body, unique_key, created_at)
SELECT value ->> 'id', value ->> 'source', value ->> 'kind', value ->> 'headers',
    unhex(value ->> 'body'), value ->> 'unique_key', :now
FROM json_each(:events) WHERE true
ON CONFLICT (id) DO NOTHING RETURNING id, created_at AS at, NULL AS claim;
INSERT INTO jobs (id, event_id, target_kind, target_name, lane, state, attempt, lost, claim, due_at,
    created_at, expires_at)
SELECT r.value ->> 'id', r.value ->> 'event_id', r.value ->> 'target_kind',
    r.value ->> 'target_name', r.value ->> 'lane',
    CASE WHEN l.id IS NULL THEN 'pending' ELSE 'leased' END, 0, 0,
    CASE WHEN l.id IS NULL THEN 0 ELSE 1 END,
    CASE WHEN l.id IS NULL THEN MAX(:now, COALESCE(r.value ->> 'due', 0))
        ELSE :now + (r.value ->> 'lease') END, :now,
    :now + (r.value ->> 'ttl')
FROM json_each(:jobs) AS r
LEFT JOIN lanes l ON l.id = r.value ->> 'lane' AND r.value ->> 'lease' IS NOT NULL
    AND l.paused = 0 AND l.open_until IS NULL AND l.failures = 0 AND l.ramp = 0 AND l.rate IS NULL
WHERE true
ON CONFLICT (id) DO NOTHING RETURNING id, NULL AS at, claim;
INSERT INTO counters (name, shard, value)
SELECT 'created', :shard, changes() WHERE changes() > 0
ON CONFLICT (name, shard) DO UPDATE SET value = counters.value + excluded.value;
UPDATE lanes SET rest = 0, ready = d.at <= :now, look_at = d.at
FROM (
    SELECT l.id, CASE WHEN l.look_at <= :now + 1000 THEN :now
        ELSE MAX(n.at, COALESCE(l.open_until, 0), COALESCE(l.probe_until, 0)) END AS at
    FROM (SELECT lane, MIN(due_at) AS at FROM jobs
          WHERE id IN (SELECT value ->> 'id' FROM json_each(:jobs)) AND finished_at IS NULL
          GROUP BY lane) AS n
    CROSS JOIN lanes l ON l.id = n.lane
    WHERE l.ready = 0 AND l.paused = 0
      AND (l.look_at IS NULL OR l.look_at <= :now + 1000
           OR l.look_at > MAX(n.at, COALESCE(l.open_until, 0), COALESCE(l.probe_until, 0)))
) AS d
WHERE lanes.id = d.id;

-- name: count
INSERT INTO counters (name, shard, value) VALUES (:name, :shard, :by)
ON CONFLICT (name, shard) DO UPDATE SET value = counters.value + excluded.value;
