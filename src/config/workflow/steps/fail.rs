//! The `fail` step: fails on purpose, with an error that the configuration names.

use std::sync::Arc;

use super::{Entry, fixed_text};
use crate::config::keys::{Key, Takes, key};
use crate::config::read::Section;
use crate::config::workflow::step::{Draft, Reading};
use crate::decide::workflow::catch::error;
use crate::decide::workflow::flow::Step;
use crate::decide::workflow::step_type::{Branch, Entered, StepType};
use crate::decide::workflow::walk::Walk;
use crate::model::run::RunError;

const KEYS: &[Key] = &[
    key("error", Takes::Text, "fail: name of the error; its class is app:NAME"),
    key("message", Takes::Text, "fail: message of the error"),
];

pub(super) static ENTRY: Entry = Entry { name: "fail", keys: &[KEYS], in_map: true, read };

fn read(reading: &Reading<'_>, s: &mut Section<'_>, _: &mut Draft) -> Option<Arc<dyn StepType>> {
    let message = fixed_text(s, "message")
        .unwrap_or_else(|| format!("step '{}' fails on purpose", reading.name));
    Some(Arc::new(Fail {
        message,
        error: fixed_text(s, "error").unwrap_or_else(|| "failed".to_owned()),
    }))
}

/// A compiled `fail` step: its message and the name of its error.
#[derive(Debug)]
struct Fail {
    /// The error's name; its class is `app:` and this.
    error: String,
    message: String,
}

impl StepType for Fail {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn enter(&self, _: &mut Walk<'_>, _: u32, _: &Step) -> Result<Entered, RunError> {
        Err(error(&format!("app:{}", self.error), self.message.clone()))
    }

    fn branches(&self) -> Option<Vec<Branch<'_>>> {
        Some(Vec::new())
    }
}
