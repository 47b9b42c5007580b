//! The names of errors that `catch` and `retry` may list in the configuration.

use std::fmt;
use std::str::FromStr;

use crate::model::FailureCode;

/// One entry of the `errors` list of a `retry` policy or a `catch`: it names the failures that the
/// entry applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorName {
    /// Everything but `cancelled` and `step_limit`.
    All,
    /// A response status in this range, both ends included.
    Status(u16, u16),
    /// A failure class such as `timeout`, one of `CLASSES`, or `app:NAME` for an error name that
    /// the receiver reports itself.
    Class(String),
}

/// The error classes that the configuration may name. `app:NAME` and statuses are valid besides
/// these.
pub const CLASSES: [&str; 25] = [
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
    "poll_timeout",
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

/// The names that stand for a range of statuses, and `all` for nearly everything.
pub const GROUPS: [&str; 4] = ["all", "3xx", "4xx", "5xx"];

impl FromStr for ErrorName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let status = |text: &str| text.parse::<u16>().ok().filter(|s| (100..600).contains(s));
        Ok(match text {
            "all" => Self::All,
            "3xx" => Self::Status(300, 399),
            "4xx" => Self::Status(400, 499),
            "5xx" => Self::Status(500, 599),
            word if CLASSES.contains(&word) => Self::Class(word.to_owned()),
            word if word
                .strip_prefix("app:")
                .is_some_and(|name| !name.is_empty() && !name.contains("{{")) =>
            {
                Self::Class(word.to_owned())
            }
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
            Self::Status(300, 399) => f.write_str("3xx"),
            Self::Status(400, 499) => f.write_str("4xx"),
            Self::Status(500, 599) => f.write_str("5xx"),
            Self::Status(from, to) if from == to => write!(f, "{from}"),
            Self::Status(from, to) => write!(f, "{from}-{to}"),
            Self::Class(word) => f.write_str(word),
        }
    }
}

impl ErrorName {
    /// Whether this name covers a failure with this class, this status, and this error name from
    /// the receiver.
    pub fn holds(&self, class: &str, status: Option<u16>, app: Option<&str>) -> bool {
        match self {
            Self::All => !matches!(class, "cancelled" | "step_limit"),
            // Redirects count as server errors too, as in qhook.
            Self::Status(500, 599) => {
                status.is_some_and(|s| (500..600).contains(&s) || s < 400 && class == "3xx")
            }
            // A 1xx that ends an exchange is of this class.
            Self::Status(300, 399) => {
                class == "3xx" || status.is_some_and(|s| (300..400).contains(&s))
            }
            Self::Status(from, to) => status.is_some_and(|s| (*from..=*to).contains(&s)),
            Self::Class(word) => {
                class == word
                    || word.strip_prefix("app:").is_some_and(|name| app == Some(name))
                    || word == "timeout"
                        && class.ends_with("_timeout")
                        && class != "workflow_timeout"
                    || word == "network"
                        && matches!(class, "dns" | "tls" | "ssrf_blocked" | "invalid_response")
            }
        }
    }
}

/// The class of a failed call, by the code and status that are stored with its attempt.
pub fn class_of(code: FailureCode, status: Option<u16>) -> &'static str {
    match (code, status) {
        (FailureCode::Expectation, _) => "expectation",
        (_, Some(400..500)) => "4xx",
        (_, Some(500..600)) => "5xx",
        // An answer that would be a success elsewhere, and that `expect` does not name.
        (_, Some(200..300)) => "expectation",
        (_, Some(_)) => "3xx",
        (FailureCode::Timeout | FailureCode::Expired, None) => "timeout",
        (FailureCode::Dns, None) => "dns",
        (FailureCode::Tls, None) => "tls",
        (FailureCode::BlockedAddress, None) => "ssrf_blocked",
        (FailureCode::Protocol, None) => "invalid_response",
        (FailureCode::Compose | FailureCode::Template, None) => "template",
        (FailureCode::CrashSuspect, None) => "interrupted",
        (FailureCode::UnknownOutcome | FailureCode::Interrupted, None) => "unknown_outcome",
        (_, None) => "network",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_the_failures_they_say() {
        let holds = |name: &str, class: &str, status: Option<u16>| {
            name.parse::<ErrorName>().unwrap().holds(class, status, Some("busy"))
        };
        for (name, class, status, expected) in [
            ("all", "4xx", Some(404), true),
            ("all", "step_limit", None, false),
            ("4xx", "4xx", Some(429), true),
            ("429", "4xx", Some(429), true),
            ("500-504", "5xx", Some(503), true),
            ("500-504", "5xx", Some(505), false),
            ("5xx", "3xx", Some(302), true),
            ("5xx", "expectation", Some(200), false),
            ("3xx", "expectation", Some(200), false),
            ("3xx", "3xx", Some(101), true),
            ("3xx", "expectation", Some(304), true),
            ("timeout", "callback_timeout", None, true),
            ("timeout", "workflow_timeout", None, false),
            ("network", "dns", None, true),
            ("network", "timeout", None, false),
            ("app:busy", "4xx", Some(409), true),
            ("app:other", "4xx", Some(409), false),
        ] {
            assert_eq!(holds(name, class, status), expected, "{name} {class}");
        }
        assert!("6xx".parse::<ErrorName>().is_err() && "app:".parse::<ErrorName>().is_err());
    }
}
