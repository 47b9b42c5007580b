//! Decides whether a failed attempt is retried, and after how long.

use std::time::Duration;

use super::errors::{ErrorName, class_of};
use crate::model::{Failure, Timestamp};

/// The longest computed delay, unless the policy sets another limit.
pub const DELAY_MAX: Duration = Duration::from_secs(8 * 3600);
/// The longest `Retry-After` that is honoured.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// The delay stops growing after this many failures.
const GROWTHS_MAX: u32 = 64;

/// How much randomness is added to a retry delay, so that many failed jobs do not all retry at the
/// same instant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jitter {
    /// Multiplied by a random factor in 1 ± this.
    Share(f64),
    /// A random delay between zero and the whole delay.
    Full,
}

/// Which failures are retried, how often and after which delays.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all; 0 and 1 both mean one.
    pub max: u32,
    /// The delay before the first retry.
    pub interval: Duration,
    /// The factor between one delay and the next; 1 keeps the delay constant.
    pub rate: f64,
    /// The limit of a computed delay.
    pub max_delay: Duration,
    /// How much chance changes each computed delay. A longer wait that the receiver asks for is
    /// used as it is.
    pub jitter: Jitter,
    /// Which failures this policy covers. The others get no further attempt from it.
    pub errors: Vec<ErrorName>,
    /// No attempt is made later than this after the work was first due; `None` means no limit.
    pub deadline: Option<Duration>,
    /// Whether a `Retry-After` of the receiver may lengthen the delay.
    pub heeds_receiver: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max: 5,
            interval: Duration::from_secs(30),
            rate: 2.0,
            max_delay: DELAY_MAX,
            jitter: Jitter::Share(0.2),
            errors: vec![ErrorName::All],
            deadline: None,
            heeds_receiver: true,
        }
    }
}

/// What was tried so far, including the present failure.
#[derive(Debug, Clone, Copy)]
pub struct AttemptsSoFar<'a> {
    /// How many attempts count towards `RetryPolicy::max`, including the present one.
    pub count: u32,
    /// Class and status of earlier failures. Filled only where there are several policies.
    pub before: &'a [(&'static str, Option<u16>)],
    /// How long ago the work was due for the first time.
    pub age: Duration,
    /// The error name that the receiver gave the present failure, if it did.
    pub app: Option<&'a str>,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Try again this long from now.
    RetryIn(Duration),
    /// There is no further attempt, for this reason.
    GiveUp(GiveUp),
}

/// Why there is no further attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUp {
    /// All attempts are used up.
    Exhausted,
    /// The next attempt would come after the policy's deadline.
    TooLate,
    /// The failure's class is not listed in `errors`.
    NotListed,
    /// Trying again cannot help: a refused address, a request that cannot be built.
    Permanent,
}

/// The shortest delay after an answer with `Retry-After`, even one of 0 seconds.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// Decides what follows a failed attempt. The first policy that lists the failure decides, and each
/// policy counts its own failures.
///
/// `retry_after` is what the receiver asked for, already read by [`read_retry_after`]. `chance` is
/// a random number in `0.0..1.0`.
pub fn after(
    policies: &[RetryPolicy],
    tried: AttemptsSoFar<'_>,
    failure: &Failure,
    retry_after: Option<Duration>,
    chance: f64,
) -> Verdict {
    if !failure.is_passing() {
        return Verdict::GiveUp(GiveUp::Permanent);
    }
    after_class(
        policies,
        tried,
        (class_of(failure.code(), failure.status()), failure.status()),
        retry_after,
        chance,
    )
}

/// Like [`after`], for a failure of which only class and status are known, such as that of a
/// sub-workflow.
pub fn after_class(
    policies: &[RetryPolicy],
    tried: AttemptsSoFar<'_>,
    (class, status): (&str, Option<u16>),
    retry_after: Option<Duration>,
    chance: f64,
) -> Verdict {
    let first = |class: &str, status: Option<u16>, app: Option<&str>| {
        policies
            .iter()
            .position(|policy| policy.errors.iter().any(|name| name.holds(class, status, app)))
    };
    let Some(mine) = first(class, status, tried.app) else {
        return Verdict::GiveUp(GiveUp::NotListed);
    };
    let policy = &policies[mine];
    let count = match policies.len() {
        1 => tried.count,
        _ => {
            let before = tried
                .before
                .iter()
                .filter(|(class, status)| first(class, *status, None) == Some(mine))
                .count();
            u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
        }
    };
    if count >= policy.max.max(1) {
        return Verdict::GiveUp(GiveUp::Exhausted);
    }
    let wish = retry_after.filter(|_| policy.heeds_receiver);
    // What the receiver asks for is the least: 0 seconds, or a date that has passed, would use
    // every attempt up at once.
    let scheduled = policy.delay(count, chance);
    let delay = wish.map_or(scheduled, |wish| wish.max(scheduled).max(RETRY_AFTER_MIN));
    if policy.deadline.is_some_and(|deadline| tried.age.saturating_add(delay) > deadline) {
        return Verdict::GiveUp(GiveUp::TooLate);
    }
    Verdict::RetryIn(delay)
}

impl RetryPolicy {
    /// The computed delay after the policy's failure number `failed`, from 1.
    pub fn delay(&self, failed: u32, chance: f64) -> Duration {
        let exponent = i32::try_from(failed.saturating_sub(1).min(GROWTHS_MAX)).unwrap_or(i32::MAX);
        let seconds = self.interval.as_secs_f64() * self.rate.max(1.0).powi(exponent);
        let base =
            Duration::try_from_secs_f64(seconds).unwrap_or(self.max_delay).min(self.max_delay);
        let chance = chance.clamp(0.0, 1.0);
        match self.jitter {
            // The share is bounded by the configuration: ten years times two fits easily.
            Jitter::Share(share) => {
                base.mul_f64((1.0 - share + 2.0 * share * chance).clamp(0.0, 2.0))
            }
            Jitter::Full => base.mul_f64(chance),
        }
    }
}

/// Reads a `Retry-After` header: whole seconds or an HTTP date, limited to 24 hours.
///
/// Any other text gives `None`, and the computed delay applies.
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

    fn verdict(policies: &[RetryPolicy], count: u32, failure: &Failure) -> Verdict {
        after(
            policies,
            AttemptsSoFar { count, before: &[], age: Duration::ZERO, app: None },
            failure,
            None,
            0.5,
        )
    }

    #[test]
    fn attempts_are_total_attempts() {
        let failed = Failure::Status(500);
        let three = RetryPolicy { max: 3, ..policy() };
        assert!(matches!(verdict(std::slice::from_ref(&three), 2, &failed), Verdict::RetryIn(_)));
        assert_eq!(verdict(&[three], 3, &failed), Verdict::GiveUp(GiveUp::Exhausted));
        for max in [0, 1] {
            assert_eq!(
                verdict(&[RetryPolicy { max, ..policy() }], 1, &failed),
                Verdict::GiveUp(GiveUp::Exhausted)
            );
        }
    }

    fn errors(names: &[&str]) -> Vec<ErrorName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_class_that_is_not_listed_is_not_retried() {
        let policy = [RetryPolicy { errors: errors(&["5xx", "timeout"]), ..policy() }];
        assert_eq!(verdict(&policy, 1, &Failure::Status(404)), Verdict::GiveUp(GiveUp::NotListed));
        assert_eq!(
            verdict(&policy, 1, &Failure::Connect("refused".into())),
            Verdict::GiveUp(GiveUp::NotListed)
        );
        for failure in [
            Failure::Status(503),
            Failure::Timeout(crate::model::CallPhase::Body),
            Failure::Redirect { status: 302, location: None },
        ] {
            assert!(matches!(verdict(&policy, 1, &failure), Verdict::RetryIn(_)), "{failure}");
        }
    }

    #[test]
    fn each_policy_of_a_list_counts_its_own_failures() {
        let busy = RetryPolicy { errors: errors(&["429"]), max: 3, ..policy() };
        let broken = RetryPolicy {
            errors: errors(&["all"]),
            max: 2,
            interval: Duration::from_secs(1),
            ..policy()
        };
        let list = [busy, broken];
        let before = [("4xx", Some(429)), ("5xx", Some(503)), ("4xx", Some(429))];
        let tried = |n: usize| AttemptsSoFar {
            count: 1 + u32::try_from(n).unwrap(),
            before: &before[..n],
            age: Duration::ZERO,
            app: None,
        };
        let verdict = |n, status| after(&list, tried(n), &Failure::Status(status), None, 0.5);
        assert!(matches!(verdict(1, 429), Verdict::RetryIn(_)));
        assert_eq!(verdict(1, 503), Verdict::RetryIn(Duration::from_secs(1)), "its first failure");
        assert_eq!(verdict(2, 503), Verdict::GiveUp(GiveUp::Exhausted));
        assert_eq!(verdict(3, 429), Verdict::GiveUp(GiveUp::Exhausted));
    }

    #[test]
    fn a_policy_has_a_deadline_of_its_own_and_may_overhear_the_receiver() {
        let policy = [RetryPolicy {
            deadline: Some(Duration::from_secs(60)),
            heeds_receiver: false,
            jitter: Jitter::Share(0.0),
            ..policy()
        }];
        let wish = Some(Duration::from_secs(500));
        let at = |age| {
            let tried =
                AttemptsSoFar { count: 1, before: &[], age: Duration::from_secs(age), app: None };
            after(&policy, tried, &Failure::Status(503), wish, 0.5)
        };
        assert_eq!(at(30), Verdict::RetryIn(Duration::from_secs(30)));
        assert_eq!(at(31), Verdict::GiveUp(GiveUp::TooLate));
    }

    #[test]
    fn full_jitter_is_anything_up_to_the_delay() {
        let policy = RetryPolicy { jitter: Jitter::Full, rate: 3.0, ..policy() };
        assert_eq!(
            (policy.delay(2, 0.0), policy.delay(2, 1.0)),
            (Duration::ZERO, Duration::from_secs(90))
        );
    }

    #[test]
    fn a_refused_address_is_permanent() {
        assert_eq!(
            verdict(&[policy()], 1, &Failure::Blocked("loopback".into())),
            Verdict::GiveUp(GiveUp::Permanent)
        );
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
        fn delays_never_pass_the_cap_and_never_panic(
            attempt: u32,
            chance in 0.0f64..1.0,
            interval_ms in 0u64..100_000_000,
            rate in 0.0f64..100.0,
        ) {
            let policy = RetryPolicy {
                interval: Duration::from_millis(interval_ms), rate, ..RetryPolicy::default()
            };
            prop_assert!(policy.delay(attempt, chance) <= DELAY_MAX.mul_f64(1.2));
        }

        #[test]
        fn delays_never_decrease_without_jitter(attempt in 1u32..50) {
            let policy = RetryPolicy { jitter: Jitter::Share(0.0), ..RetryPolicy::default() };
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
