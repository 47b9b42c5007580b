//! The `parallel` step: runs several branches at once with the same payload. The result is an
//! object with one key per branch.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Entry;
use super::container::{Opening, place_ended};
use super::http::Http;
use crate::config::keys::{Key, Takes, key};
use crate::config::read::Section;
use crate::config::server::{read_retry, read_timeout};
use crate::config::workflow::call::CallSpec;
use crate::config::workflow::keys::{self, BRANCH};
use crate::config::workflow::step::{Draft, Reading};
use crate::decide::workflow::flow::Step;
use crate::decide::workflow::step_type::{Entered, Handled, Links, StepType};
use crate::decide::workflow::walk::Walk;
use crate::model::Payload;
use crate::model::run::{RunError, Slot};

const KEYS: &[Key] =
    &[key("branches", Takes::Items(&BRANCH), "parallel: the calls to make in parallel")];

pub(super) static ENTRY: Entry = Entry {
    name: "parallel",
    keys: &[KEYS, keys::RETRY, keys::TIMEOUT, keys::RESULT, keys::PAUSE],
    in_map: false,
    read,
};

fn read(
    reading: &Reading<'_>,
    s: &mut Section<'_>,
    draft: &mut Draft,
) -> Option<Arc<dyn StepType>> {
    let (workflow, name, around) = (reading.of.workflow, reading.name, reading.of.around);
    let timeout = read_timeout(s).unwrap_or(around.delivery.timeout);
    let retry = read_retry(s, "retry", reading.of.retry);
    let mut names = BTreeSet::new();
    draft.inner = s.items("branches", |_, mut b| {
        let branch = b.required_text("name").unwrap_or_default();
        let who = format!("handler '{workflow}/{name}:{branch}'");
        if !b.has("url") {
            b.error("missing_key", "", format!("{who} has no url: add `url`, the address to call"));
        }
        // A branch has the step's retry and deadline.
        let mut call = CallSpec::read(&mut b, &who, around, &retry);
        call.timeout = timeout;
        let undo = reading.undo(&mut b, &format!(":{branch}"));
        if !names.insert(branch.clone()) {
            let message = format!(
                "workflow '{workflow}' parallel step '{name}' has duplicate \
                branch name '{branch}': rename one of the branches"
            );
            b.error("duplicate_name", "name", message);
        }
        let place = b.place();
        b.finish();
        Some(Draft { undo, ..Draft::plain(branch, Arc::new(Http(call.call()?)), place) })
    });
    if draft.inner.is_empty() {
        s.error(
            "missing_key",
            "branches",
            format!("workflow '{workflow}' parallel step '{name}' has no branches: add `branches`"),
        );
    }
    Some(Arc::new(Parallel { branches: Vec::new() }))
}

/// Calls that are made at once.
#[derive(Debug)]
struct Parallel {
    /// Filled in when jumps are resolved.
    branches: Vec<Step>,
}

impl Parallel {
    fn keyed(&self, results: &[Slot]) -> Payload {
        let values = results.iter().map(Slot::value);
        let object: Map<String, Value> =
            self.branches.iter().map(|branch| branch.name.clone()).zip(values).collect();
        Payload::Json(Value::Object(object))
    }
}

impl StepType for Parallel {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn enter(&self, walk: &mut Walk<'_>, seq: u32, _: &Step) -> Result<Entered, RunError> {
        let Some(payload) = walk.visit(seq).map(|visit| visit.payload.clone()) else {
            return Ok(Entered::Skipped);
        };
        let count = self.branches.len();
        let opening = Opening { places: count, at_once: count, steps: 1, items: Vec::new() };
        Ok(opening.enter(
            walk,
            seq,
            |branch| (branch, payload.clone()),
            |results| self.keyed(results),
        ))
    }

    fn place_ended(
        &self,
        walk: &mut Walk<'_>,
        container: u32,
        place: usize,
        result: Result<Payload, RunError>,
    ) -> Result<Handled, RunError> {
        place_ended(
            walk,
            container,
            place,
            |_, _| Ok(result?.into_value()),
            |results| self.keyed(results),
        )
    }

    fn inner(&self) -> &[Step] {
        &self.branches
    }

    fn resolved(&self, links: Links) -> Option<Arc<dyn StepType>> {
        Some(Arc::new(Self { branches: links.inner }))
    }

    fn has_response(&self) -> bool {
        true
    }
}
