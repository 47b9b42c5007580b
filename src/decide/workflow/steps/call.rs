//! `http`: one call, answered or failed for good. Its attempts are the job's.

use super::super::fact::Fact;
use super::super::flow::{Call, Step};
use super::super::walk::Walk;
use super::{Entered, Heard};
use crate::model::run::{Phase, RunError};

pub(super) fn enter(call: &Call, walk: &mut Walk<'_>, seq: u32, step: &Step) -> Result<Entered, RunError> {
    let body = match &call.body {
        Some(template) => body(template, walk, seq, step)?,
        None => None,
    };
    walk.call(seq);
    Ok(Entered::Waits(Phase::Call { body, token: None }))
}

/// The rendered body; each attempt sends these bytes.
fn body(
    template: &crate::decide::template::Template,
    walk: &Walk<'_>,
    seq: u32,
    step: &Step,
) -> Result<Option<String>, RunError> {
    let Some(view) = walk.view(seq, step) else { return Ok(None) };
    Ok(view.render(template)?.map(|rendered| rendered.to_body()))
}

pub(super) fn hear(fact: &Fact) -> Result<Heard, RunError> {
    match fact {
        Fact::Answered { status, body, .. } => Ok(Heard::Done(body.clone(), Some(*status))),
        Fact::Failed { error, .. } => Err(error.clone()),
        _ => Ok(Heard::Waits),
    }
}
