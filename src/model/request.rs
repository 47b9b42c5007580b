//! An HTTP exchange as values.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use url::Url;

use super::attempt::CallPhase;
use super::body::{Body, Declared};

/// The methods a delivery may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`, always without a body.
    Get,
    /// `POST`, the default.
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Get, Self::Post, Self::Put, Self::Patch, Self::Delete];

    /// As it stands on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Method {
    type Err = String;

    /// Upper case only.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|m| m.word() == text).ok_or_else(|| format!("unknown HTTP method `{text}`"))
    }
}

/// One request, complete: nothing is added on the way but `Host` and `Content-Length`.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where to.
    pub url: Url,
    /// How.
    pub method: Method,
    /// Headers in the order they are sent.
    pub headers: Vec<(String, String)>,
    /// The body; empty for `GET`.
    pub body: Bytes,
    /// Total deadline: name look-up, connection, TLS, headers and body together.
    pub timeout: Duration,
    /// It is never sent twice by itself, not even on a connection that its receiver had closed before.
    pub once: bool,
    /// No more of the response's body is read.
    pub response_bytes_max: usize,
    /// Who sends, which decides what addresses may be reached and which connections are shared.
    pub destination: String,
    /// How far it has come.
    pub progress: Progress,
}

/// How far an exchange has come: written by whoever makes it, read by whoever stops waiting for it. Cheap to clone.
///
/// One that has told nothing counts as sent: a kept connection takes a request at once.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU8>);

impl Progress {
    const HEADERS: u8 = 0;
    const CONNECT: u8 = 1;
    const BODY: u8 = 2;

    /// It is in this part now.
    pub fn set(&self, phase: CallPhase) {
        let mark = match phase {
            CallPhase::Connect => Self::CONNECT,
            CallPhase::Headers => Self::HEADERS,
            CallPhase::Body => Self::BODY,
        };
        self.0.store(mark, Ordering::Relaxed);
    }

    /// The part it is in.
    pub fn phase(&self) -> CallPhase {
        match self.0.load(Ordering::Relaxed) {
            Self::CONNECT => CallPhase::Connect,
            Self::BODY => CallPhase::Body,
            _ => CallPhase::Headers,
        }
    }
}

/// Why a body is not whole. Its status had arrived by then, and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It was longer than the cap.
    AtCap,
    /// The connection broke.
    BrokeOff,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtCap => "response_too_large: the body was cut at the cap",
            Self::BrokeOff => "response_incomplete: the body broke off",
        })
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The first bytes of the body, up to the cap.
    pub body: Bytes,
    /// Why the body is not whole, if it is not.
    pub cut: Option<Cut>,
    /// The `Retry-After` header as sent.
    pub retry_after: Option<String>,
    /// The `Location` header as sent.
    pub location: Option<String>,
    /// The `Content-Type` header as sent.
    pub content_type: Option<String>,
    /// The request was sent again at once: the receiver had closed the kept connection that it was sent on first.
    pub resent: bool,
}

impl Response {
    /// A whole answer that says nothing but this.
    pub fn of(status: u16, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self { status, body, cut: None, retry_after: None, location: None, content_type: None, resent: false }
    }

    /// Its body, as what it is declared to be.
    pub fn as_body(&self) -> Body {
        Body::declared(self.body.clone(), Declared::of(self.content_type.as_deref()))
    }
}
