//! The possible outcomes of running a job, and the attempts that are kept in its history.

use std::fmt;
use std::time::Duration;

use super::request::Response;
use super::time::Timestamp;

/// Which part of an exchange was under way when time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallPhase {
    /// Name look-up, TCP or TLS.
    Connect,
    /// Waiting for the status and headers.
    Headers,
    /// The status had arrived, and the rest of the body was still being read.
    Body,
}

impl fmt::Display for CallPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Headers => "waiting for the response headers",
            Self::Body => "reading the response body",
        })
    }
}

/// Why there was no response, or why a response counts as a failure. A closed list with a stable
/// code for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The name could not be resolved.
    Dns(String),
    /// No connection could be made: refused, reset or unreachable.
    Connect(String),
    /// The address rules refuse the destination; nothing was sent.
    Blocked(String),
    /// The TLS handshake failed.
    Tls(String),
    /// The total deadline passed.
    Timeout(CallPhase),
    /// The connection broke, or what was received was not HTTP.
    Protocol(String),
    /// A redirect, which is never followed.
    Redirect {
        /// The response's status, 300 to 399.
        status: u16,
        /// Where it pointed, shortened for people: the origin alone, or that it was another path of
        /// the same host. `None` if the response had no `Location`.
        location: Option<String>,
    },
    /// An answer other than 2xx and 3xx.
    Status(u16),
    /// A response with a good status whose content is not what `expect` requires.
    Expectation(u16),
    /// The request could not be built: a URL or header that cannot be sent.
    Compose(String),
    /// A template could not be rendered: a function refused its arguments, or the payload cannot be
    /// read.
    Template(String),
    /// The job was leased during too many deaths of its workers, so it may be what kills them.
    CrashSuspect,
    /// Its worker was stopped after sending had begun, so the receiver may have the request.
    Interrupted(String),
    /// The call may be sent only once, and its outcome is not known. It is not repeated.
    UnknownOutcome(String),
    /// The event's time to live ran out before the delivery succeeded.
    Expired,
}

/// The stable name of a kind of failure, as attempts store it and the API shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureCode {
    /// The name could not be resolved.
    Dns,
    /// No connection could be made: refused, reset or unreachable.
    Connect,
    /// The address rules refuse the destination; nothing was sent.
    BlockedAddress,
    /// The TLS handshake failed.
    Tls,
    /// The total deadline passed.
    Timeout,
    /// The connection broke, or what was received was not HTTP.
    Protocol,
    /// A redirect, which is never followed.
    RedirectNotFollowed,
    /// An answer other than 2xx and 3xx.
    Status,
    /// A response with a good status whose content is not what `expect` requires.
    Expectation,
    /// The request could not be built: a URL or header that cannot be sent.
    Compose,
    /// A template could not be rendered: a function refused its arguments, or the payload cannot be
    /// read.
    Template,
    /// The job was leased during too many deaths of its workers, so it may be what kills them.
    CrashSuspect,
    /// Its worker was stopped after sending had begun, so the receiver may have the request.
    Interrupted,
    /// The call may be sent only once, and its outcome is not known. It is not repeated.
    UnknownOutcome,
    /// The event's time to live ran out before the delivery succeeded.
    Expired,
    /// A consumer received the message and did not acknowledge it in time.
    NotAcknowledged,
    /// A consumer gave the message back (`nack`).
    GivenBack,
    /// A code that a later version of tidehook has stored.
    Other,
}

impl FailureCode {
    /// The codes of this version.
    pub const ALL: [Self; 17] = [
        Self::Dns,
        Self::Connect,
        Self::BlockedAddress,
        Self::Tls,
        Self::Timeout,
        Self::Protocol,
        Self::RedirectNotFollowed,
        Self::Status,
        Self::Expectation,
        Self::Compose,
        Self::Template,
        Self::CrashSuspect,
        Self::Interrupted,
        Self::UnknownOutcome,
        Self::Expired,
        Self::NotAcknowledged,
        Self::GivenBack,
    ];

    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::BlockedAddress => "blocked_address",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::RedirectNotFollowed => "redirect_not_followed",
            Self::Status => "status",
            Self::Expectation => "expectation",
            Self::Compose => "compose",
            Self::Template => "template",
            Self::CrashSuspect => "crash_suspect",
            Self::Interrupted => "interrupted",
            Self::UnknownOutcome => "unknown_outcome",
            Self::Expired => "expired",
            Self::NotAcknowledged => "not_acknowledged",
            Self::GivenBack => "given_back",
            Self::Other => "other",
        }
    }

    /// Reads a stored name.
    pub fn from_stored(name: &str) -> Self {
        Self::ALL.into_iter().find(|code| code.as_str() == name).unwrap_or(Self::Other)
    }
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Failure {
    /// The same failure, marked as one of a request that was sent twice: its kept connection had
    /// been closed without an answer.
    pub fn sent_twice(self) -> Self {
        let twice = |why: String| {
            format!(
                "{why}; sent twice, because the receiver had closed the kept-alive connection \
                 without a response"
            )
        };
        match self {
            Self::Connect(why) => Self::Connect(twice(why)),
            Self::Tls(why) => Self::Tls(twice(why)),
            Self::Protocol(why) => Self::Protocol(twice(why)),
            other => other,
        }
    }

    /// The stable code, as stored and shown.
    pub fn code(&self) -> FailureCode {
        match self {
            Self::Dns(_) => FailureCode::Dns,
            Self::Connect(_) => FailureCode::Connect,
            Self::Blocked(_) => FailureCode::BlockedAddress,
            Self::Tls(_) => FailureCode::Tls,
            Self::Timeout(_) => FailureCode::Timeout,
            Self::Protocol(_) => FailureCode::Protocol,
            Self::Redirect { .. } => FailureCode::RedirectNotFollowed,
            Self::Status(_) => FailureCode::Status,
            Self::Expectation(_) => FailureCode::Expectation,
            Self::Compose(_) => FailureCode::Compose,
            Self::Template(_) => FailureCode::Template,
            Self::CrashSuspect => FailureCode::CrashSuspect,
            Self::Interrupted(_) => FailureCode::Interrupted,
            Self::UnknownOutcome(_) => FailureCode::UnknownOutcome,
            Self::Expired => FailureCode::Expired,
        }
    }

    /// The response status, when there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status(status) | Self::Expectation(status) | Self::Redirect { status, .. } => {
                Some(*status)
            }
            _ => None,
        }
    }

    /// Whether a real exchange took place (or was tried), so that it counts as an attempt.
    pub fn is_exchange(&self) -> bool {
        !matches!(self, Self::CrashSuspect | Self::UnknownOutcome(_) | Self::Expired)
    }

    /// Whether another attempt could succeed.
    pub fn is_passing(&self) -> bool {
        !matches!(
            self,
            Self::Blocked(_)
                | Self::Compose(_)
                | Self::Template(_)
                | Self::CrashSuspect
                | Self::UnknownOutcome(_)
                | Self::Expired
        )
    }

    /// Whether the receiver cannot have seen the request.
    pub fn is_unsent(&self) -> bool {
        matches!(
            self,
            Self::Dns(_)
                | Self::Connect(_)
                | Self::Blocked(_)
                | Self::Tls(_)
                | Self::Timeout(CallPhase::Connect)
                | Self::Compose(_)
                | Self::Template(_)
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(why) => write!(f, "DNS lookup failed: {why}"),
            Self::Connect(why) => write!(f, "connection failed: {why}"),
            Self::Blocked(why) => write!(f, "address not allowed: {why}"),
            Self::Tls(why) => write!(f, "TLS failed: {why}"),
            Self::Timeout(phase) => write!(f, "timed out while {phase}"),
            Self::Protocol(why) => write!(f, "protocol error: {why}"),
            Self::Redirect { status, location: Some(to) } => {
                write!(f, "HTTP {status}: redirect to {to} not followed")
            }
            Self::Redirect { status, location: None } => {
                write!(f, "HTTP {status}: redirect not followed")
            }
            Self::Status(status) => write!(f, "HTTP {status}"),
            Self::Expectation(status) => {
                write!(f, "HTTP {status}: the response does not meet `expect`")
            }
            Self::UnknownOutcome(why) => {
                write!(f, "sent at most once, and the outcome is unknown: {why}")
            }
            Self::Compose(why) => write!(f, "request could not be built: {why}"),
            Self::Template(why) => write!(f, "template failed: {why}"),
            Self::Interrupted(why) => write!(f, "interrupted: {why}"),
            Self::CrashSuspect => {
                f.write_str("crash_suspect: too many workers crashed while they held this job")
            }
            Self::Expired => f.write_str("event TTL expired"),
        }
    }
}

/// The outcome of running a job once. What it means for the job is decided in `decide::settle`.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A response arrived, whatever its status.
    Answered(Response),
    /// No response that counts: the failure says what went wrong, and whether a retry can help.
    Failed(Failure),
    /// The job was not tried. Its lease is released, and no attempt is counted.
    Released,
    /// There was nothing to send. The job only had to become due, as timers of runs and starts of
    /// workflows do, or its run no longer needs it.
    NothingToSend,
    /// This configuration cannot serve the job, for this reason. No attempt is counted, and the job
    /// is looked at again later.
    Parked(String),
    /// Something that passes was in the way, such as a database that does not answer. No attempt is
    /// counted, and the job is due again soon.
    Postponed(String),
}

/// How an attempt ended, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttemptResult {
    /// The exchange succeeded: a 2xx status, unless the configuration names other statuses.
    Delivered,
    /// The exchange failed. `code` and `error` of the attempt say why.
    Failed,
    /// The worker disappeared before it recorded an outcome.
    Interrupted,
    /// The outcome was recorded after the lease was lost. It changed nothing.
    Stale,
}

impl AttemptResult {
    /// Every result. Reading a stored word goes through this list.
    pub const ALL: [Self; 4] = [Self::Delivered, Self::Failed, Self::Interrupted, Self::Stale];

    /// The word under which the database stores this result.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Stale => "stale",
        }
    }

    /// The result that a stored word stands for; `None` for a word that this version does not know.
    pub fn from_stored(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.as_str() == word)
    }
}

/// One try of a job, as kept in its history.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Which send of the job this was, counting from 1.
    pub number: u32,
    /// The number of the claim it ran under. Job and claim identify the attempt.
    pub claim: i64,
    /// How it ended, as far as the database knows.
    pub ending: AttemptResult,
    /// The failure's code, if it failed.
    pub code: Option<FailureCode>,
    /// The response status, if there was one.
    pub status: Option<u16>,
    /// The failure in words, for people.
    pub error: Option<String>,
    /// How long the exchange took.
    pub duration: Duration,
    /// The first bytes of the response body.
    pub response: Vec<u8>,
    /// When the exchange ended.
    pub at: Timestamp,
}
