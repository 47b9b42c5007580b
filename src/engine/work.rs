//! Executes due jobs: claim, execute, record, until nothing is due or the budget is used up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use super::inflight::ReadyJob;
use super::worker::{StopWhen, Worker};
use crate::decide::settle::NextState;
use crate::model::{Event, EventId, JobId, Lease, Run, RunId, Target};
use crate::observe::metrics;
use crate::store::{ClaimRequest, Claimed, Result};

/// The pause before an unavailable store is asked again.
pub(super) const STORE_AGAIN: Duration = Duration::from_millis(500);

/// How much work one call may do, and until when.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// How many jobs may run at the same time.
    pub parallel: u32,
    /// How many jobs may be claimed in all.
    pub jobs: u64,
    /// No job is claimed after this instant; `None` means no limit.
    pub claim_until: Option<Instant>,
    /// Running calls end by this instant, with a timeout if need be; `None` means no limit.
    pub call_deadline: Option<Instant>,
}

impl Budget {
    /// A budget for this many jobs at a time, without any other limit.
    pub const fn endless(parallel: u32) -> Self {
        Self { parallel, jobs: u64::MAX, claim_until: None, call_deadline: None }
    }

    /// No job is claimed: a tick with this budget does housekeeping only.
    pub const NONE: Self = Self { parallel: 0, jobs: 0, claim_until: None, call_deadline: None };
}

/// How many jobs were worked off, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Worked {
    /// Jobs that finished: delivered, or with their result passed to a run, a final failure
    /// included.
    pub done: u64,
    /// Jobs that failed and are due again later.
    pub retried: u64,
    /// Jobs that were given up.
    pub dead: u64,
    /// Jobs whose lease was returned before they were tried; no attempt is counted for them.
    pub released: u64,
    /// Jobs whose lease was lost before their outcome was recorded. Another worker has them.
    pub stale: u64,
    /// Due jobs may be left that the budget did not allow for.
    pub more: bool,
}

/// The result of one look for due work.
pub(super) struct Found {
    /// The claimed jobs, each with its event and run.
    pub(super) jobs: Vec<ReadyJob>,
    /// A lane was skipped because it, or its tenant, already held as many slots as it may. When one
    /// of its jobs ends, another look pays.
    pub(super) share_full: bool,
}

/// What claimed jobs need before they can be executed: their events, and the runs of steps.
type Needs = (BTreeMap<EventId, Arc<Event>>, BTreeMap<RunId, Arc<Run>>);

/// Holds a lease while its job is executed. Dropping it, after a panic too, forgets the job, and
/// the lease is no longer extended.
struct LeaseGuard<'a> {
    engine: &'a Engine,
    lease: Lease,
}

impl Drop for LeaseGuard<'_> {
    fn drop(&mut self) {
        self.engine.0.inflight.forget(self.lease);
    }
}

impl Worked {
    pub(super) fn count(&mut self, ended: Option<NextState>) {
        match ended {
            Some(NextState::Done | NextState::FailedIntoRun { .. }) => self.done += 1,
            Some(NextState::Retry { .. }) => self.retried += 1,
            Some(NextState::Dead { .. }) => self.dead += 1,
            Some(NextState::Released) => self.released += 1,
            None => self.stale += 1,
        }
    }
}

impl Engine {
    /// Executes due jobs. Returns when nothing is due and nothing is in flight, when the budget is
    /// used up, or when the engine drains.
    ///
    /// # Errors
    /// The store did not answer before any job was executed.
    pub async fn work(&self, budget: Budget) -> Result<Worked> {
        self.work_on(&[], budget).await
    }

    /// Like [`Engine::work`], but takes the jobs in `claim_first` first. Functions pass the jobs
    /// that their messages name.
    ///
    /// # Errors As [`Engine::work`].
    pub async fn work_on(&self, claim_first: &[JobId], budget: Budget) -> Result<Worked> {
        Worker::new(self, budget, claim_first.to_vec(), StopWhen::Idle).run().await
    }

    /// Executes jobs as they become due, until the engine drains. While the store is unavailable,
    /// it waits and tries again.
    pub async fn work_until_drained(&self, budget: Budget) {
        self.open_worker(budget.parallel);
        // This worker repeats calls that the store does not answer, so `run` cannot fail.
        let _ = Worker::new(self, budget, Vec::new(), StopWhen::Drained).run().await;
    }

    /// Claims due jobs and reads their events, at most as many as can start now.
    pub(super) async fn claim(
        &self,
        parallel: u32,
        most: u32,
        claim_first: &[JobId],
    ) -> Result<Found> {
        self.refresh_leases().await?;
        let slots = self.0.inflight.slots(parallel, most.min(self.config().worker.batch));
        let full = self.0.inflight.full_lanes(&slots);
        let share_full = !full.is_empty();
        let ask = ClaimRequest {
            skip: full,
            unserved: self.0.housekeeping.unserved(),
            slots,
            lease: self.0.lease,
            only: claim_first.to_vec(),
        };
        let claimed = self.health().learn(self.store().claim(&ask).await)?;
        if claimed.is_empty() {
            return Ok(Found { jobs: Vec::new(), share_full });
        }
        for claimed in &claimed {
            self.0.inflight.register(&claimed.job);
        }
        let (events, runs) = self.needs(&claimed).await?;
        let mut ready = Vec::with_capacity(claimed.len());
        for claimed in claimed.into_iter().filter(|c| self.0.inflight.holds(c.job.lease())) {
            match events.get(&claimed.job.event) {
                Some(event) => {
                    let run = claimed
                        .job
                        .target
                        .visit_ref()
                        .and_then(|visiting| runs.get(&visiting.run))
                        .cloned();
                    ready.push(ReadyJob { claimed, event: Arc::clone(event), run });
                }
                None => {
                    tracing::error!(
                        job = %claimed.job.id, event = %claimed.job.event,
                        "The event of a claimed job is missing from the database.",
                    );
                    self.0.inflight.forget(claimed.job.lease());
                }
            }
        }
        Ok(Found { jobs: ready, share_full })
    }

    /// Reads the events of claimed jobs, and the runs of steps. If the store becomes unavailable
    /// meanwhile, it waits: jobs that are claimed and dropped untried would look like those of a
    /// worker that died.
    async fn needs(&self, claimed: &[Claimed]) -> Result<Needs> {
        let events: Vec<EventId> = claimed.iter().map(|c| c.job.event).collect();
        let runs: Vec<RunId> =
            claimed.iter().filter_map(|c| c.job.target.visit_ref()).map(|v| v.run).collect();
        let store = self.store();
        loop {
            let found =
                async { Ok((store.events_by_id(&events).await?, store.runs_by_id(&runs).await?)) };
            match self.health().learn(found.await) {
                Ok((events, runs)) => {
                    let events =
                        events.into_iter().map(|(id, event)| (id, Arc::new(event))).collect();
                    return Ok((
                        events,
                        runs.into_iter().map(|(id, run)| (id, Arc::new(run))).collect(),
                    ));
                }
                Err(error) if !error.is_passing() || self.is_draining() => {
                    claimed.iter().for_each(|c| self.0.inflight.forget(c.job.lease()));
                    return Err(error);
                }
                Err(_) => {
                    tokio::time::sleep(STORE_AGAIN).await;
                    // This forgets leases that were lost meanwhile; their jobs are not run.
                    let _ = self.extend_leases().await;
                }
            }
        }
    }

    /// Executes one claimed job and records its outcome. Returns what the job became, or `None`
    /// when its lease was lost.
    pub(super) async fn work_one(
        &self,
        ReadyJob { claimed, event, run }: ReadyJob,
        end: Option<Instant>,
    ) -> Option<NextState> {
        // However this ends, a panic included: what is no longer worked on is no longer extended.
        let _held = LeaseGuard { engine: self, lease: claimed.job.lease() };
        // Timers, and steps that come after a wait, are due later on purpose.
        if claimed.job.attempt == 0 && matches!(claimed.job.target, Target::Handler(_)) {
            metrics::waited(claimed.now.since(claimed.job.created_at));
        }
        let ran = self.execute((&claimed.job, claimed.now), &event, run, end).await;
        self.0.inflight.mark_recording(claimed.job.lease());
        self.record(&claimed, &event, ran).await
    }
}
