//! The format of a scenario file: what happens and what is expected, in order.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A scenario file: one YAML document that `tidehook test` plays against an engine in memory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What the scenario demonstrates; printed beside its result.
    pub name: String,
    /// The path of the configuration, relative to the scenario file.
    pub config: String,
    /// The variables that the configuration is read with; those of the process are not used.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Answers that are given at once to all calls of a handler or step; such calls never wait for
    /// an `expect`.
    #[serde(default)]
    pub answers: BTreeMap<String, Answer>,
    /// What happens and what is expected, played in this order; the first step that fails ends the
    /// scenario.
    pub steps: Vec<Step>,
}

/// One entry of `steps`. Its keys are handled in a fixed order: `send`, `advance`, `expect` with
/// `answer`, `callback`, `quiet`, `run`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Accepts this event, as if its source had sent it.
    pub send: Option<Send>,
    /// Requires that a call like this waits for its answer.
    pub expect: Option<Expect>,
    /// Answers the call of `expect`: status 200 without a body when absent. It is an error without
    /// `expect`.
    pub answer: Option<Answer>,
    /// Moves the clock by this duration, such as `3d`; everything that becomes due meanwhile
    /// happens.
    pub advance: Option<String>,
    /// Answers the callback token that a call carried last.
    pub callback: Option<Callback>,
    /// Requires that the latest run of a workflow stands like this.
    pub run: Option<ExpectedRun>,
    /// With `true`: requires that no call waits for an answer. `false` checks nothing.
    pub quiet: Option<bool>,
}

/// An event that a scenario sends. It is accepted without a signature check, headers or idempotency
/// key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// The source it is sent to; the scenario's configuration must have it.
    pub source: String,
    /// The event type that handlers and workflows match.
    #[serde(rename = "type")]
    pub kind: String,
    /// The payload, written as YAML and sent as JSON; `null` when absent.
    #[serde(default)]
    pub body: Value,
}

/// A call that must be waiting for its answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The receiver of the call: a handler, a step, or `workflow/step`.
    pub at: String,
    /// The expected body; of an object, only the keys that are named here are compared.
    pub body: Option<Value>,
    /// The number of the attempt, from 1, as `X-Tidehook-Attempt` says it; `None` accepts any.
    pub attempt: Option<u32>,
    /// Headers that the call must have with exactly these values; names in any case, other headers
    /// are ignored.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// The answer of a receiver to a call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The HTTP status of the answer; 200 when absent.
    #[serde(default = "ok")]
    pub status: u16,
    /// The body of the answer: text is sent as it stands, anything else as JSON.
    #[serde(default)]
    pub body: Option<Value>,
    /// The call times out instead of being answered.
    #[serde(default)]
    pub timeout: bool,
}

impl Answer {
    /// The body as sent: empty when absent, text as it stands, anything else as JSON.
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

/// An answer from outside to a step that waits for a callback.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// The body that becomes the response of the step; `null` when absent.
    #[serde(default)]
    pub body: Value,
    /// Reports a failure with this message instead of a result.
    pub fail: Option<String>,
    /// Sends a heartbeat instead of an answer: the step keeps waiting. Ignored beside `fail`.
    #[serde(default)]
    pub heartbeat: bool,
}

/// The expected state of the latest run of a workflow.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedRun {
    /// The workflow whose latest run is checked; it must have a run.
    pub workflow: String,
    /// The status: queued, running, paused, compensating, completed, failed or cancelled.
    pub is: String,
    /// The class of the run's error; `None` accepts any error, or none.
    pub error: Option<String>,
    /// The run's output; of an object, only the keys that are named here are compared.
    pub output: Option<Value>,
}

/// The path of the first value that is not as expected, and what is found there; `None` when all is
/// as expected.
pub fn difference(at: &str, expected: &Value, found: &Value) -> Option<(String, String)> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            expected.iter().find_map(|(key, value)| match found.get(key) {
                Some(found) => difference(&format!("{at}.{key}"), value, found),
                None => Some((format!("${at}.{key}"), "nothing".to_owned())),
            })
        }
        _ if matches(expected, found) => None,
        _ => {
            Some((if at.is_empty() { "$".to_owned() } else { format!("${at}") }, found.to_string()))
        }
    }
}

/// Whether a value is as expected. Of objects, at every depth, only the expected keys are compared.
pub fn matches(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => expected
            .iter()
            .all(|(key, value)| found.get(key).is_some_and(|found| matches(value, found))),
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len()
                && expected.iter().zip(found).all(|(expected, found)| matches(expected, found))
        }
        (Value::Number(expected), Value::Number(found)) => expected.as_f64() == found.as_f64(),
        _ => expected == found,
    }
}

/// Whether a name in a scenario means this place: a handler, or a step as `workflow/step`, which
/// may be named without its workflow.
pub fn stands_for(name: &str, place: &str) -> bool {
    place == name
        || place
            .split_once('/')
            .is_some_and(|(_, step)| step == name || step.rsplit(':').next() == Some(name))
}
