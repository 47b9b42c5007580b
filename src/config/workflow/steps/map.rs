//! The `map` step: runs the same steps for each item of a list. The results are in the order of the
//! items.

use std::sync::Arc;

use serde_json::{Value, json};

use super::container::{Opening, place_ended};
use super::http::Http;
use super::sub_workflow::{SubWorkflow, WORKFLOW};
use super::{Entry, own_call, refuse_both};
use crate::config::handler::{read_path, read_template};
use crate::config::keys::{ANY, Key, Takes, key};
use crate::config::problem::Severity;
use crate::config::read::Section;
use crate::config::workflow::call::CallSpec;
use crate::config::workflow::keys::{self, INNER_STEP, ITERATOR};
use crate::config::workflow::step::{Draft, Reading, StepScope};
use crate::decide::template::Template;
use crate::decide::workflow::catch::error;
use crate::decide::workflow::flow::Step;
use crate::decide::workflow::step_type::{Entered, Handled, Links, StepType};
use crate::decide::workflow::walk::Walk;
use crate::model::json::Ref;
use crate::model::path::Found;
use crate::model::run::{RunError, Slot};
use crate::model::{Path, Payload};

/// A list with more items than this fails the step with `map_too_large`.
const ITEMS_MAX: usize = 1_000;

const KEYS: &[Key] = &[
    key("items_path", Takes::Text, "map: path of the array"),
    key("items", Takes::Template, "map: template that returns the array"),
    key("steps", Takes::Items(&INNER_STEP), "map: steps to run for each item"),
    key("tolerated_failures", Takes::Number(0, ANY), "map: number of items that may fail (0)"),
    key(
        "tolerated_failure_percent",
        Takes::Number(0, 100),
        "map: percentage of items that may fail (0)",
    ),
    key(
        "on_item_failure",
        Takes::OneOf(&["fail", "collect"]),
        "map: what a failed item does (fail). collect: its error becomes its result",
    ),
    key("max_concurrency", Takes::Number(1, 10_000), "map: maximum number of items in progress"),
    key("iterator", Takes::Section(&ITERATOR), "map: the call to make for each item"),
];

pub(super) static ENTRY: Entry = Entry {
    name: "map",
    keys: &[
        KEYS,
        WORKFLOW,
        keys::REQUEST,
        keys::BODY,
        keys::EXPECTATION,
        keys::CALL,
        keys::RETRY,
        keys::TIMEOUT,
        keys::RESULT,
        keys::PAUSE,
    ],
    in_map: false,
    read,
};

fn read(
    reading: &Reading<'_>,
    s: &mut Section<'_>,
    draft: &mut Draft,
) -> Option<Arc<dyn StepType>> {
    let (workflow, name) = (reading.of.workflow, reading.name);
    if !s.has("items_path") && !s.has("items") {
        let message = format!(
            "workflow '{workflow}' map step '{name}' has neither items_path nor items: add one of \
             them"
        );
        s.error("missing_key", "", message);
    }
    refuse_both(s, &reading.who(), "items_path", "items");
    let by_path = read_path(s, "items_path").map(Items::Path);
    let items = by_path.or_else(|| read_template(s, "items", false).map(Items::Template));
    draft.inner = each_item(reading, s, draft);
    draft.inner_leads_on = true;
    if draft.inner.is_empty() && !s.has("url") && !s.has("iterator") && !s.has("steps") {
        let message = format!(
            "workflow '{workflow}' map step '{name}' has no url, steps or workflow: add one of them"
        );
        s.error("missing_key", "", message);
    }
    Some(Arc::new(Map {
        items: items?,
        steps: Vec::new(),
        concurrency: s.number32("max_concurrency").and_then(|n| usize::try_from(n).ok()),
        tolerated: read_tolerated(s),
        tolerated_percent: s.number32("tolerated_failure_percent").unwrap_or(0),
        collects: s.one_of("on_item_failure").is_some_and(|w| w == "collect"),
    }))
}

/// Reads what a map does for each item: steps, another workflow, or a call.
fn each_item(reading: &Reading<'_>, s: &mut Section<'_>, draft: &mut Draft) -> Vec<Draft> {
    let StepScope { workflow, around, .. } = reading.of;
    let call = own_call(reading, s);
    if s.has("steps") {
        let of = StepScope { inside: Some(reading.name), ..reading.of };
        return s.items("steps", |at, inner| Some(Draft::read(at, inner, of)));
    }
    let item = |kind: Arc<dyn StepType>, place| Draft::plain("item".to_owned(), kind, place);
    if let Some(calls) = s.placed_text("workflow") {
        let retry = if s.has("retry") { call.retry } else { Vec::new() };
        let place = calls.place;
        draft.call = Some((reading.who(), calls.clone()));
        return vec![item(Arc::new(SubWorkflow { workflow: calls.value, retry }), place)];
    }
    let (mut input, mut call) = (None, call);
    if let Some(mut i) = s.optional_section("iterator") {
        let who = format!("handler '{workflow}/{}'", reading.name);
        let mut inner = CallSpec::read(&mut i, &who, around, &call.retry);
        input = read_template(&mut i, "input", inner.sends_json);
        i.finish();
        inner.url = inner.url.or(call.url);
        call = inner;
    }
    let place = s.place();
    let Some(call) = call.call() else { return Vec::new() };
    let mut draft = item(Arc::new(Http(call)), place);
    draft.step.input = input;
    vec![draft]
}

/// Reads how many failed items a map tolerates. With `on_item_failure: collect` it tolerates all,
/// so a limit beside that is refused.
fn read_tolerated(s: &mut Section<'_>) -> u32 {
    let is_bounded = s.has("tolerated_failures") || s.has("tolerated_failure_percent");
    if is_bounded && s.text("on_item_failure").is_some_and(|word| word == "collect") {
        let help = "with `collect`, every failure becomes an item of the result and never fails \
            the step: remove one of the two keys";
        let message = "`on_item_failure: collect` cannot be combined with `tolerated_failures` or \
            `tolerated_failure_percent`";
        s.problem(Severity::Error, "twice", "on_item_failure", message, Some(help.into()));
    }
    s.number32("tolerated_failures").unwrap_or(0)
}

/// Where the items of a map are.
#[derive(Debug, Clone)]
enum Items {
    /// At this path of the payload.
    Path(Path),
    /// In the array that a template renders.
    Template(Template),
}

/// Steps that are run once for each item.
#[derive(Debug, Clone)]
struct Map {
    items: Items,
    /// Filled in when jumps are resolved.
    steps: Vec<Step>,
    /// How many items run at the same time; `None` means all of them.
    concurrency: Option<usize>,
    /// How many items may fail before the step fails.
    tolerated: u32,
    /// How many of a hundred items may fail. The larger of the two bounds counts.
    tolerated_percent: u32,
    /// Whether any number of items may fail. A failed item leaves its error in the result, as a
    /// tolerated one does.
    collects: bool,
}

impl Map {
    fn found(&self, walk: &mut Walk<'_>, seq: u32, step: &Step) -> Result<Option<Value>, RunError> {
        match &self.items {
            Items::Path(path) => {
                let Some(visit) = walk.visit(seq) else { return Ok(None) };
                let unreadable =
                    |why| error("template", format!("the payload cannot be parsed: {why}"));
                Ok(match path.find(visit.payload.view().map_err(unreadable)?) {
                    Found::Missing => None,
                    Found::One(found) => Some(found.to_value()),
                    Found::Many(found) => {
                        Some(Value::Array(found.into_iter().map(Ref::to_value).collect()))
                    }
                })
            }
            Items::Template(template) => {
                let Some(view) = walk.view(seq, step) else { return Ok(None) };
                Ok(Some(view.render(template)?.into_value()))
            }
        }
    }
}

fn listed(results: &[Slot]) -> Payload {
    Payload::Json(results.iter().map(Slot::value).collect())
}

impl StepType for Map {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn enter(&self, walk: &mut Walk<'_>, seq: u32, step: &Step) -> Result<Entered, RunError> {
        let Some(Value::Array(items)) = self.found(walk, seq, step)? else {
            return Err(error(
                "bad_items",
                format!("step '{}': `items_path` or `items` does not select an array", step.name),
            ));
        };
        if items.len() > ITEMS_MAX {
            let message =
                format!("step '{}' has {} items; the limit is {ITEMS_MAX}", step.name, items.len());
            return Err(error("map_too_large", message));
        }
        let count = items.len();
        let at_once = self.concurrency.unwrap_or(count);
        let opening =
            Opening { places: count, at_once, steps: self.steps.len(), items: items.clone() };
        Ok(opening.enter(walk, seq, |item| (0, Payload::Json(items[item].clone())), listed))
    }

    fn place_ended(
        &self,
        walk: &mut Walk<'_>,
        container: u32,
        place: usize,
        result: Result<Payload, RunError>,
    ) -> Result<Handled, RunError> {
        let value = |failed: &mut u32, items: usize| {
            let items = u64::try_from(items).unwrap_or(u64::MAX);
            let share =
                u32::try_from(items * u64::from(self.tolerated_percent) / 100).unwrap_or(u32::MAX);
            match result {
                Ok(payload) => Ok(payload.into_value()),
                Err(why) if self.collects || *failed < self.tolerated.max(share) => {
                    *failed += 1;
                    Ok(json!({
                        "error": why.message,
                        "error_type": why.class,
                        "status": why.status,
                    }))
                }
                Err(why) => Err(why),
            }
        };
        place_ended(walk, container, place, value, listed)
    }

    fn inner(&self) -> &[Step] {
        &self.steps
    }

    fn resolved(&self, links: Links) -> Option<Arc<dyn StepType>> {
        Some(Arc::new(Self { steps: links.inner, ..self.clone() }))
    }

    fn paths(&self) -> Vec<&Path> {
        match &self.items {
            Items::Path(path) => vec![path],
            Items::Template(items) => items.paths(),
        }
    }

    fn has_response(&self) -> bool {
        true
    }
}
