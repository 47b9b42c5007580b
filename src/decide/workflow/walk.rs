//! From step to step: entering, leaving, failing. One walk is one change of a run.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::catch::error;
use super::data::{View, going_on, merge, with_error};
use super::flow::{Flow, Next, ResultPath, Step};
use super::machine::{Here, note};
use super::steps::{Entered, Heard};
use super::{Fact, catch::Catch};
use crate::model::job::Visiting;
use crate::model::run::{Change, DEPTH_MAX, Done, Due, Phase, RunError, RunJob, Stopped, Visit};
use crate::model::{JobId, Payload, Run, RunStatus, Target, Timestamp};

/// The name of a container's visit and a place in its result.
pub type Within = Option<(u32, usize)>;

/// Where a visit stood, for a redrive. A container starts over as a whole, as a new operation.
fn stopped(seq: u32, visit: &Visit) -> Stopped {
    let payload = visit.before.clone().unwrap_or_else(|| visit.payload.clone());
    let repeats = !matches!(visit.phase, Phase::Inside { .. });
    Stopped {
        at: visit.at.clone(),
        payload,
        operation: repeats.then(|| visit.operation.unwrap_or(seq)),
        entered_at: repeats.then_some(visit.entered_at),
    }
}

/// How a run ends.
pub enum Ended {
    /// At its end, with this payload.
    Completed(Payload),
    /// At a failure.
    Failed(RunError),
    /// Called off.
    Cancelled,
}

/// A run being changed.
pub struct Walk<'a> {
    /// The change so far.
    pub change: Change,
    pub(super) here: &'a Here<'a>,
    /// What the next step that is entered repeats: the number of its operation, and its instant.
    pub(super) repeats: Option<(Option<u32>, Option<Timestamp>)>,
    /// Steps that are to be entered.
    ahead: VecDeque<(Vec<usize>, Within, Payload)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(run: Run, here: &'a Here<'a>) -> Self {
        let change = Change {
            run,
            is_new: false,
            jobs: Vec::new(),
            moot: Vec::new(),
            notes: Vec::new(),
            tokens: Vec::new(),
            spent: None,
            starts: Vec::new(),
            children: Vec::new(),
        };
        Self { change, here, repeats: None, ahead: VecDeque::new() }
    }

    pub(super) fn flow(&self) -> &'a Flow {
        self.here.flow
    }

    pub(super) fn note(&mut self, kind: &'static str, visit: Option<u32>, data: Value) {
        let step = visit.and_then(|v| self.change.run.state.visits.get(&v)).map(|v| self.flow().place(&v.at));
        self.change.notes.push(note(kind, step, visit, data));
    }

    /// Plans to enter a step.
    pub(super) fn enter(&mut self, at: Vec<usize>, within: Within, payload: Payload) {
        self.ahead.push_back((at, within, payload));
    }

    /// Enters what is ahead until nothing is, or the run has ended.
    pub(super) fn go(&mut self) {
        while let Some((at, within, payload)) = self.ahead.pop_front() {
            if self.change.run.status.is_closed() {
                return;
            }
            // A container that failed meanwhile has no places to enter.
            if within.is_some_and(|(container, _)| !self.change.run.state.visits.contains_key(&container)) {
                continue;
            }
            self.step_into(at, within, payload);
        }
    }

    fn step_into(&mut self, at: Vec<usize>, within: Within, payload: Payload) {
        let flow = self.flow();
        let Some(step) = flow.step(&at) else {
            return self.end(Ended::Failed(error("unknown_step", format!("the definition has no step at {at:?}"))));
        };
        let state = &mut self.change.run.state;
        if state.visited - state.visited_before >= flow.visits_max.saturating_add(state.allowance) {
            let message = format!("the run would enter more than {} steps", flow.visits_max);
            if within.is_none() {
                state.stopped = Some(Stopped { at, payload, operation: None, entered_at: None });
            }
            return self.end(Ended::Failed(RunError { step: Some(step.name.clone()), ..error("step_limit", message) }));
        }
        state.visited += 1;
        let seq = state.visited;
        let name = flow.place(&at).split_once('/').map_or_else(String::new, |(_, step)| step.to_owned());
        // A redrive repeats the operation that failed: the same number, and the same instant for what is rendered.
        let (operation, entered_at) = self.repeats.take().unwrap_or((None, None));
        let visit = Visit {
            step: name,
            at,
            within,
            payload,
            before: None,
            operation,
            phase: Phase::Time,
            jobs: Vec::new(),
            entered_at: entered_at.unwrap_or(self.here.now),
        };
        state.visits.insert(seq, visit);
        self.note("StepEntered", Some(seq), json!({}));
        match self.begin(seq, step) {
            Ok(Entered::Waits(phase)) => {
                if let Some(visit) = self.visit(seq) {
                    visit.phase = phase;
                }
            }
            Ok(Entered::Done(result)) => self.leave(seq, step, result, None),
            Ok(Entered::Goto(next)) => self.pass(seq, step, &next),
            Ok(Entered::Skipped) => {
                self.note("StepSkipped", Some(seq), json!({}));
                self.record_done(seq, step, "skipped", None);
                self.go_on(seq, &step.next);
            }
            Err(why) => self.fail(seq, step, why),
        }
    }

    fn begin(&mut self, seq: u32, step: &'a Step) -> Result<Entered, RunError> {
        let Some(view) = self.view(seq, step) else { return Ok(Entered::Skipped) };
        if step.when.as_ref().is_some_and(|when| !when.holds(&view.plain())) {
            return Ok(Entered::Skipped);
        }
        if let Some(input) = &step.input
            && let Some(narrowed) = view.render(input)?
            && let Some(visit) = self.visit(seq)
        {
            visit.before = Some(std::mem::replace(&mut visit.payload, narrowed));
        }
        step.kind.enter(self, seq, step)
    }

    /// What expressions of an open visit see.
    pub(super) fn view(&self, seq: u32, step: &Step) -> Option<View<'_>> {
        let visit = self.change.run.state.visits.get(&seq)?;
        Some(View::new(&self.change.run, seq, &step.name, &visit.payload, visit.entered_at, &self.extra(visit)))
    }

    /// What `$$` holds for a visit beyond the run.
    fn extra(&self, visit: &Visit) -> Vec<(&'static str, Value)> {
        let Some((container, place)) = visit.within else { return Vec::new() };
        let items = self.change.run.state.visits.get(&container).map(|c| &c.phase);
        let value = match items {
            Some(Phase::Inside { items, .. }) => items.get(place).cloned(),
            _ => None,
        };
        vec![("item", json!({ "index": place, "value": value }))]
    }

    pub(super) fn visit(&mut self, seq: u32) -> Option<&mut Visit> {
        self.change.run.state.visits.get_mut(&seq)
    }

    /// Tells a visit what happened.
    pub(super) fn tell(&mut self, seq: u32, fact: &Fact) {
        let flow = self.flow();
        let Some(visit) = self.change.run.state.visits.get(&seq) else { return };
        let Some(step) = flow.step(&visit.at) else { return };
        match step.kind.hear(self, seq, step, fact) {
            Ok(Heard::Waits) => {}
            Ok(Heard::Done(result, status)) => self.leave(seq, step, result, status),
            Ok(Heard::Goto) => self.pass(seq, step, &step.next),
            Err(why) => self.fail(seq, step, why),
        }
    }

    /// A step is done and leaves the payload as it is.
    fn pass(&mut self, seq: u32, step: &'a Step, next: &Next) {
        self.record_done(seq, step, "completed", None);
        self.note("StepCompleted", Some(seq), json!({}));
        self.go_on(seq, next);
    }

    /// A step is done: its result goes into the payload, and the next one is entered.
    pub(super) fn leave(&mut self, seq: u32, step: &'a Step, result: Payload, status: Option<u16>) {
        match self.absorb(seq, step, result) {
            Ok(()) => {
                self.record_done(seq, step, "completed", status);
                self.note("StepCompleted", Some(seq), json!({ "status": status }));
                self.go_on(seq, &step.next);
            }
            Err(why) => self.fail(seq, step, why),
        }
    }

    fn absorb(&mut self, seq: u32, step: &Step, result: Payload) -> Result<(), RunError> {
        let Some(visit) = self.change.run.state.visits.get(&seq) else { return Ok(()) };
        let (at, extra) = (visit.entered_at, self.extra(visit));
        let selected = match &step.result {
            Some(template) => {
                let view = View::new(&self.change.run, seq, &step.name, &result, at, &extra).without_kept();
                view.render(template)?.unwrap_or(result)
            }
            None => result,
        };
        let payload = merge(visit.payload.clone(), selected, &step.result_path);
        if let (ResultPath::Set(keys), Some(root)) = (&step.result_path, payload.json())
            && let Some(value) = keys.first().and_then(|key| root.get(key))
            && visit.within.is_none()
        {
            let (key, value) = (keys[0].clone(), value.clone());
            self.change.run.state.kept.insert(key, value);
        }
        let payload = match &step.output {
            Some(template) => {
                View::new(&self.change.run, seq, &step.name, &payload, at, &extra).render(template)?.unwrap_or(payload)
            }
            None => payload,
        };
        if payload.is_too_deep() {
            return Err(error("template", format!("the payload would be nested deeper than {DEPTH_MAX} levels")));
        }
        if let Some(visit) = self.visit(seq) {
            visit.payload = payload;
        }
        Ok(())
    }

    fn record_done(&mut self, seq: u32, step: &Step, status: &str, response_status: Option<u16>) {
        let state = &mut self.change.run.state;
        let Some(visit) = state.visits.get(&seq) else { return };
        if visit.within.is_some() {
            return;
        }
        let visits = state.steps.get(&step.name).map_or(0, |done| done.visits) + 1;
        let output = visit.payload.clone().into_value();
        state.steps.insert(step.name.clone(), Done { status: status.to_owned(), output, response_status, visits });
    }

    /// Closes a visit and enters what comes next.
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
            Next::End => self.ends(visit.within, visit.payload),
        }
    }

    /// A sequence of steps has come to its end.
    fn ends(&mut self, within: Within, payload: Payload) {
        match within {
            None => self.end(Ended::Completed(payload)),
            Some((container, place)) => self.came_of(container, place, Ok(payload)),
        }
    }

    /// Tells a container what came of a place inside it.
    fn came_of(&mut self, container: u32, place: usize, result: Result<Payload, RunError>) {
        let flow = self.flow();
        let Some(visit) = self.change.run.state.visits.get(&container) else { return };
        let Some(step) = flow.step(&visit.at) else { return };
        match step.kind.inside(self, container, place, result) {
            Ok(Heard::Waits) => {}
            Ok(Heard::Done(result, status)) => self.leave(container, step, result, status),
            Ok(Heard::Goto) => self.go_on(container, &step.next),
            Err(why) => {
                self.close_inside(container);
                self.fail(container, step, why);
            }
        }
    }

    /// A step has failed: caught, passed over, or the end of its sequence.
    pub(super) fn fail(&mut self, seq: u32, step: &'a Step, why: RunError) {
        let flow = self.flow();
        let why = RunError { step: why.step.or_else(|| Some(step.name.clone())), ..why };
        self.note("StepFailed", Some(seq), json!({ "error": why.message, "class": why.class, "attempts": why.attempts }));
        self.record_done(seq, step, "failed", why.status);
        let caught: Option<&Catch> = step.catch.iter().find(|c| c.takes(&why));
        if let Some(catch) = caught {
            let Some(payload) = self.visit(seq).map(|v| v.payload.clone()) else { return };
            let payload = with_error(flow, payload, &why, step, catch.result_path.as_ref());
            if let Some(visit) = self.visit(seq) {
                visit.payload = payload;
            }
            self.note("Caught", Some(seq), json!({ "class": why.class }));
            return self.go_on(seq, &Next::Step(catch.goto));
        }
        if step.goes_on && why.class != "step_limit" {
            let Some(payload) = self.visit(seq).map(|v| v.payload.clone()) else { return };
            let payload = going_on(flow, payload, &why, step);
            if let Some(visit) = self.visit(seq) {
                visit.payload = payload;
            }
            self.note("Continued", Some(seq), json!({ "class": why.class }));
            return self.go_on(seq, &step.next);
        }
        let Some(visit) = self.close(seq) else { return };
        match visit.within {
            None => {
                self.change.run.state.stopped = Some(stopped(seq, &visit));
                self.end(Ended::Failed(why));
            }
            Some((container, place)) => self.came_of(container, place, Err(why)),
        }
    }

    /// A job of the fact that is told: it is over, and not moot.
    pub(super) fn done_with(&mut self, job: JobId) {
        for visit in self.change.run.state.visits.values_mut() {
            visit.jobs.retain(|open| *open != job);
        }
        if self.change.run.state.deadline == Some(job) {
            self.change.run.state.deadline = None;
        }
    }

    /// Closes a visit: its jobs are moot.
    pub(super) fn close(&mut self, seq: u32) -> Option<Visit> {
        let visit = self.change.run.state.visits.remove(&seq)?;
        self.moot(&visit.jobs);
        Some(visit)
    }

    /// Jobs that need not run any more. Those that are not stored yet are not stored at all.
    pub(super) fn moot(&mut self, jobs: &[JobId]) {
        for job in jobs {
            let before = self.change.jobs.len();
            self.change.jobs.retain(|new| new.id != *job);
            if self.change.jobs.len() == before {
                self.change.moot.push(*job);
            }
        }
    }

    /// Closes everything inside a container.
    pub(super) fn close_inside(&mut self, container: u32) {
        let inside: Vec<u32> = self
            .change
            .run
            .state
            .visits
            .iter()
            .filter(|(_, visit)| visit.within.is_some_and(|(of, _)| of == container))
            .map(|(seq, _)| *seq)
            .collect();
        for seq in inside {
            self.close_inside(seq);
            self.abandon(seq);
        }
    }

    /// Closes a visit that nobody waits for any more. A run that it started is told: it ends as its parent has.
    fn abandon(&mut self, seq: u32) {
        let Some(visit) = self.close(seq) else { return };
        if let Phase::Child { run } = visit.phase {
            let asked = self.change.starts.len();
            self.change.starts.retain(|start| start.run != run);
            if self.change.starts.len() < asked {
                // It was asked for by this very change: it is not started at all.
                return;
            }
            let target = Target::Timer(Visiting { run, visit: 0, step: self.flow().place(&visit.at) });
            let id = JobId(self.here.draw.id());
            self.change.jobs.push(RunJob { id, target, due: Due::After(std::time::Duration::ZERO) });
        }
    }

    /// A container may be entered this often beyond the limit of steps.
    pub(super) fn allow(&mut self, places: usize, steps: usize) {
        let more = u32::try_from(places.saturating_mul(steps)).unwrap_or(u32::MAX);
        let allowance = &mut self.change.run.state.allowance;
        *allowance = allowance.saturating_add(more);
    }

    /// Asks for a call of a visit.
    pub(super) fn call(&mut self, seq: u32) {
        self.job(seq, Due::After(std::time::Duration::ZERO), Target::Step);
    }

    /// Asks for an instant of a visit.
    pub(super) fn wake_at(&mut self, seq: u32, due: Due) {
        self.job(seq, due, Target::Timer);
    }

    fn job(&mut self, seq: u32, due: Due, target: impl Fn(Visiting) -> Target) {
        let id = JobId(self.here.draw.id());
        let run = self.change.run.id;
        let flow = self.flow();
        let Some(visit) = self.visit(seq) else { return };
        visit.jobs.push(id);
        let step = flow.place(&visit.at);
        self.change.jobs.push(RunJob { id, target: target(Visiting { run, visit: seq, step }), due });
    }

    /// Asks for the run's deadline.
    pub(super) fn set_deadline(&mut self) {
        let Some(timeout) = self.flow().timeout else { return };
        let id = JobId(self.here.draw.id());
        let run = &mut self.change.run;
        run.state.deadline = Some(id);
        run.state.deadline_at = Some(self.here.now.plus(timeout));
        let target = Target::Timer(Visiting { run: run.id, visit: 0, step: self.here.flow.name.clone() });
        self.change.jobs.push(RunJob { id, target, due: Due::After(timeout) });
    }

    /// Remembers where the run stands, for a redrive: the first open step of its own list.
    fn remember_stop(&mut self) {
        let state = &mut self.change.run.state;
        let open = state.visits.iter().find(|(_, visit)| visit.within.is_none());
        if let Some((seq, visit)) = open {
            state.stopped = Some(stopped(*seq, visit));
        }
    }

    /// Ends the run: nothing of it stays open.
    pub(super) fn end(&mut self, how: Ended) {
        self.ahead.clear();
        if !matches!(how, Ended::Completed(_)) && self.change.run.state.stopped.is_none() {
            self.remember_stop();
        }
        let open: Vec<u32> = self.change.run.state.visits.keys().copied().collect();
        for seq in open {
            self.abandon(seq);
        }
        if let Some(deadline) = self.change.run.state.deadline.take() {
            self.moot(&[deadline]);
        }
        let run = &mut self.change.run;
        run.finished_at = Some(self.here.now);
        let note = match how {
            Ended::Completed(payload) => {
                run.status = RunStatus::Completed;
                run.state.output = Some(payload);
                Some(("RunCompleted", json!({})))
            }
            Ended::Failed(why) => {
                run.status = RunStatus::Failed;
                let data = json!({ "error": why.message, "class": why.class, "step": why.step });
                run.error = Some(why);
                Some(("RunFailed", data))
            }
            Ended::Cancelled => {
                run.status = RunStatus::Cancelled;
                run.error = Some(error("cancelled", "called off"));
                None
            }
        };
        if let Some((kind, data)) = note {
            self.note(kind, None, data);
        }
        if let Some((parent, visit)) = self.change.run.parent {
            let step = self.flow().name.clone();
            let target = Target::Timer(Visiting { run: parent, visit, step });
            let id = JobId(self.here.draw.id());
            let due = Due::After(std::time::Duration::ZERO);
            self.change.jobs.push(RunJob { id, target, due });
        }
    }
}
