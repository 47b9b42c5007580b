//! What a signature scheme knows.

use std::time::Duration;

use super::raw::Raw;
use crate::config::CheckSecret;
use crate::config::source::SignatureOptions;
use crate::model::{Secret, Timestamp};

/// Everything a scheme needs besides the request.
#[derive(Debug, Clone, Copy)]
pub struct Scheme<'a> {
    /// Accepted secrets; any may match. The first one signs.
    pub secrets: &'a [Secret],
    /// Replay window; `None` is the scheme's own, zero is off.
    pub tolerance: Option<Duration>,
    /// The configurable parts.
    pub options: &'a SignatureOptions,
    /// Wall time.
    pub now: Timestamp,
}

/// Why a request is not believed: a stable word for the log and the count, never for the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No signature.
    Missing,
    /// What stands in its place cannot be one.
    Malformed,
    /// It does not match.
    Wrong,
    /// Its timestamp is outside the window.
    Stale,
}

impl Reason {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "signature_missing",
            Self::Malformed => "signature_malformed",
            Self::Wrong => "signature_wrong",
            Self::Stale => "signature_stale",
        }
    }
}

/// A handshake of the provider, answered at once and not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The status.
    pub status: u16,
    /// The content type and body, if there is one.
    pub body: Option<(&'static str, String)>,
}

/// A type and its other names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventType {
    /// The type.
    pub name: String,
    /// Names that patterns may use for it too.
    pub aliases: Vec<String>,
}

impl EventType {
    /// A type without other names.
    pub fn plain(name: impl Into<String>) -> Self {
        Self { name: name.into(), aliases: Vec::new() }
    }
}

/// A signature scheme: verifies, names and signs the requests of one provider.
pub trait Provider: Sync {
    /// The name that `verify` uses.
    fn name(&self) -> &'static str;

    /// Whether the request is genuine. Runs before anything is parsed.
    ///
    /// # Errors
    /// Why not.
    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason>;

    /// The headers of a genuine request (and its URL query, where the scheme signs that).
    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>);

    /// The event's type.
    fn kind(&self, _request: &Raw) -> EventType {
        EventType::plain("event")
    }

    /// The provider's own id of the event, which makes its retries harmless.
    fn dedupe_key(&self, _request: &Raw) -> Option<String> {
        None
    }

    /// The provider's id of what has happened, where that is another one than that of the delivery (`dedupe: event`).
    fn event_key(&self, _request: &Raw) -> Option<String> {
        None
    }

    /// Headers that are kept with the event.
    fn kept_headers(&self) -> &'static [&'static str] {
        &[]
    }

    /// The answer to a verified handshake.
    fn challenge(&self, _request: &Raw) -> Option<Challenge> {
        None
    }

    /// A check of the secret's form, for when a configuration is read.
    fn secret_check(&self) -> CheckSecret {
        |_| Ok(())
    }

    /// A sample body of an event type, for `send` without a payload; headers that name the type go along.
    fn sample(&self, kind: &str, id: &str) -> Sample;
}

/// A sample request.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The body.
    pub body: String,
    /// Headers beside the signature's.
    pub headers: Vec<(&'static str, String)>,
}

impl Sample {
    /// A JSON body.
    pub fn json(body: &serde_json::Value) -> Self {
        Self { body: body.to_string(), headers: vec![("content-type", "application/json".to_owned())] }
    }

    /// One more header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}
