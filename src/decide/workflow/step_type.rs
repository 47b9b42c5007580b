//! What the machine asks of a type of step. The types themselves are in `config::workflow::steps`,
//! one file each.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::catch::error;
use super::fact::Fact;
use super::flow::{Call, Next, Step};
use super::walk::Walk;
use crate::decide::retry::RetryPolicy;
use crate::decide::template::Template;
use crate::model::run::{RunError, VisitPhase};
use crate::model::{Path, Payload};

/// What a step does while its run is under way.
///
/// A type that waits for something implements [`StepType::handle`]; a type with steps inside
/// implements [`StepType::inner`], [`StepType::place_ended`] and [`StepType::resolved`]. Everything
/// else describes the step to those who look at a definition without running it.
pub trait StepType: Debug + Send + Sync {
    /// The value of `type:` in the configuration.
    fn name(&self) -> &'static str;

    /// Begins a visit: plans its calls and timers, or finishes at once.
    ///
    /// # Errors
    /// The step fails without having done anything.
    fn enter(&self, walk: &mut Walk<'_>, seq: u32, step: &Step) -> Result<Entered, RunError>;

    /// Reacts to something that happened to an open visit. Steps that wait for nothing never
    /// receive a fact.
    ///
    /// # Errors The step fails.
    fn handle(
        &self,
        _walk: &mut Walk<'_>,
        _seq: u32,
        _step: &Step,
        _fact: &Fact,
    ) -> Result<Handled, RunError> {
        Ok(Handled::Waits)
    }

    /// Takes the result of one place of a container: a branch, or an item of a map.
    ///
    /// # Errors
    /// The container fails, and what is still open inside it is cancelled.
    fn place_ended(
        &self,
        _walk: &mut Walk<'_>,
        _container: u32,
        _place: usize,
        _result: Result<Payload, RunError>,
    ) -> Result<Handled, RunError> {
        Err(error("unknown_step", "a step without steps inside received a result from inside"))
    }

    /// The steps inside a container; empty for other step types.
    fn inner(&self) -> &[Step] {
        &[]
    }

    /// The step with its jumps and inner steps filled in; `None` for types that have neither.
    fn resolved(&self, _links: Links) -> Option<Arc<dyn StepType>> {
        None
    }

    /// The HTTP call of a visit, if it makes one.
    fn call(&self) -> Option<&Call> {
        None
    }

    /// The event that a visit publishes, if it publishes one.
    fn emission(&self) -> Option<&Emission> {
        None
    }

    /// The answer from outside that a visit waits for, if it waits for one.
    fn awaited(&self) -> Option<&Awaited> {
        None
    }

    /// Retry policies of the job that does the step's work.
    fn retry(&self) -> &[RetryPolicy] {
        self.call().map_or(&[], |call| &call.retry)
    }

    /// Paths that the step reads before it has a response, those of its call excepted.
    fn paths(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// Whether the step has a response, which replaces the payload unless `result_path` says
    /// otherwise.
    fn has_response(&self) -> bool {
        false
    }

    /// Whether a visit can last: a circle of steps that do not would run until the run's step
    /// limit.
    fn takes_time(&self) -> bool {
        true
    }

    /// Where the step leads by itself; `None` for steps that lead to the following one.
    fn branches(&self) -> Option<Vec<Branch<'_>>> {
        None
    }
}

/// A conditional way out of a step.
#[derive(Debug, Clone, Copy)]
pub struct Branch<'a> {
    /// The condition as written; `None` for the default.
    pub when: Option<&'a str>,
    /// The index of the step it leads to.
    pub to: usize,
}

/// What names in the configuration have become: indexes and steps.
#[derive(Debug, Default)]
pub struct Links {
    /// The targets of `choices`, in their order.
    pub choices: Vec<usize>,
    /// The target of `default`.
    pub default: Option<usize>,
    /// The steps inside.
    pub inner: Vec<Step>,
}

/// An event that a step publishes.
#[derive(Debug, Clone)]
pub struct Emission {
    /// The source it is published to, of type `event`.
    pub source: String,
    /// Its event type.
    pub event: String,
    /// Its body; the payload when absent.
    pub body: Option<Template>,
    /// Retry policies, for a template that cannot be rendered or a source whose schema refuses the
    /// event.
    pub retry: Vec<RetryPolicy>,
}

/// An answer from outside: a callback, or a person's decision.
#[derive(Debug, Clone)]
pub struct Awaited {
    /// How long the answer may take, counted from the moment the notification was delivered.
    pub timeout: Duration,
    /// The answer must be a decision.
    pub approval: Option<Approval>,
}

/// A decision by a person.
#[derive(Debug, Clone)]
pub struct Approval {
    /// Who may decide; empty: everyone who has the token or may use the API.
    pub approvers: Vec<String>,
}

/// What became of a step when it was entered.
pub enum Entered {
    /// It waits, in this phase.
    Waits(VisitPhase),
    /// It is finished, with this result.
    Done(Payload),
    /// It is finished, and the unchanged payload goes on to another step.
    Goto(Next),
    /// It was passed over.
    Skipped,
}

/// What became of a step after a fact.
pub enum Handled {
    /// It goes on waiting.
    Waits,
    /// It is finished, with this result and response status.
    Done(Payload, Option<u16>),
    /// It is finished, and the payload stays as it is.
    Passed,
}
