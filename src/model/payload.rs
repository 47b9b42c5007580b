//! The data that flows from step to step of a run.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::Body;
use super::json::{DEPTH_MAX, Ref};

/// The data that flows from step to step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// A JSON value, which templates and paths can look into.
    Json(Value),
    /// Text that is not JSON. Expressions see it as a string.
    Text(String),
    /// A body that cannot be read. A template that reads it fails.
    Unreadable {
        /// The bytes as text, with U+FFFD for what is not UTF-8.
        text: String,
        /// What is wrong, and where.
        why: String,
    },
}

impl Default for Payload {
    /// JSON `null`, which stands for an absent payload.
    fn default() -> Self {
        Self::Json(Value::Null)
    }
}

impl Payload {
    /// The payload of a body: an empty body is `null`, a form is an object of its fields.
    pub fn of(body: &Body) -> Self {
        let lossy = || String::from_utf8_lossy(body.bytes()).into_owned();
        match body.view() {
            Ok(Ref::Text(text)) => Self::Text(text.to_owned()),
            Ok(value) => Self::Json(value.to_value()),
            Err(why) => Self::Unreadable { text: lossy(), why: why.why.clone() },
        }
    }

    /// The payload of bytes without a declared type.
    pub fn read(bytes: impl Into<Bytes>) -> Self {
        Self::of(&Body::new(bytes))
    }

    /// Whether it is nested too deeply to be stored.
    pub fn is_too_deep(&self) -> bool {
        self.json().is_some_and(|value| is_deep(value, DEPTH_MAX))
    }

    /// The value that expressions see.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn view(&self) -> Result<Ref<'_>, &str> {
        match self {
            Self::Json(value) => Ok(Ref::Value(value)),
            Self::Text(text) => Ok(Ref::Text(text)),
            Self::Unreadable { why, .. } => Err(why),
        }
    }

    /// The JSON value, if it is one.
    pub fn json(&self) -> Option<&Value> {
        match self {
            Self::Json(value) => Some(value),
            Self::Text(_) | Self::Unreadable { .. } => None,
        }
    }

    /// The payload as one JSON value. Plain text and unreadable bytes become a string.
    pub fn into_value(self) -> Value {
        match self {
            Self::Json(value) => value,
            Self::Text(text) | Self::Unreadable { text, .. } => Value::String(text),
        }
    }

    /// The body of a request with this payload: JSON is serialized, anything else goes out as text.
    pub fn to_body(&self) -> String {
        match self {
            Self::Json(value) => value.to_string(),
            Self::Text(text) | Self::Unreadable { text, .. } => text.clone(),
        }
    }
}

/// Whether a value is nested more than `levels` deep.
fn is_deep(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(|item| is_deep(item, levels - 1)),
        Value::Object(fields) => {
            levels == 0 || fields.values().any(|field| is_deep(field, levels - 1))
        }
        _ => false,
    }
}
