//! Failures of steps, and where they go.

use super::flow::ResultPath;
use crate::decide::errors::{ErrorName, class_of};
use crate::model::run::RunError;
use crate::model::{Failure, JobId};

/// Where some failures go.
#[derive(Debug, Clone)]
pub struct Catch {
    /// Which ones.
    pub errors: Vec<ErrorName>,
    /// Where they go.
    pub way: Way,
    /// Where the error goes; without it, its fields are added to the payload.
    pub result_path: Option<ResultPath>,
}

/// Where a caught failure goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To a step: its index in the same list.
    Step(usize),
    /// The run fails, and what its steps did is undone.
    Undo,
}

impl Catch {
    /// Whether it takes a failure.
    pub fn takes(&self, error: &RunError) -> bool {
        self.errors.iter().any(|name| name.holds(&error.class, error.status, error.app.as_deref()))
    }
}

/// A failed call as a step's error.
pub fn of_failure(failure: &Failure, job: JobId, attempts: u32) -> RunError {
    let class = class_of(failure.code(), failure.status());
    RunError { status: failure.status(), job: Some(job.to_string()), attempts, ..error(class, failure.to_string()) }
}

/// An error of the machine's own.
pub fn error(class: &str, message: impl Into<String>) -> RunError {
    RunError { class: class.to_owned(), message: message.into(), step: None, status: None, job: None, attempts: 0, app: None }
}
