//! `fail`: a failure on purpose.

use super::super::catch::error;
use super::super::flow::Step;
use super::super::walk::Walk;
use super::Entered;
use crate::model::run::RunError;

/// A failure.
#[derive(Debug, Clone)]
pub struct Fail {
    /// Its name; its class is `app:` and this.
    pub error: String,
    /// For people.
    pub message: String,
}

impl Fail {
    pub(super) fn enter(&self, _: &mut Walk<'_>, _: u32, _: &Step) -> Result<Entered, RunError> {
        Err(error(&format!("app:{}", self.error), self.message.clone()))
    }
}
