//! `http`: one call, answered or failed for good; with `poll`, again until the answer is there. Its attempts are the job's.

use serde_json::json;

use super::super::catch::error;
use super::super::data::View;
use super::super::fact::Fact;
use super::super::flow::{Call, Poll, Step};
use super::super::walk::Walk;
use super::{Entered, Heard};
use crate::model::Payload;
use crate::model::run::{RunError, VisitPhase};

pub(super) fn enter(walk: &mut Walk<'_>, seq: u32) -> Entered {
    walk.call(seq);
    Entered::Waits(VisitPhase::Call { token: None, polls: 0 })
}

pub(super) fn hear(call: &Call, walk: &mut Walk<'_>, seq: u32, step: &Step, fact: &Fact) -> Result<Heard, RunError> {
    match fact {
        Fact::Answered { status, body, .. } => match &call.poll {
            Some(poll) if !is_there(walk, seq, step, poll, *status, body) => again(poll, walk, seq, step),
            _ => Ok(Heard::Done(body.clone(), Some(*status))),
        },
        Fact::Failed { error, .. } => Err(error.clone()),
        _ => Ok(Heard::Waits),
    }
}

fn is_there(walk: &Walk<'_>, seq: u32, step: &Step, poll: &Poll, status: u16, body: &Payload) -> bool {
    let response = json!({ "status": status, "body": body.clone().into_value() });
    View::of(&walk.change.run, seq, &step.name, body).with("response", response).holds(&poll.until)
}

fn again(poll: &Poll, walk: &mut Walk<'_>, seq: u32, step: &Step) -> Result<Heard, RunError> {
    let Some(visit) = walk.visit(seq) else { return Ok(Heard::Waits) };
    let VisitPhase::Call { polls, .. } = &mut visit.phase else { return Ok(Heard::Waits) };
    *polls += 1;
    if *polls >= poll.max {
        return Err(error("poll_timeout", format!("step '{}': the answer was not there after {polls} calls", step.name)));
    }
    walk.call_after(seq, poll.every);
    Ok(Heard::Waits)
}
