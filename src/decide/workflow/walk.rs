//! Moves a run from step to step: entering, leaving and failing steps. One `Walk` makes one change
//! of a run.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::Fact;
use super::catch::{Catch, CatchTarget, error};
use super::data::{ExpressionScope, going_on, merge, with_error};
use super::flow::{Flow, Next, ResultPath, Step};
use super::machine::{Context, note};
use super::step_type::{Entered, Handled};
use crate::model::history::NoteKind;
use crate::model::json::DEPTH_MAX;
use crate::model::run::StepStatus;
use crate::model::run::{
    Change, Close, Done, RunError, Slot, Stopped, Undoable, Visit, VisitPhase,
};
use crate::model::{Payload, Run, RunId, Timestamp};

/// For a visit inside a container: the container's visit, and the visit's place in the container's
/// result. `None` for all others.
pub type Within = Option<(u32, usize)>;

/// A visit that is about to begin.
pub(super) struct NextVisit {
    /// The step's path of indexes.
    at: Vec<usize>,
    within: Within,
    payload: Payload,
}

/// One change of a run in the making. It collects what a fact causes until nothing is left to
/// enter.
pub struct Walk<'a> {
    /// What has changed so far: the run as it is now, and the jobs, tokens and history to store
    /// with it.
    pub change: Change,
    pub(super) context: &'a Context<'a>,
    /// For a redrive: the operation and the time that the next entered step repeats, so that the
    /// receiver sees the same call.
    pub(super) repeats: Option<(Option<u32>, Option<Timestamp>)>,
    /// During a rollback: the visit that the next entered step rolls back.
    pub(super) undoes: Option<u32>,
    /// For a redrive of a container: the results of its places from before.
    pub places: Option<Vec<Slot>>,
    /// Steps to enter, each with its container and payload.
    pub(super) ahead: VecDeque<NextVisit>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(run: Run, context: &'a Context<'a>) -> Self {
        let change = Change {
            run,
            is_new: false,
            ends: false,
            jobs: Vec::new(),
            cancel_jobs: Vec::new(),
            pause_jobs: Vec::new(),
            resume_jobs: Vec::new(),
            gate: None,
            retention: None,
            notes: Vec::new(),
            tokens: Vec::new(),
            spent: None,
            starts: Vec::new(),
            children: Vec::new(),
        };
        Self { change, context, repeats: None, undoes: None, places: None, ahead: VecDeque::new() }
    }

    /// The instant of this change.
    pub fn now(&self) -> Timestamp {
        self.context.now
    }

    /// A random number in `0.0..1.0`, for jitter.
    pub fn chance(&self) -> f64 {
        self.context.draw.chance()
    }

    /// A fresh id for a run that the change starts.
    pub fn new_run_id(&self) -> RunId {
        RunId(self.context.draw.id())
    }

    /// A fresh token for an answer from outside: 256 random bits in base32.
    pub fn new_token(&self) -> String {
        self.context.draw.token()
    }

    pub(super) fn flow(&self) -> &'a Flow {
        self.context.flow
    }

    /// Adds a line to the run's history.
    pub fn note(&mut self, kind: NoteKind, visit: Option<u32>, data: Value) {
        let step = visit
            .and_then(|v| self.change.run.state.visits.get(&v))
            .map(|v| self.flow().place(&v.at));
        self.change.notes.push(note(kind, step, visit, data));
    }

    /// Plans to enter a step: `at` is its path of indexes, `within` the place of a container it
    /// belongs to.
    pub fn enter(&mut self, at: Vec<usize>, within: Within, payload: Payload) {
        self.ahead.push_back(NextVisit { at, within, payload });
    }

    /// Enters the scheduled steps until none is left or the run has ended.
    pub(super) fn go(&mut self) {
        while let Some(NextVisit { at, within, payload }) = self.ahead.pop_front() {
            if self.change.run.status.is_closed() {
                return;
            }
            // A container that failed meanwhile has no places to enter.
            if within.is_some_and(|(container, _)| {
                !self.change.run.state.visits.contains_key(&container)
            }) {
                continue;
            }
            self.step_into(at, within, payload);
        }
    }

    fn step_into(&mut self, at: Vec<usize>, within: Within, payload: Payload) {
        let flow = self.flow();
        let Some(step) = flow.step(&at) else {
            let why = error("unknown_step", format!("the definition has no step at {at:?}"));
            return self.end(Close::Failed(why), payload);
        };
        let state = &mut self.change.run.state;
        let limit = flow.visits_max.saturating_add(state.allowance);
        // What ends a run is bounded by its definition: each of these steps leads forward or is
        // entered once.
        if state.ending.is_none() && state.visited - state.visited_before >= limit {
            let message = format!("the run would enter more than {} steps", flow.visits_max);
            if within.is_none() {
                state.stopped = Some(Stopped {
                    at,
                    payload: payload.clone(),
                    operation: None,
                    entered_at: None,
                    places: None,
                });
            }
            let why = RunError { step: Some(step.name.clone()), ..error("step_limit", message) };
            return self.end(Close::Failed(why), payload);
        }
        state.visited += 1;
        let seq = state.visited;
        let name =
            flow.place(&at).split_once('/').map_or_else(String::new, |(_, step)| step.to_owned());
        // A redrive repeats the operation that failed: the same number, and the same instant for
        // what is rendered.
        let (operation, entered_at) = self.repeats.take().unwrap_or((None, None));
        let visit = Visit {
            step: name,
            at,
            within,
            payload,
            before: None,
            operation,
            undoes: self.undoes.take(),
            vars: (within.is_some() && !state.vars.is_empty()).then(|| state.vars.clone()),
            phase: VisitPhase::Time,
            jobs: Vec::new(),
            entered_at: entered_at.unwrap_or(self.context.now),
        };
        state.visits.insert(seq, visit);
        self.note(NoteKind::StepEntered, Some(seq), json!({}));
        match self.begin(seq, step) {
            Ok(Entered::Waits(phase)) => {
                if let Some(visit) = self.visit(seq) {
                    visit.phase = phase;
                }
            }
            Ok(Entered::Done(result)) => self.leave(seq, step, result, None),
            Ok(Entered::Goto(next)) => self.pass(seq, step, &next),
            Ok(Entered::Skipped) => {
                self.note(NoteKind::StepSkipped, Some(seq), json!({}));
                self.record_done(seq, step, StepStatus::Skipped, None, None);
                self.go_on(seq, &step.next);
            }
            Err(why) => self.fail(seq, step, why),
        }
    }

    fn begin(&mut self, seq: u32, step: &'a Step) -> Result<Entered, RunError> {
        let Some(view) = self.view(seq, step) else { return Ok(Entered::Skipped) };
        if step.when.as_ref().is_some_and(|when| !view.holds(when)) {
            return Ok(Entered::Skipped);
        }
        if let Some(narrowed) = step.input.as_ref().map(|input| view.render(input)).transpose()?
            && let Some(visit) = self.visit(seq)
        {
            visit.before = Some(std::mem::replace(&mut visit.payload, narrowed));
        }
        step.kind.enter(self, seq, step)
    }

    /// What the expressions of an open visit can read.
    pub fn view<'s>(&'s self, seq: u32, step: &'s Step) -> Option<ExpressionScope<'s>> {
        let visit = self.change.run.state.visits.get(&seq)?;
        Some(ExpressionScope::of(&self.change.run, seq, &step.name, &visit.payload))
    }

    /// An open visit.
    pub fn visit(&mut self, seq: u32) -> Option<&mut Visit> {
        self.change.run.state.visits.get_mut(&seq)
    }

    /// Applies a fact to a visit.
    pub(super) fn tell(&mut self, seq: u32, fact: &Fact) {
        let flow = self.flow();
        let Some(visit) = self.change.run.state.visits.get(&seq) else { return };
        let Some(step) = flow.step(&visit.at) else { return };
        match step.kind.handle(self, seq, step, fact) {
            Ok(Handled::Waits) => {}
            Ok(Handled::Done(result, status)) => self.leave(seq, step, result, status),
            Ok(Handled::Passed) => self.pass(seq, step, &step.next),
            Err(why) => self.fail(seq, step, why),
        }
    }

    /// Finishes a step that leaves the payload unchanged.
    fn pass(&mut self, seq: u32, step: &'a Step, next: &Next) {
        self.record_done(seq, step, StepStatus::Completed, None, None);
        self.note(NoteKind::StepCompleted, Some(seq), json!({}));
        self.go_on(seq, next);
    }

    /// Finishes a step: its result goes into the payload, and the next step is scheduled.
    pub(super) fn leave(&mut self, seq: u32, step: &'a Step, result: Payload, status: Option<u16>) {
        let Some(input) = self.visit(seq).map(|visit| visit.payload.clone()) else { return };
        match self.absorb(seq, step, result, status) {
            Ok(result) => {
                self.arm(seq, step, input, &result);
                self.record_done(seq, step, StepStatus::Completed, Some(result), status);
                self.note(NoteKind::StepCompleted, Some(seq), json!({ "status": status }));
                self.go_on(seq, &step.next);
            }
            Err(why) => self.fail(seq, step, why),
        }
    }

    /// Puts a step's result into the payload, and sets its variables. Returns the result as
    /// selected.
    fn absorb(
        &mut self,
        seq: u32,
        step: &Step,
        result: Payload,
        status: Option<u16>,
    ) -> Result<Payload, RunError> {
        let Some(visit) = self.change.run.state.visits.get(&seq) else { return Ok(result) };
        let needs_response =
            step.result.is_some() || step.output.is_some() || step.assign.is_some();
        let response = if needs_response {
            json!({ "status": status, "body": result.clone().into_value() })
        } else {
            Value::Null
        };
        let view = |payload| {
            ExpressionScope::of(&self.change.run, seq, &step.name, payload)
                .with("response", response.clone())
        };
        let selected = match &step.result {
            Some(template) => view(&result).without_kept().render(template)?,
            None => result,
        };
        let payload = merge(visit.payload.clone(), selected.clone(), &step.result_path)?;
        let kept = match (&step.result_path, payload.json()) {
            (ResultPath::Set(keys), Some(root)) if visit.within.is_none() => {
                keys.first().and_then(|key| Some((key.clone(), root.get(key)?.clone())))
            }
            _ => None,
        };
        if let Some((key, value)) = kept {
            self.change.run.state.last_results.insert(key, value);
        }
        let payload = match &step.output {
            Some(template) => {
                let view = ExpressionScope::of(&self.change.run, seq, &step.name, &payload)
                    .with("response", response.clone());
                view.render(template)?
            }
            None => payload,
        };
        if payload.is_too_deep() {
            return Err(error(
                "template",
                format!("the payload would be nested more than {DEPTH_MAX} levels deep"),
            ));
        }
        let assigned = match &step.assign {
            Some(template) => {
                let view = ExpressionScope::of(&self.change.run, seq, &step.name, &payload)
                    .with("response", response.clone());
                Some(view.render(template)?.into_value())
            }
            None => None,
        };
        if let Some(Value::Object(fields)) = assigned {
            self.change.run.state.vars.extend(fields);
        }
        if let Some(visit) = self.visit(seq) {
            visit.payload = payload;
        }
        Ok(selected)
    }

    /// Remembers a completed step, so that it can be rolled back later.
    fn arm(&mut self, seq: u32, step: &Step, input: Payload, result: &Payload) {
        if step.undo.is_none() || self.change.run.state.ending.is_some() {
            return;
        }
        let Some(visit) = self.change.run.state.visits.get(&seq) else { return };
        let armed = Undoable {
            at: visit.at.clone(),
            visit: visit.operation.unwrap_or(seq),
            input: input.into_value(),
            output: result.clone().into_value(),
            payload: visit.payload.clone(),
            place: visit.within.map(|(_, place)| place),
        };
        self.change.run.state.undoable.push(armed);
    }

    fn record_done(
        &mut self,
        seq: u32,
        step: &Step,
        status: StepStatus,
        result: Option<Payload>,
        response_status: Option<u16>,
    ) {
        let state = &mut self.change.run.state;
        let Some(visit) = state.visits.get(&seq) else { return };
        if visit.within.is_some() || visit.undoes.is_some() {
            return;
        }
        let visits = state.steps.get(&step.name).map_or(0, |done| done.visits) + 1;
        let after = visit.payload.clone();
        let output = result.unwrap_or_else(|| after.clone());
        let after = (after != output).then_some(after);
        let done =
            Done { status, output: output.into_value(), after, response_status, visits, seq };
        state.steps.insert(step.name.clone(), done);
    }

    /// Closes a visit and schedules what comes next.
    fn go_on(&mut self, seq: u32, next: &Next) {
        let Some(visit) = self.close(seq) else { return };
        match next {
            Next::Step(index) => {
                let mut at = visit.at;
                if let Some(last) = at.last_mut() {
                    *last = *index;
                }
                self.enter(at, visit.within, visit.payload);
            }
            Next::End => self.ends(visit),
        }
    }

    /// Handles the end of a list of steps: of a container's place, a rollback call, `finally`, or
    /// the run itself.
    fn ends(&mut self, visit: Visit) {
        match visit.within {
            Some((container, place)) => self.place_result(container, place, Ok(visit.payload)),
            None if visit.undoes.is_some() => self.undone(),
            None if self.change.run.state.ending.is_some() => self.close_run(),
            None => self.complete(visit.payload),
        }
    }

    /// Completes the run after its last step, and renders its output.
    fn complete(&mut self, payload: Payload) {
        let rendered = match &self.flow().output {
            Some(template) => ExpressionScope::of(&self.change.run, 0, "output", &payload)
                .render(template)
                .map(Some),
            None => Ok(None),
        };
        match rendered {
            Ok(output) => {
                let output = output.unwrap_or_else(|| payload.clone());
                self.end(Close::Completed(output), payload);
            }
            Err(why) => self.end(Close::Failed(why), payload),
        }
    }

    /// Tells a container how a place inside it has ended.
    fn place_result(&mut self, container: u32, place: usize, result: Result<Payload, RunError>) {
        let flow = self.flow();
        let Some(visit) = self.change.run.state.visits.get(&container) else { return };
        let Some(step) = flow.step(&visit.at) else { return };
        match step.kind.place_ended(self, container, place, result) {
            Ok(Handled::Waits) => {}
            Ok(Handled::Done(result, status)) => self.leave(container, step, result, status),
            Ok(Handled::Passed) => self.go_on(container, &step.next),
            Err(why) => {
                self.close_inside(container);
                self.fail(container, step, why);
            }
        }
    }

    /// Handles a step's failure: it is caught, skipped, pauses the run, or fails the list of steps
    /// it is in.
    pub(super) fn fail(&mut self, seq: u32, step: &'a Step, why: RunError) {
        let Some(visit) = self.change.run.state.visits.get(&seq) else { return };
        let (payload, within, undoes) = (visit.payload.clone(), visit.within, visit.undoes);
        let why = RunError { step: Some(step.name.clone()), ..why };
        self.note(
            NoteKind::StepFailed,
            Some(seq),
            json!({ "error": why.message, "class": why.class, "attempts": why.attempts }),
        );
        if undoes.is_some() {
            return self.not_undone(seq, why);
        }
        self.record_done(seq, step, StepStatus::Failed, None, why.status);
        match self.catch_of(step, within, &why).map(|catch| (catch.way, catch.result_path.as_ref()))
        {
            Some((CatchTarget::Step(goto), path)) => {
                let payload = with_error(self.flow(), payload, &why, path);
                self.set_payload(seq, payload);
                self.note(NoteKind::Caught, Some(seq), json!({ "class": why.class }));
                return self.go_on(seq, &Next::Step(goto));
            }
            Some((CatchTarget::Undo, _)) => {
                self.note(
                    NoteKind::Caught,
                    Some(seq),
                    json!({ "class": why.class, "compensate": true }),
                );
                // Inside a container it is the container at which the run has stopped, which is
                // found when the run ends.
                let payload = match within {
                    None => {
                        self.stop_at(seq);
                        payload
                    }
                    Some(_) => self.last_payload(),
                };
                return self.end_undoing(Close::Failed(why), payload);
            }
            None => {}
        }
        if step.goes_on && why.class != "step_limit" {
            let payload = going_on(self.flow(), payload, &why, step);
            self.set_payload(seq, payload);
            self.note(NoteKind::Continued, Some(seq), json!({ "class": why.class }));
            return self.go_on(seq, &step.next);
        }
        // The last steps cannot change how the run ends: one that fails does not keep the next from
        // running.
        if within.is_none() && self.change.run.state.ending.is_some() {
            return self.go_on(seq, &step.next);
        }
        match within {
            None if step.pauses => self.pause_at(seq, why),
            None => {
                self.stop_at(seq);
                self.end(Close::Failed(why), payload);
            }
            Some((container, place)) => {
                self.close(seq);
                self.place_result(container, place, Err(why));
            }
        }
    }

    /// Finds the `catch` entry that takes a failure: of the step, or of the workflow for steps of
    /// its own list. The workflow's `catch` takes only one failure of a run, so that the steps that
    /// handle it cannot lead back to themselves.
    fn catch_of(&mut self, step: &'a Step, within: Within, why: &RunError) -> Option<&'a Catch> {
        if let Some(catch) = step.catch.iter().find(|c| c.takes(why)) {
            return Some(catch);
        }
        let state = &mut self.change.run.state;
        if within.is_some() || state.caught || state.ending.is_some() {
            return None;
        }
        let catch = self.context.flow.catch.iter().find(|c| c.takes(why))?;
        state.caught = true;
        Some(catch)
    }

    fn set_payload(&mut self, seq: u32, payload: Payload) {
        if let Some(visit) = self.visit(seq) {
            visit.payload = payload;
        }
    }
}
