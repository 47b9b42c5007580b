//! `workflow`: another run, whose output is the step's response.

use serde_json::json;

use super::super::catch::error;
use super::super::fact::Fact;
use super::super::walk::Walk;
use super::{Entered, Heard};
use crate::decide::retry::{RetryPolicy, Tried, Verdict, after_class};
use crate::model::RunId;
use crate::model::run::{Due, RunError, Start, VisitPhase};

/// Runs nest this deep at most.
pub const DEPTH_MAX: u32 = 16;

/// A sub-workflow.
#[derive(Debug, Clone)]
pub struct Child {
    /// Which workflow.
    pub workflow: String,
    /// Whether a run that failed is followed by another one; empty is no.
    pub retry: Vec<RetryPolicy>,
}

impl Child {
    pub(super) fn enter(&self, walk: &mut Walk<'_>, seq: u32, failed: u32) -> Result<Entered, RunError> {
        if walk.change.run.state.depth + 1 > DEPTH_MAX {
            return Err(error("workflow_failed", format!("workflows call each other more than {DEPTH_MAX} deep")));
        }
        let run = RunId(walk.here.draw.id());
        let Some(visit) = walk.change.run.state.visits.get(&seq) else { return Ok(Entered::Skipped) };
        let start = Start { run, visit: seq, workflow: self.workflow.clone(), input: visit.payload.clone() };
        walk.change.starts.push(start);
        walk.note("ChildStarted", Some(seq), json!({ "run": run.to_string(), "workflow": self.workflow }));
        Ok(Entered::Waits(VisitPhase::Child { run, failed }))
    }

    pub(super) fn hear(&self, walk: &mut Walk<'_>, seq: u32, fact: &Fact) -> Result<Heard, RunError> {
        let (child, failed) = match walk.visit(seq).map(|visit| &visit.phase) {
            Some(VisitPhase::Child { run, failed }) => (*run, *failed),
            _ => return Ok(Heard::Waits),
        };
        match fact {
            Fact::ChildEnded { result: Ok(payload), .. } => {
                walk.note("ChildFinished", Some(seq), json!({ "run": child.to_string() }));
                Ok(Heard::Done(payload.clone(), None))
            }
            Fact::ChildEnded { result: Err(why), .. } => {
                walk.note("ChildFinished", Some(seq), json!({ "run": child.to_string(), "error": why.message }));
                let tried = Tried { count: failed + 1, before: &[], age: walk.here.now.since(self.since(walk, seq)), app: None };
                let failure = RunError {
                    status: why.status,
                    attempts: failed + 1,
                    app: why.app.clone(),
                    ..error("workflow_failed", why.message.clone())
                };
                // Whoever called the other run off does not want another one.
                let wants_more = why.class != "cancelled";
                let verdict = after_class(&self.retry, tried, ("workflow_failed", None), None, walk.here.draw.chance());
                match verdict {
                    Verdict::RetryIn(delay) if wants_more => {
                        walk.note("RetryScheduled", Some(seq), json!({ "after_ms": delay.as_millis() }));
                        walk.wake_at(seq, Due::After(delay));
                        if let Some(visit) = walk.visit(seq) {
                            visit.phase = VisitPhase::Child { run: child, failed: failed + 1 };
                        }
                        Ok(Heard::Waits)
                    }
                    _ => Err(failure),
                }
            }
            Fact::Elapsed { .. } => match self.enter(walk, seq, failed)? {
                Entered::Waits(phase) => {
                    if let Some(visit) = walk.visit(seq) {
                        visit.phase = phase;
                    }
                    Ok(Heard::Waits)
                }
                _ => Ok(Heard::Waits),
            },
            _ => Ok(Heard::Waits),
        }
    }

    fn since(&self, walk: &Walk<'_>, seq: u32) -> crate::model::Timestamp {
        walk.change.run.state.visits.get(&seq).map_or(walk.here.now, |visit| visit.entered_at)
    }
}
