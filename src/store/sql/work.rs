//! The `Work` verbs in SQL: claim through lanes, extend leases, record outcomes; retry, cancel and
//! expire jobs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;

use super::driver::{Driver, Take, Want};
use super::intake::count;
use super::outcomes::{interrupted_rows, lease_rows};
use super::pool::SqlStore;
use super::retry::each;
use super::rows::{DueRow, IdRow, JobRow, LaneRow, timestamp};
use super::statement::Sql;
use super::values::Rows;
use crate::decide::breaker::{self, Allows};
use crate::decide::rate;
use crate::decide::settle::JobOutcome;
use crate::model::lane::{Breaker, Bucket};
use crate::model::time::millis;
use crate::model::{Job, JobId, JobState, Lane, LaneId, Lease, Timestamp};
use crate::store::error::{Error, Result};
use crate::store::{ClaimRequest, Claimed, Each, Retry, Work};

/// A locked lane, with the database's clock at that moment.
#[derive(Clone)]
pub(super) struct LockedLane {
    pub(super) lane: Lane,
    pub(super) now: Timestamp,
}

impl From<LaneRow> for LockedLane {
    fn from(row: LaneRow) -> Self {
        let now = timestamp(row.now);
        Self { lane: row.into(), now }
    }
}

#[async_trait]
impl<D: Driver> Work for SqlStore<D> {
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>> {
        if request.slots.most == 0 {
            return Ok(Vec::new());
        }
        // First without a transaction, so that an idle worker costs one query.
        let looked = request.clone();
        let picked = self
            .read(move |store, conn| {
                let request = looked.clone();
                Box::pin(async move {
                    let skip = request.skip.iter().map(|l| l.0.clone());
                    let only = request.only.iter().map(ToString::to_string);
                    let pick = match request.only.is_empty() {
                        true => store.sql("pick_lanes"),
                        false => store.sql("pick_lanes_of").list("only", only),
                    };
                    let pick = pick.list("skip", skip).bind("most", request.slots.most);
                    let rows: Vec<IdRow> = pick.all(conn).await?;
                    Ok(rows.into_iter().map(|r| r.id).collect::<Vec<_>>())
                })
            })
            .await?;
        if picked.is_empty() {
            return Ok(Vec::new());
        }
        let request = request.clone();
        let (rows, clean) = self
            .write(move |store, conn| {
                let (request, picked) = (request.clone(), picked.clone());
                Box::pin(async move { claim(conn, &store, &request, picked).await })
            })
            .await?;
        let mut claimed = Vec::with_capacity(rows.len());
        for row in rows {
            let (now, id) = (timestamp(row.now), row.id.clone());
            let lane_clean = clean.contains(&row.lane);
            match Job::try_from(row) {
                Ok(job) => claimed.push(Claimed { job, now, lane_clean }),
                // One unreadable row must not fail its neighbours. Its lease runs out by itself.
                Err(error) => {
                    tracing::error!(job = %id, %error, "A claimed job cannot be read from the \
                        database.")
                }
            }
        }
        Ok(claimed)
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
        each(outcomes, |outcomes| D::record(self, outcomes)).await
    }

    async fn reclaim(&self) -> Result<u64> {
        self.run(|store| store.sql("reclaim")).await
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
            Box::pin(async move {
                let few = store.sql("lock_open_jobs").bind("lane", lane).bind("most", most);
                let few: Vec<IdRow> = few.all(conn).await?;
                if few.is_empty() {
                    return Ok(0);
                }
                let ids = few.into_iter().map(|row| row.id);
                finished(conn, &store, store.sql("cancel_jobs").list("ids", ids)).await
            })
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
            (revived, was_dead)
        }
        Retry::All { state, handler } => {
            let retry = store.sql("retry_all").bind("state", state.as_str());
            let retry = match state {
                // A job that waits for its first attempt is not being retried.
                JobState::Pending => retry.then(" AND attempt > 0"),
                _ => retry,
            };
            let retry = retry.and(" AND target_name = :handler", "handler", handler.clone());
            let retried = retry.run(conn).await?;
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

async fn claim<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    request: &ClaimRequest,
    picked: Vec<String>,
) -> sqlx::Result<(Vec<DueRow>, BTreeSet<String>)> {
    let turns: HashMap<String, usize> =
        picked.iter().enumerate().map(|(turn, id)| (id.clone(), turn)).collect();
    let rows: Vec<LaneRow> = store.sql("lock_lanes").list("ids", picked).all(conn).await?;
    let mut lanes: Vec<LockedLane> = rows.into_iter().map(LockedLane::from).collect();
    lanes.sort_by_key(|l| turns.get(&l.lane.id.0).copied());

    let mut sharing = request.slots.among(lanes.len());
    let mut wants = Vec::with_capacity(lanes.len());
    for locked in &lanes {
        let most = allowed(locked, sharing.most(&locked.lane));
        sharing.took(&locked.lane, most);
        if most > 0 {
            wants.push(Want { lane: locked.lane.id.0.clone(), most });
        }
    }
    if wants.is_empty() {
        return Ok((Vec::new(), BTreeSet::new()));
    }
    let take = Take { wants: &wants, only: &request.only, lease_ms: millis(request.lease) };
    let taken = D::take(store, conn, take).await?;

    let interrupted: Vec<&DueRow> = taken.iter().filter(|row| row.was == "leased").collect();
    if !interrupted.is_empty() {
        let attempts = interrupted_rows(&interrupted);
        store.sql("insert_attempts").bind("rows", attempts).run(conn).await?;
    }
    let mut of_lane: HashMap<&str, u32> = HashMap::new();
    for row in &taken {
        *of_lane.entry(row.lane.as_str()).or_default() += 1;
    }
    let after: Vec<Lane> = lanes
        .iter()
        .map(|l| served(l, of_lane.get(l.lane.id.0.as_str()).copied().unwrap_or(0), request.lease))
        .collect();
    update_lanes(conn, store, &after).await?;
    let clean =
        lanes.into_iter().filter(|l| l.lane.breaker.is_clean()).map(|l| l.lane.id.0).collect();
    Ok((taken, clean))
}

/// How many jobs the lane may give now: limited by `most`, its pause, its breaker and its rate
/// limit.
fn allowed(locked: &LockedLane, most: u32) -> u32 {
    let LockedLane { lane, now } = locked;
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
    let LockedLane { lane, now } = locked;
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
