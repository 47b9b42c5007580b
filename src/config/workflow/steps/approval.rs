//! `approval`: a person's decision. It is a callback whose answer is yes or no.

use std::sync::Arc;

use super::Entry;
use super::callback::{ANSWER_TIMEOUT, Callback, NOTIFY_KEYS, notify};
use crate::config::keys::{Key, Takes, key};
use crate::config::read::Section;
use crate::config::workflow::keys;
use crate::config::workflow::step::{Draft, Reading};
use crate::decide::workflow::step_type::{Approval, Awaited, StepType};

const KEYS: &[Key] = &[key(
    "approvers",
    Takes::Texts,
    "approval: names that may decide; if empty, everyone with the callback token or the API token",
)];

pub(super) static ENTRY: Entry = Entry {
    name: "approval",
    keys: &[KEYS, NOTIFY_KEYS, keys::TIMEOUT, keys::RESULT, keys::PAUSE, keys::UNDO],
    in_map: true,
    read,
};

fn read(reading: &Reading<'_>, s: &mut Section<'_>, _: &mut Draft) -> Option<Arc<dyn StepType>> {
    let timeout = s.duration("timeout").unwrap_or(ANSWER_TIMEOUT);
    let approval = Some(Approval { approvers: read_approvers(s) });
    let awaited = Awaited { timeout, approval };
    Some(Arc::new(Callback { awaited, heartbeat: None, notify: notify(reading, s) }))
}

/// Reads the names of approvers, which take no placeholders and are compared as written.
fn read_approvers(s: &mut Section<'_>) -> Vec<String> {
    let names: Vec<String> =
        s.texts("approvers").unwrap_or_default().into_iter().map(|name| name.value).collect();
    if let Some(name) = names.iter().find(|name| name.contains("{{")) {
        s.error(
            "bad_template",
            "approvers",
            format!(
                "`{name}` contains a placeholder, but \
            `approvers` does not support placeholders: write the names"
            ),
        );
    }
    names
}
