//! The `Runs` verbs in SQL. A change applies as a whole or not at all. It is fenced by the run's
//! version, and by the lease if a job caused it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;

use super::driver::Driver;
use super::intake::count;
use super::looks::{self, Wakes};
use super::pool::SqlStore;
use super::retry::each;
use super::rows::{DefinitionRow, EntryRow, GateRow, RunRow, TokenRow, VersionRow};
use super::values::Rows;
use crate::model::history::{HistoryEntry, Note};
use crate::model::json::stored;
use crate::model::run::{Change, Due, Gate, GateChange, RunJob, Token};
use crate::model::time::millis;
use crate::model::{EventId, JobId, Run, RunId};
use crate::store::error::{Error, Result};
use crate::store::{Definition, Each, Page, RunFilter, Runs};

#[async_trait]
impl<D: Driver> Runs for SqlStore<D> {
    async fn define(&self, definitions: &[Definition]) -> Result<()> {
        if definitions.is_empty() {
            return Ok(());
        }
        let definitions = definitions.to_vec();
        self.run(move |store| {
            let rows = Rows::default()
                .text("hash", definitions.iter().map(|d| &d.hash))
                .text("name", definitions.iter().map(|d| &d.name))
                .text("body", definitions.iter().map(|d| &d.body));
            store.sql("define").bind("rows", rows)
        })
        .await
        .map(|_| ())
    }

    async fn definition(&self, hash: &str) -> Result<Option<Definition>> {
        let hash = hash.to_owned();
        let row: Option<DefinitionRow> = self
            .read(move |store, conn| {
                let hash = hash.clone();
                Box::pin(
                    async move { store.sql("definition").bind("hash", hash).first(conn).await },
                )
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
            .read(move |store, conn| {
                let ids = ids.clone();
                Box::pin(async move { store.sql("runs_by_id").list("ids", ids).all(conn).await })
            })
            .await?;
        rows.into_iter().map(|row| Run::try_from(row).map(|run| (run.id, run))).collect()
    }

    async fn runs(&self, filter: &RunFilter, page: Page) -> Result<Vec<Run>> {
        let filter = filter.clone();
        let rows: Vec<RunRow> = self
            .read(move |store, conn| {
                let filter = filter.clone();
                Box::pin(async move {
                    let statement = store
                        .sql("runs")
                        .and(" AND workflow = :workflow", "workflow", filter.workflow)
                        .and(" AND status = :status", "status", filter.status.map(|s| s.as_str()))
                        .and(
                            " AND event_id = :event",
                            "event",
                            filter.event.map(|id| id.to_string()),
                        );
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
            .read(move |store, conn| {
                Box::pin(async move {
                    store.sql("history").bind("run", run.to_string()).all(conn).await
                })
            })
            .await?;
        rows.into_iter().map(HistoryEntry::try_from).collect()
    }

    async fn gate(&self, id: &str) -> Result<(i64, Gate)> {
        let id = id.to_owned();
        let row: Option<GateRow> = self
            .read(move |store, conn| {
                let id = id.clone();
                Box::pin(async move { store.sql("gate").bind("id", id).first(conn).await })
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
            .read(move |store, conn| {
                let hash = hash.clone();
                Box::pin(async move { store.sql("token").bind("hash", hash).first(conn).await })
            })
            .await?;
        row.map(Token::try_from).transpose()
    }

    async fn change(&self, changes: &[Change]) -> Each<()> {
        each(changes, |changes| {
            let store = self.clone();
            async move {
                let wanted = Arc::clone(&changes);
                let answers = store
                    .write(move |store, conn| {
                        let changes: Arc<[Change]> = Arc::clone(&changes);
                        Box::pin(async move {
                            let all: Vec<&Change> = changes.iter().collect();
                            let locked = lock(conn, &store, &all).await?;
                            let current =
                                all.iter().zip(&locked.current).filter(|(_, current)| **current);
                            let live: Vec<&Change> = current.map(|(change, _)| *change).collect();
                            apply(conn, &store, &live, &locked).await?;
                            let answer = |current: &bool| {
                                if *current { Ok(()) } else { Err(Error::MovedOn) }
                            };
                            Ok(locked.current.iter().map(answer).collect::<Vec<Result<()>>>())
                        })
                    })
                    .await?;
                store.note_fresh(wanted.iter().flat_map(due_lanes));
                Ok(answers)
            }
        })
        .await
    }
}

/// The lanes that a change, with the child runs that it starts, gives due work.
pub(super) fn due_lanes(change: &Change) -> Vec<String> {
    // An instant may be over; one look too many harms nobody.
    let is_due = |job: &&RunJob| match job.due {
        Due::At(_) => true,
        Due::After(delay) => delay.is_zero(),
    };
    let jobs = change.jobs.iter().filter(|job| !job.is_paused).filter(is_due);
    let children = change.children.iter().flat_map(due_lanes);
    jobs.map(lane).chain(children).collect()
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
pub(super) async fn lock<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    changes: &[&Change],
) -> sqlx::Result<LockedRuns> {
    let known: BTreeSet<RunId> = changes.iter().filter(|c| !c.is_new).map(|c| c.run.id).collect();
    let mut versions: HashMap<RunId, i64> = HashMap::new();
    let mut noted = HashMap::new();
    if !known.is_empty() {
        for row in store
            .sql("lock_runs")
            .list("ids", known.iter().map(ToString::to_string))
            .all::<VersionRow>(conn)
            .await?
        {
            let id = row.id.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
            versions.insert(id, row.version);
            noted.insert(id, row.noted);
        }
    }
    let gates = lock_gates(conn, store, changes).await?;
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
async fn lock_gates<D: Driver>(
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
    let rows = Rows::default()
        .text("id", wanted.iter().copied())
        .text("state", wanted.iter().map(|_| &empty));
    store.sql("make_gates").bind("rows", rows).run(conn).await?;
    let rows: Vec<GateRow> =
        store.sql("lock_gates").list("ids", wanted.iter().copied()).all(conn).await?;
    Ok(rows.into_iter().map(|row| (row.id, row.version)).collect())
}

/// Applies changes, with the child runs that they start.
pub(super) async fn apply<D: Driver>(
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
    let (new, old): (Vec<&Change>, Vec<&Change>) = all.iter().copied().partition(|c| c.is_new);
    if !new.is_empty() {
        store.sql("insert_runs").bind("rows", insert_rows(&new)?).run(conn).await?;
    }
    if !old.is_empty() {
        store.sql("update_runs").bind("rows", update_rows(&old)?).run(conn).await?;
    }
    let jobs: Vec<(EventId, &RunJob)> =
        all.iter().flat_map(|c| c.jobs.iter().map(|job| (c.run.event, job))).collect();
    if !jobs.is_empty() {
        store.sql("insert_run_jobs").bind("rows", job_rows(&jobs)).run(conn).await?;
        let mut wakes = Wakes::default();
        for (_, job) in jobs.iter().filter(|(_, job)| !job.is_paused) {
            match job.due {
                Due::At(at) => wakes.at(lane(job), at.0),
                Due::After(delay) => wakes.after(lane(job), millis(delay)),
            }
        }
        looks::wake(conn, store, &wakes).await?;
    }
    let cancel_jobs: Vec<JobId> = all.iter().flat_map(|c| c.cancel_jobs.iter().copied()).collect();
    let mut ended = 0;
    if !cancel_jobs.is_empty() {
        let end = store.sql("end_jobs");
        ended = end.list("ids", cancel_jobs.iter().map(ToString::to_string)).run(conn).await?;
    }
    for (name, jobs) in [
        ("pause_jobs", all.iter().flat_map(|c| &c.pause_jobs).collect::<Vec<_>>()),
        ("resume_jobs", all.iter().flat_map(|c| &c.resume_jobs).collect()),
    ] {
        if !jobs.is_empty() {
            store.sql(name).list("ids", jobs.iter().map(ToString::to_string)).run(conn).await?;
        }
    }
    let resumed =
        all.iter().flat_map(|c| &c.resume_jobs).map(ToString::to_string).collect::<Vec<_>>();
    if !resumed.is_empty() {
        looks::wake_lanes_of(conn, store, resumed).await?;
    }
    let gates: Vec<&GateChange> = all.iter().filter_map(|c| c.gate.as_ref()).collect();
    if !gates.is_empty() {
        let states =
            gates.iter().map(|gate| encoded(&gate.gate)).collect::<sqlx::Result<Vec<String>>>()?;
        let rows =
            Rows::default().text("id", gates.iter().map(|gate| &gate.id)).text("state", states);
        store.sql("update_gates").bind("rows", rows).run(conn).await?;
    }
    let notes = note_rows(&all, locked);
    if all.iter().any(|c| !c.notes.is_empty()) {
        store.sql("insert_history").bind("rows", notes).run(conn).await?;
    }
    let tokens: Vec<&Token> = all.iter().flat_map(|c| &c.tokens).collect();
    if !tokens.is_empty() {
        let rows = Rows::default()
            .text("hash", tokens.iter().map(|t| &t.hash))
            .text("run_id", tokens.iter().map(|t| t.run.to_string()))
            .int("visit", tokens.iter().map(|t| i64::from(t.visit)));
        store.sql("insert_tokens").bind("rows", rows).run(conn).await?;
    }
    let spent: Vec<&Token> = all.iter().filter_map(|c| c.spent.as_ref()).collect();
    if !spent.is_empty() {
        let rows = Rows::default()
            .text("hash", spent.iter().map(|t| &t.hash))
            .maybe_text("answer", spent.iter().map(|t| t.answer.clone()));
        store.sql("spend_tokens").bind("rows", rows).run(conn).await?;
    }
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let ended = i64::try_from(ended).unwrap_or(i64::MAX);
    count(conn, store, BTreeMap::from([("created", number(jobs.len())), ("finished", ended)])).await
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
        .text("id", runs().map(|r| r.id.to_string()))
        .text("workflow", runs().map(|r| &r.workflow))
        .text("definition", runs().map(|r| &r.definition))
        .text("event_id", runs().map(|r| r.event.to_string()))
        .maybe_text("parent_run", runs().map(|r| r.parent.map(|(run, _)| run.to_string())))
        .maybe_int("parent_visit", runs().map(|r| r.parent.map(|(_, visit)| i64::from(visit))))
        .text("status", runs().map(|r| r.status.as_str()))
        .maybe_text("error", errors(changes)?)
        .int("notes", noted(changes))
        .text("state", states(changes)?)
        .maybe_int("ended", ended(changes))
        .maybe_int("keep", kept(changes)))
}

fn update_rows(changes: &[&Change]) -> sqlx::Result<Rows> {
    Ok(Rows::default()
        .text("id", changes.iter().map(|c| c.run.id.to_string()))
        .text("status", changes.iter().map(|c| c.run.status.as_str()))
        .text("definition", changes.iter().map(|c| &c.run.definition))
        .maybe_text("error", errors(changes)?)
        .int("notes", noted(changes))
        .text("state", states(changes)?)
        .maybe_int("ended", ended(changes))
        .maybe_int("keep", kept(changes)))
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
        .text("id", jobs.iter().map(|(_, job)| job.id.to_string()))
        .text("event_id", jobs.iter().map(|(event, _)| event.to_string()))
        .text("target_kind", jobs.iter().map(|(_, job)| job.target.kind()))
        .text("target_name", jobs.iter().map(|(_, job)| job.target.stored_name()))
        .text("lane", jobs.iter().map(|(_, job)| lane(job)))
        .maybe_int("due", jobs.iter().map(|(_, job)| due(job)))
        .int("delay", jobs.iter().map(|(_, job)| delay(job)))
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
        .text("run_id", all.iter().map(|(run, ..)| run.to_string()))
        .int("seq", all.iter().map(|(_, seq, _)| *seq))
        .text("kind", all.iter().map(|(.., note)| note.kind.as_str()))
        .maybe_text("step", all.iter().map(|(.., note)| note.step.clone()))
        .maybe_int("visit", all.iter().map(|(.., note)| note.visit.map(i64::from)))
        .text("data", all.iter().map(|(.., note)| note.data.to_string()))
}
