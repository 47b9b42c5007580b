//! Housekeeping, and due work with it: `tick` alone is enough to run everything.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::parked::Known;
use super::{Budget, Engine, Worked};
use crate::model::{EventId, Failure, LaneId};
use crate::observe::feed::{FeedEvent, Next};
use crate::observe::metrics;
use crate::store::Result;
use crate::wake::Wakeup;

/// Rows per transaction.
pub(super) const PER_TRANSACTION: u32 = 500;
/// Transactions per tick and chore, so that no tick takes long.
const TRANSACTIONS_MAX: u32 = 20;
/// After a pass over all old events the next one starts this much later.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// What a tick did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ticked {
    /// Deliveries that workers were told of.
    pub hinted: u64,
    /// Deliveries whose time to live had passed.
    pub expired: u64,
    /// Events removed, with all that was theirs.
    pub pruned: u64,
    /// Idempotency keys removed.
    pub forgotten: u64,
    /// What was worked off.
    pub worked: Worked,
}

/// What one tick leaves to the next.
#[derive(Debug, Default)]
pub struct Housekeeping {
    prune: Mutex<Pruning>,
    pub(super) parked: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Pruning {
    from: Option<EventId>,
    not_before: Option<Instant>,
}

impl Housekeeping {
    /// The lanes that this process does not serve.
    pub fn unserved(&self) -> Vec<LaneId> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner).unserved.clone()
    }
}

impl Engine {
    /// Keeps house, and works due jobs off within the budget.
    ///
    /// # Errors
    /// The store does not answer; the next tick does what this one left.
    pub async fn tick(&self, budget: Budget) -> Result<Ticked> {
        metrics::fold();
        for (lane, left_out) in self.0.retries.over() {
            tracing::info!(%lane, left_out, "More deliveries of this lane failed and are tried again; lines about them were left out.");
        }
        self.store_rejections().await?;
        let store = self.store();
        let hinted = self.send_hints().await?;
        let chores = store.chores(self.config().worker.retention).await?;
        let expired = if chores.expire { repeat(|| self.expire()).await? } else { 0 };
        let pruned = if chores.prune { self.prune().await? } else { 0 };
        let forgotten = if chores.forget { repeat(|| store.forget_keys(PER_TRANSACTION)).await? } else { 0 };
        if self.is_time_for_parked() {
            self.find_parked().await?;
        }
        let worked = if budget.jobs > 0 { self.work(budget).await? } else { Worked::default() };
        Ok(Ticked { hinted, expired, pruned, forgotten, worked })
    }

    /// Gives up what nobody wants any more because its time has passed, and tells of each.
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
            tracing::warn!(job = %job.id, %event, handler, code = "expired", "A delivery is given up: its event's time to live has passed.");
            let source = events.get(&event).map_or(String::new(), |event| event.source.clone());
            let (id, attempt, error) = (job.id, job.attempt, Some(Failure::Expired.to_string()));
            let (status, took, next) = (None, Duration::ZERO, Next::Dead);
            self.feed().tell(|| FeedEvent::Tried { event, source, job: id, handler, attempt, status, error, took, next });
        }
        Ok(u64::try_from(expired.len()).unwrap_or(u64::MAX))
    }

    /// Removes what is kept no longer. One pass over old events at a time, in small steps.
    async fn prune(&self) -> Result<u64> {
        let housekeeping = &self.0.housekeeping;
        let lock = || housekeeping.prune.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().not_before.is_some_and(|at| Instant::now() < at) {
            return Ok(0);
        }
        let mut pruned = 0;
        for _ in 0..TRANSACTIONS_MAX {
            let from = lock().from;
            let (gone, next) = self.store().prune(self.config().worker.retention, from, PER_TRANSACTION).await?;
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

    /// Tells workers of what is due and of what soon will be, where they do not look for themselves all the time.
    async fn send_hints(&self) -> Result<u64> {
        let Some(horizon) = self.0.parts.wake.horizon() else { return Ok(0) };
        let mut count = 0;
        for _ in 0..TRANSACTIONS_MAX {
            let found = self.store().hints(horizon, PER_TRANSACTION).await?;
            count += u64::try_from(found.len()).unwrap_or(u64::MAX);
            let due: Vec<Wakeup> = found.iter().map(|hinted| Wakeup::of(hinted.job, hinted.after)).collect();
            self.tell(&due).await;
            if found.len() < PER_TRANSACTION as usize {
                break;
            }
        }
        Ok(count)
    }
}

/// Repeats a chore until it finds less than a full batch, and leaves the rest to the next tick.
async fn repeat<F: Future<Output = Result<u64>>>(chore: impl Fn() -> F) -> Result<u64> {
    repeat_at_most(TRANSACTIONS_MAX, chore).await
}

/// Repeats a chore until it finds less than a full batch, at most so many times; answers how much it did in all.
pub(super) async fn repeat_at_most<F: Future<Output = Result<u64>>>(times: u32, chore: impl Fn() -> F) -> Result<u64> {
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
