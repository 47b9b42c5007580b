//! The jobs that a change of a run creates or cancels: calls, timers, and notices to other runs.

use std::time::Duration;

use serde_json::json;

use super::walk::Walk;
use crate::model::history::NoteKind;
use crate::model::run::{Due, RunJob, Visit, VisitPhase};
use crate::model::target::VisitRef;
use crate::model::{JobId, RunId, RunStatus, Target};

impl Walk<'_> {
    /// Removes the job that a fact comes from. It has ended by itself, so it need not be cancelled.
    pub(super) fn done_with(&mut self, job: JobId) {
        let state = &mut self.change.run.state;
        for visit in state.visits.values_mut() {
            visit.jobs.retain(|open| *open != job);
        }
        state.deadline_job = state.deadline_job.filter(|open| *open != job);
        state.turn_job = state.turn_job.filter(|open| *open != job);
    }

    /// Closes a visit and cancels its open jobs.
    pub(super) fn close(&mut self, seq: u32) -> Option<Visit> {
        let visit = self.change.run.state.visits.remove(&seq)?;
        self.cancel_jobs(&visit.jobs);
        Some(visit)
    }

    /// Cancels jobs. Those that this change would have stored are not stored at all.
    pub fn cancel_jobs(&mut self, jobs: &[JobId]) {
        for job in jobs {
            let before = self.change.jobs.len();
            self.change.jobs.retain(|new| new.id != *job);
            if self.change.jobs.len() == before {
                self.change.cancel_jobs.push(*job);
            }
        }
    }

    /// Closes every visit inside a container.
    pub(super) fn close_inside(&mut self, container: u32) {
        let visits = self.change.run.state.visits.iter();
        let inside =
            visits.filter(|(_, visit)| visit.within.is_some_and(|(of, _)| of == container));
        for seq in inside.map(|(seq, _)| *seq).collect::<Vec<_>>() {
            self.close_inside(seq);
            self.abandon(seq);
        }
    }

    /// Closes a visit whose result is not needed any more. If the visit has started another run,
    /// that run is notified and cancels itself.
    pub(super) fn abandon(&mut self, seq: u32) {
        let is_called = |visit: &Visit| {
            matches!(visit.phase, VisitPhase::Call { .. }) && !visit.jobs.is_empty()
        };
        if self.change.run.state.visits.get(&seq).is_some_and(is_called) {
            // It may be under way, and nobody will hear what came of it.
            self.note(NoteKind::CallAbandoned, Some(seq), json!({}));
        }
        let Some(visit) = self.close(seq) else { return };
        if let VisitPhase::Child { run, .. } = visit.phase {
            let asked = self.change.starts.len();
            self.change.starts.retain(|start| start.run != run);
            // One that was asked for by this very change is not started at all.
            if self.change.starts.len() == asked {
                self.notify_run(run, 0, &self.flow().place(&visit.at));
            }
        }
    }

    /// Creates a job that makes another run look at its state again, such as a parent after its
    /// child has ended.
    pub(super) fn notify_run(&mut self, run: RunId, visit: u32, step: &str) {
        let target = Target::Timer(VisitRef { run, visit, step: step.to_owned() });
        let id = JobId(self.context.draw.id());
        self.change.jobs.push(RunJob {
            id,
            target,
            due: Due::After(Duration::ZERO),
            is_paused: false,
        });
    }

    /// Notifies the parent run, if there is one, that this run has ended.
    pub(super) fn notify_parent(&mut self) {
        if let Some((parent, visit)) = self.change.run.parent {
            self.notify_run(parent, visit, &self.flow().name);
        }
    }

    /// Creates the job that gives up the run's place under its concurrency key.
    pub(super) fn leave_gate(&mut self) {
        if self.change.run.state.gate.is_some() {
            self.notify_run(self.change.run.id, 0, &self.flow().name);
        }
    }

    /// Raises the limit of visits for a container: by one visit for each of its steps in each
    /// place.
    pub fn allow(&mut self, places: usize, steps: usize) {
        let more = u32::try_from(places.saturating_mul(steps)).unwrap_or(u32::MAX);
        let allowance = &mut self.change.run.state.allowance;
        *allowance = allowance.saturating_add(more);
    }

    /// Creates a job that makes a visit's call at once.
    pub fn call(&mut self, seq: u32) {
        self.call_after(seq, Duration::ZERO);
    }

    /// Creates a job that makes a visit's call after a delay.
    pub fn call_after(&mut self, seq: u32, delay: Duration) {
        self.job(seq, Due::After(delay), Target::Step);
    }

    /// Creates a timer for a visit. When it is due, the visit gets `Fact::Elapsed`.
    pub fn wake_at(&mut self, seq: u32, due: Due) -> Option<JobId> {
        self.job(seq, due, Target::Timer)
    }

    fn job(&mut self, seq: u32, due: Due, target: impl Fn(VisitRef) -> Target) -> Option<JobId> {
        let id = JobId(self.context.draw.id());
        let (run, is_paused) = (self.change.run.id, self.change.run.status == RunStatus::Paused);
        let flow = self.flow();
        let visit = self.visit(seq)?;
        visit.jobs.push(id);
        let step = flow.place(&visit.at);
        self.change.jobs.push(RunJob {
            id,
            target: target(VisitRef { run, visit: seq, step }),
            due,
            is_paused,
        });
        Some(id)
    }

    /// Creates a timer for the run as a whole.
    fn run_job(&mut self, due: Due) -> JobId {
        let id = JobId(self.context.draw.id());
        let run = &self.change.run;
        let target =
            Target::Timer(VisitRef { run: run.id, visit: 0, step: self.context.flow.name.clone() });
        let is_paused = run.status == RunStatus::Paused;
        self.change.jobs.push(RunJob { id, target, due, is_paused });
        id
    }

    /// Creates the timer for the run's deadline, if the workflow has a timeout.
    pub(super) fn set_deadline(&mut self) {
        let Some(timeout) = self.flow().timeout else { return };
        let id = self.run_job(Due::After(timeout));
        let state = &mut self.change.run.state;
        state.deadline_job = Some(id);
        state.deadline_at = Some(self.context.now.plus(timeout));
    }

    /// Queues the run under its concurrency key.
    pub(super) fn ask_gate(&mut self, gate: String) {
        self.note(NoteKind::Queued, None, json!({ "key": gate }));
        self.change.run.status = RunStatus::Queued;
        self.change.run.state.gate = Some(gate);
        self.ask_gate_again();
    }

    /// Creates the job that checks whether it is the run's turn under its concurrency key.
    pub(super) fn ask_gate_again(&mut self) {
        let id = self.run_job(Due::After(Duration::ZERO));
        self.change.run.state.turn_job = Some(id);
    }
}
