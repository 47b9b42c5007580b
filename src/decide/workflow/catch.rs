//! The `catch` entries of steps and workflows, and how failures become errors that they can match.

use super::flow::ResultPath;
use crate::decide::errors::{ErrorName, class_of};
use crate::model::run::RunError;
use crate::model::{Failure, JobId};

/// One `catch` entry: which failures it takes, and what the run does then.
#[derive(Debug, Clone)]
pub struct Catch {
    /// The failures that this entry catches, by class or status.
    pub errors: Vec<ErrorName>,
    /// What happens after such a failure: the run continues at a step, or it fails and undoes its
    /// steps.
    pub way: CatchTarget,
    /// Where the error is put into the payload; without it, the error's fields are added to the
    /// payload.
    pub result_path: Option<ResultPath>,
}

/// What a run does after a caught failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchTarget {
    /// It continues at a step, given by its index in the same list.
    Step(usize),
    /// It fails, and its completed steps are rolled back.
    Undo,
}

impl Catch {
    /// Whether this entry catches a failure.
    pub fn takes(&self, error: &RunError) -> bool {
        self.errors.iter().any(|name| name.holds(&error.class, error.status, error.app.as_deref()))
    }
}

/// Converts a failed call into the error of its step.
pub fn of_failure(failure: &Failure, job: JobId, attempts: u32) -> RunError {
    let class = class_of(failure.code(), failure.status());
    RunError {
        status: failure.status(),
        job: Some(job.to_string()),
        attempts,
        ..error(class, failure.to_string())
    }
}

/// Builds an error that the workflow machine raises itself, without a call.
pub fn error(class: &str, message: impl Into<String>) -> RunError {
    RunError {
        class: class.to_owned(),
        message: message.into(),
        step: None,
        status: None,
        job: None,
        attempts: 0,
        app: None,
    }
}
