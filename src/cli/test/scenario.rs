//! A scenario as written: what happens, what is expected, in order.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A scenario file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows.
    pub name: String,
    /// The configuration, relative to the file.
    pub config: String,
    /// Variables of the configuration.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Answers to calls that nothing waits for, by handler or step.
    #[serde(default)]
    pub answers: BTreeMap<String, Answer>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// One line of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// An event comes in.
    pub send: Option<Send>,
    /// A call is made…
    pub expect: Option<Expect>,
    /// …and answered.
    pub answer: Option<Answer>,
    /// Time passes.
    pub advance: Option<String>,
    /// The last token that was told is answered.
    pub callback: Option<Callback>,
    /// The latest run stands so.
    pub run: Option<RunIs>,
    /// No call is waiting for an answer.
    pub quiet: Option<bool>,
}

/// An event.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// To which source.
    pub source: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its payload.
    #[serde(default)]
    pub body: Value,
}

/// A call that must be waiting.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The handler, the step, or `workflow/step`.
    pub at: String,
    /// The body; of an object, the keys that are named.
    pub body: Option<Value>,
    /// Which attempt it is.
    pub attempt: Option<u32>,
    /// Headers it has.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// What a receiver answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The status.
    #[serde(default = "ok")]
    pub status: u16,
    /// The body; text goes out as it stands.
    #[serde(default)]
    pub body: Option<Value>,
    /// It does not answer in time.
    #[serde(default)]
    pub timeout: bool,
}

impl Answer {
    /// The bytes of its body.
    pub fn bytes(&self) -> Vec<u8> {
        match &self.body {
            None => Vec::new(),
            Some(Value::String(text)) => text.clone().into_bytes(),
            Some(value) => value.to_string().into_bytes(),
        }
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self { status: ok(), body: None, timeout: false }
    }
}

fn ok() -> u16 {
    200
}

/// An answer from outside.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// What it says.
    #[serde(default)]
    pub body: Value,
    /// It failed, with this message.
    pub fail: Option<String>,
    /// It is a sign of life.
    #[serde(default)]
    pub heartbeat: bool,
}

/// How a run must stand.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunIs {
    /// Whose.
    pub workflow: String,
    /// queued, running, paused, compensating, completed, failed, cancelled
    pub is: String,
    /// The class of its error.
    pub error: Option<String>,
    /// What it came to; of an object, the keys that are named.
    pub output: Option<Value>,
}

/// The first key at which a value is not as expected, and what is there.
pub fn difference(at: &str, expected: &Value, found: &Value) -> Option<(String, String)> {
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
pub fn matches(expected: &Value, found: &Value) -> bool {
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

/// Whether a name in a scenario is that of a handler, a step or `workflow/step`.
pub fn stands_for(name: &str, place: &str) -> bool {
    place == name || place.split_once('/').is_some_and(|(_, step)| step == name || step.rsplit(':').next() == Some(name))
}
