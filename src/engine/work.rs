//! Working jobs off: claim, execute, record, until nothing is due or the budget is used up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use super::inflight::Handed;
use super::worker::{Stays, Worker};
use crate::decide::settle::Finish;
use crate::model::{Event, EventId, JobId, Lease, Run, RunId};
use crate::observe::metrics;
use crate::store::{ClaimRequest, Claimed, Result};

/// A store that went away is asked again after this.
pub(super) const STORE_AGAIN: Duration = Duration::from_millis(500);

/// How much may be done.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Jobs side by side.
    pub parallel: u32,
    /// Jobs in all.
    pub jobs: u64,
    /// Nothing is claimed after this.
    pub until: Option<Instant>,
    /// Calls have ended by then; those that take longer time out.
    pub end: Option<Instant>,
}

impl Budget {
    /// So many jobs side by side, without an end.
    pub const fn endless(parallel: u32) -> Self {
        Self { parallel, jobs: u64::MAX, until: None, end: None }
    }

    /// No work at all.
    pub const NONE: Self = Self { parallel: 0, jobs: 0, until: None, end: None };
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Worked {
    /// Delivered.
    pub done: u64,
    /// Due again later.
    pub retried: u64,
    /// Given up.
    pub dead: u64,
    /// Handed back untouched.
    pub released: u64,
    /// Finished too late: someone else has them.
    pub stale: u64,
    /// There may be more due work than the budget allowed for.
    pub more: bool,
}

/// What a look has found.
pub(super) struct Found {
    /// Jobs under lease, with what they need.
    pub(super) jobs: Vec<Handed>,
    /// Some lane could give nothing when it was asked: it, or its tenant, held as much as it may.
    pub(super) limited: bool,
}

/// What claimed jobs need: their events, and the runs of steps.
type Needs = (BTreeMap<EventId, Arc<Event>>, BTreeMap<RunId, Arc<Run>>);

/// A lease in hand, put down when this goes.
struct LeaseGuard<'a> {
    engine: &'a Engine,
    lease: Lease,
}

impl Drop for LeaseGuard<'_> {
    fn drop(&mut self) {
        self.engine.0.inflight.put_down(self.lease);
    }
}

impl Worked {
    pub(super) fn count(&mut self, ended: Option<Finish>) {
        match ended {
            Some(Finish::Done | Finish::FailedIntoRun { .. }) => self.done += 1,
            Some(Finish::Retry { .. }) => self.retried += 1,
            Some(Finish::Dead { .. }) => self.dead += 1,
            Some(Finish::Released) => self.released += 1,
            None => self.stale += 1,
        }
    }
}

impl Engine {
    /// Works due jobs off. Returns when nothing is due and nothing is under way, when the budget is used up,
    /// or when the engine drains.
    ///
    /// # Errors
    /// The store does not answer, and nothing was under way.
    pub async fn work(&self, budget: Budget) -> Result<Worked> {
        self.work_on(&[], budget).await
    }

    /// The same, these jobs first.
    ///
    /// # Errors
    /// As [`Engine::work`].
    pub async fn work_on(&self, hint: &[JobId], budget: Budget) -> Result<Worked> {
        Worker::new(self, budget, hint.to_vec(), Stays::WhileThereIsWork).run().await
    }

    /// Works jobs off as they come, until the engine drains: a store that is away is waited for.
    pub async fn work_until_drained(&self, budget: Budget) {
        self.open_worker(budget.parallel);
        // A worker that stays has no error of its own: it asks again.
        let _ = Worker::new(self, budget, Vec::new(), Stays::UntilDrained).run().await;
    }

    /// Takes due jobs with their events. Nothing is taken that cannot start now.
    pub(super) async fn claim(&self, parallel: u32, free: u32, hint: &[JobId]) -> Result<Found> {
        self.refresh_leases().await?;
        let slots = self.0.inflight.slots(parallel, free.min(self.config().worker.batch));
        let full = self.0.inflight.full_lanes(&slots);
        let limited = !full.is_empty();
        let skip = full.into_iter().chain(self.0.housekeeping.unserved()).collect();
        let ask = ClaimRequest { skip, slots, lease: self.0.lease, of: hint.to_vec() };
        let claimed = self.health().learn(self.store().claim(&ask).await)?;
        if claimed.is_empty() {
            return Ok(Found { jobs: Vec::new(), limited });
        }
        for claimed in &claimed {
            self.0.inflight.take(&claimed.job);
        }
        let (events, runs) = self.needs(&claimed).await?;
        let mut ready = Vec::with_capacity(claimed.len());
        for claimed in claimed.into_iter().filter(|c| self.0.inflight.holds(c.job.lease())) {
            match events.get(&claimed.job.event) {
                Some(event) => {
                    let run = claimed.job.target.visiting().and_then(|visiting| runs.get(&visiting.run)).cloned();
                    ready.push(Handed { claimed, event: Arc::clone(event), run });
                }
                None => {
                    tracing::error!(job = %claimed.job.id, event = %claimed.job.event, "A job's event is gone.");
                    self.0.inflight.put_down(claimed.job.lease());
                }
            }
        }
        Ok(Found { jobs: ready, limited })
    }

    /// The events of claimed jobs, and the runs of steps. A store that goes away in between is waited for, because jobs that were
    /// claimed and put down untried would look like those of a worker that died.
    async fn needs(&self, claimed: &[Claimed]) -> Result<Needs> {
        let events: Vec<EventId> = claimed.iter().map(|c| c.job.event).collect();
        let runs: Vec<RunId> = claimed.iter().filter_map(|c| c.job.target.visiting()).map(|v| v.run).collect();
        let store = self.store();
        loop {
            let found = async { Ok((store.events_by_id(&events).await?, store.runs_by_id(&runs).await?)) };
            match self.health().learn(found.await) {
                Ok((events, runs)) => {
                    let events = events.into_iter().map(|(id, event)| (id, Arc::new(event))).collect();
                    return Ok((events, runs.into_iter().map(|(id, run)| (id, Arc::new(run))).collect()));
                }
                Err(error) if !error.is_passing() || self.is_draining() => {
                    claimed.iter().for_each(|c| self.0.inflight.put_down(c.job.lease()));
                    return Err(error);
                }
                Err(_) => {
                    tokio::time::sleep(STORE_AGAIN).await;
                    // Leases that were lost meanwhile are put down by this; their jobs are not run.
                    let _ = self.extend_leases().await;
                }
            }
        }
    }

    /// One job from its claim to its record; what became of it, or `None` when the lease was lost.
    pub(super) async fn work_one(&self, Handed { claimed, event, run }: Handed, end: Option<Instant>) -> Option<Finish> {
        // However this ends, a panic included: what is no longer worked on is no longer extended.
        let _held = LeaseGuard { engine: self, lease: claimed.job.lease() };
        if claimed.job.attempt == 0 {
            metrics::waited(claimed.now.since(claimed.job.created_at));
        }
        let ran = self.execute(&claimed.job, &event, run, end).await;
        self.0.inflight.ends(claimed.job.lease());
        self.record(&claimed, &event, ran).await
    }
}
