//! The worker loop: it starts jobs that are passed to it in memory at once, and claims due jobs
//! from the store when there may be some. Both kinds share its slots.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::MutexGuard;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::Instrument;

use super::Engine;
use super::inflight::ReadyJob;
use super::work::{Budget, Found, STORE_AGAIN, Worked};
use crate::decide::settle::NextState;
use crate::model::JobId;
use crate::store::Result;

/// The longest time between two looks for due work.
const CLAIM_EVERY: Duration = Duration::from_secs(1);
/// After this long without work, the worker looks less often. New jobs and retries of this process
/// wake it, so only jobs that other processes leave behind wait longer.
const QUIET_AFTER: Duration = Duration::from_secs(10);
const QUIET_CLAIM_EVERY: Duration = Duration::from_secs(2);
/// Once most slots are busy, freed slots are collected for this long, so that one claim fills
/// several.
const GATHER: Duration = Duration::from_millis(2);

/// When a worker stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopWhen {
    /// It stops when nothing is due and nothing is in flight.
    Idle,
    /// It stops when the engine drains, and waits for work until then.
    Drained,
}

/// The facts from which `next_action` decides what a worker does.
#[derive(Debug, Clone, Copy)]
struct State {
    /// There may be due jobs that this process has not claimed.
    claim_wanted: bool,
    /// A claim is under way.
    is_claiming: bool,
    /// A claim is allowed: the store is not in its pause after an error, and the engine does not
    /// drain.
    may_claim: bool,
    /// Freed slots are being collected, so that one claim fills several.
    gathers: bool,
    /// The budget still allows claims at this time.
    in_time: bool,
    /// How many further jobs may be claimed now: free slots, within the budget's number of jobs.
    free: u32,
    /// How many jobs are executing now.
    running: usize,
    /// The worker waits for work instead of ending when there is none.
    stays: bool,
}

/// The next thing that a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Claims due jobs from the store, in the background.
    Claim,
    /// Waits until a job or a claim ends, a job arrives, or it is time to look.
    Wait,
    /// Stops. `more` says that due jobs may be left that the budget did not allow for.
    End { more: bool },
}

fn next_action(state: &State) -> Action {
    let may_claim = state.may_claim && state.in_time;
    // Where nothing is under way any more, no further slot will become free.
    let gathers = state.gathers && state.running > 0;
    if state.claim_wanted && !gathers && may_claim && state.free > 0 && !state.is_claiming {
        return Action::Claim;
    }
    if state.running == 0 && !state.is_claiming && !state.stays {
        return Action::End {
            more: state.claim_wanted && (!state.in_time || may_claim && state.free == 0),
        };
    }
    Action::Wait
}

/// The state of one running worker: its budget, its tasks, and when it looks for work next.
pub(super) struct Worker<'a> {
    engine: &'a Engine,
    budget: Budget,
    stop_when: StopWhen,
    /// Jobs to claim before any others.
    claim_first: Vec<JobId>,
    handoff: Option<MutexGuard<'a, UnboundedReceiver<ReadyJob>>>,
    running: JoinSet<Option<NextState>>,
    /// The claim that is under way, if there is one. It never holds more than one task.
    claiming: JoinSet<Result<Found>>,
    extending: JoinSet<()>,
    worked: Worked,
    claimed: u64,
    claim_wanted: bool,
    /// A lane gave fewer jobs than it has, because it ramps up or is full. The end of any job may
    /// change that, so the worker looks again then.
    claim_when_job_ends: bool,
    /// No claim before this instant, because the store did not answer.
    not_before: Option<Instant>,
    /// Freed slots are collected until this instant.
    gathers_until: Option<Instant>,
    worked_at: Instant,
    claimed_at: Instant,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        budget: Budget,
        claim_first: Vec<JobId>,
        stop_when: StopWhen,
    ) -> Self {
        Self {
            engine,
            budget,
            stop_when,
            claim_first,
            handoff: engine.0.inflight.ready_jobs(),
            running: JoinSet::new(),
            claiming: JoinSet::new(),
            extending: JoinSet::new(),
            worked: Worked::default(),
            claimed: 0,
            claim_wanted: true,
            claim_when_job_ends: false,
            not_before: None,
            gathers_until: None,
            worked_at: Instant::now(),
            claimed_at: Instant::now(),
        }
    }

    /// Runs the worker until it has a reason to stop.
    ///
    /// # Errors
    /// The store did not answer before any job was executed, and the worker does not wait for it.
    pub(super) async fn run(mut self) -> Result<Worked> {
        let every = self.engine.heartbeat();
        // Leases that have just begun need no extension yet.
        let mut heartbeat = tokio::time::interval_at(Instant::now() + every, every);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = self.until_the_end(&mut heartbeat).await;
        // Extensions of leases finish before this returns: a function's process may be frozen
        // afterwards.
        while self.extending.join_next().await.is_some() {}
        ended.map(|()| self.worked)
    }

    async fn until_the_end(&mut self, heartbeat: &mut Interval) -> Result<()> {
        loop {
            self.collect();
            match next_action(&self.state()) {
                Action::Claim => self.begin_claim(),
                Action::End { more } => {
                    self.worked.more = more;
                    return Ok(());
                }
                Action::Wait => self.wait(heartbeat).await?,
            }
        }
    }

    /// Starts jobs that were passed in memory, and joins finished tasks, which keep their memory
    /// until they are joined.
    fn collect(&mut self) {
        while let Some(Ok(ready)) = self.handoff.as_mut().map(|handoff| handoff.try_recv()) {
            self.start(ready);
        }
        while let Some(ended) = self.running.try_join_next() {
            self.ended(ended);
        }
        // What has just ended may have stored work that is due at once: a run goes on.
        self.claim_wanted |= self.engine.0.has_new_due_job.swap(false, Ordering::AcqRel);
    }

    /// How many further jobs the budget allows to be claimed.
    fn left(&self) -> u32 {
        u32::try_from(self.budget.jobs.saturating_sub(self.claimed)).unwrap_or(u32::MAX)
    }

    fn state(&mut self) -> State {
        let now = Instant::now();
        self.not_before = self.not_before.filter(|at| *at > now);
        self.gathers_until = self.gathers_until.filter(|at| *at > now);
        let is_draining = self.engine.is_draining();
        State {
            claim_wanted: self.claim_wanted,
            is_claiming: !self.claiming.is_empty(),
            may_claim: self.not_before.is_none() && !is_draining,
            gathers: self.gathers_until.is_some(),
            in_time: self.budget.claim_until.is_none_or(|until| now < until),
            free: self.engine.0.inflight.free(self.budget.parallel).min(self.left()),
            running: self.running.len(),
            stays: self.stop_when == StopWhen::Drained && !is_draining,
        }
    }

    async fn wait(&mut self, heartbeat: &mut Interval) -> Result<()> {
        let is_quiet = self.worked_at.elapsed() > QUIET_AFTER && self.running.is_empty();
        let claim_every = if is_quiet { QUIET_CLAIM_EVERY } else { CLAIM_EVERY };
        // Counted from the last look: whatever else happens meanwhile does not put the next one
        // off.
        let claim_in = (self.claimed_at + claim_every).saturating_duration_since(Instant::now());
        let may_be_woken = !self.claim_wanted && self.claiming.is_empty();
        let not_before = self.not_before.max(self.gathers_until);
        tokio::select! {
            Some(ended) = self.running.join_next() => {
                self.ended(ended);
                let is_nearly_full = self.running.len() * 4 > self.budget.parallel as usize * 3;
                if self.claim_wanted && is_nearly_full && self.gathers_until.is_none() {
                    self.gathers_until = Some(Instant::now() + GATHER);
                }
            }
            Some(found) = self.claiming.join_next() => self.found(found)?,
            Some(ready) = next(&mut self.handoff) => self.start(ready),
            () = self.engine.0.parts.wake.woken(claim_in), if may_be_woken => {
                self.claim_wanted = true;
            }
            () = until(not_before), if not_before.is_some() => {}
            () = self.engine.draining(),
            if self.stop_when == StopWhen::Drained && !self.engine.is_draining() => {}
            _ = heartbeat.tick() => {
                let engine = self.engine.clone();
                // In a task of its own: a store that is slow to answer must not hold up what ends
                // meanwhile.
                self.extending.spawn(async move { drop(engine.extend_leases().await) });
                while self.extending.try_join_next().is_some() {}
            }
        }
        Ok(())
    }

    fn start(&mut self, ready: ReadyJob) {
        let (engine, end) = (self.engine.clone(), self.budget.call_deadline);
        self.worked_at = Instant::now();
        self.running.spawn(async move { engine.work_one(ready, end).await }.in_current_span());
    }

    fn ended(&mut self, ended: std::result::Result<Option<NextState>, JoinError>) {
        let next_state = ended.unwrap_or_else(|died| {
            tracing::error!(%died, "The task of a delivery crashed. Its lease expires, and a \
                worker claims the job again.");
            None
        });
        self.worked.count(next_state);
        self.claim_wanted |= self.claim_when_job_ends;
    }

    fn begin_claim(&mut self) {
        // What becomes due from now on may come too late for this look, and asks for another one.
        self.claim_wanted = false;
        let free = self
            .engine
            .0
            .inflight
            .begin_claim(self.budget.parallel, self.left().min(self.engine.config().worker.batch));
        let (engine, parallel, claim_first) =
            (self.engine.clone(), self.budget.parallel, self.claim_first.clone());
        self.claiming.spawn(
            async move { engine.claim(parallel, free, &claim_first).await }.in_current_span(),
        );
    }

    /// Takes the result of a finished look: starts the jobs it claimed, and decides whether to look
    /// again.
    fn found(&mut self, found: std::result::Result<Result<Found>, JoinError>) -> Result<()> {
        self.claimed_at = Instant::now();
        let found = found.unwrap_or_else(|died| {
            Err(crate::store::Error::down(format!("the search for due work crashed: {died}")))
        });
        match found {
            // None of the named jobs is to be had (any more): whatever is due is next.
            Ok(found) if found.jobs.is_empty() && !self.claim_first.is_empty() => {
                self.claim_first.clear();
                self.claim_wanted = true;
                self.engine.0.inflight.end_claim(false);
            }
            Ok(Found { jobs: found, share_full }) => {
                let is_behind = !found.is_empty();
                self.claim_wanted |= is_behind;
                self.claim_first.retain(|id| found.iter().all(|taken| taken.claimed.job.id != *id));
                self.engine.0.inflight.end_claim(!is_behind);
                let has_unclean_lane = found.iter().any(|taken| !taken.claimed.lane_clean)
                    || (found.is_empty() && self.claim_when_job_ends);
                self.claim_when_job_ends = has_unclean_lane || share_full;
                self.claimed += u64::try_from(found.len()).unwrap_or(u64::MAX);
                found.into_iter().for_each(|ready| self.start(ready));
            }
            Err(error) => {
                self.engine.0.inflight.end_claim(false);
                if self.stop_when == StopWhen::Idle
                    && self.running.is_empty()
                    && self.worked == Worked::default()
                {
                    return Err(error);
                }
                // The claim is repeated after a pause. Jobs that run need not end first.
                self.not_before = Some(Instant::now() + STORE_AGAIN);
                self.claim_wanted = true;
            }
        }
        Ok(())
    }
}

/// Waits for the next job that is passed in memory. Never returns for a worker that takes none.
async fn next(
    handoff: &mut Option<MutexGuard<'_, UnboundedReceiver<ReadyJob>>>,
) -> Option<ReadyJob> {
    match handoff {
        Some(handoff) => handoff.recv().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: State = State {
        claim_wanted: false,
        is_claiming: false,
        may_claim: true,
        gathers: false,
        in_time: true,
        free: 4,
        running: 0,
        stays: false,
    };

    #[test]
    fn a_worker_looks_where_there_may_be_work_and_room_for_it() {
        let wants = State { claim_wanted: true, ..IDLE };
        assert_eq!(next_action(&wants), Action::Claim);
        assert_eq!(next_action(&State { running: 3, ..wants }), Action::Claim);
        assert_eq!(
            next_action(&State { is_claiming: true, ..wants }),
            Action::Wait,
            "one look at a time"
        );
        assert_eq!(next_action(&State { free: 0, running: 4, ..wants }), Action::Wait);
        assert_eq!(next_action(&State { may_claim: false, running: 1, ..wants }), Action::Wait);
    }

    #[test]
    fn slots_gather_only_while_others_may_become_free() {
        let gathers = State { claim_wanted: true, gathers: true, ..IDLE };
        assert_eq!(next_action(&State { running: 3, ..gathers }), Action::Wait);
        assert_eq!(
            next_action(&gathers),
            Action::Claim,
            "a worker does not end with due work that it knows of"
        );
    }

    #[test]
    fn a_worker_ends_when_nothing_is_left_and_says_if_there_may_be_more() {
        assert_eq!(next_action(&IDLE), Action::End { more: false });
        assert_eq!(next_action(&State { stays: true, ..IDLE }), Action::Wait);
        assert_eq!(next_action(&State { running: 1, ..IDLE }), Action::Wait);
        assert_eq!(
            next_action(&State { claim_wanted: true, free: 0, ..IDLE }),
            Action::End { more: true },
            "the budget is used up"
        );
        assert_eq!(
            next_action(&State { claim_wanted: true, in_time: false, ..IDLE }),
            Action::End { more: true }
        );
        assert_eq!(
            next_action(&State { claim_wanted: true, may_claim: false, ..IDLE }),
            Action::End { more: false }
        );
    }
}
