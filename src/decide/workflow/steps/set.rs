//! `set`: a value, computed from the payload.

use super::super::flow::Step;
use super::super::walk::Walk;
use super::Entered;
use crate::decide::template::Template;
use crate::model::run::RunError;

/// A value.
#[derive(Debug, Clone)]
pub struct Set {
    /// What it comes to.
    pub body: Template,
}

impl Set {
    pub(super) fn enter(&self, walk: &mut Walk<'_>, seq: u32, step: &Step) -> Result<Entered, RunError> {
        let Some(view) = walk.view(seq, step) else { return Ok(Entered::Skipped) };
        let value = view.render(&self.body)?;
        Ok(value.map_or(Entered::Skipped, Entered::Done))
    }
}
