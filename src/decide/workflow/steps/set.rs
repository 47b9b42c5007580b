//! `set`: a value, computed from the payload.

use super::super::flow::Step;
use super::super::walk::Walk;
use super::Entered;
use crate::decide::template::Template;
use crate::model::run::RunError;

/// A value.
#[derive(Debug, Clone)]
pub struct Set {
    /// What it comes to; without it the payload stays as it is, and only variables are set.
    pub body: Option<Template>,
}

impl Set {
    pub(super) fn enter(&self, walk: &mut Walk<'_>, seq: u32, step: &Step) -> Result<Entered, RunError> {
        let Some(view) = walk.view(seq, step) else { return Ok(Entered::Skipped) };
        let Some(body) = &self.body else {
            let payload = walk.visit(seq).map(|visit| visit.payload.clone());
            return Ok(payload.map_or(Entered::Skipped, Entered::Done));
        };
        Ok(Entered::Done(view.render(body)?))
    }
}
