//! `emit`: publishes an event. The job that does it uses an idempotency key of its visit, so that
//! there is one event however often the job is repeated.

use std::sync::Arc;

use super::{Entry, fixed_text};
use crate::config::SourceKind;
use crate::config::handler::read_template;
use crate::config::keys::{Key, Takes, key};
use crate::config::problem::{Severity, did_you_mean};
use crate::config::read::Section;
use crate::config::server::read_retry;
use crate::config::workflow::keys;
use crate::config::workflow::step::{Draft, Reading};
use crate::decide::retry::RetryPolicy;
use crate::decide::workflow::fact::Fact;
use crate::decide::workflow::flow::Step;
use crate::decide::workflow::step_type::{Emission, Entered, Handled, StepType};
use crate::decide::workflow::walk::Walk;
use crate::model::Path;
use crate::model::run::{RunError, VisitPhase};

const KEYS: &[Key] = &[
    key("source", Takes::Text, "emit: source of the event"),
    key("event", Takes::Text, "emit: type of the event"),
];

pub(super) static ENTRY: Entry = Entry {
    name: "emit",
    keys: &[KEYS, keys::BODY, keys::RETRY, keys::PAUSE, keys::UNDO],
    in_map: true,
    read,
};

fn read(reading: &Reading<'_>, s: &mut Section<'_>, _: &mut Draft) -> Option<Arc<dyn StepType>> {
    let who = reading.who();
    let body = read_template(s, "body", true);
    let retry = read_retry(s, "retry", reading.of.retry);
    let event = fixed_text(s, "event").or_else(|| s.required_text("event"));
    let source = s.required_text("source")?;
    let sources = reading.of.around.sources;
    match sources.get(&source) {
        Some(SourceKind::Event) => {}
        Some(_) => {
            let message = format!(
                "{who} cannot emit to source '{source}': only sources of type `event` accept \
                 emitted events"
            );
            s.error("wrong_source", "source", message);
        }
        None => {
            let help = did_you_mean(&source, sources.keys().map(String::as_str));
            let message = format!("{who} references unknown source '{source}'");
            s.problem(Severity::Error, "unknown_source", "source", message, help);
        }
    }
    Some(Arc::new(Emit(Emission { source, event: event?, body, retry })))
}

/// A step that publishes an event.
#[derive(Debug)]
struct Emit(Emission);

impl StepType for Emit {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn enter(&self, walk: &mut Walk<'_>, seq: u32, _: &Step) -> Result<Entered, RunError> {
        walk.call(seq);
        Ok(Entered::Waits(VisitPhase::Call { token: None, polls: 0 }))
    }

    fn handle(&self, _: &mut Walk<'_>, _: u32, _: &Step, fact: &Fact) -> Result<Handled, RunError> {
        match fact {
            Fact::Answered { .. } => Ok(Handled::Passed),
            Fact::Failed { error, .. } => Err(error.clone()),
            _ => Ok(Handled::Waits),
        }
    }

    fn emission(&self) -> Option<&Emission> {
        Some(&self.0)
    }

    fn retry(&self) -> &[RetryPolicy] {
        &self.0.retry
    }

    fn paths(&self) -> Vec<&Path> {
        self.0.body.iter().flat_map(|body| body.paths()).collect()
    }
}
