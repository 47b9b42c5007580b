//! A scenario as written: what happens, what is expected, in order.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A scenario file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    /// What it shows.
    pub(super) name: String,
    /// The configuration, relative to the file.
    pub(super) config: String,
    /// Variables of the configuration.
    #[serde(default)]
    pub(super) variables: BTreeMap<String, String>,
    /// Answers to calls that nothing waits for, by handler or step.
    #[serde(default)]
    pub(super) answers: BTreeMap<String, Answer>,
    /// What happens.
    pub(super) steps: Vec<Step>,
}

/// One line of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// An event comes in.
    pub(super) send: Option<Send>,
    /// A call is made…
    pub(super) expect: Option<Expect>,
    /// …and answered.
    pub(super) answer: Option<Answer>,
    /// Time passes.
    pub(super) advance: Option<String>,
    /// The last token that was told is answered.
    pub(super) callback: Option<Callback>,
    /// The latest run stands so.
    pub(super) run: Option<RunIs>,
    /// No call is waiting for an answer.
    pub(super) quiet: Option<bool>,
}

/// An event.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Send {
    pub(super) source: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) body: Value,
}

/// A call that must be waiting.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// The handler, the step, or `workflow/step`.
    pub(super) at: String,
    /// The body; of an object, the keys that are named.
    pub(super) body: Option<Value>,
    /// Which attempt it is.
    pub(super) attempt: Option<u32>,
    /// Headers it has.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
}

/// What a receiver answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    #[serde(default = "ok")]
    pub(super) status: u16,
    #[serde(default)]
    pub(super) body: Option<Value>,
    /// It does not answer in time.
    #[serde(default)]
    pub(super) timeout: bool,
}

fn ok() -> u16 {
    200
}

/// An answer from outside.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Callback {
    #[serde(default)]
    pub(super) body: Value,
    /// It failed, with this message.
    pub(super) fail: Option<String>,
    /// It is a sign of life.
    #[serde(default)]
    pub(super) heartbeat: bool,
}

/// How a run must stand.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunIs {
    pub(super) workflow: String,
    /// queued, running, paused, compensating, completed, failed, cancelled
    pub(super) is: String,
    /// The class of its error.
    pub(super) error: Option<String>,
    /// What it came to; of an object, the keys that are named.
    pub(super) output: Option<Value>,
}

/// The first key at which a value is not as expected, and what is there.
pub(super) fn difference(at: &str, expected: &Value, found: &Value) -> Option<(String, String)> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => expected.iter().find_map(|(key, value)| match found.get(key) {
            Some(found) => difference(&format!("{at}.{key}"), value, found),
            None => Some((format!("${at}.{key}"), "nothing".to_owned())),
        }),
        _ if matches(expected, found) => None,
        _ => Some((if at.is_empty() { "$".to_owned() } else { format!("${at}") }, found.to_string())),
    }
}

/// Whether a value is as expected: of an object, the keys that are named, all the way down.
pub(super) fn matches(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            expected.iter().all(|(key, value)| found.get(key).is_some_and(|found| matches(value, found)))
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len() && expected.iter().zip(found).all(|(expected, found)| matches(expected, found))
        }
        (Value::Number(expected), Value::Number(found)) => expected.as_f64() == found.as_f64(),
        _ => expected == found,
    }
}
