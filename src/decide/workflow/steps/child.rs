//! `workflow`: another run, whose payload at its end is the step's response.

use serde_json::json;

use super::super::catch::error;
use super::super::fact::Fact;
use super::super::walk::Walk;
use super::{Entered, Heard};
use crate::model::RunId;
use crate::model::run::{Phase, RunError, Start};

/// Runs nest this deep at most.
pub const DEPTH_MAX: u32 = 16;

/// A sub-workflow.
#[derive(Debug, Clone)]
pub struct Child {
    /// Which workflow.
    pub workflow: String,
}

impl Child {
    pub(super) fn enter(&self, walk: &mut Walk<'_>, seq: u32) -> Result<Entered, RunError> {
        if walk.change.run.state.depth + 1 > DEPTH_MAX {
            return Err(error("workflow_failed", format!("workflows call each other more than {DEPTH_MAX} deep")));
        }
        let run = RunId(walk.here.draw.id());
        let Some(visit) = walk.change.run.state.visits.get(&seq) else { return Ok(Entered::Skipped) };
        let start = Start { run, visit: seq, workflow: self.workflow.clone(), input: visit.payload.clone() };
        walk.change.starts.push(start);
        walk.note("ChildStarted", Some(seq), json!({ "run": run.to_string(), "workflow": self.workflow }));
        Ok(Entered::Waits(Phase::Child { run }))
    }
}

pub(super) fn hear(fact: &Fact) -> Result<Heard, RunError> {
    match fact {
        Fact::ChildEnded { result: Ok(payload), .. } => Ok(Heard::Done(payload.clone(), None)),
        Fact::ChildEnded { result: Err(why), .. } => {
            Err(RunError { status: why.status, attempts: why.attempts, ..error("workflow_failed", why.message.clone()) })
        }
        _ => Ok(Heard::Waits),
    }
}
