//! What flows from step to step of a run.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::Body;
use super::json::{DEPTH_MAX, Ref};

/// What flows from step to step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// JSON.
    Json(Value),
    /// Text that is none: a string where JSON is asked for.
    Text(String),
    /// What cannot be read. A template that reads it fails.
    Unreadable {
        /// The bytes, as text.
        text: String,
        /// What is wrong, and where.
        why: String,
    },
}

impl Default for Payload {
    /// Nothing.
    fn default() -> Self {
        Self::Json(Value::Null)
    }
}

impl Payload {
    /// What a body says: an empty one is `null`, a form is an object of its fields.
    pub fn of(body: &Body) -> Self {
        let lossy = || String::from_utf8_lossy(body.bytes()).into_owned();
        match body.view() {
            Ok(Ref::Text(text)) => Self::Text(text.to_owned()),
            Ok(value) => Self::Json(value.to_value()),
            Err(why) => Self::Unreadable { text: lossy(), why: why.why.clone() },
        }
    }

    /// What bytes say of which nothing is declared.
    pub fn read(bytes: impl Into<Bytes>) -> Self {
        Self::of(&Body::new(bytes))
    }

    /// Whether it is nested deeper than can be kept.
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

    /// As a JSON value: text becomes a string, and so does what cannot be read.
    pub fn into_value(self) -> Value {
        match self {
            Self::Json(value) => value,
            Self::Text(text) | Self::Unreadable { text, .. } => Value::String(text),
        }
    }

    /// As it is sent.
    pub fn to_body(&self) -> String {
        match self {
            Self::Json(value) => value.to_string(),
            Self::Text(text) | Self::Unreadable { text, .. } => text.clone(),
        }
    }
}

/// What is nested deeper is not kept.
fn is_deep(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(|item| is_deep(item, levels - 1)),
        Value::Object(fields) => levels == 0 || fields.values().any(|field| is_deep(field, levels - 1)),
        _ => false,
    }
}
