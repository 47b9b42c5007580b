//! The `Runs` verbs in SQL. A change applies as a whole or not at all. It is fenced by the run's
//! version, and by the lease if a job caused it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;

use super::dialect::Dialect;
use super::intake::count;
use super::rows::{DefinitionRow, EntryRow, GateRow, IdRow, RunRow, TokenRow, VersionRow};
use super::statement::{Rows, sql};
use super::{SqlStore, each};
use crate::model::history::{HistoryEntry, Note};
use crate::model::json::stored;
use crate::model::run::{Change, Due, Gate, GateChange, RunJob, Token};
use crate::model::time::millis;
use crate::model::{EventId, JobId, Run, RunId};
use crate::store::error::{Error, Result};
use crate::store::{Definition, Each, Page, RunFilter, Runs};

const DEFINE: &str = "INSERT INTO definitions (hash, name, body, created_at)
    SELECT r.hash, r.name, r.body, {now} FROM {rows: hash text, name text, body text} AS r
        WHERE true
    ON CONFLICT (hash) DO NOTHING";
const DEFINITION: &str = "SELECT hash, name, body FROM definitions WHERE hash = ?";
const RUNS_BY_ID: &str = "SELECT id, workflow, definition, event_id, parent_run, parent_visit,
        status, error, version, state,
    created_at, finished_at FROM runs WHERE id {any}";
const RUNS: &str = "SELECT id, workflow, definition, event_id, parent_run, parent_visit, status,
        error, version, state,
    created_at, finished_at FROM runs WHERE 1 = 1";
const HISTORY: &str =
    "SELECT seq, at, kind, step, visit, data FROM history WHERE run_id = ? ORDER BY seq";
const TOKEN: &str = "SELECT hash, run_id, visit, answer FROM tokens WHERE hash = ?";
// Locked in the order of their ids, so that two batches cannot deadlock.
const LOCK: &str = "SELECT id, version, noted FROM runs WHERE id {any} ORDER BY id {lock}";
const INSERT: &str = "INSERT INTO runs
    (id, workflow, definition, event_id, parent_run, parent_visit, status, error, version, noted,
        state, created_at, finished_at,
     prune_at)
    SELECT r.id, r.workflow, r.definition, r.event_id, r.parent_run, r.parent_visit, r.status,
        r.error, 1, r.notes, r.state, {now},
        {now} + r.ended, {now} + r.keep
    FROM {rows: id text, workflow text, definition text, event_id text, parent_run text,
        parent_visit int, status text, error text, notes int, state text, ended int, keep int} AS r
    WHERE true";
const UPDATE: &str =
    "UPDATE runs SET status = r.status, definition = r.definition, error = r.error,
        version = runs.version + 1, noted = runs.noted + r.notes,
    state = r.state, finished_at = {now} + r.ended, prune_at = {now} + r.keep
    FROM {rows: run text, status text, definition text, error text, notes int, state text,
        ended int, keep int} AS r
    WHERE {only runs.id} AND runs.id = r.run";
const INSERT_JOBS: &str = "INSERT INTO jobs
    (id, event_id, target_kind, target_name, lane, state, attempt, lost, claim, due_at, created_at)
    SELECT r.id, r.event_id, r.target_kind, r.target_name, r.lane, 'pending', 0, 0, 0,
        COALESCE(r.due, {now} + r.delay), {now}
    FROM {rows: id text, event_id text, target_kind text, target_name text, lane text, due int,
        delay int} AS r WHERE true";
// A job of a paused run moves to a lane without a row in `lanes`, so no claim finds it.
const PAUSE_JOBS: &str = "UPDATE jobs SET lane = 'held:' || lane WHERE id {any}
        AND finished_at IS NULL AND lane NOT LIKE 'held:%'";
const RESUME_JOBS: &str = "UPDATE jobs SET lane = SUBSTR(lane, 6) WHERE id {any}
        AND finished_at IS NULL AND lane LIKE 'held:%'";
// Every gate has a row before it is locked, so that two first runs wait for each other.
const MAKE_GATES: &str = "INSERT INTO gates (id, version, state, changed_at)
    SELECT r.id, 0, r.state, {now} FROM {rows: id text, state text} AS r WHERE true
        ON CONFLICT (id) DO NOTHING";
const LOCK_GATES: &str = "SELECT id, version, state FROM gates WHERE id {any} ORDER BY id {lock}";
const GATE: &str = "SELECT id, version, state FROM gates WHERE id = ?";
const UPDATE_GATES: &str =
    "UPDATE gates SET version = gates.version + 1, state = r.state, changed_at = {now}
    FROM {rows: gate text, state text} AS r WHERE {only gates.id} AND gates.id = r.gate";
// A timer that is no longer needed counts as done, not as cancelled.
const END_TIMERS: &str =
    "UPDATE jobs SET state = CASE WHEN target_kind = 'timer' THEN 'done' ELSE 'cancelled' END,
    claim = claim + 1, finished_at = {now}
    WHERE id {any} AND finished_at IS NULL RETURNING id";
const INSERT_HISTORY: &str = "INSERT INTO history (run_id, seq, at, kind, step, visit, data)
    SELECT r.run_id, r.seq, {now}, r.kind, r.step, r.visit, r.data
    FROM {rows: run_id text, seq int, kind text, step text, visit int, data text} AS r WHERE true";
const INSERT_TOKENS: &str = "INSERT INTO tokens (hash, run_id, visit, answer)
    SELECT r.hash, r.run_id, r.visit, NULL FROM {rows: hash text, run_id text, visit int} AS r
        WHERE true";
const SPEND: &str = "UPDATE tokens SET answer = r.answer FROM {rows: token text, answer text} AS r
    WHERE {only tokens.hash} AND tokens.hash = r.token";

pub(super) const ALL: &[&str] = &[
    DEFINE,
    DEFINITION,
    RUNS_BY_ID,
    RUNS,
    HISTORY,
    TOKEN,
    LOCK,
    INSERT,
    UPDATE,
    INSERT_JOBS,
    END_TIMERS,
    PAUSE_JOBS,
    RESUME_JOBS,
    MAKE_GATES,
    LOCK_GATES,
    GATE,
    UPDATE_GATES,
    INSERT_HISTORY,
    INSERT_TOKENS,
    SPEND,
];

#[async_trait]
impl<D: Dialect> Runs for SqlStore<D> {
    async fn define(&self, definitions: &[Definition]) -> Result<()> {
        if definitions.is_empty() {
            return Ok(());
        }
        let definitions = definitions.to_vec();
        self.run(move |store| {
            let rows = Rows::default()
                .text(definitions.iter().map(|d| &d.hash))
                .text(definitions.iter().map(|d| &d.name))
                .text(definitions.iter().map(|d| &d.body));
            sql::<D>(DEFINE).bind(store.clock()).rows(rows)
        })
        .await
        .map(|_| ())
    }

    async fn definition(&self, hash: &str) -> Result<Option<Definition>> {
        let hash = hash.to_owned();
        let row: Option<DefinitionRow> = self
            .read(move |_, conn| {
                let hash = hash.clone();
                Box::pin(async move { sql::<D>(DEFINITION).bind(hash).first(conn).await })
            })
            .await?;
        Ok(row.map(|row| Definition { hash: row.hash, name: row.name, body: row.body }))
    }

    async fn runs_by_id(&self, ids: &[RunId]) -> Result<BTreeMap<RunId, Run>> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let rows: Vec<RunRow> = self
            .read(move |_, conn| {
                let ids = ids.clone();
                Box::pin(async move { sql::<D>(RUNS_BY_ID).list(ids).all(conn).await })
            })
            .await?;
        rows.into_iter().map(|row| Run::try_from(row).map(|run| (run.id, run))).collect()
    }

    async fn runs(&self, filter: &RunFilter, page: Page) -> Result<Vec<Run>> {
        let filter = filter.clone();
        let rows: Vec<RunRow> = self
            .read(move |_, conn| {
                let filter = filter.clone();
                Box::pin(async move {
                    let statement = sql::<D>(RUNS)
                        .and(" AND workflow = ?", filter.workflow)
                        .and(" AND status = ?", filter.status.map(|s| s.as_str().to_owned()))
                        .and(" AND event_id = ?", filter.event.map(|id| id.to_string()));
                    super::query::paged(statement, filter.after.map(|id| id.to_string()), page)
                        .all(conn)
                        .await
                })
            })
            .await?;
        rows.into_iter().map(Run::try_from).collect()
    }

    async fn history(&self, run: RunId) -> Result<Vec<HistoryEntry>> {
        let rows: Vec<EntryRow> = self
            .read(move |_, conn| {
                Box::pin(async move { sql::<D>(HISTORY).bind(run.to_string()).all(conn).await })
            })
            .await?;
        rows.into_iter().map(HistoryEntry::try_from).collect()
    }

    async fn gate(&self, id: &str) -> Result<(i64, Gate)> {
        let id = id.to_owned();
        let row: Option<GateRow> = self
            .read(move |_, conn| {
                let id = id.clone();
                Box::pin(async move { sql::<D>(GATE).bind(id).first(conn).await })
            })
            .await?;
        let Some(row) = row else { return Ok((0, Gate::default())) };
        let unreadable = |why: serde_json::Error| {
            Error::permanent(format!("the gate {} cannot be read: {why}", row.id))
        };
        Ok((row.version, stored(&row.state).map_err(unreadable)?))
    }

    async fn token(&self, hash: &str) -> Result<Option<Token>> {
        let hash = hash.to_owned();
        let row: Option<TokenRow> = self
            .read(move |_, conn| {
                let hash = hash.clone();
                Box::pin(async move { sql::<D>(TOKEN).bind(hash).first(conn).await })
            })
            .await?;
        row.map(Token::try_from).transpose()
    }

    async fn change(&self, changes: &[Change]) -> Each<()> {
        each(changes, |changes| {
            let store = self.clone();
            async move {
                store
                    .write(move |store, conn| {
                        let changes: Arc<[Change]> = Arc::clone(&changes);
                        Box::pin(async move {
                            let all: Vec<&Change> = changes.iter().collect();
                            let locked = lock::<D>(conn, &store, &all).await?;
                            let current =
                                all.iter().zip(&locked.current).filter(|(_, current)| **current);
                            let live: Vec<&Change> = current.map(|(change, _)| *change).collect();
                            apply::<D>(conn, &store, &live, &locked).await?;
                            let answer = |current: &bool| {
                                if *current { Ok(()) } else { Err(Error::MovedOn) }
                            };
                            Ok(locked.current.iter().map(answer).collect::<Vec<Result<()>>>())
                        })
                    })
                    .await
            }
        })
        .await
    }
}

/// What is known about runs once they are locked.
pub(super) struct LockedRuns {
    /// For each change, whether run and gate still have the versions it was decided on. Of several
    /// changes to one run only the first is current.
    pub(super) current: Vec<bool>,
    /// How many history lines each run has.
    noted: HashMap<RunId, i64>,
}

/// Locks the runs that changes apply to, then their gates, and checks the versions.
pub(super) async fn lock<D: Dialect>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    changes: &[&Change],
) -> sqlx::Result<LockedRuns> {
    let known: BTreeSet<RunId> = changes.iter().filter(|c| !c.is_new).map(|c| c.run.id).collect();
    let mut versions: HashMap<RunId, i64> = HashMap::new();
    let mut noted = HashMap::new();
    if !known.is_empty() {
        for row in sql::<D>(LOCK)
            .list(known.iter().map(ToString::to_string))
            .all::<VersionRow>(conn)
            .await?
        {
            let id = row.id.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
            versions.insert(id, row.version);
            noted.insert(id, row.noted);
        }
    }
    let gates = lock_gates::<D>(conn, store, changes).await?;
    let (mut seen, mut passed) = (BTreeSet::new(), BTreeSet::new());
    let mut is_current = |c: &&Change| {
        let is_known =
            c.is_new || versions.get(&c.run.id).is_some_and(|version| *version == c.run.version);
        let is_at_gate = |gate: &GateChange| {
            gates.get(&gate.id) == Some(&gate.version) && passed.insert(gate.id.clone())
        };
        // A change that is rejected does not block later ones of the batch.
        is_known
            && !seen.contains(&c.run.id)
            && c.gate.as_ref().is_none_or(is_at_gate)
            && seen.insert(c.run.id)
    };
    Ok(LockedRuns { current: changes.iter().map(&mut is_current).collect(), noted })
}

/// Locks the gates that changes pass and answers their versions. Gates that do not exist yet are
/// created.
async fn lock_gates<D: Dialect>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    changes: &[&Change],
) -> sqlx::Result<HashMap<String, i64>> {
    let wanted: BTreeSet<&str> =
        changes.iter().filter_map(|c| c.gate.as_ref()).map(|gate| gate.id.as_str()).collect();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let empty = encoded(&Gate::default())?;
    let rows = Rows::default().text(wanted.iter().copied()).text(wanted.iter().map(|_| &empty));
    sql::<D>(MAKE_GATES).bind(store.clock()).rows(rows).run(conn).await?;
    let rows: Vec<GateRow> = sql::<D>(LOCK_GATES).list(wanted.iter().copied()).all(conn).await?;
    Ok(rows.into_iter().map(|row| (row.id, row.version)).collect())
}

/// Applies changes, with the child runs that they start.
pub(super) async fn apply<D: Dialect>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    changes: &[&Change],
    locked: &LockedRuns,
) -> sqlx::Result<()> {
    let mut all: Vec<&Change> = Vec::new();
    let mut open: Vec<&Change> = changes.iter().rev().copied().collect();
    while let Some(change) = open.pop() {
        all.push(change);
        open.extend(change.children.iter().rev());
    }
    if all.is_empty() {
        return Ok(());
    }
    let clock = store.clock();
    let (new, old): (Vec<&Change>, Vec<&Change>) = all.iter().copied().partition(|c| c.is_new);
    if !new.is_empty() {
        sql::<D>(INSERT)
            .bind(clock)
            .bind(clock)
            .bind(clock)
            .rows(insert_rows(&new)?)
            .run(conn)
            .await?;
    }
    if !old.is_empty() {
        let update = sql::<D>(UPDATE).bind(clock).bind(clock).rows(update_rows(&old)?);
        update.only(old.iter().map(|c| c.run.id.to_string())).run(conn).await?;
    }
    let jobs: Vec<(EventId, &RunJob)> =
        all.iter().flat_map(|c| c.jobs.iter().map(|job| (c.run.event, job))).collect();
    if !jobs.is_empty() {
        sql::<D>(INSERT_JOBS).bind(clock).bind(clock).rows(job_rows(&jobs)).run(conn).await?;
    }
    let cancel_jobs: Vec<JobId> = all.iter().flat_map(|c| c.cancel_jobs.iter().copied()).collect();
    let mut ended = 0;
    if !cancel_jobs.is_empty() {
        let rows: Vec<IdRow> = sql::<D>(END_TIMERS)
            .bind(clock)
            .list(cancel_jobs.iter().map(ToString::to_string))
            .all(conn)
            .await?;
        ended = rows.len();
    }
    for (text, jobs) in [
        (PAUSE_JOBS, all.iter().flat_map(|c| &c.pause_jobs).collect::<Vec<_>>()),
        (RESUME_JOBS, all.iter().flat_map(|c| &c.resume_jobs).collect()),
    ] {
        if !jobs.is_empty() {
            sql::<D>(text).list(jobs.iter().map(ToString::to_string)).run(conn).await?;
        }
    }
    let gates: Vec<&GateChange> = all.iter().filter_map(|c| c.gate.as_ref()).collect();
    if !gates.is_empty() {
        let states =
            gates.iter().map(|gate| encoded(&gate.gate)).collect::<sqlx::Result<Vec<String>>>()?;
        let rows = Rows::default().text(gates.iter().map(|gate| &gate.id)).text(states);
        let update = sql::<D>(UPDATE_GATES).bind(clock).rows(rows);
        update.only(gates.iter().map(|gate| &gate.id)).run(conn).await?;
    }
    let notes = note_rows(&all, locked);
    if all.iter().any(|c| !c.notes.is_empty()) {
        sql::<D>(INSERT_HISTORY).bind(clock).rows(notes).run(conn).await?;
    }
    let tokens: Vec<&Token> = all.iter().flat_map(|c| &c.tokens).collect();
    if !tokens.is_empty() {
        let rows = Rows::default()
            .text(tokens.iter().map(|t| &t.hash))
            .text(tokens.iter().map(|t| t.run.to_string()))
            .int(tokens.iter().map(|t| i64::from(t.visit)));
        sql::<D>(INSERT_TOKENS).rows(rows).run(conn).await?;
    }
    let spent: Vec<&Token> = all.iter().filter_map(|c| c.spent.as_ref()).collect();
    if !spent.is_empty() {
        let rows = Rows::default()
            .text(spent.iter().map(|t| &t.hash))
            .maybe_text(spent.iter().map(|t| t.answer.clone()));
        sql::<D>(SPEND).rows(rows).only(spent.iter().map(|t| &t.hash)).run(conn).await?;
    }
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut counts = BTreeMap::from([("created", number(jobs.len())), ("finished", number(ended))]);
    count::<D>(conn, store.shard(), &mut counts).await
}

/// A value as the JSON text that is stored.
pub(super) fn encoded<T: serde::Serialize>(value: &T) -> sqlx::Result<String> {
    // NUL cannot be stored in a text of Postgres; inside JSON it stands escaped, so it never occurs
    // here.
    serde_json::to_string(value).map_err(|e| sqlx::Error::Encode(Box::new(e)))
}

fn states(changes: &[&Change]) -> sqlx::Result<Vec<String>> {
    changes.iter().map(|c| encoded(&c.run.state)).collect()
}

fn errors(changes: &[&Change]) -> sqlx::Result<Vec<Option<String>>> {
    changes.iter().map(|c| c.run.error.as_ref().map(encoded).transpose()).collect()
}

fn noted(changes: &[&Change]) -> Vec<i64> {
    changes.iter().map(|c| i64::try_from(c.notes.len()).unwrap_or(i64::MAX)).collect()
}

fn ended(changes: &[&Change]) -> Vec<Option<i64>> {
    changes.iter().map(|c| c.run.status.is_closed().then_some(0)).collect()
}

fn insert_rows(changes: &[&Change]) -> sqlx::Result<Rows> {
    let runs = || changes.iter().map(|c| &c.run);
    Ok(Rows::default()
        .text(runs().map(|r| r.id.to_string()))
        .text(runs().map(|r| &r.workflow))
        .text(runs().map(|r| &r.definition))
        .text(runs().map(|r| r.event.to_string()))
        .maybe_text(runs().map(|r| r.parent.map(|(run, _)| run.to_string())))
        .maybe_int(runs().map(|r| r.parent.map(|(_, visit)| i64::from(visit))))
        .text(runs().map(|r| r.status.as_str()))
        .maybe_text(errors(changes)?)
        .int(noted(changes))
        .text(states(changes)?)
        .maybe_int(ended(changes))
        .maybe_int(kept(changes)))
}

fn update_rows(changes: &[&Change]) -> sqlx::Result<Rows> {
    Ok(Rows::default()
        .text(changes.iter().map(|c| c.run.id.to_string()))
        .text(changes.iter().map(|c| c.run.status.as_str()))
        .text(changes.iter().map(|c| &c.run.definition))
        .maybe_text(errors(changes)?)
        .int(noted(changes))
        .text(states(changes)?)
        .maybe_int(ended(changes))
        .maybe_int(kept(changes)))
}

fn kept(changes: &[&Change]) -> Vec<Option<i64>> {
    changes.iter().map(|c| c.retention.filter(|_| c.run.status.is_closed()).map(millis)).collect()
}

fn job_rows(jobs: &[(EventId, &RunJob)]) -> Rows {
    let due = |job: &RunJob| match job.due {
        Due::At(at) => Some(at.0),
        Due::After(_) => None,
    };
    let delay = |job: &RunJob| match job.due {
        Due::After(delay) => millis(delay),
        Due::At(_) => 0,
    };
    Rows::default()
        .text(jobs.iter().map(|(_, job)| job.id.to_string()))
        .text(jobs.iter().map(|(event, _)| event.to_string()))
        .text(jobs.iter().map(|(_, job)| job.target.kind()))
        .text(jobs.iter().map(|(_, job)| job.target.stored_name()))
        .text(jobs.iter().map(|(_, job)| lane(job)))
        .maybe_int(jobs.iter().map(|(_, job)| due(job)))
        .int(jobs.iter().map(|(_, job)| delay(job)))
}

/// The lane a new job is stored in. A job of a paused run gets a `held:` lane, which no claim looks
/// at.
fn lane(job: &RunJob) -> String {
    let lane = job.target.lane().0;
    if job.is_paused { format!("held:{lane}") } else { lane }
}

fn note_rows(changes: &[&Change], locked: &LockedRuns) -> Rows {
    let all: Vec<(RunId, i64, &Note)> = changes
        .iter()
        .flat_map(|c| {
            let noted = locked.noted.get(&c.run.id).copied().unwrap_or(0);
            c.notes.iter().zip(noted + 1..).map(move |(note, seq)| (c.run.id, seq, note))
        })
        .collect();
    Rows::default()
        .text(all.iter().map(|(run, ..)| run.to_string()))
        .int(all.iter().map(|(_, seq, _)| *seq))
        .text(all.iter().map(|(.., note)| note.kind.as_str()))
        .maybe_text(all.iter().map(|(.., note)| note.step.clone()))
        .maybe_int(all.iter().map(|(.., note)| note.visit.map(i64::from)))
        .text(all.iter().map(|(.., note)| note.data.to_string()))
}
