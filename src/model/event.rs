//! What came in, and what was learnt about it.

use super::body::Body;
use super::id::EventId;
use super::time::Timestamp;

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

/// The type of the body among the kept headers of an event.
pub fn content_type(headers: &[(String, String)]) -> Option<&str> {
    headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str())
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
