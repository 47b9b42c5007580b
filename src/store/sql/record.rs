//! How outcomes are recorded: the fenced update of jobs, then attempts, totals, lanes and runs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::driver::Driver;
use super::intake::count;
use super::looks::{self, Wakes};
use super::outcomes::{attempt_rows, held, in_row, record_rows, repeat_rows};
use super::pool::SqlStore;
use super::rows::{IdRow, LaneRow, timestamp};
use super::runs;
use super::work::{LockedLane, closed_until, update_lanes};
use crate::decide::breaker;
use crate::decide::settle::{JobOutcome, LaneFact, NextState};
use crate::model::run::Change;
use crate::model::time::millis;
use crate::model::{Lane, Lease, Timestamp};
use crate::store::NewEvent;
use crate::store::error::{Error, Result};

/// Records plain deliveries in one statement: nothing depends on them, no breaker and no run.
/// Whatever is left of the slice, because its lease is over or because more depends on it, is
/// recorded in a transaction.
pub(in crate::store) async fn deliveries_first<D: Driver>(
    store: &SqlStore<D>,
    outcomes: Arc<[JobOutcome]>,
) -> Result<Vec<Result<()>>> {
    let is_plain = |outcome: &JobOutcome| {
        outcome.lane_fact.is_none()
            && outcome.change.is_none()
            && outcome.reports.is_empty()
            && in_row(outcome).is_some()
    };
    let recorded = match outcomes.iter().all(is_plain) {
        true => record_delivered(store, &outcomes).await?,
        false => HashSet::new(),
    };
    if recorded.is_empty() {
        return in_transaction(store, outcomes).await;
    }
    let is_recorded = |outcome: &JobOutcome| recorded.contains(&outcome.lease);
    let rest: Arc<[JobOutcome]> =
        outcomes.iter().filter(|outcome| !is_recorded(outcome)).cloned().collect();
    let mut answers = match rest.is_empty() {
        true => Vec::new(),
        false => in_transaction(store, rest).await?,
    }
    .into_iter();
    let answer = |outcome: &JobOutcome| match is_recorded(outcome) {
        true => Ok(()),
        false => answers.next().unwrap_or(Err(Error::LeaseLost)),
    };
    Ok(outcomes.iter().map(answer).collect())
}

/// Answers the leases that still held.
async fn record_delivered<D: Driver>(
    store: &SqlStore<D>,
    outcomes: &Arc<[JobOutcome]>,
) -> Result<HashSet<Lease>> {
    let kept = Arc::clone(outcomes);
    let outcomes = Arc::clone(outcomes);
    let rows: Vec<IdRow> = store
        .statement(move |store, conn| {
            let record = store
                .sql("record_delivered")
                .alone()
                .bind("rows", record_rows(&outcomes))
                .bind("shard", store.shard());
            Box::pin(async move { record.all(conn).await })
        })
        .await?;
    Ok(held(&kept, &rows))
}

/// Records outcomes of any kind in one transaction.
pub(in crate::store) async fn in_transaction<D: Driver>(
    store: &SqlStore<D>,
    outcomes: Arc<[JobOutcome]>,
) -> Result<Vec<Result<()>>> {
    store
        .write(move |store, conn| {
            let outcomes = Arc::clone(&outcomes);
            Box::pin(async move { record(conn, &store, &outcomes).await })
        })
        .await
}

async fn record<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    outcomes: &[JobOutcome],
) -> sqlx::Result<Vec<Result<()>>> {
    let changes: Vec<&Change> = outcomes.iter().filter_map(|c| c.change.as_deref()).collect();
    if changes.is_empty() {
        return record_jobs(conn, store, outcomes).await;
    }
    // The runs first: what was decided on a run that has moved on changes nothing, its job
    // included.
    let locked = runs::lock(conn, store, &changes).await?;
    let mut current = locked.current.iter();
    let moved: Vec<bool> =
        outcomes.iter().map(|c| c.change.is_some() && current.next() == Some(&false)).collect();
    let live: Vec<JobOutcome> =
        outcomes.iter().zip(&moved).filter(|(_, moved)| !**moved).map(|(c, _)| c.clone()).collect();
    let fenced = fence(conn, store, &live).await?;
    let answers = record_rest(conn, store, &live, &fenced).await?;
    let with_lease = live.iter().filter(|c| fenced.contains(&c.lease));
    let changes: Vec<&Change> = with_lease.filter_map(|c| c.change.as_deref()).collect();
    runs::apply(conn, store, &changes, &locked).await?;
    let mut answers = answers.into_iter();
    let answer = |moved: &bool| {
        if *moved { Err(Error::MovedOn) } else { answers.next().unwrap_or(Err(Error::LeaseLost)) }
    };
    Ok(moved.iter().map(answer).collect())
}

async fn record_jobs<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    outcomes: &[JobOutcome],
) -> sqlx::Result<Vec<Result<()>>> {
    let fenced = fence(conn, store, outcomes).await?;
    record_rest(conn, store, outcomes, &fenced).await
}

/// Updates the jobs whose lease still holds, and answers these leases.
async fn fence<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    outcomes: &[JobOutcome],
) -> sqlx::Result<HashSet<Lease>> {
    let changed = D::changed(store, conn, "record", Vec::new(), record_rows(outcomes)).await?;
    Ok(held(outcomes, &changed))
}

/// Records attempts, totals and breaker changes of the same outcomes, and answers each.
async fn record_rest<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    outcomes: &[JobOutcome],
    fenced: &HashSet<Lease>,
) -> sqlx::Result<Vec<Result<()>>> {
    let holds = |job_outcome: &JobOutcome| fenced.contains(&job_outcome.lease);
    let lost: Vec<JobOutcome> = outcomes.iter().filter(|c| !holds(c)).cloned().collect();
    let recorded: BTreeSet<String> = match lost.is_empty() {
        true => BTreeSet::new(),
        false => store
            .sql("recorded")
            .bind("rows", repeat_rows(&lost))
            .all::<IdRow>(conn)
            .await?
            .into_iter()
            .map(|r| r.id)
            .collect(),
    };
    let repeats = |job_outcome: &JobOutcome| {
        !holds(job_outcome) && recorded.contains(&job_outcome.lease.job.to_string())
    };

    // What the job's row has taken in needs no row of its own.
    let is_in_row = |job_outcome: &JobOutcome| holds(job_outcome) && in_row(job_outcome).is_some();
    let tried = outcomes.iter().filter(|c| c.attempt.is_some() && !repeats(c) && !is_in_row(c));
    let attempts: Vec<(&JobOutcome, bool)> = tried.map(|c| (c, holds(c))).collect();
    if !attempts.is_empty() {
        store.sql("insert_attempts").bind("rows", attempt_rows(&attempts)).run(conn).await?;
    }
    let ended = |is: fn(&NextState) -> bool| {
        let n = outcomes.iter().filter(|c| holds(c) && is(&c.next_state)).count();
        i64::try_from(n).unwrap_or(i64::MAX)
    };
    let dead = ended(|f| matches!(f, NextState::Dead { .. }));
    let counts = BTreeMap::from([
        (
            "finished",
            ended(|f| matches!(f, NextState::Done | NextState::FailedIntoRun { .. })) + dead,
        ),
        ("dead", dead),
    ]);
    count(conn, store, counts).await?;

    let mut wakes = Wakes::default();
    for job_outcome in outcomes.iter().filter(|c| holds(c)) {
        match &job_outcome.next_state {
            NextState::Retry { after, .. } => {
                wakes.after(job_outcome.lane.0.clone(), millis(*after))
            }
            NextState::Released => wakes.after(job_outcome.lane.0.clone(), 0),
            NextState::Done | NextState::Dead { .. } | NextState::FailedIntoRun { .. } => {}
        }
    }
    let mut facts: BTreeMap<String, Vec<LaneFact>> = BTreeMap::new();
    for job_outcome in outcomes.iter().filter(|c| holds(c)) {
        if let Some(fact) = job_outcome.lane_fact {
            facts.entry(job_outcome.lane.0.clone()).or_default().push(fact);
        }
    }
    if !facts.is_empty() {
        let rows: Vec<LaneRow> =
            store.sql("lock_lanes").list("ids", facts.keys()).all(conn).await?;
        let now = rows.first().map_or(Timestamp(0), |row| timestamp(row.now));
        let changed: Vec<Lane> =
            rows.into_iter().map(LockedLane::from).map(|l| lane_after(l, &facts)).collect();
        update_lanes(conn, store, &changed).await?;
        // A breaker that has changed may let work through earlier than somebody looks for it.
        for lane in changed {
            match closed_until(&lane, now) {
                None => wakes.after(lane.id.0, 0),
                Some(Some(at)) => wakes.at(lane.id.0, at.0),
                Some(None) => {}
            }
        }
    }
    looks::wake(conn, store, &wakes).await?;
    let reports: Vec<NewEvent> =
        outcomes.iter().filter(|c| holds(c)).flat_map(|c| c.reports.iter().cloned()).collect();
    if !reports.is_empty() {
        D::store_events(store, conn, &reports).await?;
    }
    Ok(outcomes
        .iter()
        .map(|c| if holds(c) || repeats(c) { Ok(()) } else { Err(Error::LeaseLost) })
        .collect())
}

/// The lane after its breaker has taken in the facts of these outcomes, in their order.
fn lane_after(locked: LockedLane, facts: &BTreeMap<String, Vec<LaneFact>>) -> Lane {
    let mut lane = locked.lane;
    for fact in facts.get(&lane.id.0).into_iter().flatten() {
        lane.breaker = breaker::after(&lane.breaker, &lane.rules, *fact, locked.now);
    }
    lane
}
