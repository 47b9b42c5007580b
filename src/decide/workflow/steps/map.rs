//! `map`: the same steps for each item of a list; results stand in the order of the items.

use serde_json::{Value, json};

use super::super::catch::error;
use super::super::flow::Step;
use super::super::walk::Walk;
use super::{Entered, Heard, fill, places};
use crate::decide::template::Template;
use crate::model::json::Ref;
use crate::model::path::Found;
use crate::model::run::{RunError, Slot, VisitPhase};
use crate::model::{Path, Payload};

/// No map has more items.
pub const ITEMS_MAX: usize = 1_000;

/// Where the items are.
#[derive(Debug, Clone)]
pub enum Items {
    /// At a path of the payload.
    Path(Path),
    /// In what a template comes to.
    Template(Template),
}

/// A map.
#[derive(Debug, Clone)]
pub struct Map {
    /// Where the items are.
    pub items: Items,
    /// The steps for each of them.
    pub steps: Vec<Step>,
    /// How many items at once; `None` is all of them.
    pub concurrency: Option<usize>,
    /// How many items may fail.
    pub tolerated: u32,
    /// How many of a hundred items may fail. The larger of the two counts.
    pub tolerated_percent: u32,
    /// A failed item leaves its error in its place.
    pub collects: bool,
}

impl Map {
    pub(super) fn enter(&self, walk: &mut Walk<'_>, seq: u32, step: &Step) -> Result<Entered, RunError> {
        let Some(visit) = walk.change.run.state.visits.get(&seq).cloned() else { return Ok(Entered::Skipped) };
        let found = match &self.items {
            Items::Path(path) => {
                let payload =
                    visit.payload.view().map_err(|why| error("template", format!("the payload cannot be read: {why}")))?;
                match path.find(payload) {
                    Found::Missing => None,
                    Found::One(found) => Some(found.to_value()),
                    Found::Many(found) => Some(Value::Array(found.into_iter().map(Ref::to_value).collect())),
                }
            }
            Items::Template(template) => match walk.view(seq, step) {
                Some(view) => Some(view.render(template)?.into_value()),
                None => None,
            },
        };
        let Some(Value::Array(items)) = found else {
            return Err(error("bad_items", format!("step '{}': there is no array of items", step.name)));
        };
        if items.len() > ITEMS_MAX {
            let message = format!("step '{}' has {} items, at most {ITEMS_MAX} are allowed", step.name, items.len());
            return Err(error("map_too_large", message));
        }
        if items.is_empty() {
            return Ok(Entered::Done(Payload::Json(json!([]))));
        }
        let count = items.len();
        let results = places(walk, count);
        let waiting: Vec<usize> = (0..count).filter(|place| results[*place] == Slot::Open).collect();
        if waiting.is_empty() {
            // All of it was done before the redrive.
            return Ok(Entered::Done(Payload::Json(results.iter().map(Slot::value).collect())));
        }
        let at_once = self.concurrency.unwrap_or(count).max(1);
        for place in waiting.iter().take(at_once) {
            let mut at = visit.at.clone();
            at.push(0);
            walk.enter(at, Some((seq, *place)), Payload::Json(items[*place].clone()));
        }
        walk.allow(count, self.steps.len());
        let next = waiting.get(at_once).copied().unwrap_or(count);
        Ok(Entered::Waits(VisitPhase::Inside { results, open: waiting.len(), next, failed: 0, items }))
    }

    pub(super) fn inside(
        &self,
        walk: &mut Walk<'_>,
        container: u32,
        place: usize,
        result: Result<Payload, RunError>,
    ) -> Result<Heard, RunError> {
        let gone = || error("unknown_step", "the container's places are gone");
        let visit = walk.visit(container).ok_or_else(gone)?;
        let mut at = visit.at.clone();
        let VisitPhase::Inside { results, open, next, failed, items } = &mut visit.phase else { return Err(gone()) };
        let items_count = u64::try_from(results.len()).unwrap_or(u64::MAX);
        let share = u32::try_from(items_count * u64::from(self.tolerated_percent) / 100).unwrap_or(u32::MAX);
        let value = match result {
            Ok(payload) => payload.into_value(),
            Err(why) if self.collects || *failed < self.tolerated.max(share) => {
                *failed += 1;
                json!({ "error": why.message, "error_type": why.class, "status": why.status })
            }
            Err(why) => return Err(why),
        };
        fill(results, open, place, value);
        if *open == 0 {
            let values = results.iter().map(Slot::value).collect();
            return Ok(Heard::Done(Payload::Json(Value::Array(values)), None));
        }
        if let Some(item) = items.get(*next).cloned() {
            let place = *next;
            *next += 1;
            while results.get(*next).is_some_and(|slot| *slot != Slot::Open) {
                *next += 1;
            }
            at.push(0);
            walk.enter(at, Some((container, place)), Payload::Json(item));
        }
        Ok(Heard::Waits)
    }
}
