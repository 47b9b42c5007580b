//! The trait of a signature scheme, and what it works with.

use std::time::Duration;

use super::raw::Raw;
use crate::config::CheckSecret;
use crate::config::source::SignatureOptions;
use crate::model::{Secret, Timestamp};

/// Everything a signature scheme needs besides the request.
#[derive(Debug, Clone, Copy)]
pub struct Scheme<'a> {
    /// Accepted secrets; any may match. The first one signs.
    pub secrets: &'a [Secret],
    /// The replay window. `None` is the scheme's own, zero turns the check off.
    pub tolerance: Option<Duration>,
    /// The settings of the source's `signature` section, for schemes that can be configured.
    pub options: &'a SignatureOptions,
    /// Wall time at the request. The replay window is measured from here, and signing uses it as
    /// the timestamp.
    pub now: Timestamp,
}

/// Why a request is not genuine. For logs and counters only; the sender never sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request has no header with a signature.
    Missing,
    /// A signature is there, but cannot be one: wrong form or encoding.
    Malformed,
    /// A readable signature that no accepted secret produces.
    Wrong,
    /// Its timestamp is outside the window.
    Stale,
}

impl Reason {
    /// The stable word for logs and counters, such as `signature_wrong`.
    pub fn as_str(self) -> &'static str {
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
    /// The HTTP status of the answer, for example 200, or 204 without a body.
    pub status: u16,
    /// The content type and body, if there is one.
    pub body: Option<(&'static str, String)>,
}

/// An event type and its aliases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventType {
    /// The name of the event type, as patterns match it and as it is stored.
    pub name: String,
    /// Other names that event patterns may use for the same type.
    pub type_aliases: Vec<String>,
}

impl EventType {
    /// A type without other names.
    pub fn plain(name: impl Into<String>) -> Self {
        Self { name: name.into(), type_aliases: Vec::new() }
    }
}

/// A signature scheme: verifies, names and signs the requests of one provider.
pub trait Provider: Sync {
    /// The name of the scheme in the configuration's `verify`.
    fn name(&self) -> &'static str;

    /// Checks that the request is genuine. Runs before anything in the body is interpreted.
    ///
    /// # Errors
    /// Why it is not.
    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason>;

    /// Adds the headers of a genuine request (and changes its query, where the scheme signs that).
    /// For tests and `send`.
    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>);

    /// The type of the event, with its other names. Schemes without types say `event`.
    fn kind(&self, _request: &Raw) -> EventType {
        EventType::plain("event")
    }

    /// The provider's own id of the event, which makes its retries harmless.
    fn dedupe_key(&self, _request: &Raw) -> Option<String> {
        None
    }

    /// The provider's id of what happened, if it differs from the id of the delivery (`dedupe:
    /// event`).
    fn event_key(&self, _request: &Raw) -> Option<String> {
        None
    }

    /// The names of headers that are stored with the event.
    fn kept_headers(&self) -> &'static [&'static str] {
        &[]
    }

    /// The answer to a handshake, once it is verified; `None` for an ordinary event.
    fn challenge(&self, _request: &Raw) -> Option<Challenge> {
        None
    }

    /// A check of the secret's form, for when a configuration is read.
    fn secret_check(&self) -> CheckSecret {
        |_| Ok(())
    }

    /// A sample body for an event type, for `send` without a payload. Headers that name the type
    /// are included.
    fn sample(&self, kind: &str, id: &str) -> Sample;
}

/// A made-up request of one event type, for `send` and for tests.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The exact bytes to send, as text. The signature is computed over them.
    pub body: String,
    /// Headers besides those of the signature.
    pub headers: Vec<(&'static str, String)>,
}

impl Sample {
    /// A sample whose body is JSON, with the `Content-Type` that says so.
    pub fn json(body: &serde_json::Value) -> Self {
        Self {
            body: body.to_string(),
            headers: vec![("content-type", "application/json".to_owned())],
        }
    }

    /// Adds a header to the sample. It does not replace one of the same name.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}
