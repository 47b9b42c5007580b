//! Failures of steps, and where they go.

use std::fmt;
use std::str::FromStr;

use super::flow::ResultPath;
use crate::model::run::RunError;
use crate::model::{Failure, JobId};

/// Where some failures go.
#[derive(Debug, Clone)]
pub struct Catch {
    /// Which ones.
    pub errors: Vec<ErrorName>,
    /// The step to go on with: its index in the same list.
    pub goto: usize,
    /// Where the error goes; without it, its fields are added to the payload.
    pub result_path: Option<ResultPath>,
}

impl Catch {
    /// Whether it takes a failure.
    pub fn takes(&self, error: &RunError) -> bool {
        self.errors.iter().any(|name| name.holds(error))
    }
}

/// A name for failures, as `catch` and `retry` write them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorName {
    /// Everything but `cancelled` and `step_limit`.
    All,
    /// A status between these.
    Status(u16, u16),
    /// A class by its word.
    Class(String),
}

/// The classes that are words of their own.
pub const CLASSES: [&str; 24] = [
    "timeout",
    "network",
    "dns",
    "tls",
    "ssrf_blocked",
    "response_too_large",
    "invalid_response",
    "expectation",
    "template",
    "callback_timeout",
    "callback_failed",
    "heartbeat_timeout",
    "approval_timeout",
    "rejected",
    "workflow_failed",
    "interrupted",
    "unknown_outcome",
    "params",
    "no_choice_matched",
    "step_limit",
    "cancelled",
    "bad_timestamp",
    "map_too_large",
    "bad_items",
];

/// The words that stand for a range of statuses, and `all`.
pub const GROUPS: [&str; 4] = ["all", "3xx", "4xx", "5xx"];

impl FromStr for ErrorName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let status = |text: &str| text.parse::<u16>().ok().filter(|s| (100..600).contains(s));
        Ok(match text {
            "all" => Self::All,
            "3xx" => Self::Status(100, 399),
            "4xx" => Self::Status(400, 499),
            "5xx" => Self::Status(500, 599),
            word if CLASSES.contains(&word) => Self::Class(word.to_owned()),
            word if word.strip_prefix("app:").is_some_and(|name| !name.is_empty()) => Self::Class(word.to_owned()),
            other => match other.split_once('-').map(|(from, to)| (status(from), status(to))) {
                Some((Some(from), Some(to))) if from <= to => Self::Status(from, to),
                _ => match status(other) {
                    Some(status) => Self::Status(status, status),
                    None => return Err(format!("unknown error class `{other}`")),
                },
            },
        })
    }
}

impl fmt::Display for ErrorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Status(100, 399) => f.write_str("3xx"),
            Self::Status(400, 499) => f.write_str("4xx"),
            Self::Status(500, 599) => f.write_str("5xx"),
            Self::Status(from, to) if from == to => write!(f, "{from}"),
            Self::Status(from, to) => write!(f, "{from}-{to}"),
            Self::Class(word) => f.write_str(word),
        }
    }
}

impl ErrorName {
    /// Whether it names a failure.
    pub fn holds(&self, error: &RunError) -> bool {
        match self {
            Self::All => !matches!(error.class.as_str(), "cancelled" | "step_limit"),
            // Redirects count as server errors too, as in qhook.
            Self::Status(500, 599) => error.status.is_some_and(|s| (500..600).contains(&s) || s < 400 && error.class == "3xx"),
            Self::Status(from, to) => error.status.is_some_and(|s| (*from..=*to).contains(&s)),
            Self::Class(word) => {
                let class = error.class.as_str();
                class == word
                    || word == "timeout" && class.ends_with("_timeout") && class != "workflow_timeout"
                    || word == "network" && matches!(class, "dns" | "tls" | "ssrf_blocked" | "invalid_response")
            }
        }
    }
}

/// A failed call as a step's error.
pub fn of_failure(failure: &Failure, job: JobId, attempts: u32) -> RunError {
    let class = match failure {
        Failure::Status(status) if (400..500).contains(status) => "4xx",
        Failure::Status(status) if (500..600).contains(status) => "5xx",
        // An answer that would be a success elsewhere, and that `expect` does not name.
        Failure::Status(status) if (200..300).contains(status) => "expectation",
        Failure::Status(_) | Failure::Redirect { .. } => "3xx",
        Failure::Timeout(_) => "timeout",
        Failure::Dns(_) => "dns",
        Failure::Connect(_) => "network",
        Failure::Tls(_) => "tls",
        Failure::Blocked(_) => "ssrf_blocked",
        Failure::Protocol(_) => "invalid_response",
        Failure::Compose(_) => "template",
        Failure::CrashSuspect => "interrupted",
        Failure::Expired => "timeout",
    };
    RunError { status: failure.status(), job: Some(job.to_string()), attempts, ..error(class, failure.to_string()) }
}

/// An error of the machine's own.
pub fn error(class: &str, message: impl Into<String>) -> RunError {
    RunError { class: class.to_owned(), message: message.into(), step: None, status: None, job: None, attempts: 0 }
}
