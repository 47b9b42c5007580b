//! Start and advance: a run and a fact into the change that it makes.

use serde_json::json;
use ulid::Ulid;

use super::catch::error;
use super::data::check_params;
use super::walk::{Ended, Walk};
use super::{Fact, Flow};
use crate::model::run::{Change, Note, Phase, RunState};
use crate::model::{EventId, Payload, Run, RunId, RunStatus, Timestamp};

/// Where ids and tokens come from. Passed in, so that a seed replays a run.
pub trait Draw {
    /// A fresh id.
    fn id(&self) -> Ulid;
    /// 256 random bits as 52 characters of base32.
    fn token(&self) -> String;
}

/// What the machine is given besides run and fact.
pub struct Here<'a> {
    /// The definition the run is pinned to.
    pub flow: &'a Flow,
    /// The instant of this change.
    pub now: Timestamp,
    /// Ids and tokens.
    pub draw: &'a dyn Draw,
}

/// What starts a run.
#[derive(Debug, Clone)]
pub struct Birth {
    /// The run's id.
    pub id: RunId,
    /// The event it belongs to.
    pub event: EventId,
    /// What it starts with.
    pub input: Payload,
    /// Who waits for it.
    pub parent: Option<(RunId, u32)>,
    /// How deep it is nested.
    pub depth: u32,
}

/// Starts a run. A payload without the parameters makes a run that has failed.
pub fn start(birth: Birth, here: &Here<'_>) -> Change {
    let Birth { id, event, input, parent, depth } = birth;
    let run = Run {
        id,
        workflow: here.flow.name.clone(),
        definition: here.flow.hash.clone(),
        event,
        parent,
        status: RunStatus::Running,
        error: None,
        version: 0,
        created_at: here.now,
        finished_at: None,
        state: RunState {
            input: input.clone(),
            visits: Default::default(),
            visited: 0,
            visited_before: 0,
            allowance: 0,
            steps: Default::default(),
            kept: Default::default(),
            vars: Default::default(),
            output: None,
            deadline: None,
            deadline_at: None,
            depth,
            stopped: None,
            redrives: 0,
        },
    };
    let mut walk = Walk::new(run, here);
    walk.change.is_new = true;
    if let Err(why) = check_params(here.flow, &input) {
        walk.note("RunRejected", None, json!({ "error": why }));
        walk.end(Ended::Failed(error("params", why)));
        return walk.change;
    }
    walk.note("RunStarted", None, json!({ "definition": here.flow.hash }));
    walk.set_deadline();
    walk.enter(vec![0], None, input);
    walk.go();
    walk.change
}

/// What a fact changes; `None` when it changes nothing: it concerns a visit that is over, or was told before.
pub fn advance(run: &Run, fact: &Fact, here: &Here<'_>) -> Option<Change> {
    if run.status.is_closed() {
        return None;
    }
    let mut walk = Walk::new(run.clone(), here);
    match fact {
        Fact::Cancelled => {
            walk.note("RunCancelled", None, json!({}));
            walk.end(Ended::Cancelled);
        }
        Fact::Elapsed { visit: 0, job } => {
            if run.state.deadline != Some(*job) {
                return None;
            }
            walk.done_with(*job);
            let message = format!("the run took longer than {} s", here.flow.timeout.unwrap_or_default().as_secs());
            walk.end(Ended::Failed(error("workflow_timeout", message)));
        }
        Fact::Answered { visit, job, .. } | Fact::Failed { visit, job, .. } | Fact::Elapsed { visit, job } => {
            if !run.state.visits.get(visit).is_some_and(|v| v.jobs.contains(job)) {
                return None;
            }
            walk.done_with(*job);
            walk.tell(*visit, fact);
        }
        Fact::CalledBack { visit, .. } => {
            let phase = run.state.visits.get(visit).map(|v| &v.phase);
            if !matches!(phase, Some(Phase::Answer | Phase::Token { .. } | Phase::Call { token: Some(_), .. })) {
                return None;
            }
            walk.tell(*visit, fact);
        }
        Fact::ChildEnded { visit, .. } => {
            if !matches!(run.state.visits.get(visit).map(|v| &v.phase), Some(Phase::Child { .. })) {
                return None;
            }
            walk.tell(*visit, fact);
        }
    }
    walk.go();
    Some(walk.change)
}

/// Takes up a run that failed or was called off, from the step where it stopped, with a fresh budget and deadline.
///
/// # Errors
/// A sentence: there is nothing to take up.
pub fn redrive(run: &Run, here: &Here<'_>) -> Result<Change, String> {
    if !matches!(run.status, RunStatus::Failed | RunStatus::Cancelled) {
        return Err(format!("only a run that failed or was cancelled can be redriven; this one is {}", run.status));
    }
    let Some(stopped) = run.state.stopped.clone() else {
        return Err("the run failed before it entered a step; send its event again".to_owned());
    };
    let mut walk = Walk::new(run.clone(), here);
    let run = &mut walk.change.run;
    (run.status, run.error, run.finished_at) = (RunStatus::Running, None, None);
    run.state.stopped = None;
    run.state.redrives += 1;
    (run.state.visited_before, run.state.allowance) = (run.state.visited, 0);
    let redrives = run.state.redrives;
    walk.note("Redriven", None, json!({ "redrives": redrives }));
    walk.set_deadline();
    walk.repeats = Some((stopped.operation, stopped.entered_at));
    walk.enter(stopped.at, None, stopped.payload);
    walk.go();
    Ok(walk.change)
}

/// A line of history.
pub(super) fn note(kind: &'static str, step: Option<String>, visit: Option<u32>, data: serde_json::Value) -> Note {
    Note { kind, step, visit, data }
}
