//! The `Work` verbs in SQL: claim through lanes, extend leases, record outcomes; retry, cancel and
//! expire jobs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::dialect::Dialect;
use super::intake::count;
use super::outcomes::{attempt_rows, ids, interrupted_rows, jobs, lease_rows, record_rows};
use super::record::record;
use super::rows::{DueRow, IdRow, JobRow, LaneRow};
use super::statement::{Rows, sql};
use super::{Extent, SqlStore, each, timestamp};
use crate::decide::breaker::{self, Allows};
use crate::decide::rate;
use crate::decide::settle::JobOutcome;
use crate::model::lane::{Breaker, Bucket};
use crate::model::time::millis;
use crate::model::{Job, JobId, JobState, Lane, LaneId, Lease, Timestamp};
use crate::store::error::{Error, Result};
use crate::store::{ClaimRequest, Claimed, Each, Retry, Work};

/// The columns of a lane, and the database's clock.
macro_rules! lane_columns {
    () => {
        "id, tenant, paused, failures, open_until, probe_until, ramp, rate, tokens, refilled_at, \
         turn, rules, {now} AS now"
    };
}

// Tenants take turns, then their lanes, the least recently served first. `MIN(due_at)` instead of
// EXISTS: a planner may turn EXISTS into a scan of all open jobs.
pub(super) const PICK_LANES: &str =
    "SELECT id FROM (SELECT id, turn, ROW_NUMBER() OVER (PARTITION BY tenant
        ORDER BY turn, id) AS place FROM lanes
    WHERE paused = 0 AND (open_until IS NULL OR open_until <= {now})
        AND (probe_until IS NULL OR probe_until <= {now})
    AND NOT (id {any})
    AND (SELECT MIN(jobs.due_at) FROM jobs WHERE jobs.lane = lanes.id
        AND jobs.finished_at IS NULL) <= {now}) AS due
    ORDER BY place, turn, id LIMIT ?";
// The lanes of named jobs that are due, in the same order.
pub(super) const PICK_LANES_OF: &str = "SELECT id FROM lanes
    WHERE paused = 0 AND (open_until IS NULL OR open_until <= {now})
        AND (probe_until IS NULL OR probe_until <= {now})
    AND NOT (id {any}) AND id IN (SELECT lane FROM jobs WHERE id {any} AND finished_at IS NULL
        AND due_at <= {now})
    ORDER BY turn, id LIMIT ?";
// Locked in the order of their ids, so that two claims cannot deadlock.
pub(super) const LOCK_LANES: &str =
    concat!("SELECT ", lane_columns!(), " FROM lanes WHERE id {any} ORDER BY id {lock}");
const UPDATE_LANES: &str = "UPDATE lanes
        SET failures = r.failures, open_until = r.open_until, probe_until = r.probe_until,
    ramp = r.ramp, tokens = r.millitokens / 1000.0, refilled_at = r.refilled_at, turn = r.turn
    FROM {rows: lane text, failures int, open_until int, probe_until int, ramp int,
        millitokens int, refilled_at int, turn int} AS r
    WHERE {only lanes.id} AND lanes.id = r.lane";
pub(super) const INSERT_ATTEMPTS: &str =
    "INSERT INTO attempts (job_id, claim, number, ending, code, status, error, duration_ms,
        response, at)
    SELECT r.job_id, r.claim, r.number, r.ending, r.code, r.status, r.error, r.duration_ms,
        r.response, {now}
    FROM {rows: job_id text, claim int, number int, ending text, code text, status int, error text,
        duration_ms int, response bytes} AS r
    WHERE true
    ON CONFLICT (job_id, claim) DO UPDATE
        SET number = excluded.number, ending = excluded.ending, code = excluded.code,
    status = excluded.status, error = excluded.error, duration_ms = excluded.duration_ms,
        response = excluded.response, at = excluded.at
    WHERE attempts.ending = 'interrupted'";
// Finds records that were committed although their answer was lost: the claim is still the last
// one, and the job is not leased any more.
pub(super) const RECORDED: &str =
    "SELECT jobs.id FROM {rows: job text, token int} AS r JOIN jobs ON jobs.id = r.job
    WHERE {only jobs.id} AND jobs.claim = r.token AND jobs.state <> 'leased'";
/// `due_at` of a leased job is the end of its lease: from then on it may be claimed again.
pub(super) const EXTEND: &str = "UPDATE jobs SET due_at = {now} + ?
        FROM {rows: job text, token int} AS r
    WHERE {only jobs.id} AND jobs.id = r.job AND jobs.claim = r.token AND jobs.state = 'leased'
        RETURNING jobs.id";
// `after` moves the due time, `ended` is 0 for a job that ends here and null for one that goes on.
pub(super) const RECORD: &str =
    "UPDATE jobs SET state = r.next, attempt = r.sent, lost = jobs.lost + r.lost,
        due_at = {now} + r.after,
    finished_at = {now} + r.ended, last_error = COALESCE(r.error, jobs.last_error)
    FROM {rows: job text, token int, next text, sent int, after int, lost int, ended int,
        error text} AS r
    WHERE {only jobs.id} AND jobs.id = r.job AND jobs.claim = r.token AND jobs.state = 'leased'
        RETURNING jobs.id";
const RECLAIM: &str = "UPDATE jobs SET due_at = {now} WHERE state = 'leased'
        AND finished_at IS NULL AND due_at > {now}";
const RETRY_ONE: &str =
    "UPDATE jobs SET state = 'pending', attempt = 0, lost = 0, deaths = 0, due_at = {now},
        finished_at = NULL, expires_at = NULL
    WHERE id = ? AND state = ? RETURNING id";
const RETRY_ALL: &str =
    "UPDATE jobs SET state = 'pending', attempt = 0, lost = 0, deaths = 0, due_at = {now},
        finished_at = NULL, expires_at = NULL
    WHERE state = ?";
const BEGIN_SEND: &str = "UPDATE jobs SET begun = claim FROM {rows: job text, token int} AS r
    WHERE {only jobs.id} AND jobs.id = r.job AND jobs.claim = r.token AND jobs.state = 'leased'
        RETURNING jobs.id";
const CANCEL: &str = "UPDATE jobs SET state = 'cancelled', claim = claim + 1, finished_at = {now}
    WHERE id = ? AND finished_at IS NULL RETURNING id";
// MATERIALIZED: a locking sub-select may run again for each row and pick other rows each time.
const CANCEL_OF: &str = "WITH few AS MATERIALIZED
    (SELECT id FROM jobs WHERE lane = ? AND finished_at IS NULL ORDER BY due_at LIMIT ? {lock})
    UPDATE jobs SET state = 'cancelled', claim = claim + 1, finished_at = {now}
    WHERE finished_at IS NULL AND id IN (SELECT id FROM few) RETURNING id";
pub(super) const EXPIRED: &str =
    "SELECT id FROM jobs WHERE finished_at IS NULL AND expires_at <= {now} AND state = 'pending'
    ORDER BY expires_at LIMIT ?";
const EXPIRE: &str = "UPDATE jobs
        SET state = 'dead', claim = claim + 1, finished_at = {now}, last_error = 'event TTL expired'
    WHERE id {any} AND finished_at IS NULL AND expires_at <= {now} AND state = 'pending'
    RETURNING id, event_id, target_kind, target_name, state, attempt, lost, deaths, claim, due_at,
        created_at, finished_at, last_error";

pub(super) const ALL: &[&str] = &[
    PICK_LANES,
    PICK_LANES_OF,
    LOCK_LANES,
    UPDATE_LANES,
    INSERT_ATTEMPTS,
    RECORDED,
    EXTEND,
    RECORD,
    RECLAIM,
    RETRY_ONE,
    RETRY_ALL,
    CANCEL_OF,
    BEGIN_SEND,
    CANCEL,
    EXPIRED,
    EXPIRE,
];

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
impl<D: Dialect> Work for SqlStore<D> {
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
                    let clock = store.clock();
                    let skip = request.skip.iter().map(|l| l.0.clone());
                    let pick = match request.only.is_empty() {
                        true => sql::<D>(PICK_LANES).bind(clock).bind(clock).list(skip).bind(clock),
                        false => sql::<D>(PICK_LANES_OF)
                            .bind(clock)
                            .bind(clock)
                            .list(skip)
                            .list(named(&request))
                            .bind(clock),
                    };
                    let rows: Vec<IdRow> =
                        pick.bind(i64::from(request.slots.most)).all(conn).await?;
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
                Box::pin(async move { claim::<D>(conn, &store, &request, picked).await })
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
                            let extend = sql::<D>(EXTEND).bind(store.clock()).bind(millis(by));
                            extend
                                .rows(lease_rows(&leases))
                                .only(jobs(&leases))
                                .all::<IdRow>(conn)
                                .await
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
            .write(move |_, conn| {
                let begin = sql::<D>(BEGIN_SEND).rows(lease_rows(&[lease])).only(jobs(&[lease]));
                Box::pin(async move { begin.all::<IdRow>(conn).await })
            })
            .await?;
        Ok(!marked.is_empty())
    }

    async fn record(&self, outcomes: &[JobOutcome]) -> Each<()> {
        each(outcomes, |outcomes| {
            let store = self.clone();
            async move {
                let recorded_ids = match D::RECORD {
                    Some(text)
                        if outcomes.iter().all(|c| c.lane_fact.is_none() && c.change.is_none()) =>
                    {
                        store.record_alone(text, &outcomes).await?
                    }
                    _ => BTreeSet::new(),
                };
                if recorded_ids.len() == outcomes.len() {
                    return Ok(vec![Ok(()); outcomes.len()]);
                }
                let rest: Arc<[JobOutcome]> = outcomes
                    .iter()
                    .filter(|c| !recorded_ids.contains(&c.lease.job.to_string()))
                    .cloned()
                    .collect();
                let whole = rest.len() == outcomes.len();
                let answers = store
                    .write(move |store, conn| {
                        let outcomes = rest.clone();
                        Box::pin(async move { record::<D>(conn, &store, &outcomes).await })
                    })
                    .await?;
                if whole {
                    return Ok(answers);
                }
                let mut answers = answers.into_iter();
                let answer = |c: &JobOutcome| match recorded_ids.contains(&c.lease.job.to_string())
                {
                    true => Ok(()),
                    false => answers.next().unwrap_or(Err(Error::LeaseLost)),
                };
                Ok(outcomes.iter().map(answer).collect())
            }
        })
        .await
    }

    async fn reclaim(&self) -> Result<u64> {
        self.run(|store| sql::<D>(RECLAIM).bind(store.clock()).bind(store.clock())).await
    }

    async fn retry(&self, which: &Retry) -> Result<u64> {
        let which = which.clone();
        self.write(move |store, conn| {
            let which = which.clone();
            Box::pin(async move { retry::<D>(conn, &store, &which).await })
        })
        .await
    }

    async fn cancel(&self, job: JobId) -> Result<bool> {
        self.ending(move |store| sql::<D>(CANCEL).bind(store.clock()).bind(job.to_string()))
            .await
            .map(|n| n > 0)
    }

    async fn cancel_handler_jobs(&self, handler: &str, most: u32) -> Result<u64> {
        let lane = LaneId::handler(handler).0;
        self.ending(move |store| {
            sql::<D>(CANCEL_OF).bind(lane.clone()).bind(i64::from(most)).bind(store.clock())
        })
        .await
    }

    async fn expire(&self, most: u32) -> Result<Vec<Job>> {
        // First without a transaction: there is rarely anything to expire.
        let found = self
            .read(move |store, conn| {
                let expired = sql::<D>(EXPIRED).bind(store.clock()).bind(i64::from(most));
                Box::pin(async move { expired.all::<IdRow>(conn).await })
            })
            .await?;
        let found: Vec<String> = found.into_iter().map(|row| row.id).collect();
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<JobRow> = self
            .write(move |store, conn| {
                let expire = sql::<D>(EXPIRE).bind(store.clock()).list(&found).bind(store.clock());
                Box::pin(async move {
                    let rows: Vec<JobRow> = expire.all(conn).await?;
                    let by = i64::try_from(rows.len()).unwrap_or(i64::MAX);
                    count::<D>(
                        conn,
                        store.shard(),
                        &mut BTreeMap::from([("finished", by), ("dead", by)]),
                    )
                    .await?;
                    Ok(rows)
                })
            })
            .await?;
        rows.into_iter().map(Job::try_from).collect()
    }
}

impl<D: Dialect> SqlStore<D> {
    /// Records outcomes that concern no breaker and no run, in one statement. Answers the jobs that
    /// still held their lease.
    async fn record_alone(
        &self,
        text: &'static str,
        outcomes: &Arc<[JobOutcome]>,
    ) -> Result<BTreeSet<String>> {
        let outcomes = Arc::clone(outcomes);
        let rows = self
            .run_owned(Extent::Statement, move |store, conn| {
                let attempts: Vec<(&JobOutcome, bool)> =
                    outcomes.iter().filter(|c| c.attempt.is_some()).map(|c| (c, true)).collect();
                let clock = store.clock();
                let record = sql::<D>(text)
                    .rows(record_rows(&outcomes))
                    .bind(clock)
                    .bind(clock)
                    .only(ids(&outcomes));
                let record = record.bind(clock).rows(attempt_rows(&attempts)).bind(store.shard());
                Box::pin(async move { record.all::<IdRow>(conn).await })
            })
            .await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Runs one statement in a transaction of its own. Answers how many rows it changed.
    pub(super) async fn run(
        &self,
        build: impl Fn(&Self) -> super::statement::Sql<D> + Send + Sync + 'static,
    ) -> Result<u64> {
        self.write(move |store, conn| {
            let statement = build(&store);
            Box::pin(async move { statement.run(conn).await })
        })
        .await
    }

    /// Runs a statement that finishes jobs and returns their ids, and updates the totals.
    async fn ending(
        &self,
        build: impl Fn(&Self) -> super::statement::Sql<D> + Send + Sync + 'static,
    ) -> Result<u64> {
        self.write(move |store, conn| {
            let statement = build(&store);
            Box::pin(async move { end_jobs::<D>(conn, store.shard(), statement).await })
        })
        .await
    }
}

async fn end_jobs<D: Dialect>(
    conn: &mut D::Connection,
    shard: i64,
    statement: super::statement::Sql<D>,
) -> sqlx::Result<u64> {
    let ended = statement.all::<IdRow>(conn).await?.len();
    let by = i64::try_from(ended).unwrap_or(i64::MAX);
    count::<D>(conn, shard, &mut BTreeMap::from([("finished", by)])).await?;
    Ok(u64::try_from(ended).unwrap_or(u64::MAX))
}

async fn retry<D: Dialect>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    which: &Retry,
) -> sqlx::Result<u64> {
    let clock = store.clock();
    let (revived, was_dead) = match which {
        Retry::One(id) => {
            let mut revived = 0;
            let mut was_dead = 0;
            for state in [JobState::Dead, JobState::Cancelled] {
                let rows: Vec<IdRow> = sql::<D>(RETRY_ONE)
                    .bind(clock)
                    .bind(id.to_string())
                    .bind(state.as_str().to_owned())
                    .all(conn)
                    .await?;
                revived += rows.len();
                was_dead += if state == JobState::Dead { rows.len() } else { 0 };
            }
            (revived, was_dead)
        }
        Retry::All { state, handler } => {
            let statement = sql::<D>(RETRY_ALL).bind(clock).bind(state.as_str().to_owned());
            let statement = match state {
                // A job that waits for its first attempt is not being retried.
                JobState::Pending => statement.then(" AND attempt > 0"),
                _ => statement,
            };
            let rows: Vec<IdRow> = statement
                .and(" AND target_name = ?", handler.clone())
                .then(" RETURNING id")
                .all(conn)
                .await?;
            let dead = if *state == JobState::Dead { rows.len() } else { 0 };
            if *state == JobState::Pending {
                return Ok(u64::try_from(rows.len()).unwrap_or(u64::MAX));
            }
            (rows.len(), dead)
        }
    };
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut counts = BTreeMap::from([("created", number(revived)), ("dead", -number(was_dead))]);
    count::<D>(conn, store.shard(), &mut counts).await?;
    Ok(u64::try_from(revived).unwrap_or(u64::MAX))
}

fn named(request: &ClaimRequest) -> Vec<String> {
    request.only.iter().map(ToString::to_string).collect()
}

async fn claim<D: Dialect>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    request: &ClaimRequest,
    picked: Vec<String>,
) -> sqlx::Result<(Vec<DueRow>, BTreeSet<String>)> {
    let clock = store.clock();
    let turns: HashMap<String, usize> =
        picked.iter().enumerate().map(|(turn, id)| (id.clone(), turn)).collect();
    let rows: Vec<LaneRow> = sql::<D>(LOCK_LANES).bind(clock).list(picked).all(conn).await?;
    let mut lanes: Vec<LockedLane> = rows.into_iter().map(LockedLane::from).collect();
    lanes.sort_by_key(|l| turns.get(&l.lane.id.0).copied());

    let mut sharing = request.slots.among(lanes.len());
    let mut wants = Vec::with_capacity(lanes.len());
    for locked in &lanes {
        let want = allowed(locked, i64::from(sharing.most(&locked.lane)));
        sharing.took(&locked.lane, u32::try_from(want).unwrap_or(0));
        if want > 0 {
            wants.push((locked.lane.id.0.clone(), want));
        }
    }
    let lease_ms = millis(request.lease);
    let taken = D::take(conn, clock, lease_ms, &wants, &named(request)).await?;

    let interrupted: Vec<&DueRow> = taken.iter().filter(|row| row.was == "leased").collect();
    if !interrupted.is_empty() {
        sql::<D>(INSERT_ATTEMPTS)
            .bind(clock)
            .rows(interrupted_rows(&interrupted))
            .run(conn)
            .await?;
    }
    let mut of_lane: HashMap<&str, u32> = HashMap::new();
    for row in &taken {
        *of_lane.entry(row.lane.as_str()).or_default() += 1;
    }
    let after: Vec<Lane> = lanes
        .iter()
        .map(|l| served(l, of_lane.get(l.lane.id.0.as_str()).copied().unwrap_or(0), request.lease))
        .collect();
    update_lanes::<D>(conn, &after).await?;
    let clean =
        lanes.into_iter().filter(|l| l.lane.breaker.is_clean()).map(|l| l.lane.id.0).collect();
    Ok((taken, clean))
}

/// How many jobs the lane may give now: limited by `most`, its pause, its breaker and its rate
/// limit.
fn allowed(locked: &LockedLane, most: i64) -> i64 {
    let LockedLane { lane, now } = locked;
    if lane.paused || most <= 0 {
        return 0;
    }
    let most = match breaker::allows(&lane.breaker, *now) {
        Allows::NothingBefore(_) => 0,
        Allows::Probe => 1,
        Allows::All => most,
        Allows::AtMost(limit) => most.min(i64::from(limit)),
    };
    match &lane.bucket {
        None => most,
        Some(bucket) => most.min(i64::from(rate::available(&rate::refilled(bucket, *now)))),
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

pub(super) async fn update_lanes<D: Dialect>(
    conn: &mut D::Connection,
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
        .text(lanes.iter().map(|l| l.id.0.clone()))
        .int(breaker(|b| i64::from(b.failures)))
        .maybe_int(lanes.iter().map(|l| l.breaker.open_until.map(|t| t.0)))
        .maybe_int(lanes.iter().map(|l| l.breaker.not_before.map(|t| t.0)))
        .int(breaker(|b| i64::from(b.ramp)))
        .int(lanes.iter().map(|l| bucket(l, millitokens)))
        .int(lanes.iter().map(|l| bucket(l, |b| b.refilled_at.0)))
        .int(lanes.iter().map(|l| l.last_served_at.0));
    sql::<D>(UPDATE_LANES).rows(rows).only(lanes.iter().map(|l| l.id.0.clone())).run(conn).await
}
