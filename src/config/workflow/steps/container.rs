//! What `parallel` and `map` share: places that are filled one by one, each with a sequence of
//! steps of its own.

use serde_json::Value;

use crate::decide::workflow::catch::error;
use crate::decide::workflow::step_type::{Entered, Handled};
use crate::decide::workflow::walk::Walk;
use crate::model::Payload;
use crate::model::run::{RunError, Slot, VisitPhase};

/// What a `parallel` or `map` step needs to be entered.
pub(super) struct Opening {
    /// The number of places: one for each branch or item.
    pub(super) places: usize,
    /// How many of them may be open at once; at least 1 counts.
    pub(super) at_once: usize,
    /// How many steps a place has at most: they do not count against the run's step limit.
    pub(super) steps: usize,
    /// The items of a map, kept for the places that are opened later.
    pub(super) items: Vec<Value>,
}

impl Opening {
    /// Opens the first places. Those that were filled before a redrive stay filled; `Done` with
    /// `result` when all are.
    ///
    /// `place` says for each place the index of its first step and its payload.
    pub(super) fn enter(
        self,
        walk: &mut Walk<'_>,
        seq: u32,
        place: impl Fn(usize) -> (usize, Payload),
        result: impl Fn(&[Slot]) -> Payload,
    ) -> Entered {
        let Some(at) = walk.visit(seq).map(|visit| visit.at.clone()) else {
            return Entered::Skipped;
        };
        let kept = walk.places.take().filter(|places| places.len() == self.places);
        let results = kept.unwrap_or_else(|| vec![Slot::Open; self.places]);
        let waiting: Vec<usize> =
            (0..self.places).filter(|place| results[*place] == Slot::Open).collect();
        if waiting.is_empty() {
            return Entered::Done(result(&results));
        }
        let at_once = self.at_once.max(1);
        for index in waiting.iter().take(at_once) {
            let (first, payload) = place(*index);
            let mut at = at.clone();
            at.push(first);
            walk.enter(at, Some((seq, *index)), payload);
        }
        walk.allow(self.places, self.steps);
        let next = waiting.get(at_once).copied().unwrap_or(self.places);
        Entered::Waits(VisitPhase::Inside {
            results,
            open: waiting.len(),
            next,
            failed: 0,
            items: self.items,
        })
    }
}

/// Fills a place and opens the next one, where items are left.
///
/// `value` makes the place's value of its result, given how many places have failed so far; an
/// error of it fails the container. `result` makes the container's result of all values.
///
/// # Errors Those of `value`, and `unknown_step` when the container is not open any more.
pub(super) fn place_ended(
    walk: &mut Walk<'_>,
    container: u32,
    place: usize,
    value: impl FnOnce(&mut u32, usize) -> Result<Value, RunError>,
    result: impl Fn(&[Slot]) -> Payload,
) -> Result<Handled, RunError> {
    let gone = || error("unknown_step", "the container's places are gone");
    let visit = walk.visit(container).ok_or_else(gone)?;
    let mut at = visit.at.clone();
    let VisitPhase::Inside { results, open, next, failed, items } = &mut visit.phase else {
        return Err(gone());
    };
    let value = value(failed, results.len())?;
    if results.get_mut(place).is_some_and(|slot| slot.fill(value)) {
        *open -= 1;
    }
    if *open == 0 {
        return Ok(Handled::Done(result(results), None));
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
    Ok(Handled::Waits)
}
