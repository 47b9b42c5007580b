//! What came in: a verified request, and the event it becomes.

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
    pub type_aliases: Vec<String>,
    /// The request headers worth keeping, lower-case names.
    pub headers: Vec<(String, String)>,
    /// The body byte for byte as received. Lists of events leave it empty.
    pub body: Body,
    /// The provider's own id of this event. A second delivery with the same id is a duplicate.
    pub dedupe_key: Option<String>,
    /// The `Idempotency-Key` of an API call. The same key with another body is a conflict.
    pub idempotency_key: Option<String>,
}

/// The content type of the body, from the kept headers of an event.
pub fn content_type(headers: &[(String, String)]) -> Option<&str> {
    headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str())
}

/// An event as stored: a verified request with the id it was given.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its id, given at acceptance.
    pub id: EventId,
    /// The source it came through.
    pub source: String,
    /// The event type, such as `push`. Handlers select events by it.
    pub kind: String,
    /// The request headers that were kept, lower-case names.
    pub headers: Vec<(String, String)>,
    /// The body byte for byte as received. Lists of events leave it empty.
    pub body: Body,
    /// The key that makes it unique: the provider's id, else the API call's key, else the first
    /// consumer's key.
    pub unique_key: Option<String>,
    /// When it was accepted, by the database's clock.
    pub created_at: Timestamp,
}
