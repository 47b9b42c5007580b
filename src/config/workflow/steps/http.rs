//! `http`: one call, answered or failed for good; with `poll`, repeated until the answer is there.
//! Its attempts are the job's.

use std::sync::Arc;

use serde_json::json;

use super::{Entry, own_call};
use crate::config::read::Section;
use crate::config::workflow::keys;
use crate::config::workflow::step::{Draft, Reading};
use crate::decide::workflow::catch::error;
use crate::decide::workflow::data::ExpressionScope;
use crate::decide::workflow::fact::Fact;
use crate::decide::workflow::flow::{Call, Poll, Step};
use crate::decide::workflow::step_type::{Entered, Handled, StepType};
use crate::decide::workflow::walk::Walk;
use crate::model::Payload;
use crate::model::run::{RunError, VisitPhase};

pub(super) static ENTRY: Entry = Entry {
    name: "http",
    keys: &[
        keys::REQUEST,
        keys::BODY,
        keys::EXPECTATION,
        keys::CALL,
        keys::POLL,
        keys::RETRY,
        keys::TIMEOUT,
        keys::RESULT,
        keys::PAUSE,
        keys::UNDO,
    ],
    in_map: true,
    read,
};

fn read(
    reading: &Reading<'_>,
    s: &mut Section<'_>,
    draft: &mut Draft,
) -> Option<Arc<dyn StepType>> {
    if !s.has("url") {
        s.error(
            "missing_key",
            "",
            format!("{} has no url: add `url`, the address to call", reading.who()),
        );
    }
    let call = own_call(reading, s);
    draft.input_is_json = call.sends_json;
    Some(Arc::new(Http(call.call()?)))
}

/// A step that makes a call.
#[derive(Debug)]
pub(in crate::config::workflow) struct Http(pub(in crate::config::workflow) Call);

impl StepType for Http {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn enter(&self, walk: &mut Walk<'_>, seq: u32, _: &Step) -> Result<Entered, RunError> {
        walk.call(seq);
        Ok(Entered::Waits(VisitPhase::Call { token: None, polls: 0 }))
    }

    fn handle(
        &self,
        walk: &mut Walk<'_>,
        seq: u32,
        step: &Step,
        fact: &Fact,
    ) -> Result<Handled, RunError> {
        match fact {
            Fact::Answered { status, body, .. } => match &self.0.poll {
                Some(poll) if !is_there(walk, seq, step, poll, *status, body) => {
                    poll_again(poll, walk, seq, step)
                }
                _ => Ok(Handled::Done(body.clone(), Some(*status))),
            },
            Fact::Failed { error, .. } => Err(error.clone()),
            _ => Ok(Handled::Waits),
        }
    }

    fn call(&self) -> Option<&Call> {
        Some(&self.0)
    }

    fn has_response(&self) -> bool {
        true
    }
}

fn is_there(
    walk: &Walk<'_>,
    seq: u32,
    step: &Step,
    poll: &Poll,
    status: u16,
    body: &Payload,
) -> bool {
    let response = json!({ "status": status, "body": body.clone().into_value() });
    ExpressionScope::of(&walk.change.run, seq, &step.name, body)
        .with("response", response)
        .holds(&poll.until)
}

fn poll_again(
    poll: &Poll,
    walk: &mut Walk<'_>,
    seq: u32,
    step: &Step,
) -> Result<Handled, RunError> {
    let Some(visit) = walk.visit(seq) else { return Ok(Handled::Waits) };
    let VisitPhase::Call { polls, .. } = &mut visit.phase else { return Ok(Handled::Waits) };
    *polls += 1;
    if *polls >= poll.max {
        return Err(error(
            "poll_timeout",
            format!("step '{}': `poll.until` was not true after {polls} calls", step.name),
        ));
    }
    walk.call_after(seq, poll.every);
    Ok(Handled::Waits)
}
