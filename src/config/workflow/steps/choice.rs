//! `choice`: the first condition that holds decides which step comes next.

use std::sync::Arc;

use super::Entry;
use crate::config::handler::read_filter;
use crate::config::keys::{Key, Takes, key};
use crate::config::read::{Placed, Section};
use crate::config::workflow::keys::CHOICE;
use crate::config::workflow::step::{Draft, Reading, jump};
use crate::decide::filter::Filter;
use crate::decide::workflow::catch::error;
use crate::decide::workflow::flow::{Next, Step};
use crate::decide::workflow::step_type::{Branch, Entered, Links, StepType};
use crate::decide::workflow::walk::Walk;
use crate::model::Path;
use crate::model::run::RunError;

const KEYS: &[Key] = &[
    key("choices", Takes::Items(&CHOICE), "choice: conditions, checked in order"),
    key("default", Takes::Text, "choice: the next step if no condition is true"),
];

pub(super) static ENTRY: Entry = Entry { name: "choice", keys: &[KEYS], in_map: true, read };

fn read(
    reading: &Reading<'_>,
    s: &mut Section<'_>,
    draft: &mut Draft,
) -> Option<Arc<dyn StepType>> {
    let (workflow, name) = (reading.of.workflow, reading.name);
    let choices = s.items("choices", |_, c| read_choice(reading, c));
    if choices.is_empty() {
        s.error(
            "missing_key",
            "choices",
            format!("workflow '{workflow}' choice step '{name}' has no choices: add `choices`"),
        );
    }
    let mut conditions = Vec::new();
    for (condition, to) in choices {
        conditions.extend(condition.map(|condition| (condition, 0)));
        draft.choices.push(jump(to, format!("workflow '{workflow}' choice step '{name}' goto")));
    }
    draft.default = jump(
        s.placed_text("default"),
        format!("workflow '{workflow}' choice step '{name}' default"),
    );
    Some(Arc::new(Choice { choices: conditions, default: draft.default.as_ref().map(|_| 0) }))
}

fn read_choice(
    reading: &Reading<'_>,
    mut s: Section<'_>,
) -> Option<(Option<Filter>, Option<Placed<String>>)> {
    if s.has("when") == s.has("condition") {
        let what = if s.has("when") {
            "both `when` and `condition`, two names of the same key: remove one"
        } else {
            "no `when`: add its condition"
        };
        let message = format!(
            "workflow '{}' choice step '{}' has a choice with {what}",
            reading.of.workflow, reading.name
        );
        s.error("missing_key", "", message);
    }
    let when = read_filter(&mut s, "when", reading.of.around.compat);
    let condition = read_filter(&mut s, "condition", reading.of.around.compat);
    s.required_text("goto");
    let goto = s.placed_text("goto");
    s.finish();
    Some((when.or(condition), goto))
}

/// A step that chooses the next one.
#[derive(Debug)]
struct Choice {
    /// Conditions, each with the index of the step it leads to.
    choices: Vec<(Filter, usize)>,
    default: Option<usize>,
}

impl StepType for Choice {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn enter(&self, walk: &mut Walk<'_>, seq: u32, step: &Step) -> Result<Entered, RunError> {
        let Some(view) = walk.view(seq, step) else { return Ok(Entered::Skipped) };
        let chosen =
            self.choices.iter().find(|(condition, _)| view.holds(condition)).map(|(_, goto)| *goto);
        match chosen.or(self.default) {
            Some(goto) => Ok(Entered::Goto(Next::Step(goto))),
            None => Err(error(
                "no_choice_matched",
                "no condition is true, and the step has no `default`",
            )),
        }
    }

    fn resolved(&self, links: Links) -> Option<Arc<dyn StepType>> {
        let conditions = self.choices.iter().map(|(condition, _)| condition.clone());
        Some(Arc::new(Self {
            choices: conditions.zip(links.choices).collect(),
            default: links.default,
        }))
    }

    fn paths(&self) -> Vec<&Path> {
        self.choices.iter().flat_map(|(when, _)| when.paths()).collect()
    }

    fn takes_time(&self) -> bool {
        false
    }

    fn branches(&self) -> Option<Vec<Branch<'_>>> {
        let choices =
            self.choices.iter().map(|(when, to)| Branch { when: Some(when.text()), to: *to });
        Some(choices.chain(self.default.map(|to| Branch { when: None, to })).collect())
    }
}
