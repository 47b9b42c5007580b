//! `parallel`: several calls at once with the same input; the result is an object keyed by branch.

use serde_json::{Map, Value};

use super::super::catch::error;
use super::super::flow::Step;
use super::super::walk::Walk;
use super::{Entered, Heard, fill, places};
use crate::model::Payload;
use crate::model::run::{RunError, Slot, VisitPhase};

/// A parallel step.
#[derive(Debug, Clone)]
pub struct Parallel {
    /// Its branches.
    pub branches: Vec<Step>,
}

impl Parallel {
    pub(super) fn enter(&self, walk: &mut Walk<'_>, seq: u32) -> Result<Entered, RunError> {
        let Some(visit) = walk.change.run.state.visits.get(&seq).cloned() else { return Ok(Entered::Skipped) };
        let count = self.branches.len();
        let results = places(walk, count);
        let open: Vec<usize> = (0..count).filter(|branch| results[*branch] == Slot::Open).collect();
        if open.is_empty() {
            // All of it was done before the redrive.
            return Ok(Entered::Done(self.keyed(&results)));
        }
        for branch in &open {
            let mut at = visit.at.clone();
            at.push(*branch);
            walk.enter(at, Some((seq, *branch)), visit.payload.clone());
        }
        walk.allow(count, 1);
        Ok(Entered::Waits(VisitPhase::Inside { results, open: open.len(), next: count, failed: 0, items: Vec::new() }))
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
        let VisitPhase::Inside { results, open, .. } = &mut visit.phase else { return Err(gone()) };
        let value = result?.into_value();
        fill(results, open, place, value);
        if *open > 0 {
            return Ok(Heard::Waits);
        }
        let keyed = self.keyed(results);
        Ok(Heard::Done(keyed, None))
    }

    fn keyed(&self, results: &[Slot]) -> Payload {
        let values = results.iter().map(Slot::value);
        let object: Map<String, Value> = self.branches.iter().map(|branch| branch.name.clone()).zip(values).collect();
        Payload::Json(Value::Object(object))
    }
}
