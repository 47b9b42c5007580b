//! When to try again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::model::{Failure, Timestamp};

/// Delays the schedule computes are capped here unless the policy says otherwise.
pub const DELAY_MAX: Duration = Duration::from_secs(8 * 3600);
/// The longest `Retry-After` that is honoured.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// The exponent stops growing after this many failures.
const DOUBLINGS_MAX: u32 = 10;

/// How the delay grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backoff {
    /// interval · 2ⁿ⁻¹ after failed attempt n.
    #[default]
    Exponential,
    /// The interval each time.
    Fixed,
}

impl FromStr for Backoff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "exponential" => Ok(Self::Exponential),
            "fixed" => Ok(Self::Fixed),
            _ => Err(format!("unknown backoff `{text}`: expected `exponential` or `fixed`")),
        }
    }
}

/// Which failures are worth another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The total deadline passed.
    Timeout,
    /// Status 500 to 599; also redirects, as in qhook.
    ServerError,
    /// Status 400 to 499.
    ClientError,
    /// No usable answer for any other reason.
    Network,
    /// All of them.
    All,
}

impl ErrorClass {
    /// Every class with its spelling.
    pub const ALL: [(&'static str, Self); 5] = [
        ("timeout", Self::Timeout),
        ("5xx", Self::ServerError),
        ("4xx", Self::ClientError),
        ("network", Self::Network),
        ("all", Self::All),
    ];

    /// Whether a failure belongs to the class.
    pub fn holds(self, failure: &Failure) -> bool {
        match self {
            Self::All => true,
            Self::Timeout => matches!(failure, Failure::Timeout(_)),
            Self::ServerError => failure.status().is_some_and(|s| !(400..500).contains(&s)),
            Self::ClientError => failure.status().is_some_and(|s| (400..500).contains(&s)),
            Self::Network => failure.status().is_none() && !matches!(failure, Failure::Timeout(_)),
        }
    }
}

impl FromStr for ErrorClass {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(word, _)| *word == text);
        found
            .map(|(_, class)| *class)
            .ok_or_else(|| format!("unknown error class `{text}`: expected timeout, 5xx, 4xx, network or all"))
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(_, class)| class == self).map_or("all", |(word, _)| word);
        f.write_str(word)
    }
}

/// A retry policy as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all; 0 and 1 both mean one.
    pub max: u32,
    /// How the delay grows.
    pub backoff: Backoff,
    /// The first delay.
    pub interval: Duration,
    /// No computed delay is longer.
    pub max_delay: Duration,
    /// Each delay is multiplied by a random factor in 1 ± jitter.
    pub jitter: f64,
    /// Which failures are worth another attempt.
    pub errors: Vec<ErrorClass>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max: 5,
            backoff: Backoff::Exponential,
            interval: Duration::from_secs(30),
            max_delay: DELAY_MAX,
            jitter: 0.2,
            errors: vec![ErrorClass::All],
        }
    }
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Try again this long from now.
    RetryIn(Duration),
    /// Do not try again.
    GiveUp(GiveUp),
}

/// Why there is no further attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUp {
    /// All attempts are used up.
    Exhausted,
    /// The failure's class is not listed in `errors`.
    NotListed,
    /// Trying again cannot help: a refused address, a request that cannot be built.
    Permanent,
}

impl RetryPolicy {
    /// What follows failed attempt number `attempt` (counting real exchanges from 1).
    ///
    /// `retry_after` is what the receiver asked for, already read by [`read_retry_after`]; it wins
    /// over the schedule. `chance` is a random number in `0.0..1.0`.
    pub fn after(&self, attempt: u32, failure: &Failure, retry_after: Option<Duration>, chance: f64) -> Verdict {
        if matches!(failure, Failure::Blocked(_) | Failure::Compose(_) | Failure::CrashSuspect | Failure::Expired) {
            return Verdict::GiveUp(GiveUp::Permanent);
        }
        if !self.errors.iter().any(|class| class.holds(failure)) {
            return Verdict::GiveUp(GiveUp::NotListed);
        }
        if attempt >= self.max.max(1) {
            return Verdict::GiveUp(GiveUp::Exhausted);
        }
        Verdict::RetryIn(retry_after.unwrap_or_else(|| self.delay(attempt, chance)))
    }

    /// The computed delay after failed attempt number `attempt`.
    pub fn delay(&self, attempt: u32, chance: f64) -> Duration {
        let base = match self.backoff {
            Backoff::Fixed => self.interval,
            Backoff::Exponential => self.interval.saturating_mul(1 << attempt.saturating_sub(1).min(DOUBLINGS_MAX)),
        };
        let factor = 1.0 - self.jitter + 2.0 * self.jitter * chance.clamp(0.0, 1.0);
        // Both factors are bounded by the configuration: ten years times two fits easily.
        base.min(self.max_delay).mul_f64(factor.clamp(0.0, 2.0))
    }
}

/// Reads a `Retry-After` header: whole seconds or an HTTP date, clamped to 0..24 h.
///
/// Anything else is no wish at all, and the schedule applies.
pub fn read_retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let text = header.trim();
    if !text.is_empty() && text.len() <= 256 && text.bytes().all(|b| b.is_ascii_digit()) {
        let seconds = text.parse::<u64>().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    if text.len() > 64 {
        return None;
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let at = date.duration_since(std::time::UNIX_EPOCH).map_or(0, crate::model::time::millis);
    Some(Timestamp(at).since(now).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> RetryPolicy {
        RetryPolicy::default()
    }

    #[test]
    fn the_first_retry_of_the_defaults_comes_after_24_to_36_seconds() {
        assert_eq!(policy().delay(1, 0.0), Duration::from_secs(24));
        assert_eq!(policy().delay(1, 1.0), Duration::from_secs(36));
        assert_eq!(policy().delay(2, 0.5), Duration::from_secs(60));
    }

    #[test]
    fn attempts_are_total_attempts() {
        let failed = Failure::Status(500);
        let mut policy = policy();
        policy.max = 3;
        assert!(matches!(policy.after(2, &failed, None, 0.5), Verdict::RetryIn(_)));
        assert_eq!(policy.after(3, &failed, None, 0.5), Verdict::GiveUp(GiveUp::Exhausted));
        for max in [0, 1] {
            policy.max = max;
            assert_eq!(policy.after(1, &failed, None, 0.5), Verdict::GiveUp(GiveUp::Exhausted));
        }
    }

    #[test]
    fn a_class_that_is_not_listed_is_not_retried() {
        let policy = RetryPolicy { errors: vec![ErrorClass::ServerError, ErrorClass::Timeout], ..policy() };
        assert_eq!(policy.after(1, &Failure::Status(404), None, 0.5), Verdict::GiveUp(GiveUp::NotListed));
        assert_eq!(policy.after(1, &Failure::Connect("refused".into()), None, 0.5), Verdict::GiveUp(GiveUp::NotListed));
        for failure in
            [Failure::Status(503), Failure::Timeout(crate::model::Phase::Body), Failure::Redirect { status: 302, location: None }]
        {
            assert!(matches!(policy.after(1, &failure, None, 0.5), Verdict::RetryIn(_)), "{failure}");
        }
    }

    #[test]
    fn a_refused_address_is_permanent() {
        assert_eq!(policy().after(1, &Failure::Blocked("loopback".into()), None, 0.5), Verdict::GiveUp(GiveUp::Permanent));
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_clamped() {
        let now = Timestamp(1_769_853_600_000);
        let day = RETRY_AFTER_MAX;
        let cases = [
            ("120", Some(Duration::from_secs(120))),
            (" 7 ", Some(Duration::from_secs(7))),
            ("0", Some(Duration::ZERO)),
            ("99999999999999999999", Some(day)),
            ("Sat, 31 Jan 2026 10:01:00 GMT", Some(Duration::from_secs(60))),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(Duration::ZERO)),
            ("Thu, 01 Jan 2099 00:00:00 GMT", Some(day)),
            ("inf", None),
            ("1e300", None),
            ("-1", None),
            ("", None),
        ];
        for (header, expected) in cases {
            assert_eq!(read_retry_after(header, now), expected, "{header}");
        }
        assert_eq!(read_retry_after(&"(".repeat(100_000), now), None);
    }

    proptest! {
        #[test]
        fn delays_never_pass_the_cap_and_never_panic(attempt: u32, chance in 0.0f64..1.0, interval_ms in 0u64..100_000_000, fixed: bool) {
            let backoff = if fixed { Backoff::Fixed } else { Backoff::Exponential };
            let policy = RetryPolicy { interval: Duration::from_millis(interval_ms), backoff, ..RetryPolicy::default() };
            prop_assert!(policy.delay(attempt, chance) <= DELAY_MAX.mul_f64(1.2));
        }

        #[test]
        fn delays_never_decrease_without_jitter(attempt in 1u32..50) {
            let policy = RetryPolicy { jitter: 0.0, ..RetryPolicy::default() };
            prop_assert!(policy.delay(attempt + 1, 0.5) >= policy.delay(attempt, 0.5));
        }

        #[test]
        fn any_retry_after_text_is_harmless(text in ".{0,80}") {
            if let Some(wait) = read_retry_after(&text, Timestamp(0)) {
                prop_assert!(wait <= RETRY_AFTER_MAX);
            }
        }
    }
}
