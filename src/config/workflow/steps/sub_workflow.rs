//! `workflow`: starts another run and waits for it; its output is the step's response.

use std::sync::Arc;

use serde_json::json;

use super::Entry;
use crate::config::keys::{Key, Takes, key};
use crate::config::read::Section;
use crate::config::server::read_retry;
use crate::config::workflow::keys;
use crate::config::workflow::step::{Draft, Reading};
use crate::decide::retry::{AttemptsSoFar, RetryPolicy, Verdict, after_class};
use crate::decide::workflow::catch::error;
use crate::decide::workflow::fact::Fact;
use crate::decide::workflow::flow::{DEPTH_MAX, Step};
use crate::decide::workflow::step_type::{Entered, Handled, StepType};
use crate::decide::workflow::walk::Walk;
use crate::model::history::NoteKind;
use crate::model::run::{Due, RunError, Start, VisitPhase};

/// The key that names the other workflow. `map` has it too.
pub(super) const WORKFLOW: &[Key] = &[key(
    "workflow",
    Takes::Text,
    "workflow: name of the workflow to call; map: name of the workflow to call for each item",
)];

pub(super) static ENTRY: Entry = Entry {
    name: "workflow",
    keys: &[WORKFLOW, keys::RETRY, keys::RESULT, keys::PAUSE, keys::UNDO],
    in_map: true,
    read,
};

fn read(
    reading: &Reading<'_>,
    s: &mut Section<'_>,
    draft: &mut Draft,
) -> Option<Arc<dyn StepType>> {
    let who = reading.who();
    let Some(calls) = s.placed_text("workflow") else {
        s.error(
            "missing_key",
            "",
            format!("{who} is type 'workflow' but has no workflow name: add `workflow`"),
        );
        return None;
    };
    draft.call = Some((who, calls.clone()));
    // A run that failed is not started again unless the step says so.
    let retry = if s.has("retry") { read_retry(s, "retry", reading.of.retry) } else { Vec::new() };
    Some(Arc::new(SubWorkflow { workflow: calls.value, retry }))
}

/// A step that starts another run.
#[derive(Debug)]
pub(super) struct SubWorkflow {
    pub(super) workflow: String,
    /// Whether another run follows one that failed; empty is no.
    pub(super) retry: Vec<RetryPolicy>,
}

impl SubWorkflow {
    fn start(&self, walk: &mut Walk<'_>, seq: u32, failed: u32) -> Result<Entered, RunError> {
        if walk.change.run.state.depth + 1 > DEPTH_MAX {
            return Err(error(
                "workflow_failed",
                format!("workflow calls are nested more than {DEPTH_MAX} levels deep"),
            ));
        }
        let run = walk.new_run_id();
        let Some(visit) = walk.change.run.state.visits.get(&seq) else {
            return Ok(Entered::Skipped);
        };
        let start = Start {
            run,
            visit: seq,
            workflow: self.workflow.clone(),
            input: visit.payload.clone(),
        };
        walk.change.starts.push(start);
        walk.note(
            NoteKind::ChildStarted,
            Some(seq),
            json!({ "run": run.to_string(), "workflow": self.workflow }),
        );
        Ok(Entered::Waits(VisitPhase::Child { run, failed }))
    }

    fn child_failed(
        &self,
        walk: &mut Walk<'_>,
        seq: u32,
        failed: u32,
        why: &RunError,
    ) -> Result<Handled, RunError> {
        let entered_at = walk.visit(seq).map(|visit| visit.entered_at);
        let age = entered_at.map(|at| walk.now().since(at)).unwrap_or_default();
        let tried = AttemptsSoFar { count: failed + 1, before: &[], age, app: None };
        // Whoever cancelled the other run does not want another one.
        let wants_more = why.class != "cancelled";
        let verdict =
            after_class(&self.retry, tried, ("workflow_failed", None), None, walk.chance());
        match verdict {
            Verdict::RetryIn(delay) if wants_more => {
                walk.note(
                    NoteKind::RetryScheduled,
                    Some(seq),
                    json!({ "after_ms": delay.as_millis() }),
                );
                walk.wake_at(seq, Due::After(delay));
                if let Some(VisitPhase::Child { failed, .. }) =
                    walk.visit(seq).map(|visit| &mut visit.phase)
                {
                    *failed += 1;
                }
                Ok(Handled::Waits)
            }
            _ => Err(RunError {
                status: why.status,
                attempts: failed + 1,
                app: why.app.clone(),
                ..error("workflow_failed", why.message.clone())
            }),
        }
    }
}

impl StepType for SubWorkflow {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn enter(&self, walk: &mut Walk<'_>, seq: u32, _: &Step) -> Result<Entered, RunError> {
        self.start(walk, seq, 0)
    }

    fn handle(
        &self,
        walk: &mut Walk<'_>,
        seq: u32,
        _: &Step,
        fact: &Fact,
    ) -> Result<Handled, RunError> {
        let (child, failed) = match walk.visit(seq).map(|visit| &visit.phase) {
            Some(VisitPhase::Child { run, failed }) => (*run, *failed),
            _ => return Ok(Handled::Waits),
        };
        match fact {
            Fact::ChildEnded { result: Ok(payload), .. } => {
                walk.note(NoteKind::ChildFinished, Some(seq), json!({ "run": child.to_string() }));
                Ok(Handled::Done(payload.clone(), None))
            }
            Fact::ChildEnded { result: Err(why), .. } => {
                walk.note(
                    NoteKind::ChildFinished,
                    Some(seq),
                    json!({ "run": child.to_string(), "error": why.message }),
                );
                self.child_failed(walk, seq, failed, why)
            }
            // The delay before another run is over.
            Fact::Elapsed { .. } => {
                if let Entered::Waits(phase) = self.start(walk, seq, failed)?
                    && let Some(visit) = walk.visit(seq)
                {
                    visit.phase = phase;
                }
                Ok(Handled::Waits)
            }
            _ => Ok(Handled::Waits),
        }
    }

    fn has_response(&self) -> bool {
        true
    }
}
