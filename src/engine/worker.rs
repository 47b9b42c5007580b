//! The worker: what is handed over to it is started at once, due work is looked for only where there may be some that this
//! process does not hold, and both share its slots.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::MutexGuard;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::Instrument;

use super::Engine;
use super::inflight::Handed;
use super::work::{Budget, Found, STORE_AGAIN, Worked};
use crate::decide::settle::Finish;
use crate::model::JobId;
use crate::store::Result;

/// Due work is looked for at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After so long without work, it is looked for less often: what comes in here or is due again here wakes the worker, so only
/// what other processes leave behind waits for a look.
const QUIET_AFTER: Duration = Duration::from_secs(10);
const QUIET_LOOK_EVERY: Duration = Duration::from_secs(2);
/// Free slots gather this long before they are filled, so that one claim fills several.
const GATHER: Duration = Duration::from_millis(2);

/// How long a worker works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stays {
    /// Until nothing is due and nothing is under way.
    WhileThereIsWork,
    /// Until the engine drains.
    UntilDrained,
}

/// What a worker knows when it decides what to do.
#[derive(Debug, Clone, Copy)]
struct State {
    /// There may be due work that this process does not hold.
    look: bool,
    /// It is being looked for.
    is_looking: bool,
    /// Looking is allowed: the store answers, and nothing drains.
    may_look: bool,
    /// Free slots gather, so that one look fills several.
    gathers: bool,
    /// The budget's time is not over.
    in_time: bool,
    /// Free slots, within what the budget leaves.
    free: u32,
    /// Jobs under way.
    running: usize,
    /// It waits for work when there is none.
    stays: bool,
}

/// What a worker does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Looks for due work.
    Look,
    /// Waits for whatever happens next.
    Wait,
    /// Ends; there may be more due work than the budget allowed for.
    End { more: bool },
}

fn next_action(state: &State) -> Action {
    let may_look = state.may_look && state.in_time;
    // Where nothing is under way any more, no further slot will become free.
    let gathers = state.gathers && state.running > 0;
    if state.look && !gathers && may_look && state.free > 0 && !state.is_looking {
        return Action::Look;
    }
    if state.running == 0 && !state.is_looking && !state.stays {
        return Action::End { more: state.look && (!state.in_time || may_look && state.free == 0) };
    }
    Action::Wait
}

/// A worker at work.
pub(super) struct Worker<'a> {
    engine: &'a Engine,
    budget: Budget,
    stays: Stays,
    /// Jobs that are looked for first.
    hint: Vec<JobId>,
    handed: Option<MutexGuard<'a, UnboundedReceiver<Handed>>>,
    running: JoinSet<Option<Finish>>,
    /// At most one look.
    looking: JoinSet<Result<Found>>,
    extending: JoinSet<()>,
    worked: Worked,
    claimed: u64,
    look: bool,
    /// A lane gave less than it has, because it ramps up or is full: each end of a job may free a place.
    held_back: bool,
    /// Nothing is looked for before then, because the store did not answer.
    not_before: Option<Instant>,
    /// Free slots gather until then.
    gathers_until: Option<Instant>,
    worked_at: Instant,
    looked_at: Instant,
}

impl<'a> Worker<'a> {
    pub(super) fn new(engine: &'a Engine, budget: Budget, hint: Vec<JobId>, stays: Stays) -> Self {
        Self {
            engine,
            budget,
            stays,
            hint,
            handed: engine.0.inflight.handed(),
            running: JoinSet::new(),
            looking: JoinSet::new(),
            extending: JoinSet::new(),
            worked: Worked::default(),
            claimed: 0,
            look: true,
            held_back: false,
            not_before: None,
            gathers_until: None,
            worked_at: Instant::now(),
            looked_at: Instant::now(),
        }
    }

    /// Works until there is a reason to end.
    ///
    /// # Errors
    /// The store does not answer, nothing was under way, and the worker does not stay.
    pub(super) async fn run(mut self) -> Result<Worked> {
        let every = self.engine.heartbeat();
        // What has just been claimed need not be extended.
        let mut heartbeat = tokio::time::interval_at(Instant::now() + every, every);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = self.until_the_end(&mut heartbeat).await;
        // Nothing goes on after the answer: a process may be frozen then.
        while self.extending.join_next().await.is_some() {}
        ended.map(|()| self.worked)
    }

    async fn until_the_end(&mut self, heartbeat: &mut Interval) -> Result<()> {
        loop {
            self.collect();
            match next_action(&self.state()) {
                Action::Look => self.begin_look(),
                Action::End { more } => {
                    self.worked.more = more;
                    return Ok(());
                }
                Action::Wait => self.wait(heartbeat).await?,
            }
        }
    }

    /// Starts what was handed over, and joins what has ended: a task that has ended keeps its memory until then.
    fn collect(&mut self) {
        while let Some(Ok(handed)) = self.handed.as_mut().map(|handed| handed.try_recv()) {
            self.start(handed);
        }
        while let Some(ended) = self.running.try_join_next() {
            self.ended(ended);
        }
        // What has just ended may have stored work that is due at once: a run goes on.
        self.look |= self.engine.0.follows.swap(false, Ordering::AcqRel);
    }

    /// So many jobs may still be claimed.
    fn left(&self) -> u32 {
        u32::try_from(self.budget.jobs.saturating_sub(self.claimed)).unwrap_or(u32::MAX)
    }

    fn state(&mut self) -> State {
        let now = Instant::now();
        self.not_before = self.not_before.filter(|at| *at > now);
        self.gathers_until = self.gathers_until.filter(|at| *at > now);
        let is_draining = self.engine.is_draining();
        State {
            look: self.look,
            is_looking: !self.looking.is_empty(),
            may_look: self.not_before.is_none() && !is_draining,
            gathers: self.gathers_until.is_some(),
            in_time: self.budget.until.is_none_or(|until| now < until),
            free: self.engine.0.inflight.free(self.budget.parallel).min(self.left()),
            running: self.running.len(),
            stays: self.stays == Stays::UntilDrained && !is_draining,
        }
    }

    async fn wait(&mut self, heartbeat: &mut Interval) -> Result<()> {
        let is_quiet = self.worked_at.elapsed() > QUIET_AFTER && self.running.is_empty();
        let look_every = if is_quiet { QUIET_LOOK_EVERY } else { LOOK_EVERY };
        // Counted from the last look: whatever else happens meanwhile does not put the next one off.
        let look_in = (self.looked_at + look_every).saturating_duration_since(Instant::now());
        let may_be_woken = !self.look && self.looking.is_empty();
        let not_before = self.not_before.max(self.gathers_until);
        tokio::select! {
            Some(ended) = self.running.join_next() => {
                self.ended(ended);
                if self.look && self.running.len() * 4 > self.budget.parallel as usize * 3 && self.gathers_until.is_none() {
                    self.gathers_until = Some(Instant::now() + GATHER);
                }
            }
            Some(found) = self.looking.join_next() => self.found(found)?,
            Some(handed) = next(&mut self.handed) => self.start(handed),
            () = self.engine.0.parts.wake.woken(look_in), if may_be_woken => self.look = true,
            () = until(not_before), if not_before.is_some() => {}
            () = self.engine.draining(), if self.stays == Stays::UntilDrained && !self.engine.is_draining() => {}
            _ = heartbeat.tick() => {
                let engine = self.engine.clone();
                // In a task of its own: a store that is slow to answer must not hold up what ends meanwhile.
                self.extending.spawn(async move { drop(engine.extend_leases().await) });
                while self.extending.try_join_next().is_some() {}
            }
        }
        Ok(())
    }

    fn start(&mut self, handed: Handed) {
        let (engine, end) = (self.engine.clone(), self.budget.end);
        self.worked_at = Instant::now();
        self.running.spawn(async move { engine.work_one(handed, end).await }.in_current_span());
    }

    fn ended(&mut self, ended: std::result::Result<Option<Finish>, JoinError>) {
        let finish = ended.unwrap_or_else(|died| {
            tracing::error!(%died, "A delivery's task died; its lease runs out and another worker takes over.");
            None
        });
        self.worked.count(finish);
        self.look |= self.held_back;
    }

    fn begin_look(&mut self) {
        // What becomes due from now on may come too late for this look, and asks for another one.
        self.look = false;
        let free = self.engine.0.inflight.begin_look(self.budget.parallel, self.left().min(self.engine.config().worker.batch));
        let (engine, parallel, hint) = (self.engine.clone(), self.budget.parallel, self.hint.clone());
        self.looking.spawn(async move { engine.claim(parallel, free, &hint).await }.in_current_span());
    }

    /// A look has ended.
    fn found(&mut self, found: std::result::Result<Result<Found>, JoinError>) -> Result<()> {
        self.looked_at = Instant::now();
        let found = found.unwrap_or_else(|died| Err(crate::store::Error::Down(format!("a look for due work died: {died}"))));
        match found {
            // None of the named jobs is to be had (any more): whatever is due is next.
            Ok(found) if found.jobs.is_empty() && !self.hint.is_empty() => {
                self.hint.clear();
                self.look = true;
                self.engine.0.inflight.end_look(false);
            }
            Ok(Found { jobs: found, limited }) => {
                let is_behind = !found.is_empty();
                self.look |= is_behind;
                self.hint.retain(|id| found.iter().all(|taken| taken.claimed.job.id != *id));
                self.engine.0.inflight.end_look(!is_behind);
                let ramps = found.iter().any(|taken| !taken.claimed.lane_clean) || (found.is_empty() && self.held_back);
                self.held_back = ramps || limited;
                self.claimed += u64::try_from(found.len()).unwrap_or(u64::MAX);
                found.into_iter().for_each(|handed| self.start(handed));
            }
            Err(error) => {
                self.engine.0.inflight.end_look(false);
                if self.stays == Stays::WhileThereIsWork && self.running.is_empty() && self.worked == Worked::default() {
                    return Err(error);
                }
                // A store that went away is asked again: none of what is under way may hold up the rest.
                self.not_before = Some(Instant::now() + STORE_AGAIN);
                self.look = true;
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: State = State {
        look: false,
        is_looking: false,
        may_look: true,
        gathers: false,
        in_time: true,
        free: 4,
        running: 0,
        stays: false,
    };

    #[test]
    fn a_worker_looks_where_there_may_be_work_and_room_for_it() {
        let wants = State { look: true, ..IDLE };
        assert_eq!(next_action(&wants), Action::Look);
        assert_eq!(next_action(&State { running: 3, ..wants }), Action::Look);
        assert_eq!(next_action(&State { is_looking: true, ..wants }), Action::Wait, "one look at a time");
        assert_eq!(next_action(&State { free: 0, running: 4, ..wants }), Action::Wait);
        assert_eq!(next_action(&State { may_look: false, running: 1, ..wants }), Action::Wait);
    }

    #[test]
    fn slots_gather_only_while_others_may_become_free() {
        let gathers = State { look: true, gathers: true, ..IDLE };
        assert_eq!(next_action(&State { running: 3, ..gathers }), Action::Wait);
        assert_eq!(next_action(&gathers), Action::Look, "a worker does not end with due work that it knows of");
    }

    #[test]
    fn a_worker_ends_when_nothing_is_left_and_says_if_there_may_be_more() {
        assert_eq!(next_action(&IDLE), Action::End { more: false });
        assert_eq!(next_action(&State { stays: true, ..IDLE }), Action::Wait);
        assert_eq!(next_action(&State { running: 1, ..IDLE }), Action::Wait);
        assert_eq!(next_action(&State { look: true, free: 0, ..IDLE }), Action::End { more: true }, "the budget is used up");
        assert_eq!(next_action(&State { look: true, in_time: false, ..IDLE }), Action::End { more: true });
        assert_eq!(next_action(&State { look: true, may_look: false, ..IDLE }), Action::End { more: false });
    }
}
