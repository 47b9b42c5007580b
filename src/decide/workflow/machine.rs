//! The state machine of workflow runs: `start` begins a run, `advance` applies a fact to it. Both
//! return the change to commit.

use serde_json::{Value, json};
use ulid::Ulid;

use super::catch::error;
use super::data::{ExpressionScope, check_params};
use super::gate::Turn;
use super::walk::Walk;
use super::{Fact, Flow};
use crate::model::history::Note;
use crate::model::history::NoteKind;
use crate::model::key::within_limits;
use crate::model::run::{Change, Close, RunError, RunState, VisitPhase};
use crate::model::{EventId, Payload, Run, RunId, RunStatus, Timestamp};

/// The source of ids, tokens and random numbers. It is passed in, so that a test can replay a run.
pub trait Draw {
    /// Draws a fresh id for a job or a run.
    fn id(&self) -> Ulid;
    /// 256 random bits as 52 characters of base32.
    fn token(&self) -> String;
    /// A random number in `0.0..1.0`.
    fn chance(&self) -> f64;
}

/// What the machine needs besides the run and the fact.
pub struct Context<'a> {
    /// The definition the run is pinned to.
    pub flow: &'a Flow,
    /// The time of this change, by the database's clock.
    pub now: Timestamp,
    /// The source of ids, tokens and random numbers.
    pub draw: &'a dyn Draw,
}

/// Everything a new run begins with.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// The id of the new run. It is given by the caller, so that a repeated start makes the same
    /// run.
    pub id: RunId,
    /// The event that started the run, or its topmost parent.
    pub event: EventId,
    /// What expressions read as `$$.event`.
    pub event_context: Value,
    /// The payload that the run begins with; checked against the workflow's parameters.
    pub input: Payload,
    /// The run that called this one as a sub-workflow, and the number of its visit; `None` for a
    /// topmost run.
    pub parent: Option<(RunId, u32)>,
    /// How many runs are above this one in the chain of sub-workflows; 0 for a topmost run.
    pub depth: u32,
}

/// Builds a new run before its first change.
pub(super) fn not_yet_started(birth: NewRun, context: &Context<'_>) -> Run {
    let NewRun { id, event, event_context, input, parent, depth } = birth;
    Run {
        id,
        workflow: context.flow.name.clone(),
        definition: context.flow.hash.clone(),
        event,
        parent,
        status: RunStatus::Running,
        error: None,
        version: 0,
        created_at: context.now,
        finished_at: None,
        state: RunState { input, event_context, depth, ..RunState::default() },
        unreadable: None,
    }
}

/// Starts a run. If the payload lacks a parameter of the workflow, the run has failed at once.
pub fn start(birth: NewRun, context: &Context<'_>) -> Change {
    let input = birth.input.clone();
    let mut walk = Walk::new(not_yet_started(birth, context), context);
    walk.change.is_new = true;
    if let Err(why) = check_params(context.flow, &input) {
        walk.note(NoteKind::RunRejected, None, json!({ "error": why }));
        walk.end(Close::Failed(error("params", why)), input);
        return walk.change;
    }
    walk.note(NoteKind::RunStarted, None, json!({ "definition": context.flow.hash }));
    match gate_of(&walk) {
        Ok(Some(gate)) => walk.ask_gate(gate),
        Ok(None) => walk.begin_run(),
        Err(why) => walk.end(Close::Failed(why), input),
    }
    walk.go();
    walk.change
}

/// Starts a run at one step of the workflow's own list, without the steps before it. It serves to
/// try a step out.
pub fn at_step(birth: NewRun, at: usize, context: &Context<'_>) -> Change {
    let input = birth.input.clone();
    let mut walk = Walk::new(not_yet_started(birth, context), context);
    walk.change.is_new = true;
    walk.enter(vec![at], None, input);
    walk.go();
    walk.change
}

/// The concurrency key of a run: the workflow's name and the rendered template. `None` without a
/// limit.
fn gate_of(walk: &Walk<'_>) -> Result<Option<String>, RunError> {
    let (flow, run) = (walk.flow(), &walk.change.run);
    let Some(concurrency) = &flow.concurrency else { return Ok(None) };
    let Some(key) = &concurrency.key else { return Ok(Some(flow.name.clone())) };
    let view = ExpressionScope::of(run, 0, "concurrency", &run.state.input);
    let key = view
        .render_plain(key, |text, _| Ok(text.to_owned()))
        .map_err(|why| error("template", why))?;
    Ok(Some(format!("{}/{}", flow.name, within_limits(&key))))
}

impl Walk<'_> {
    /// Applies the gate's decision: the run begins, waits or is cancelled.
    fn apply_turn(&mut self, turn: &Turn) {
        if let Some(job) = self.change.run.state.turn_job.take() {
            self.cancel_jobs(&[job]);
        }
        match turn {
            Turn::Waits { .. } => {}
            Turn::Refused => {
                self.note(
                    NoteKind::Refused,
                    None,
                    json!({ "reason": "the concurrency limit of the workflow is reached" }),
                );
                let payload = self.last_payload();
                self.end(Close::Cancelled, payload);
            }
            Turn::Admitted { .. } => {
                self.change.run.status = RunStatus::Running;
                self.note(NoteKind::Admitted, None, json!({}));
                self.begin_run();
            }
        }
        if let Turn::Admitted { instead_of } | Turn::Waits { instead_of } = turn {
            instead_of.iter().for_each(|run| self.notify_run(*run, 0, &self.flow().name.clone()));
        }
    }

    /// Enters the first step, or after a redrive the step where the run stopped.
    pub(super) fn begin_run(&mut self) {
        self.set_deadline();
        let state = &mut self.change.run.state;
        match state.stopped.take() {
            Some(stopped) => self.continue_from(stopped),
            None => {
                let input = state.input.clone();
                self.enter(vec![0], None, input);
            }
        }
    }
}

/// Builds the change by which a closed run gives up its place at its gate, and notifies the next
/// run.
pub(super) fn hand_on(run: &Run, next: Option<RunId>, context: &Context<'_>) -> Change {
    let mut walk = Walk::new(run.clone(), context);
    if let Some(next) = next {
        walk.notify_run(next, 0, &context.flow.name);
    }
    walk.change
}

/// Applies a fact to a run. `None` when nothing changes: the fact concerns a closed visit, or was
/// applied before.
pub fn advance(run: &Run, fact: &Fact, context: &Context<'_>) -> Option<Change> {
    if run.status.is_closed() {
        return None;
    }
    let mut walk = Walk::new(run.clone(), context);
    match fact {
        Fact::Cancelled => {
            if run.state.ending.is_some() {
                return None;
            }
            walk.note(NoteKind::CancelRequested, None, json!({}));
            let payload = walk.last_payload();
            walk.end(Close::Cancelled, payload);
        }
        Fact::Killed => walk.kill(),
        Fact::Paused => {
            if run.status == RunStatus::Paused {
                return None;
            }
            walk.note(NoteKind::Paused, None, json!({}));
            walk.pause_jobs();
        }
        Fact::Resumed => {
            if run.status != RunStatus::Paused {
                return None;
            }
            walk.resume();
        }
        Fact::Turn(turn) => {
            if run.status != RunStatus::Queued {
                return None;
            }
            walk.apply_turn(turn);
        }
        Fact::Elapsed { visit: 0, job } => {
            if run.state.deadline_job != Some(*job) {
                return None;
            }
            walk.done_with(*job);
            let message = format!(
                "the run took longer than {} s",
                context.flow.timeout.unwrap_or_default().as_secs()
            );
            let payload = walk.last_payload();
            let step = run.state.visits.values().next_back().map(|visit| visit.step.clone());
            let late = crate::model::RunError { step, ..error("workflow_timeout", message) };
            walk.end(Close::Failed(late), payload);
        }
        Fact::Answered { visit, job, .. }
        | Fact::Failed { visit, job, .. }
        | Fact::Elapsed { visit, job } => {
            if !run.state.visits.get(visit).is_some_and(|v| v.jobs.contains(job)) {
                return None;
            }
            walk.done_with(*job);
            walk.tell(*visit, fact);
        }
        Fact::CalledBack { visit, .. } => {
            let phase = run.state.visits.get(visit).map(|v| &v.phase);
            if !matches!(
                phase,
                Some(
                    VisitPhase::Answer { .. }
                        | VisitPhase::Token { .. }
                        | VisitPhase::Call { token: Some(_), .. }
                )
            ) {
                return None;
            }
            walk.tell(*visit, fact);
        }
        Fact::Heartbeat { visit } => {
            let phase = run.state.visits.get(visit).map(|v| &v.phase);
            if !matches!(
                phase,
                Some(
                    VisitPhase::Answer { beat: Some(_) } | VisitPhase::Token { beat: Some(_), .. }
                )
            ) {
                return None;
            }
            walk.tell(*visit, fact);
        }
        Fact::ChildEnded { visit, .. } => {
            if !matches!(
                run.state.visits.get(visit).map(|v| &v.phase),
                Some(VisitPhase::Child { .. })
            ) {
                return None;
            }
            walk.tell(*visit, fact);
        }
    }
    walk.go();
    Some(walk.change)
}

/// Builds one entry of a run's history.
pub(super) fn note(
    kind: NoteKind,
    step: Option<String>,
    visit: Option<u32>,
    data: serde_json::Value,
) -> Note {
    Note { kind, step, visit, data }
}
