//! What came in: the exact bytes, and what was learnt about them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

use super::id::EventId;
use super::time::Timestamp;

/// A body as received. JSON is a view of it, parsed at most once and only when something reads it.
#[derive(Debug, Clone, Default)]
pub struct Body(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bytes: Bytes,
    json: OnceLock<Option<Value>>,
}

impl Body {
    /// Wraps the bytes without reading them.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(Arc::new(Inner { bytes: bytes.into(), json: OnceLock::new() }))
    }

    /// The bytes as they came; cheap to clone.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// The JSON value, or `None` when the bytes are not JSON.
    ///
    /// Of duplicate keys the last one counts, here and so everywhere. Nesting over 128 levels and
    /// numbers beyond the range of a double make a body "not JSON"; it is still delivered as it came.
    pub fn json(&self) -> Option<&Value> {
        self.0.json.get_or_init(|| serde_json::from_slice(&self.0.bytes).ok()).as_ref()
    }
}

/// A verified request, before it is stored.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// The source it came through.
    pub source: String,
    /// Its type, as the provider defines it.
    pub kind: String,
    /// Other names that event patterns may use for it.
    pub aliases: Vec<String>,
    /// The request headers worth keeping, lower-case names.
    pub headers: Vec<(String, String)>,
    /// The body as received.
    pub body: Body,
    /// The provider's own id of this event, which makes redelivery harmless.
    pub dedupe_key: Option<String>,
    /// The `Idempotency-Key` of an API call: another body under the same key is a conflict.
    pub idempotency_key: Option<String>,
}

/// An accepted event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its id, given at acceptance.
    pub id: EventId,
    /// The source it came through.
    pub source: String,
    /// Its type.
    pub kind: String,
    /// The request headers that were kept, lower-case names.
    pub headers: Vec<(String, String)>,
    /// The body as received.
    pub body: Body,
    /// The key under which it is unique: the provider's id, else the first consumer key.
    pub unique_key: Option<String>,
    /// When it was accepted, by the database's clock.
    pub created_at: Timestamp,
}
