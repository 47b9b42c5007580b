//! The `set` step: computes a value from the payload, without a call.

use std::sync::Arc;

use super::Entry;
use crate::config::handler::read_template;
use crate::config::read::Section;
use crate::config::workflow::keys;
use crate::config::workflow::step::{Draft, Reading};
use crate::decide::template::Template;
use crate::decide::workflow::flow::Step;
use crate::decide::workflow::step_type::{Entered, StepType};
use crate::decide::workflow::walk::Walk;
use crate::model::Path;
use crate::model::run::RunError;

pub(super) static ENTRY: Entry =
    Entry { name: "set", keys: &[keys::BODY, keys::RESULT, keys::UNDO], in_map: true, read };

fn read(
    reading: &Reading<'_>,
    s: &mut Section<'_>,
    draft: &mut Draft,
) -> Option<Arc<dyn StepType>> {
    let body = read_template(s, "body", false);
    if body.is_none() && draft.step.assign.is_none() {
        s.error(
            "missing_key",
            "",
            format!("{} is type 'set' but has no body: add `body` or `assign`", reading.who()),
        );
        return None;
    }
    Some(Arc::new(Set { body }))
}

/// A step that computes a value.
#[derive(Debug)]
struct Set {
    /// The value; without one the payload stays as it is, and only variables are set.
    body: Option<Template>,
}

impl StepType for Set {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn enter(&self, walk: &mut Walk<'_>, seq: u32, step: &Step) -> Result<Entered, RunError> {
        let Some(view) = walk.view(seq, step) else { return Ok(Entered::Skipped) };
        let Some(body) = &self.body else {
            let payload = walk.visit(seq).map(|visit| visit.payload.clone());
            return Ok(payload.map_or(Entered::Skipped, Entered::Done));
        };
        Ok(Entered::Done(view.render(body)?))
    }

    fn paths(&self) -> Vec<&Path> {
        self.body.iter().flat_map(|body| body.paths()).collect()
    }

    fn has_response(&self) -> bool {
        self.body.is_some()
    }

    fn takes_time(&self) -> bool {
        false
    }
}
