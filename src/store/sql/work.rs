//! The `Work` verbs in SQL: claim through lanes, extend leases, record outcomes; retry, cancel and
//! expire jobs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::driver::{Driver, Take, Want};
use super::intake::count;
use super::looks::{self, Find, Picked, Seen};
use super::outcomes::{interrupted_rows, lease_rows};
use super::pool::SqlStore;
use super::retry::each;
use super::rows::{DueRow, IdRow, JobRow, LaneRow, timestamp};
use super::statement::Sql;
use super::values::Rows;
use crate::decide::breaker::{self, Allows};
use crate::decide::look::UNSERVED_REST;
use crate::decide::rate;
use crate::decide::settle::{JobOutcome, NextState};
use crate::model::lane::{Breaker, Bucket};
use crate::model::time::millis;
use crate::model::{Job, JobId, JobState, Lane, LaneId, Lease, Timestamp};
use crate::store::error::{Error, Result};
use crate::store::{ClaimRequest, Claimed, Each, Retry, Work};

/// How often one claim looks again that met only lanes which gave nothing.
const LOOKS_MAX: u32 = 50;

/// A lane with the database's clock at that moment.
#[derive(Clone)]
pub(super) struct LockedLane {
    pub(super) lane: Lane,
    pub(super) now: Timestamp,
    /// Whether its row is locked by this transaction.
    is_locked: bool,
    /// Whether it came up in turn, rather than at an instant.
    ready: bool,
    /// How many looks in a row have found nothing.
    rest: u8,
}

impl LockedLane {
    fn seen(&self, found: Find) -> Seen {
        Seen { lane: self.lane.id.0.clone(), ready: self.ready, rest: self.rest, found }
    }
}

impl From<LaneRow> for LockedLane {
    fn from(row: LaneRow) -> Self {
        let (now, ready) = (timestamp(row.now), row.ready != 0);
        let rest = u8::try_from(row.rest).unwrap_or(u8::MAX);
        Self { lane: row.into(), now, is_locked: false, ready, rest }
    }
}

#[async_trait]
impl<D: Driver> Work for SqlStore<D> {
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>> {
        if request.slots.most == 0 {
            return Ok(Vec::new());
        }
        // A look may meet nothing but lanes that are closed or empty. It puts them off, and the
        // next one meets those behind them.
        for _ in 0..LOOKS_MAX {
            let (claimed, goes_on) = self.look(request).await?;
            if !claimed.is_empty() || !goes_on {
                return Ok(claimed);
            }
        }
        Ok(Vec::new())
    }

    async fn extend(&self, leases: &[Lease], by: Duration) -> Each<()> {
        each(leases, |leases| {
            let store = self.clone();
            async move {
                let wanted = leases.clone();
                let kept = store
                    .write(move |store, conn| {
                        let leases = wanted.clone();
                        Box::pin(async move {
                            let by = vec![("by", millis(by))];
                            D::changed(&store, conn, "extend", by, lease_rows(&leases)).await
                        })
                    })
                    .await?;
                let kept: BTreeSet<String> = kept.into_iter().map(|r| r.id).collect();
                Ok(leases
                    .iter()
                    .map(|l| {
                        if kept.contains(&l.job.to_string()) {
                            Ok(())
                        } else {
                            Err(Error::LeaseLost)
                        }
                    })
                    .collect())
            }
        })
        .await
    }

    async fn begin_send(&self, lease: Lease) -> Result<bool> {
        let marked = self
            .run(move |store| {
                let begin = store.sql("begin_send").bind("job", lease.job.to_string());
                begin.bind("claim", lease.claim)
            })
            .await?;
        Ok(marked > 0)
    }

    async fn record(&self, outcomes: &[JobOutcome]) -> Each<()> {
        each(outcomes, |outcomes| async move {
            let answers = D::record(self, Arc::clone(&outcomes)).await?;
            let recorded = outcomes.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
            self.note_fresh(recorded.flat_map(|(outcome, _)| due_lanes(outcome)));
            Ok(answers)
        })
        .await
    }

    async fn reclaim(&self) -> Result<u64> {
        self.write(|store, conn| {
            Box::pin(async move {
                let reclaimed = store.sql("reclaim").run(conn).await?;
                store.sql("wake_all_lanes").run(conn).await?;
                Ok(reclaimed)
            })
        })
        .await
    }

    async fn retry(&self, which: &Retry) -> Result<u64> {
        let which = which.clone();
        self.write(move |store, conn| {
            let which = which.clone();
            Box::pin(async move { retry(conn, &store, &which).await })
        })
        .await
    }

    async fn cancel(&self, job: JobId) -> Result<bool> {
        let cancelled = self
            .write(move |store, conn| {
                Box::pin(async move {
                    let cancel = store.sql("cancel").bind("id", job.to_string());
                    finished(conn, &store, cancel).await
                })
            })
            .await?;
        Ok(cancelled > 0)
    }

    async fn cancel_handler_jobs(&self, handler: &str, most: u32) -> Result<u64> {
        let lane = LaneId::handler(handler).0;
        self.write(move |store, conn| {
            let lane = lane.clone();
            Box::pin(async move { cancel_open(conn, &store, lane, most).await })
        })
        .await
    }

    async fn expire(&self, most: u32) -> Result<Vec<Job>> {
        // First without a transaction: there is rarely anything to expire.
        let found = self
            .read(move |store, conn| {
                let expired = store.sql("expired").bind("most", most);
                Box::pin(async move { expired.all::<IdRow>(conn).await })
            })
            .await?;
        let found: Vec<String> = found.into_iter().map(|row| row.id).collect();
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<JobRow> = self
            .write(move |store, conn| {
                let lock = store.sql("lock_expired").list("ids", &found);
                Box::pin(async move {
                    let locked: Vec<IdRow> = lock.all(conn).await?;
                    let ids: Vec<String> = locked.into_iter().map(|row| row.id).collect();
                    if ids.is_empty() {
                        return Ok(Vec::new());
                    }
                    store.sql("expire").list("ids", &ids).run(conn).await?;
                    let by = i64::try_from(ids.len()).unwrap_or(i64::MAX);
                    let rows = store.sql("jobs").then(" AND id IN (:ids...)").list("ids", ids);
                    let rows: Vec<JobRow> = rows.all(conn).await?;
                    count(conn, &store, BTreeMap::from([("finished", by), ("dead", by)])).await?;
                    Ok(rows)
                })
            })
            .await?;
        rows.into_iter().map(Job::try_from).collect()
    }
}

impl<D: Driver> SqlStore<D> {
    /// Looks at lanes once and claims their due jobs. Answers whether another look may find more.
    async fn look(&self, request: &ClaimRequest) -> Result<(Vec<Claimed>, bool)> {
        // First without a transaction, so that an idle worker costs one query.
        let looked = request.clone();
        let picked = self
            .read(move |store, conn| {
                let request = looked.clone();
                Box::pin(async move { looks::pick(conn, &store, &request).await })
            })
            .await?;
        if picked.lanes.is_empty() {
            return Ok((Vec::new(), false));
        }
        let request = request.clone();
        let once: Vec<String> =
            picked.lanes.iter().filter(|l| l.ready == 0).map(|l| l.id.clone()).collect();
        let taken = self
            .write(move |store, conn| {
                let (request, picked) = (request.clone(), picked.clone());
                Box::pin(async move { claim(conn, &store, &request, picked).await })
            })
            .await
            .inspect_err(|_| self.note_fresh(once))?;
        let mut claimed = Vec::with_capacity(taken.rows.len());
        for row in taken.rows {
            let (now, id) = (timestamp(row.now), row.id.clone());
            let lane_clean = taken.clean.contains(&row.lane);
            match Job::try_from(row) {
                Ok(job) => claimed.push(Claimed { job, now, lane_clean }),
                // One unreadable row must not fail its neighbours. Its lease runs out by itself.
                Err(error) => {
                    tracing::error!(job = %id, %error, "A claimed job cannot be read from the \
                        database.")
                }
            }
        }
        Ok((claimed, taken.goes_on))
    }

    /// Runs one statement in a transaction of its own. Answers how many rows it changed.
    pub(super) async fn run(
        &self,
        build: impl Fn(&Self) -> Sql<D> + Send + Sync + 'static,
    ) -> Result<u64> {
        self.write(move |store, conn| {
            let statement = build(&store);
            Box::pin(async move { statement.run(conn).await })
        })
        .await
    }
}

/// The lanes that an outcome has given due work.
fn due_lanes(outcome: &JobOutcome) -> Vec<String> {
    let mut lanes = outcome.change.as_deref().map_or_else(Vec::new, super::runs::due_lanes);
    match outcome.next_state {
        NextState::Released => lanes.push(outcome.lane.0.clone()),
        NextState::Retry { after, .. } if after.is_zero() => lanes.push(outcome.lane.0.clone()),
        _ => {}
    }
    let reported = outcome.reports.iter().flat_map(|report| &report.plan.jobs);
    lanes.extend(reported.map(|job| job.target.lane().0));
    lanes
}

/// Cancels open jobs of a lane, at most `most`. Answers how many.
pub(super) async fn cancel_open<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    lane: String,
    most: u32,
) -> sqlx::Result<u64> {
    let few = store.sql("lock_open_jobs").bind("lane", lane).bind("most", most);
    let few: Vec<IdRow> = few.all(conn).await?;
    if few.is_empty() {
        return Ok(0);
    }
    let ids = few.into_iter().map(|row| row.id);
    finished(conn, store, store.sql("cancel_jobs").list("ids", ids)).await
}

/// Runs a statement that finishes jobs, and counts them. Answers how many.
async fn finished<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    statement: Sql<D>,
) -> sqlx::Result<u64> {
    let finished = statement.run(conn).await?;
    count(conn, store, BTreeMap::from([("finished", signed(finished))])).await?;
    Ok(finished)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

async fn retry<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    which: &Retry,
) -> sqlx::Result<u64> {
    let (revived, was_dead) = match which {
        Retry::One(id) => {
            let (mut revived, mut was_dead) = (0, 0);
            for state in [JobState::Dead, JobState::Cancelled] {
                let retry = store.sql("retry_one").bind("id", id.to_string());
                let retried = retry.bind("state", state.as_str()).run(conn).await?;
                revived += retried;
                was_dead += if state == JobState::Dead { retried } else { 0 };
            }
            looks::wake_lanes_of(conn, store, vec![id.to_string()]).await?;
            (revived, was_dead)
        }
        Retry::Queue(queue) => {
            let retry = store.sql("retry_all").bind("state", JobState::Dead.as_str());
            let retry = retry.and(" AND lane = :lane", "lane", Some(LaneId::queue(queue).0));
            let retried = retry.run(conn).await?;
            (retried, retried)
        }
        Retry::All { state, handler } => {
            let retry = store.sql("retry_all").bind("state", state.as_str());
            let retry = match state {
                // A job that waits for its first attempt is not being retried.
                JobState::Pending => retry.then(" AND attempt > 0"),
                _ => retry,
            };
            let retry = retry.and(" AND target_name = :handler", "handler", handler.clone());
            let retry = match handler {
                Some(_) => retry.then(" AND target_kind <> 'queue'"),
                None => retry,
            };
            let retried = retry.run(conn).await?;
            store.sql("wake_all_lanes").run(conn).await?;
            if *state == JobState::Pending {
                return Ok(retried);
            }
            (retried, if *state == JobState::Dead { retried } else { 0 })
        }
    };
    let counts = BTreeMap::from([("created", signed(revived)), ("dead", -signed(was_dead))]);
    count(conn, store, counts).await?;
    Ok(revived)
}

/// What one look has claimed.
struct Taken {
    rows: Vec<DueRow>,
    /// The lanes whose breaker is clean.
    clean: BTreeSet<String>,
    /// Lanes were put off, so there may be others behind them.
    goes_on: bool,
}

async fn claim<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    request: &ClaimRequest,
    picked: Picked,
) -> sqlx::Result<Taken> {
    let mut lanes: Vec<LockedLane> = picked.lanes.into_iter().map(LockedLane::from).collect();
    lock_delicate(conn, store, &mut lanes).await?;
    let now = lanes.first().map_or(Timestamp(0), |locked| locked.now);

    let mut seen = Vec::with_capacity(lanes.len());
    let mut open = Vec::with_capacity(lanes.len());
    for locked in &lanes {
        let closed = match request.unserved.contains(&locked.lane.id) {
            true => Some(Some(locked.now.plus(UNSERVED_REST))),
            false => closed_until(&locked.lane, locked.now),
        };
        match closed {
            Some(until) => seen.push(locked.seen(Find::Closed { until })),
            None => open.push(locked),
        }
    }
    let mut sharing = request.slots.among(open.len());
    let mut wants = Vec::with_capacity(open.len());
    for locked in open {
        let most = allowed(locked, sharing.most(&locked.lane));
        sharing.took(&locked.lane, most);
        if most > 0 {
            wants.push(Want { lane: locked.lane.id.0.clone(), most });
        } else if !locked.ready {
            // It came up once, and gets nothing now: it comes up again.
            store.note_fresh([locked.lane.id.0.clone()]);
        }
    }
    let mut rows = Vec::new();
    if !wants.is_empty() {
        let take = Take { wants: &wants, only: &request.only, lease_ms: millis(request.lease) };
        rows = D::take(store, conn, take).await?;
    }
    let interrupted: Vec<&DueRow> = rows.iter().filter(|row| row.was == "leased").collect();
    if !interrupted.is_empty() {
        let attempts = interrupted_rows(&interrupted);
        store.sql("insert_attempts").bind("rows", attempts).run(conn).await?;
    }
    let mut of_lane: HashMap<&str, u32> = HashMap::new();
    for row in &rows {
        *of_lane.entry(row.lane.as_str()).or_default() += 1;
    }
    let mut changed = Vec::new();
    for locked in &lanes {
        let Some(want) = wants.iter().find(|want| want.lane == locked.lane.id.0) else { continue };
        let taken = of_lane.get(want.lane.as_str()).copied().unwrap_or(0);
        let after = served(locked, taken, request.lease);
        let closed = closed_until(&after, locked.now);
        seen.push(locked.seen(match closed {
            Some(until) if taken > 0 => Find::Closed { until },
            _ if taken < want.most => Find::Less,
            _ => Find::More,
        }));
        if locked.is_locked {
            changed.push(after);
        }
    }
    update_lanes(conn, store, &changed).await?;
    let goes_on = !seen.is_empty();
    // What was asked for by name says nothing about the rest of its lane.
    if request.only.is_empty() {
        looks::settle(conn, store, seen, picked.is_alone, now).await?;
    }
    let clean =
        lanes.into_iter().filter(|l| l.lane.breaker.is_clean()).map(|l| l.lane.id.0).collect();
    Ok(Taken { rows, clean, goes_on: goes_on && request.only.is_empty() })
}

/// Locks the lanes whose state decides how much they give or changes with the claim: those with a
/// rate limit and those whose breaker remembers failures. The others give what they have to
/// whoever asks, so claims of several processes do not wait for each other.
async fn lock_delicate<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    lanes: &mut [LockedLane],
) -> sqlx::Result<()> {
    let delicate = |lane: &Lane| lane.bucket.is_some() || !lane.breaker.is_clean();
    let ids: Vec<String> =
        lanes.iter().filter(|l| delicate(&l.lane)).map(|l| l.lane.id.0.clone()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let rows: Vec<LaneRow> = store.sql("lock_lanes").list("ids", ids).all(conn).await?;
    for row in rows {
        if let Some(known) = lanes.iter_mut().find(|known| known.lane.id.0 == row.id) {
            *known = LockedLane { is_locked: true, ..LockedLane::from(row) };
        }
    }
    Ok(())
}

/// Until when a lane gives nothing, because of a pause, its breaker or its rate limit; `None` if it
/// gives, `Some(None)` if only an operator can open it.
pub(super) fn closed_until(lane: &Lane, now: Timestamp) -> Option<Option<Timestamp>> {
    if lane.paused {
        return Some(None);
    }
    if let Allows::NothingBefore(at) = breaker::allows(&lane.breaker, now) {
        return Some(Some(at));
    }
    let bucket = lane.bucket.as_ref().map(|bucket| rate::refilled(bucket, now))?;
    (rate::available(&bucket) == 0).then(|| Some(rate::next_token(&bucket)))
}

/// How many jobs the lane may give now: limited by `most`, its pause, its breaker and its rate
/// limit.
fn allowed(locked: &LockedLane, most: u32) -> u32 {
    let LockedLane { lane, now, .. } = locked;
    if lane.paused || most == 0 {
        return 0;
    }
    let most = match breaker::allows(&lane.breaker, *now) {
        Allows::NothingBefore(_) => 0,
        Allows::Probe => 1,
        Allows::All => most,
        Allows::AtMost(limit) => most.min(limit),
    };
    match &lane.bucket {
        None => most,
        Some(bucket) => most.min(rate::available(&rate::refilled(bucket, *now))),
    }
}

/// The state of a lane after a claim: its turn, its tokens, and its breaker if it was probed.
fn served(locked: &LockedLane, taken: u32, lease: Duration) -> Lane {
    let LockedLane { lane, now, .. } = locked;
    let mut lane = lane.clone();
    lane.last_served_at = *now;
    lane.bucket = lane.bucket.map(|bucket| rate::spent(&rate::refilled(&bucket, *now), taken));
    lane.breaker = breaker::served(&lane.breaker, taken, lease, *now);
    lane
}

/// Stores the state of lanes that are locked.
pub(super) async fn update_lanes<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    lanes: &[Lane],
) -> sqlx::Result<u64> {
    if lanes.is_empty() {
        return Ok(0);
    }
    let breaker = |f: fn(&Breaker) -> i64| lanes.iter().map(move |l| f(&l.breaker));
    let bucket = |l: &Lane, f: fn(&Bucket) -> i64| l.bucket.as_ref().map_or(0, f);
    #[expect(clippy::cast_possible_truncation, reason = "a bucket holds at most 2^32 tokens")]
    let millitokens = |b: &Bucket| (b.tokens * 1000.0) as i64;
    let rows = Rows::default()
        .text("lane", lanes.iter().map(|l| l.id.0.clone()))
        .int("failures", breaker(|b| i64::from(b.failures)))
        .maybe_int("open_until", lanes.iter().map(|l| l.breaker.open_until.map(|t| t.0)))
        .maybe_int("probe_until", lanes.iter().map(|l| l.breaker.not_before.map(|t| t.0)))
        .int("ramp", breaker(|b| i64::from(b.ramp)))
        .int("millitokens", lanes.iter().map(|l| bucket(l, millitokens)))
        .int("refilled_at", lanes.iter().map(|l| bucket(l, |b| b.refilled_at.0)))
        .int("turn", lanes.iter().map(|l| l.last_served_at.0));
    store.sql("update_lanes").bind("rows", rows).run(conn).await
}
