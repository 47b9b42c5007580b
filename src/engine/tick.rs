//! Housekeeping, and due work with it. Calling `tick` regularly is enough to run everything.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::parked::ParkedLanes;
use super::{Budget, Engine, Worked};
use crate::model::FailureCode;
use crate::model::{EventId, Failure, LaneId};
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
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// How much work one tick did. A tick that found nothing to do equals the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ticked {
    /// Wake-ups that were sent for due or soon due jobs.
    pub hinted: u64,
    /// Deliveries that became dead because their event's time to live had passed.
    pub expired: u64,
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
}

#[derive(Debug, Default)]
struct Pruning {
    from: Option<EventId>,
    not_before: Option<Instant>,
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
        let hinted = self.send_hints().await?;
        let chores = store.chores(self.config().worker.retention).await?;
        let expired = if chores.expire { repeat(|| self.expire()).await? } else { 0 };
        let pruned = if chores.prune { self.prune().await? } else { 0 };
        let forgotten =
            if chores.forget { repeat(|| store.forget_keys(PER_TRANSACTION)).await? } else { 0 };
        self.sweep_lanes().await?;
        if self.is_time_for_parked() {
            self.find_parked().await?;
        }
        let worked = if budget.jobs > 0 { self.work(budget).await? } else { Worked::default() };
        Ok(Ticked { hinted, expired, pruned, forgotten, worked })
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

    /// Deletes events that are older than the retention, in small transactions. A pass that does
    /// not finish continues in the next tick.
    async fn prune(&self) -> Result<u64> {
        let housekeeping = &self.0.housekeeping;
        let lock = || housekeeping.prune.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().not_before.is_some_and(|at| Instant::now() < at) {
            return Ok(0);
        }
        let mut pruned = 0;
        for _ in 0..TRANSACTIONS_MAX {
            let from = lock().from;
            let (gone, next) =
                self.store().prune(self.config().worker.retention, from, PER_TRANSACTION).await?;
            pruned += gone;
            let mut pruning = lock();
            pruning.from = next;
            if next.is_none() {
                pruning.not_before = Some(Instant::now() + PRUNE_EVERY);
                break;
            }
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
