//! An HTTP exchange as values: request, progress and response.

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
    /// `POST`, what a delivery uses unless the configuration says otherwise.
    Post,
    /// `PUT`, with a body like `POST`.
    Put,
    /// `PATCH`, with a body like `POST`.
    Patch,
    /// `DELETE`. It has a body here, which some receivers ignore.
    Delete,
}

impl Method {
    /// Every method that a configuration may name. Parsing goes through this list.
    pub const ALL: [Self; 5] = [Self::Get, Self::Post, Self::Put, Self::Patch, Self::Delete];

    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
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
        f.write_str(self.as_str())
    }
}

impl FromStr for Method {
    type Err = String;

    /// Reads a method in upper case. `post` is an error, because HTTP methods are case-sensitive.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|m| m.as_str() == text)
            .ok_or_else(|| format!("unknown HTTP method `{text}`"))
    }
}

/// One complete request. The client adds only standard headers, such as `Host`, `Content-Length`
/// and `User-Agent`.
#[derive(Debug, Clone)]
pub struct Request {
    /// The complete URL, query included. The client applies the address rules before it connects.
    pub url: Url,
    /// The HTTP method. `GET` sends no body.
    pub method: Method,
    /// Headers in the order they are sent.
    pub headers: Vec<(String, String)>,
    /// The body; empty for `GET`.
    pub body: Bytes,
    /// Total deadline: name look-up, connection, TLS, headers and body together.
    pub timeout: Duration,
    /// Whether it must never be sent twice, not even after the receiver had closed the kept
    /// connection before.
    pub at_most_once: bool,
    /// How many bytes of the response body are read; the rest is cut off.
    pub response_bytes_max: usize,
    /// The name of the handler or kind of step that sends it. It selects the address rules, and
    /// which connections are shared.
    pub destination: String,
    /// How far the exchange has come. The client writes it, and the worker reads it when it stops
    /// waiting.
    pub progress: Progress,
}

/// How far an exchange has come. The client writes it; whoever stops waiting for the exchange reads
/// it. Cheap to clone.
///
/// Without a report the request counts as sent, because a kept connection sends it at once.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU8>);

impl Progress {
    const HEADERS: u8 = 0;
    const CONNECT: u8 = 1;
    const BODY: u8 = 2;

    /// Reports that the exchange is in this phase now.
    pub fn set(&self, phase: CallPhase) {
        let mark = match phase {
            CallPhase::Connect => Self::CONNECT,
            CallPhase::Headers => Self::HEADERS,
            CallPhase::Body => Self::BODY,
        };
        self.0.store(mark, Ordering::Relaxed);
    }

    /// The phase that was reported last; `Headers` if none was.
    pub fn phase(&self) -> CallPhase {
        match self.0.load(Ordering::Relaxed) {
            Self::CONNECT => CallPhase::Connect,
            Self::BODY => CallPhase::Body,
            _ => CallPhase::Headers,
        }
    }
}

/// Why a response body is incomplete. The status had arrived, and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It was longer than the cap.
    AtCap,
    /// The connection broke before the end of the body.
    BrokeOff,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtCap => "response_too_large: the response body was cut at the size limit",
            Self::BrokeOff => "response_incomplete: the response body was cut off",
        })
    }
}

/// An HTTP response, as much of it as is kept. Redirects and error statuses are responses too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status code, error statuses included.
    pub status: u16,
    /// The first bytes of the body, up to `response_bytes_max`.
    pub body: Bytes,
    /// Why the body is incomplete; `None` if it is complete.
    pub cut: Option<Cut>,
    /// The `Retry-After` header as sent.
    pub retry_after: Option<String>,
    /// The `Location` header as sent.
    pub location: Option<String>,
    /// The `Content-Type` header as sent.
    pub content_type: Option<String>,
    /// The request was sent twice: the receiver had closed the kept connection on which it was sent
    /// first.
    pub resent: bool,
}

impl Response {
    /// A complete response with nothing but this status and body.
    pub fn of(status: u16, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self {
            status,
            body,
            cut: None,
            retry_after: None,
            location: None,
            content_type: None,
            resent: false,
        }
    }

    /// The body with its declared type, ready to be parsed.
    pub fn as_body(&self) -> Body {
        Body::declared(self.body.clone(), Declared::of(self.content_type.as_deref()))
    }
}
