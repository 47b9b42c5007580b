-- Lanes, hints and housekeeping on SQLite.

-- A changed rate starts with a full second's worth; an unchanged one keeps its tokens.
-- name: upsert_lanes
INSERT INTO lanes (id, tenant, paused, failures, ramp, rate, tokens, refilled_at, turn, rules, ready)
SELECT value ->> 'id', value ->> 'tenant', 0, 0, 0, value ->> 'rate', COALESCE(value ->> 'rate', 0),
    :now, 0, value ->> 'rules', value ->> 'ready'
FROM json_each(:rows) WHERE true
ON CONFLICT (id) DO UPDATE
SET tenant = excluded.tenant, rate = excluded.rate, rules = excluded.rules
WHERE lanes.tenant <> excluded.tenant OR COALESCE(lanes.rate, -1) <> COALESCE(excluded.rate, -1)
   OR COALESCE(lanes.rules, '') <> COALESCE(excluded.rules, '');

-- If another tick has announced these jobs meanwhile, this returns no rows.
-- name: announce
UPDATE jobs SET woken_until = :now + (r.value ->> 'after') + :overdue
FROM json_each(:rows) AS r
WHERE jobs.id = r.value ->> 'job' AND jobs.finished_at IS NULL
  AND (jobs.woken_until IS NULL OR jobs.woken_until <= :now + (r.value ->> 'after'))
RETURNING jobs.id;

-- A dummy key. It expires a day after the last check.
-- name: probe
INSERT INTO keys (scope, word, event_id, fingerprint, expires_at)
VALUES ('probe', :word, '', :filler, :now + 86400000)
ON CONFLICT (scope, word) DO UPDATE
SET fingerprint = excluded.fingerprint, expires_at = excluded.expires_at;

-- name: reject
INSERT INTO rejections (source, reason, count, first_at, last_at)
SELECT value ->> 'source', value ->> 'reason', value ->> 'n', :now, :now
FROM json_each(:rows) WHERE true
ON CONFLICT (source, reason) DO UPDATE
SET count = rejections.count + excluded.count, last_at = excluded.last_at;

-- name: tables
SELECT name FROM sqlite_master WHERE type = 'table';

-- name: about
SELECT 'SQLite ' || sqlite_version() AS name;
