//! The types of step, one file each: the keys a type adds, how they are read, and what the step
//! does.
//!
//! To add a type, write its file and add its entry to [`TYPES`].

mod approval;
mod callback;
mod choice;
mod container;
mod emit;
mod fail;
mod http;
mod map;
mod parallel;
mod set;
mod sub_workflow;
mod wait;

use std::sync::Arc;

pub(super) use self::http::Http;

use super::call::CallSpec;
use super::step::{Draft, Reading};
use crate::config::keys::{Key, joined};
use crate::config::problem::Severity;
use crate::config::read::Section;
use crate::decide::workflow::step_type::StepType;

/// All types, in the order in which people meet them. The first one is that of a step without
/// `type`.
pub(in crate::config) static TYPES: &[&Entry] = &[
    &http::ENTRY,
    &choice::ENTRY,
    &parallel::ENTRY,
    &map::ENTRY,
    &wait::ENTRY,
    &callback::ENTRY,
    &approval::ENTRY,
    &sub_workflow::ENTRY,
    &set::ENTRY,
    &emit::ENTRY,
    &fail::ENTRY,
];

/// A type of step, as the configuration knows it.
pub(in crate::config) struct Entry {
    /// The word that selects the type in a step's `type`.
    pub(in crate::config) name: &'static str,
    /// The keys that the type reads beside those of every step. Types may share a key: it is the
    /// same constant then.
    pub(in crate::config) keys: &'static [&'static [Key]],
    /// Whether it may stand inside a map.
    pub(in crate::config) in_map: bool,
    /// Reads the type's keys; `None` when something that it needs is missing, which was reported.
    read: fn(&Reading<'_>, &mut Section<'_>, &mut Draft) -> Option<Arc<dyn StepType>>,
}

impl Entry {
    /// The entry of a `type:`; the first one for a word that is none of them, which was reported.
    pub(super) fn of(name: Option<&str>) -> &'static Self {
        TYPES.iter().find(|entry| Some(entry.name) == name).unwrap_or(&TYPES[0])
    }

    pub(super) fn read(
        &self,
        reading: &Reading<'_>,
        s: &mut Section<'_>,
        draft: &mut Draft,
    ) -> Option<Arc<dyn StepType>> {
        (self.read)(reading, s, draft)
    }

    /// Warns of keys that only other types read.
    pub(super) fn warn_of_strays(&self, s: &mut Section<'_>, who: &str) {
        let reads = |key: &Key| {
            self.keys.iter().flat_map(|group| group.iter()).any(|own| own.name == key.name)
        };
        for key in type_keys(TYPES.iter().copied()) {
            if s.has(key.name) && !reads(&key) {
                let message = format!(
                    "{who}: `{}` has no effect on a step of type `{}`: remove it",
                    key.name, self.name
                );
                s.warn("no_effect", key.name, message);
            }
        }
    }
}

/// The keys of some types, each once.
pub(in crate::config) fn type_keys(types: impl Iterator<Item = &'static Entry>) -> Vec<Key> {
    let groups: Vec<&[Key]> = types.flat_map(|entry| entry.keys.iter().copied()).collect();
    let mut keys: Vec<Key> = Vec::new();
    for key in joined(&groups) {
        if keys.iter().all(|other| other.name != key.name) {
            keys.push(key);
        }
    }
    keys
}

/// Refuses two keys that set the same thing: one of them would have no effect.
fn refuse_both(s: &mut Section<'_>, who: &str, one: &str, other: &str) {
    if s.has(one) && s.has(other) {
        let message = format!(
            "{who} has both `{one}` and `{other}`, but only one can apply: remove the other"
        );
        s.error("twice", other, message);
    }
}

/// A text that is sent as written: a placeholder in it is refused, because it would not be filled
/// in.
fn fixed_text(s: &mut Section<'_>, key: &str) -> Option<String> {
    let text = s.text(key)?;
    if text.contains("{{") {
        let help = "write a fixed string here, and put changing values into the payload";
        s.problem(
            Severity::Error,
            "bad_template",
            key,
            format!("`{key}` does not support placeholders"),
            Some(help.into()),
        );
    }
    Some(text)
}

/// The call that `url` and the keys beside it describe.
fn own_call(reading: &Reading<'_>, s: &mut Section<'_>) -> CallSpec {
    let who = format!("handler '{}/{}'", reading.of.workflow, reading.name);
    CallSpec::read(s, &who, reading.of.around, reading.of.retry)
}
