//! The circuit breaker of a lane, as pure functions: state, outcome and time give the next state.
//!
//! Consecutive failures open the breaker for a while. After that it lets one probe at a time
//! through: successes close it, a failure opens it again for longer. When it closes, the lane's
//! backlog starts at 1, 2, 4, … deliveries a second, so that a receiver that just came back is not
//! flooded. An answer that asks for less (429, `Retry-After`) slows the lane down in the same way,
//! but does not count as a failure.

use std::time::Duration;

use crate::decide::settle::LaneFact;
use crate::model::Timestamp;
use crate::model::lane::{Breaker, BreakerRules};

/// The ramp ends when it would allow more than this a second.
pub const RAMP_MAX: u32 = 64;
/// The rate, in deliveries a second, at which the ramp begins after an answer that asked for less.
const RAMP_AFTER_LIMIT: u32 = 4;
/// The longest pause that a receiver can ask for its lane. A longer wait is cut to this.
const LEFT_ALONE_MAX: Duration = Duration::from_secs(3600);

/// What the breaker allows at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allows {
    /// The breaker is closed: it limits nothing.
    All,
    /// The lane ramps up, after the breaker closed or the receiver asked for less. At most this
    /// many jobs may be claimed now.
    AtMost(u32),
    /// The breaker's open time is over. One job may be claimed as a probe; its outcome helps to
    /// close the breaker, or opens it again.
    Probe,
    /// Nothing may be claimed before this instant: the breaker is open, or the receiver asked for a
    /// pause.
    NothingBefore(Timestamp),
}

/// What may be claimed from a lane with this breaker.
pub fn allows(breaker: &Breaker, now: Timestamp) -> Allows {
    match (breaker.open_until, breaker.not_before) {
        (Some(until), _) if now < until => Allows::NothingBefore(until),
        (_, Some(at)) if now < at => Allows::NothingBefore(at),
        (Some(_), _) => Allows::Probe,
        (None, _) if breaker.ramp > 0 => Allows::AtMost(breaker.ramp),
        (None, _) => Allows::All,
    }
}

/// The breaker after `given` jobs of its lane were claimed, each with a lease of this length.
pub fn served(breaker: &Breaker, given: u32, lease: Duration, now: Timestamp) -> Breaker {
    match allows(breaker, now) {
        _ if given == 0 => *breaker,
        Allows::Probe => Breaker { not_before: Some(now.plus(lease)), ..*breaker },
        Allows::AtMost(rate) => {
            let ramp = rate.saturating_mul(2);
            let pause = Duration::from_millis(u64::from(given) * 1_000 / u64::from(rate.max(1)));
            match ramp > RAMP_MAX {
                true => Breaker { ramp: 0, not_before: None, ..*breaker },
                false => Breaker { ramp, not_before: Some(now.plus(pause)), ..*breaker },
            }
        }
        Allows::All | Allows::NothingBefore(_) => *breaker,
    }
}

/// The breaker after one more outcome of its lane.
pub fn after(breaker: &Breaker, rules: &BreakerRules, fact: LaneFact, now: Timestamp) -> Breaker {
    match (breaker.open_until, fact) {
        (Some(until), LaneFact::Succeeded) => {
            let probed = breaker.ramp.saturating_add(1);
            match probed >= rules.probes.max(1) {
                true => Breaker { ramp: 1, ..Breaker::default() },
                // The next probe may follow at once.
                false => Breaker {
                    ramp: probed,
                    not_before: None,
                    open_until: Some(until.min(now)),
                    ..*breaker
                },
            }
        }
        // A result that was under way when the breaker opened does not prolong it.
        (Some(until), LaneFact::Failed) if now < until => *breaker,
        (Some(_), LaneFact::Failed) => opened(breaker.failures.saturating_add(1), rules, now),
        // It answers: what it asks for is kept, and it is no failure.
        (Some(_), LaneFact::Limited(wait)) => {
            Breaker { not_before: left_alone(breaker, wait, now), ..*breaker }
        }
        (None, LaneFact::Succeeded) => Breaker { failures: 0, ..*breaker },
        (None, LaneFact::Failed) => {
            let failures = breaker.failures.saturating_add(1);
            match failures >= rules.failures.max(1) {
                true => opened(failures, rules, now),
                false => Breaker { failures, ..*breaker },
            }
        }
        (None, LaneFact::Limited(wait)) => {
            let ramp = if breaker.ramp == 0 { RAMP_AFTER_LIMIT } else { (breaker.ramp / 4).max(1) };
            Breaker { ramp, not_before: left_alone(breaker, wait, now), ..*breaker }
        }
    }
}

fn left_alone(breaker: &Breaker, wait: Duration, now: Timestamp) -> Option<Timestamp> {
    let until = now.plus(wait.min(LEFT_ALONE_MAX));
    Some(breaker.not_before.map_or(until, |before| before.max(until)))
}

fn opened(failures: u32, rules: &BreakerRules, now: Timestamp) -> Breaker {
    let again = failures.saturating_sub(rules.failures.max(1)).min(32);
    let open_ms =
        rules.open_for_ms.saturating_mul(1 << again).min(rules.max_open_ms.max(rules.open_for_ms));
    Breaker {
        failures,
        open_until: Some(now.plus(Duration::from_millis(open_ms))),
        not_before: None,
        ramp: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_000_000);
    const OPEN_FOR: Duration = Duration::from_secs(60);
    const RULES: BreakerRules =
        BreakerRules { failures: 5, open_for_ms: 60_000, max_open_ms: 60_000, probes: 1 };

    fn failed(times: u32) -> Breaker {
        (0..times).fold(Breaker::default(), |b, _| after(&b, &RULES, LaneFact::Failed, T0))
    }

    #[test]
    fn it_starts_closed_and_opens_after_five_failures_in_a_row() {
        assert_eq!(allows(&Breaker::default(), T0), Allows::All);
        assert_eq!(allows(&failed(4), T0), Allows::All);
        assert_eq!(allows(&failed(5), T0), Allows::NothingBefore(T0.plus(OPEN_FOR)));
    }

    #[test]
    fn a_success_resets_the_count() {
        assert!(after(&failed(4), &RULES, LaneFact::Succeeded, T0).is_clean());
    }

    #[test]
    fn after_the_cooldown_one_probe_at_a_time_is_let_through() {
        let later = T0.plus(OPEN_FOR);
        let open = failed(5);
        assert_eq!(allows(&open, later), Allows::Probe);
        let probing = served(&open, 1, Duration::from_secs(9), later);
        assert!(matches!(allows(&probing, later), Allows::NothingBefore(_)));
        assert_eq!(allows(&probing, later.plus(Duration::from_secs(9))), Allows::Probe);
    }

    #[test]
    fn a_failed_probe_opens_it_again_and_a_good_one_closes_it_under_a_ramp_that_is_a_rate() {
        let mut now = T0.plus(OPEN_FOR);
        assert_eq!(
            after(&failed(5), &RULES, LaneFact::Failed, now).open_until,
            Some(now.plus(OPEN_FOR))
        );
        let mut breaker = after(&failed(5), &RULES, LaneFact::Succeeded, now);
        for expected in [1, 2, 4, 8, 16, 32] {
            assert_eq!(allows(&breaker, now), Allows::AtMost(expected));
            breaker = served(&breaker, expected, OPEN_FOR, now);
            assert!(matches!(
                allows(&breaker, now.plus(Duration::from_millis(999))),
                Allows::NothingBefore(_)
            ));
            now = now.plus(Duration::from_secs(1));
        }
        assert_eq!(allows(&breaker, now), Allows::AtMost(64));
        assert!(served(&breaker, 64, OPEN_FOR, now).is_clean());
    }

    #[test]
    fn a_receiver_that_asks_for_less_is_left_alone_that_long_and_never_trips() {
        let limited = (0..30).fold(Breaker::default(), |b, _| {
            after(&b, &RULES, LaneFact::Limited(Duration::from_secs(4)), T0)
        });
        assert_eq!((limited.open_until, limited.failures), (None, 0));
        let later = T0.plus(Duration::from_secs(4));
        assert_eq!(allows(&limited, T0), Allows::NothingBefore(later));
        assert_eq!(allows(&limited, later), Allows::AtMost(1));
        let endless = after(&Breaker::default(), &RULES, LaneFact::Limited(Duration::MAX), T0);
        assert_eq!(endless.not_before, Some(T0.plus(LEFT_ALONE_MAX)));
    }

    #[test]
    fn each_failed_probe_doubles_the_time_up_to_a_bound_and_several_probes_may_be_asked_for() {
        let rules = BreakerRules { failures: 2, open_for_ms: 1_000, max_open_ms: 3_000, probes: 2 };
        let mut breaker = Breaker::default();
        let mut now = T0;
        for _ in 0..2 {
            breaker = after(&breaker, &rules, LaneFact::Failed, now);
        }
        for open_ms in [1_000, 2_000, 3_000, 3_000] {
            assert_eq!(breaker.open_until, Some(now.plus(Duration::from_millis(open_ms))));
            now = now.plus(Duration::from_millis(open_ms));
            breaker = after(&breaker, &rules, LaneFact::Failed, now);
        }
        now = now.plus(Duration::from_secs(3));
        breaker = after(&breaker, &rules, LaneFact::Succeeded, now);
        assert_eq!(allows(&breaker, now), Allows::Probe);
        breaker = after(&breaker, &rules, LaneFact::Succeeded, now);
        assert_eq!(allows(&breaker, now), Allows::AtMost(1));
    }

    #[test]
    fn late_failures_do_not_prolong_an_open_breaker() {
        assert_eq!(
            after(&failed(5), &RULES, LaneFact::Failed, T0.plus(Duration::from_secs(30))),
            failed(5)
        );
    }
}
