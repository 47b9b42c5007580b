//! Housekeeping, and due work with it. Calling `tick` regularly is enough to run everything.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::notices::Notice;
use super::parked::ParkedLanes;
use super::{Budget, Engine, Worked};
use crate::model::FailureCode;
use crate::model::{EventId, Failure, LaneId, OldestKept};
use crate::observe::feed::{FeedEvent, Next};
use crate::observe::metrics;
use crate::store::Result;
use crate::wake::Wakeup;

/// How many rows one transaction of a chore handles, so that no lock is held for long.
pub(super) const PER_TRANSACTION: u32 = 500;
/// How many lanes a tick looks through for work that nobody would find.
const LANES_PER_SWEEP: u32 = 500;
/// How many transactions one chore may use in one tick, so that no tick takes long.
const TRANSACTIONS_MAX: u32 = 20;
/// The pause between two passes over the old events.
const PRUNE_EVERY: Duration = Duration::from_secs(10);
/// The pause between two passes that look again at events which were kept: for work that had not
/// ended, or that is kept longer than other work.
const PRUNE_ALL_EVERY: Duration = Duration::from_secs(3600);
/// The pause between two looks for messages of pull queues that nobody acknowledged. A receive
/// finds those of its queue itself.
const BURY_EVERY: Duration = Duration::from_secs(30);
/// How long one tick deletes old events. What is left then is for the next one.
const PRUNE_TIME_MAX: Duration = Duration::from_secs(2);

/// How much work one tick did. A tick that found nothing to do equals the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ticked {
    /// Wake-ups that were sent for due or soon due jobs.
    pub hinted: u64,
    /// Deliveries that became dead because their event's time to live had passed.
    pub expired: u64,
    /// Messages of pull queues that became dead because nobody acknowledged them in time.
    pub buried: u64,
    /// Old events that were deleted, with their jobs, attempts and runs.
    pub pruned: u64,
    /// Idempotency keys that were deleted because their time had passed.
    pub forgotten: u64,
    /// The jobs that this tick executed; all zero if the budget allowed none.
    pub worked: Worked,
}

/// The state that housekeeping keeps between two ticks.
#[derive(Debug, Default)]
pub struct Housekeeping {
    prune: Mutex<Pruning>,
    /// Where the look for lanes with overlooked work goes on.
    sweep: Mutex<Option<LaneId>>,
    pub(super) parked: Mutex<ParkedLanes>,
    buried_at: Mutex<Option<Instant>>,
}

/// Where deleting old events stands.
#[derive(Debug, Default, Clone)]
struct Pruning {
    /// A pass that did not get to its end, and what the counts kept when it began.
    pass: Option<OldestKept>,
    /// The last event that was looked at. Those before it are gone or kept on purpose.
    from: Option<EventId>,
    not_before: Option<Instant>,
    /// When a pass begins at the first event again.
    all_at: Option<Instant>,
}

impl Housekeeping {
    /// The lanes that this process does not serve. Claims skip them.
    pub fn unserved(&self) -> Vec<LaneId> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner).unserved.clone()
    }
}

impl Engine {
    /// Runs housekeeping, and executes due jobs within the budget.
    ///
    /// # Errors
    /// The store does not answer. The next tick does what this one left.
    pub async fn tick(&self, budget: Budget) -> Result<Ticked> {
        metrics::compact_histograms();
        for (lane, left_out) in self.0.retries.over() {
            tracing::info!(%lane, left_out, "More deliveries of this lane failed and will be \
                retried. Their log lines were omitted.");
        }
        self.store_rejections().await?;
        let store = self.store();
        // First, so that this tick announces what it finds.
        self.sweep_lanes().await?;
        let hinted = self.send_hints().await?;
        let chores = store.chores(&self.config().worker.retention).await?;
        let expired = if chores.expire { repeat(|| self.expire()).await? } else { 0 };
        let pruned = if chores.prune { self.prune().await? } else { 0 };
        let buried = if self.is_time_to_bury() { self.bury_messages().await? } else { 0 };
        let forgotten =
            if chores.forget { repeat(|| store.forget_keys(PER_TRANSACTION)).await? } else { 0 };
        if self.is_time_for_parked() {
            self.arm_crons(false).await?;
            self.find_parked().await?;
        }
        let worked = if budget.jobs > 0 { self.work(budget).await? } else { Worked::default() };
        Ok(Ticked { hinted, expired, buried, pruned, forgotten, worked })
    }

    /// Whether messages that nobody acknowledged are to be looked for. If so, a new interval
    /// begins.
    fn is_time_to_bury(&self) -> bool {
        if self.config().queues.is_empty() {
            return false;
        }
        let mut at = self.0.housekeeping.buried_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = at.is_none_or(|at| at.elapsed() >= BURY_EVERY);
        if is_time {
            *at = Some(Instant::now());
        }
        is_time
    }

    /// Looks through one page of lanes for work that nobody would find.
    async fn sweep_lanes(&self) -> Result<()> {
        let sweep = || self.0.housekeeping.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        let from = sweep().clone();
        let (found, next) = self.store().sweep_lanes(from, LANES_PER_SWEEP).await?;
        *sweep() = next;
        if found > 0 {
            tracing::warn!(
                lanes = found,
                "Due work was found that no worker looked for. This is expected while an older \
                    version of tidehook works on the same database; otherwise report it."
            );
        }
        Ok(())
    }

    /// Makes deliveries dead whose event's time to live has passed, and reports each of them.
    async fn expire(&self) -> Result<u64> {
        let expired = self.store().expire(PER_TRANSACTION).await?;
        if expired.is_empty() {
            return Ok(0);
        }
        self.tell(Notice::expired(expired.len())).await;
        let ids: Vec<EventId> = expired.iter().map(|job| job.event).collect();
        let events = self.store().events_by_id(&ids).await?;
        for job in &expired {
            let (event, handler) = (job.event, job.target.name().to_owned());
            metrics::dead(&handler);
            tracing::warn!(
                job = %job.id, %event, handler, code = %FailureCode::Expired,
                "A delivery is dead: the time to live of its event has passed.",
            );
            let source = events.get(&event).map_or(String::new(), |event| event.source.clone());
            let (id, attempt, error) = (job.id, job.attempt, Some(Failure::Expired.to_string()));
            let (status, took, next) = (None, Duration::ZERO, Next::Dead);
            self.feed().publish(|| FeedEvent::Tried {
                event,
                source,
                job: id,
                handler,
                attempt,
                status,
                error,
                took,
                next,
            });
        }
        Ok(u64::try_from(expired.len()).unwrap_or(u64::MAX))
    }

    /// Deletes events that are past their retention, in small transactions. A pass goes on where
    /// the one before it ended, so that it costs nothing to keep what is kept; once an hour it
    /// begins at the first event. What a tick has no time for is left to the next one.
    async fn prune(&self) -> Result<u64> {
        let retention = &self.config().worker.retention;
        let lock = || self.0.housekeeping.prune.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pruning = lock().clone();
        let began = Instant::now();
        if pruning.not_before.is_some_and(|at| began < at) {
            return Ok(0);
        }
        let kept = match pruning.pass {
            Some(kept) => kept,
            None => {
                if pruning.all_at.is_none_or(|at| began >= at) {
                    pruning.from = None;
                    pruning.all_at = Some(began + PRUNE_ALL_EVERY);
                }
                match retention.counts() {
                    true => self.store().oldest_kept(retention).await?,
                    false => OldestKept::default(),
                }
            }
        };
        pruning.pass = Some(kept);
        let mut pruned = 0;
        while pruning.pass.is_some() && began.elapsed() < PRUNE_TIME_MAX {
            let (gone, next) =
                self.store().prune(retention, &kept, pruning.from, PER_TRANSACTION).await?;
            pruned += gone;
            match next {
                Some(next) => pruning.from = Some(next),
                None => {
                    pruning.pass = None;
                    pruning.not_before = Some(Instant::now() + PRUNE_EVERY);
                }
            }
            *lock() = pruning.clone();
        }
        Ok(pruned)
    }

    /// Sends wake-ups for jobs that are due or soon will be. It does nothing where workers poll the
    /// store all the time.
    async fn send_hints(&self) -> Result<u64> {
        let Some(horizon) = self.0.parts.wake.horizon() else { return Ok(0) };
        let mut count = 0;
        for _ in 0..TRANSACTIONS_MAX {
            let found = self.store().hints(horizon, PER_TRANSACTION).await?;
            count += u64::try_from(found.len()).unwrap_or(u64::MAX);
            let due: Vec<Wakeup> =
                found.iter().map(|hinted| Wakeup::of(hinted.job, hinted.after)).collect();
            self.notify_workers(&due).await;
            if found.len() < PER_TRANSACTION as usize {
                break;
            }
        }
        Ok(count)
    }
}

/// Repeats a chore until it finds less than a full batch, at most `TRANSACTIONS_MAX` times. Returns
/// how many rows it handled.
async fn repeat<F: Future<Output = Result<u64>>>(chore: impl Fn() -> F) -> Result<u64> {
    repeat_at_most(TRANSACTIONS_MAX, chore).await
}

/// Repeats a chore until it finds less than a full batch, at most `times` times. Returns how many
/// rows it handled.
pub(super) async fn repeat_at_most<F: Future<Output = Result<u64>>>(
    times: u32,
    chore: impl Fn() -> F,
) -> Result<u64> {
    let mut total = 0;
    for _ in 0..times {
        let done = chore().await?;
        total += done;
        if done < u64::from(PER_TRANSACTION) {
            break;
        }
    }
    Ok(total)
}
