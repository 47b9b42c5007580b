//! Working jobs off: claim, execute, record, until nothing is due or the budget is used up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::MutexGuard;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use super::Engine;
use super::hold::Handed;
use crate::decide::settle::Finish;
use crate::model::{Event, EventId, JobId, Lease, Run, RunId};
use crate::observe::metrics;
use crate::store::{Ask, Claimed, Result};

/// While something runs, due work is looked for at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Free slots gather this long before they are filled, so that one claim fills several.
const GATHER: Duration = Duration::from_millis(2);
/// A store that went away is asked again after this.
const STORE_AGAIN: Duration = Duration::from_millis(500);

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

/// What claimed jobs need: their events, and the runs of steps.
type Needs = (BTreeMap<EventId, Arc<Event>>, BTreeMap<RunId, Arc<Run>>);

/// A lease in hand, put down when this goes.
struct Held<'a> {
    engine: &'a Engine,
    lease: Lease,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.engine.0.in_hand.put_down(self.lease);
    }
}

/// The next job that is handed over; never, for a worker that takes none.
async fn next(handed: &mut Option<MutexGuard<'_, UnboundedReceiver<Handed>>>) -> Option<Handed> {
    match handed {
        Some(handed) => handed.recv().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Worked {
    fn count(&mut self, ended: Option<Finish>) {
        match ended {
            Some(Finish::Done | Finish::Taken { .. }) => self.done += 1,
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
        let mut extending: JoinSet<()> = JoinSet::new();
        let worked = self.work_within(hint.to_vec(), budget, &mut extending).await;
        // Nothing goes on after the answer: a process may be frozen then.
        while extending.join_next().await.is_some() {}
        worked
    }

    async fn work_within(&self, mut hint: Vec<JobId>, budget: Budget, extending: &mut JoinSet<()>) -> Result<Worked> {
        let mut worked = Worked::default();
        let mut running: JoinSet<Option<Finish>> = JoinSet::new();
        let mut taken: u64 = 0;
        let mut look = true;
        // A lane gave less than it has, because it ramps up or is full: each end of a job may free a place.
        let mut held_back = false;
        let mut handed = self.0.in_hand.handed();
        // A store that went away is asked again while deliveries are under way: none of them may hold up the rest.
        let mut not_before: Option<Instant> = None;
        let mut heartbeat = tokio::time::interval(self.heartbeat());
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let in_time = budget.until.is_none_or(|until| Instant::now() < until);
            while let Some(Ok(taken)) = handed.as_mut().map(|handed| handed.try_recv()) {
                let engine = self.clone();
                running.spawn(async move { engine.work_one(taken, budget.end).await }.in_current_span());
            }
            // A task that has ended keeps its memory until it is joined, and while every look finds work nothing below does that.
            while let Some(ended) = running.try_join_next() {
                worked.count(self.joined(ended));
                look = look || held_back;
            }
            let free = self.0.in_hand.free(budget.parallel);
            let free = free.min(u32::try_from(budget.jobs.saturating_sub(taken)).unwrap_or(u32::MAX));
            let may_claim = in_time && not_before.is_none() && !self.is_draining();
            if look && may_claim && free > 0 {
                let free = free.min(self.0.in_hand.begin_look(budget.parallel));
                if free == 0 {
                    continue;
                }
                match self.claim(budget.parallel, free, &hint).await {
                    // None of the named jobs is to be had (any more): whatever is due is next.
                    Ok(claimed) if claimed.is_empty() && !hint.is_empty() => {
                        hint.clear();
                        self.0.in_hand.end_look(false);
                        continue;
                    }
                    Ok(claimed) => {
                        look = !claimed.is_empty();
                        hint.retain(|id| claimed.iter().all(|taken| taken.claimed.job.id != *id));
                        self.0.in_hand.end_look(!look);
                        let ramps = claimed.iter().any(|taken| !taken.claimed.lane_clean) || (claimed.is_empty() && held_back);
                        held_back = ramps || self.is_any_lane_full(budget.parallel);
                        taken += u64::try_from(claimed.len()).unwrap_or(u64::MAX);
                        for taken in claimed {
                            let engine = self.clone();
                            running.spawn(async move { engine.work_one(taken, budget.end).await }.in_current_span());
                        }
                        continue;
                    }
                    Err(error) if running.is_empty() && worked == Worked::default() => return Err(error),
                    Err(_) => not_before = Some(Instant::now() + STORE_AGAIN),
                }
            }
            // What has just ended may have stored work that is due at once: a run goes on.
            if self.0.follows.swap(false, Ordering::AcqRel) {
                look = true;
                continue;
            }
            if running.is_empty() {
                worked.more = look && (!in_time || may_claim && free == 0);
                return Ok(worked);
            }
            tokio::select! {
                Some(ended) = running.join_next() => {
                    worked.count(self.joined(ended));
                    look = look || held_back;
                    if look && running.len() * 4 > budget.parallel as usize * 3 {
                        tokio::time::sleep(GATHER).await;
                    }
                }
                Some(taken) = next(&mut handed) => {
                    let engine = self.clone();
                    running.spawn(async move { engine.work_one(taken, budget.end).await }.in_current_span());
                }
                () = self.0.parts.wake.woken(LOOK_EVERY), if may_claim && free > 0 => look = true,
                () = until(not_before), if not_before.is_some() => (not_before, look) = (None, true),
                _ = heartbeat.tick() => {
                    let engine = self.clone();
                    // In a task of its own: a store that is slow to answer must not hold up what ends meanwhile.
                    extending.spawn(async move { drop(engine.extend_leases().await) });
                    while extending.try_join_next().is_some() {}
                }
            }
        }
    }

    fn joined(&self, ended: std::result::Result<Option<Finish>, tokio::task::JoinError>) -> Option<Finish> {
        ended.unwrap_or_else(|died| {
            tracing::error!(%died, "A delivery's task died; its lease runs out and another worker takes over.");
            None
        })
    }

    /// Takes due jobs with their events. Nothing is taken that cannot start now.
    async fn claim(&self, parallel: u32, free: u32, hint: &[JobId]) -> Result<Vec<Handed>> {
        self.refresh_leases().await?;
        let slots = self.0.in_hand.slots(parallel, free.min(self.config().worker.batch));
        let ask = Ask { skip: self.lanes_to_skip(&slots), slots, lease: self.0.lease, of: hint.to_vec() };
        let claimed = self.health().learn(self.store().claim(&ask).await)?;
        if claimed.is_empty() {
            return Ok(Vec::new());
        }
        for claimed in &claimed {
            self.0.in_hand.take(&claimed.job);
        }
        let (events, runs) = self.needs(&claimed).await?;
        let mut ready = Vec::with_capacity(claimed.len());
        for claimed in claimed.into_iter().filter(|c| self.0.in_hand.holds(c.job.lease())) {
            match events.get(&claimed.job.event) {
                Some(event) => {
                    let run = claimed.job.target.visiting().and_then(|visiting| runs.get(&visiting.run)).cloned();
                    ready.push(Handed { claimed, event: Arc::clone(event), run });
                }
                None => {
                    tracing::error!(job = %claimed.job.id, event = %claimed.job.event, "A job's event is gone.");
                    self.0.in_hand.put_down(claimed.job.lease());
                }
            }
        }
        Ok(ready)
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
                    claimed.iter().for_each(|c| self.0.in_hand.put_down(c.job.lease()));
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
    async fn work_one(&self, Handed { claimed, event, run }: Handed, end: Option<Instant>) -> Option<Finish> {
        // However this ends, a panic included: what is no longer worked on is no longer extended.
        let _held = Held { engine: self, lease: claimed.job.lease() };
        if claimed.job.attempt == 0 {
            metrics::waited(claimed.now.since(claimed.job.created_at));
        }
        let ran = self.execute(&claimed.job, &event, run, end).await;
        self.0.in_hand.ends(claimed.job.lease());
        self.record(&claimed, &event, ran).await
    }
}
