//! `emit`: an event of another source. The job that emits it does so under a key of its own, so that however often it is
//! done there is one event.

use super::super::fact::Fact;
use super::super::walk::Walk;
use super::{Entered, Heard};
use crate::decide::retry::RetryPolicy;
use crate::decide::template::Template;
use crate::model::run::{RunError, VisitPhase};

/// An event.
#[derive(Debug, Clone)]
pub struct Emit {
    /// Of which source.
    pub source: String,
    /// Its type.
    pub event: String,
    /// Its body, where it is not the payload.
    pub body: Option<Template>,
    /// Retry policies, for a template that cannot be rendered or a source that refuses it.
    pub retry: Vec<RetryPolicy>,
}

pub(super) fn enter(walk: &mut Walk<'_>, seq: u32) -> Entered {
    walk.call(seq);
    Entered::Waits(VisitPhase::Call { token: None, polls: 0 })
}

pub(super) fn hear(fact: &Fact) -> Result<Heard, RunError> {
    match fact {
        // The event is out; the payload is what it was.
        Fact::Answered { .. } => Ok(Heard::Goto),
        Fact::Failed { error, .. } => Err(error.clone()),
        _ => Ok(Heard::Waits),
    }
}
