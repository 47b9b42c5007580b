//! The types of step, one file each.
//!
//! A step type answers two questions: what it asks for when it is entered, and what it makes of a fact. Containers
//! answer a third: what it makes of the end of a place inside it.

pub mod call;
pub mod callback;
pub mod child;
pub mod choice;
pub mod emit;
pub mod fail;
pub mod map;
pub mod parallel;
pub mod set;
pub mod wait;

use serde_json::Value;

use super::catch::error;
use super::fact::Fact;
use super::flow::{Call, Next, Step};
use super::walk::Walk;
use crate::model::Payload;
use crate::model::run::{RunError, Slot, VisitPhase};

/// What a step does. One line per type.
#[derive(Debug, Clone)]
pub enum StepKind {
    /// `http`: a call.
    Call(Call),
    /// `choice`: the first condition that holds says where to go.
    Choice(choice::Choice),
    /// `parallel`: several calls at once.
    Parallel(parallel::Parallel),
    /// `map`: the same steps for each item.
    Map(map::Map),
    /// `wait`: for an instant.
    Wait(wait::Wait),
    /// `callback`, `approval`: for an answer from outside.
    Callback(callback::Callback),
    /// `workflow`: for another run.
    Child(child::Child),
    /// `set`: a value.
    Set(set::Set),
    /// `emit`: an event.
    Emit(emit::Emit),
    /// `fail`: a failure.
    Fail(fail::Fail),
}

/// What entering a step comes to.
pub enum Entered {
    /// It waits.
    Waits(VisitPhase),
    /// It is done already, with this result.
    Done(Payload),
    /// The payload goes on to another step.
    Goto(Next),
    /// It does not apply.
    Skipped,
}

/// What a fact comes to.
pub enum Heard {
    /// The step waits on.
    Waits,
    /// It is done, with this result and response status.
    Done(Payload, Option<u16>),
    /// It is done, and the payload stays as it is.
    Goto,
}

/// The places of a container: those that were done before a redrive stay done.
fn places(walk: &mut Walk<'_>, count: usize) -> Vec<Slot> {
    walk.places.take().filter(|places| places.len() == count).unwrap_or_else(|| vec![Slot::Open; count])
}

/// Puts in what came of a place.
fn fill(results: &mut [Slot], open: &mut usize, place: usize, value: Value) {
    if results.get_mut(place).is_some_and(|slot| slot.fill(value)) {
        *open -= 1;
    }
}

impl StepKind {
    /// Whether it waits for an answer under a token.
    pub fn takes_token(&self) -> bool {
        matches!(self, Self::Callback(_))
    }

    /// What it asks for when it is entered.
    ///
    /// # Errors
    /// The step fails.
    pub fn enter(&self, walk: &mut Walk<'_>, seq: u32, step: &Step) -> Result<Entered, RunError> {
        match self {
            Self::Call(_) => Ok(call::enter(walk, seq)),
            Self::Choice(choice) => choice.enter(walk, seq, step),
            Self::Parallel(parallel) => parallel.enter(walk, seq),
            Self::Map(map) => map.enter(walk, seq, step),
            Self::Wait(wait) => wait.enter(walk, seq, step),
            Self::Callback(callback) => Ok(callback.enter(walk, seq)),
            Self::Child(child) => child.enter(walk, seq, 0),
            Self::Set(set) => set.enter(walk, seq, step),
            Self::Emit(_) => Ok(emit::enter(walk, seq)),
            Self::Fail(fail) => fail.enter(walk, seq, step),
        }
    }

    /// What it makes of a fact.
    ///
    /// # Errors
    /// The step fails.
    pub fn hear(&self, walk: &mut Walk<'_>, seq: u32, step: &Step, fact: &Fact) -> Result<Heard, RunError> {
        match self {
            Self::Call(call) => call::hear(call, walk, seq, step, fact),
            Self::Wait(_) => Ok(Heard::Goto),
            Self::Callback(callback) => callback.hear(walk, seq, step, fact),
            Self::Child(child) => child.hear(walk, seq, fact),
            Self::Emit(_) => emit::hear(fact),
            // Nothing is sent for them, so nothing can be heard.
            Self::Choice(_) | Self::Parallel(_) | Self::Map(_) | Self::Set(_) | Self::Fail(_) => Ok(Heard::Waits),
        }
    }

    /// What a container makes of the end of a place inside it.
    ///
    /// # Errors
    /// The container fails.
    pub fn inside(
        &self,
        walk: &mut Walk<'_>,
        container: u32,
        place: usize,
        result: Result<Payload, RunError>,
    ) -> Result<Heard, RunError> {
        match self {
            Self::Parallel(parallel) => parallel.inside(walk, container, place, result),
            Self::Map(map) => map.inside(walk, container, place, result),
            _ => Err(error("unknown_step", "a step without an inside was told of its inside")),
        }
    }

    /// The steps inside a container.
    pub fn inner(&self) -> &[Step] {
        match self {
            Self::Parallel(parallel) => &parallel.branches,
            Self::Map(map) => &map.steps,
            _ => &[],
        }
    }

    /// The call it makes, if it makes one.
    pub fn call(&self) -> Option<&Call> {
        match self {
            Self::Call(call) => Some(call),
            Self::Callback(callback) => callback.notify.as_ref(),
            _ => None,
        }
    }

    /// The word for it, as the configuration writes it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Call(_) => "http",
            Self::Choice(_) => "choice",
            Self::Parallel(_) => "parallel",
            Self::Map(_) => "map",
            Self::Wait(_) => "wait",
            Self::Callback(callback) => {
                if callback.approval.is_some() {
                    "approval"
                } else {
                    "callback"
                }
            }
            Self::Child(_) => "workflow",
            Self::Set(_) => "set",
            Self::Emit(_) => "emit",
            Self::Fail(_) => "fail",
        }
    }
}
