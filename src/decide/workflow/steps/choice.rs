//! `choice`: the first condition that holds says where to go.

use super::super::catch::error;
use super::super::flow::{Next, Step};
use super::super::walk::Walk;
use super::Entered;
use crate::decide::filter::Filter;
use crate::model::run::RunError;

/// A choice.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Conditions, and the step to go on with.
    pub choices: Vec<(Filter, usize)>,
    /// The step when none holds.
    pub default: Option<usize>,
}

impl Choice {
    pub(super) fn enter(&self, walk: &mut Walk<'_>, seq: u32, step: &Step) -> Result<Entered, RunError> {
        let Some(view) = walk.view(seq, step) else { return Ok(Entered::Skipped) };
        let chosen = self.choices.iter().find(|(condition, _)| view.holds(condition)).map(|(_, goto)| *goto);
        match chosen.or(self.default) {
            Some(goto) => Ok(Entered::Goto(Next::Step(goto))),
            None => Err(error("no_choice_matched", "no condition holds, and there is no default")),
        }
    }
}
