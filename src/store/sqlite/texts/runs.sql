-- Workflows on SQLite.

-- name: define
INSERT INTO definitions (hash, name, body, created_at)
SELECT value ->> 'hash', value ->> 'name', value ->> 'body', :now
FROM json_each(:rows) WHERE true
ON CONFLICT (hash) DO NOTHING;

-- name: insert_runs
INSERT INTO runs (id, workflow, definition, event_id, parent_run, parent_visit, status, error,
    version, noted, state, created_at, finished_at, prune_at)
SELECT value ->> 'id', value ->> 'workflow', value ->> 'definition', value ->> 'event_id',
    value ->> 'parent_run', value ->> 'parent_visit', value ->> 'status', value ->> 'error', 1,
    value ->> 'notes', value ->> 'state', :now, :now + (value ->> 'ended'),
    :now + (value ->> 'keep')
FROM json_each(:rows);

-- name: update_runs
UPDATE runs SET status = r.value ->> 'status', definition = r.value ->> 'definition',
    error = r.value ->> 'error', version = runs.version + 1,
    noted = runs.noted + (r.value ->> 'notes'), state = r.value ->> 'state',
    finished_at = :now + (r.value ->> 'ended'), prune_at = :now + (r.value ->> 'keep')
FROM json_each(:rows) AS r WHERE runs.id = r.value ->> 'id';

-- name: insert_run_jobs
INSERT INTO jobs (id, event_id, target_kind, target_name, lane, state, attempt, lost, claim, due_at,
    created_at)
SELECT value ->> 'id', value ->> 'event_id', value ->> 'target_kind', value ->> 'target_name',
    value ->> 'lane', 'pending', 0, 0, 0,
    COALESCE(value ->> 'due', :now + (value ->> 'delay')), :now
FROM json_each(:rows);

-- Every gate has a row before it is read, as on the other databases.
-- name: make_gates
INSERT INTO gates (id, version, state, changed_at)
SELECT value ->> 'id', 0, value ->> 'state', :now FROM json_each(:rows) WHERE true
ON CONFLICT (id) DO NOTHING;

-- name: update_gates
UPDATE gates SET version = gates.version + 1, state = r.value ->> 'state', changed_at = :now
FROM json_each(:rows) AS r WHERE gates.id = r.value ->> 'id';

-- name: insert_history
INSERT INTO history (run_id, seq, at, kind, step, visit, data)
SELECT value ->> 'run_id', value ->> 'seq', :now, value ->> 'kind', value ->> 'step',
    value ->> 'visit', value ->> 'data'
FROM json_each(:rows);

-- name: insert_tokens
INSERT INTO tokens (hash, run_id, visit, answer)
SELECT value ->> 'hash', value ->> 'run_id', value ->> 'visit', NULL FROM json_each(:rows);

-- name: spend_tokens
UPDATE tokens SET answer = r.value ->> 'answer'
FROM json_each(:rows) AS r WHERE tokens.hash = r.value ->> 'hash';
