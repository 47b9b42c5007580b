//! How a run pauses and ends: holding its jobs, rolling back completed steps, running the steps of
//! `finally`, closing the run.

use serde_json::json;

use super::catch::error;
use super::data::with_error;
use super::walk::Walk;
use crate::model::history::NoteKind;
use crate::model::run::{Close, RunError, Stopped, Unwinding, Visit, VisitPhase};
use crate::model::{Payload, RunStatus};

/// Where a redrive of a visit starts. A container keeps its finished places, and its redrive is a
/// new operation.
fn stopped(seq: u32, visit: &Visit) -> Stopped {
    let payload = visit.before.clone().unwrap_or_else(|| visit.payload.clone());
    let places = match &visit.phase {
        VisitPhase::Inside { results, .. } => Some(results.clone()),
        _ => None,
    };
    let repeats = places.is_none();
    Stopped {
        at: visit.at.clone(),
        payload,
        operation: repeats.then(|| visit.operation.unwrap_or(seq)),
        entered_at: repeats.then_some(visit.entered_at),
        places,
    }
}

impl Walk<'_> {
    /// Closes a visit and remembers it as the place where the run stopped.
    pub(super) fn stop_at(&mut self, seq: u32) {
        if let Some(visit) = self.close(seq) {
            self.change.run.state.stopped = Some(stopped(seq, &visit));
        }
    }

    /// Pauses the run after a step's failure. An operator fixes the cause and resumes the run.
    pub(super) fn pause_at(&mut self, seq: u32, why: RunError) {
        self.note(NoteKind::Paused, Some(seq), json!({ "error": why.message, "class": why.class }));
        self.stop_at(seq);
        self.change.run.error = Some(why);
        self.pause_jobs();
    }

    /// Pauses the run: its jobs are held until it is resumed.
    pub(super) fn pause_jobs(&mut self) {
        let run = &mut self.change.run;
        run.state.paused_from = Some(run.status);
        run.status = RunStatus::Paused;
        self.change.pause_jobs = self.open_jobs();
        for job in &mut self.change.jobs {
            job.is_paused = true;
        }
    }

    /// Resumes a paused run. Its held jobs are freed; a run that a failure paused repeats the step
    /// that failed.
    pub(super) fn resume(&mut self) {
        self.note(NoteKind::Resumed, None, json!({}));
        let run = &mut self.change.run;
        run.status = run.state.paused_from.take().unwrap_or(RunStatus::Running);
        run.error = None;
        self.change.resume_jobs = self.open_jobs();
        if self.change.run.status == RunStatus::Queued && self.change.run.state.turn_job.is_none() {
            return self.ask_gate_again();
        }
        let state = &mut self.change.run.state;
        if !state.visits.is_empty() {
            return;
        }
        // It was paused by a failure: what failed is done again, with a fresh budget.
        if state.ending.is_some() {
            self.undo_next();
        } else if let Some(stopped) = state.stopped.take() {
            self.continue_from(stopped);
        }
    }

    /// Enters the step where the run stopped again, as the same operation.
    pub(super) fn continue_from(&mut self, stopped: Stopped) {
        self.repeats = Some((stopped.operation, stopped.entered_at));
        self.places = stopped.places;
        self.enter(stopped.at, None, stopped.payload);
    }

    /// The open jobs of the run that are stored already.
    fn open_jobs(&self) -> Vec<crate::model::JobId> {
        let state = &self.change.run.state;
        let all = state
            .visits
            .values()
            .flat_map(|visit| visit.jobs.iter().copied())
            .chain(state.deadline_job)
            .chain(state.turn_job);
        all.filter(|id| !self.change.jobs.iter().any(|new| new.id == *id)).collect()
    }

    /// Remembers where a redrive will start: at the first open step of the workflow's own list.
    fn remember_stop(&mut self) {
        let state = &mut self.change.run.state;
        let open = state.visits.iter().find(|(_, visit)| visit.within.is_none());
        if let Some((seq, visit)) = open {
            state.stopped = Some(stopped(*seq, visit));
        }
    }

    /// The payload of the first open step, or what the run started with.
    pub(super) fn last_payload(&self) -> Payload {
        let state = &self.change.run.state;
        let open =
            state.visits.values().find(|visit| visit.within.is_none()).map(|visit| &visit.payload);
        open.or(state.stopped.as_ref().map(|stopped| &stopped.payload))
            .unwrap_or(&state.input)
            .clone()
    }

    /// Closes all open visits, and cancels the run's deadline and its turn.
    fn abandon_all(&mut self) {
        self.ahead.clear();
        let open: Vec<u32> = self.change.run.state.visits.keys().copied().collect();
        for seq in open {
            self.abandon(seq);
        }
        let state = &mut self.change.run.state;
        let (deadline, turn) = (state.deadline_job.take(), state.turn_job.take());
        state.deadline_at = None;
        self.cancel_jobs(&deadline.into_iter().chain(turn).collect::<Vec<_>>());
    }

    /// Begins to end the run. If the workflow says so and the run did not complete, its steps are
    /// rolled back first; then the steps of `finally` run.
    pub(super) fn end(&mut self, how: Close, payload: Payload) {
        let undoes = self.flow().undoes && !matches!(how, Close::Completed(_));
        self.begin_end(how, payload, undoes);
    }

    /// Begins to end the run with a rollback, whatever the workflow says.
    pub(super) fn end_undoing(&mut self, how: Close, payload: Payload) {
        self.begin_end(how, payload, true);
    }

    fn begin_end(&mut self, how: Close, payload: Payload, undoes: bool) {
        if self.change.run.state.ending.is_some() {
            // It was ending already, and cannot go on with that.
            return self.close_run();
        }
        if !matches!(how, Close::Completed(_)) && self.change.run.state.stopped.is_none() {
            self.remember_stop();
        }
        self.abandon_all();
        let payload = match &how {
            Close::Failed(why) => with_error(self.flow(), payload, why, None),
            Close::Completed(_) | Close::Cancelled => payload,
        };
        self.change.run.error = match &how {
            Close::Failed(why) => Some(why.clone()),
            Close::Cancelled => Some(error("cancelled", "cancelled")),
            Close::Completed(_) => None,
        };
        let data = json!({
            "status": how.status().as_str(),
            "error": self.change.run.error.as_ref().map(|why| &why.message),
        });
        self.change.run.state.ending = Some(Unwinding { how, payload });
        if undoes && !self.change.run.state.undoable.is_empty() {
            self.set_status(RunStatus::Compensating);
            self.note(NoteKind::CompensationStarted, None, data);
            return self.undo_next();
        }
        // A run that entered no step has nothing to finish.
        if self.change.run.state.visited == 0 {
            return self.close_run();
        }
        self.finish();
    }

    /// Rolls back the completed step that finished last, or goes on to the steps of `finally`.
    fn undo_next(&mut self) {
        let Some(armed) = self.change.run.state.undoable.last().cloned() else {
            return self.finish();
        };
        let undo = self.flow().step(&armed.at).and_then(|step| step.undo);
        let Some(undo) = undo else {
            self.change.run.state.undoable.pop();
            return self.undo_next();
        };
        self.undoes = Some(armed.visit);
        self.enter(vec![undo], None, armed.payload);
    }

    /// Called when a rollback call has succeeded: the next step is undone, or the rollback is over.
    pub(super) fn undone(&mut self) {
        let state = &mut self.change.run.state;
        state.undoable.pop();
        if !state.undoable.is_empty() {
            return self.undo_next();
        }
        state.compensated = true;
        self.note(NoteKind::Compensated, None, json!({}));
        self.finish();
    }

    /// Pauses the run because a step could not be rolled back. An operator must act; such a failure
    /// is never skipped.
    pub(super) fn not_undone(&mut self, seq: u32, why: RunError) {
        let error = RunError { class: "compensation_failed".to_owned(), ..why };
        self.note(
            NoteKind::Paused,
            Some(seq),
            json!({ "error": error.message, "class": error.class }),
        );
        self.close(seq);
        self.change.run.error = Some(error);
        self.pause_jobs();
    }

    /// Enters the first step of `finally`, once nothing is left to roll back. Without `finally`,
    /// the run is closed.
    fn finish(&mut self) {
        let Some(ending) = &self.change.run.state.ending else { return };
        let Some(finally) = self.flow().finally else { return self.close_run() };
        let payload = ending.payload.clone();
        self.set_status(RunStatus::Running);
        self.enter(vec![finally], None, payload);
    }

    /// Sets the run's status; for a paused run, the status that it gets when it is resumed.
    fn set_status(&mut self, status: RunStatus) {
        let run = &mut self.change.run;
        match run.status {
            RunStatus::Paused => run.state.paused_from = Some(status),
            _ => run.status = status,
        }
    }

    /// Closes the run for good: status, history and retention are set, and the parent and the gate
    /// are notified.
    pub(super) fn close_run(&mut self) {
        self.abandon_all();
        let Some(Unwinding { how, .. }) = self.change.run.state.ending.take() else { return };
        self.change.ends = true;
        self.change.run.status = how.status();
        self.change.run.finished_at = Some(self.context.now);
        self.change.run.state.paused_from = None;
        let retention = self.flow().retention;
        self.change.retention = match &how {
            Close::Completed(_) => retention.completed,
            Close::Failed(_) | Close::Cancelled => retention.failed,
        };
        let (kind, data) = match how {
            Close::Completed(payload) => {
                self.change.run.error = None;
                self.change.run.state.output = Some(payload);
                (NoteKind::RunCompleted, json!({}))
            }
            Close::Failed(why) => {
                let compensated = self.change.run.state.compensated;
                let data = json!({
                    "error": why.message,
                    "class": why.class,
                    "step": why.step,
                    "compensated": compensated,
                });
                self.change.run.error = Some(why);
                (NoteKind::RunFailed, data)
            }
            Close::Cancelled => {
                self.change.run.error = Some(error("cancelled", "cancelled"));
                (NoteKind::RunCancelled, json!({}))
            }
        };
        self.note(kind, None, data);
        self.notify_parent();
        self.leave_gate();
    }

    /// Ends the run at once, without rollback and without the steps of `finally`.
    pub(super) fn kill(&mut self) {
        if self.change.run.state.ending.is_none() {
            self.remember_stop();
        }
        self.note(NoteKind::Killed, None, json!({}));
        let payload = self.last_payload();
        self.change.run.state.ending.get_or_insert(Unwinding { how: Close::Cancelled, payload });
        self.close_run();
    }
}
