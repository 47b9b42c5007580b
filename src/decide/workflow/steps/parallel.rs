//! `parallel`: several calls at once with the same input; the result is an object keyed by branch.

use serde_json::{Map, Value};

use super::super::catch::error;
use super::super::flow::Step;
use super::super::walk::Walk;
use super::{Entered, Heard};
use crate::model::Payload;
use crate::model::run::{Phase, RunError, Slot};

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
        for branch in 0..count {
            let mut at = visit.at.clone();
            at.push(branch);
            walk.enter(at, Some((seq, branch)), visit.payload.clone());
        }
        walk.allow(count, 1);
        Ok(Entered::Waits(Phase::Inside {
            results: vec![Slot::Open; count],
            open: count,
            next: count,
            failed: 0,
            items: Vec::new(),
        }))
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
        let Phase::Inside { results, open, .. } = &mut visit.phase else { return Err(gone()) };
        // What is not JSON is null under its key, as in qhook.
        let value = result?.json().cloned().unwrap_or(Value::Null);
        if results.get_mut(place).is_some_and(|slot| slot.fill(value)) {
            *open -= 1;
        }
        if *open > 0 {
            return Ok(Heard::Waits);
        }
        let values = results.iter().map(Slot::value);
        let object: Map<String, Value> = self.branches.iter().map(|branch| branch.name.clone()).zip(values).collect();
        Ok(Heard::Done(Payload::Json(Value::Object(object)), None))
    }
}
