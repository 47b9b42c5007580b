-- Workflows on Postgres.

-- name: define
INSERT INTO definitions (hash, name, body, created_at)
SELECT r.hash, r.name, r.body, :now
FROM unnest(:rows.hash::text[], :rows.name::text[], :rows.body::text[]) AS r(hash, name, body)
ON CONFLICT (hash) DO NOTHING;

-- name: insert_runs
INSERT INTO runs (id, workflow, definition, event_id, parent_run, parent_visit, status, error,
    version, noted, state, created_at, finished_at, prune_at)
SELECT r.id, r.workflow, r.definition, r.event_id, r.parent_run, r.parent_visit, r.status, r.error,
    1, r.notes, r.state, :now, :now + r.ended, :now + r.keep
FROM unnest(:rows.id::text[], :rows.workflow::text[], :rows.definition::text[],
            :rows.event_id::text[], :rows.parent_run::text[], :rows.parent_visit::bigint[],
            :rows.status::text[], :rows.error::text[], :rows.notes::bigint[], :rows.state::text[],
            :rows.ended::bigint[], :rows.keep::bigint[])
    AS r(id, workflow, definition, event_id, parent_run, parent_visit, status, error, notes, state,
        ended, keep);

-- name: update_runs
UPDATE runs SET status = r.status, definition = r.definition, error = r.error,
    version = runs.version + 1, noted = runs.noted + r.notes, state = r.state,
    finished_at = :now + r.ended, prune_at = :now + r.keep
FROM unnest(:rows.id::text[], :rows.status::text[], :rows.definition::text[], :rows.error::text[],
            :rows.notes::bigint[], :rows.state::text[], :rows.ended::bigint[], :rows.keep::bigint[])
    AS r(id, status, definition, error, notes, state, ended, keep)
WHERE runs.id = ANY(:rows.id::text[]) AND runs.id = r.id;

-- name: insert_run_jobs
INSERT INTO jobs (id, event_id, target_kind, target_name, lane, state, attempt, lost, claim, due_at,
    created_at)
SELECT r.id, r.event_id, r.target_kind, r.target_name, r.lane, 'pending', 0, 0, 0,
    COALESCE(r.due, :now + r.delay), :now
FROM unnest(:rows.id::text[], :rows.event_id::text[], :rows.target_kind::text[],
            :rows.target_name::text[], :rows.lane::text[], :rows.due::bigint[],
            :rows.delay::bigint[])
    AS r(id, event_id, target_kind, target_name, lane, due, delay);

-- Every gate has a row before it is locked, so that two first runs wait for each other.
-- name: make_gates
INSERT INTO gates (id, version, state, changed_at)
SELECT r.id, 0, r.state, :now
FROM unnest(:rows.id::text[], :rows.state::text[]) AS r(id, state)
ON CONFLICT (id) DO NOTHING;

-- name: update_gates
UPDATE gates SET version = gates.version + 1, state = r.state, changed_at = :now
FROM unnest(:rows.id::text[], :rows.state::text[]) AS r(id, state)
WHERE gates.id = ANY(:rows.id::text[]) AND gates.id = r.id;

-- name: insert_history
INSERT INTO history (run_id, seq, at, kind, step, visit, data)
SELECT r.run_id, r.seq, :now, r.kind, r.step, r.visit, r.data
FROM unnest(:rows.run_id::text[], :rows.seq::bigint[], :rows.kind::text[], :rows.step::text[],
            :rows.visit::bigint[], :rows.data::text[])
    AS r(run_id, seq, kind, step, visit, data);

-- name: insert_tokens
INSERT INTO tokens (hash, run_id, visit, answer)
SELECT r.hash, r.run_id, r.visit, NULL
FROM unnest(:rows.hash::text[], :rows.run_id::text[], :rows.visit::bigint[])
    AS r(hash, run_id, visit);

-- name: spend_tokens
UPDATE tokens SET answer = r.answer
FROM unnest(:rows.hash::text[], :rows.answer::text[]) AS r(hash, answer)
WHERE tokens.hash = ANY(:rows.hash::text[]) AND tokens.hash = r.hash;
