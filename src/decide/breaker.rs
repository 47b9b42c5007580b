//! The circuit breaker of a lane: state + outcome + now → state.
//!
//! Five consecutive failures open it for a minute. After that one probe at a time is let through:
//! success closes it, failure opens it for another minute. A breaker that closes lets the lane's
//! backlog out under a ramp of 1, 2, 4, … leases, so that a receiver that just came back is not flooded.

use std::time::Duration;

use crate::model::Timestamp;
use crate::model::lane::Breaker;

/// Consecutive failures that open the breaker.
pub const FAILURES_TO_OPEN: u32 = 5;
/// How long it stays open.
pub const OPEN_FOR: Duration = Duration::from_secs(60);
/// The ramp ends when it would allow more leases than this.
pub const RAMP_MAX: u32 = 64;

/// What the breaker allows at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allows {
    /// As many as there are.
    All,
    /// At most this many leases at once.
    AtMost(u32),
    /// One claim, to probe.
    Probe,
    /// Nothing before then.
    NothingBefore(Timestamp),
}

/// What may be claimed from a lane with this breaker.
pub fn allows(breaker: &Breaker, now: Timestamp) -> Allows {
    match (breaker.open_until, breaker.probe_until) {
        (Some(until), _) if now < until => Allows::NothingBefore(until),
        (Some(_), Some(probe)) if now < probe => Allows::NothingBefore(probe),
        (Some(_), _) => Allows::Probe,
        (None, _) if breaker.ramp > 0 => Allows::AtMost(breaker.ramp),
        (None, _) => Allows::All,
    }
}

/// The breaker after one more outcome.
pub fn after(breaker: &Breaker, succeeded: bool, now: Timestamp) -> Breaker {
    match (breaker.open_until, succeeded) {
        (Some(_), true) => Breaker { ramp: 1, ..Breaker::default() },
        // A result that was under way when the breaker opened does not prolong it.
        (Some(until), false) if now < until => *breaker,
        (Some(_), false) => opened(breaker.failures.saturating_add(1), now),
        (None, true) if breaker.ramp > 0 => {
            let ramp = breaker.ramp.saturating_mul(2);
            Breaker { ramp: if ramp > RAMP_MAX { 0 } else { ramp }, ..Breaker::default() }
        }
        (None, true) => Breaker::default(),
        (None, false) => {
            let failures = breaker.failures.saturating_add(1);
            if failures >= FAILURES_TO_OPEN { opened(failures, now) } else { Breaker { failures, ..*breaker } }
        }
    }
}

fn opened(failures: u32, now: Timestamp) -> Breaker {
    Breaker { failures, open_until: Some(now.plus(OPEN_FOR)), probe_until: None, ramp: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_000_000);

    fn failed(times: u32) -> Breaker {
        (0..times).fold(Breaker::default(), |b, _| after(&b, false, T0))
    }

    #[test]
    fn it_starts_closed_and_opens_after_five_failures_in_a_row() {
        assert_eq!(allows(&Breaker::default(), T0), Allows::All);
        assert_eq!(allows(&failed(4), T0), Allows::All);
        assert_eq!(allows(&failed(5), T0), Allows::NothingBefore(T0.plus(OPEN_FOR)));
    }

    #[test]
    fn a_success_resets_the_count() {
        assert!(after(&failed(4), true, T0).is_clean());
    }

    #[test]
    fn after_the_cooldown_one_probe_at_a_time_is_let_through() {
        let later = T0.plus(OPEN_FOR);
        let open = failed(5);
        assert_eq!(allows(&open, later), Allows::Probe);
        let probing = Breaker { probe_until: Some(later.plus(Duration::from_secs(9))), ..open };
        assert!(matches!(allows(&probing, later), Allows::NothingBefore(_)));
        assert_eq!(allows(&probing, later.plus(Duration::from_secs(9))), Allows::Probe);
    }

    #[test]
    fn a_failed_probe_opens_it_again_and_a_good_one_closes_it_under_a_ramp() {
        let later = T0.plus(OPEN_FOR);
        assert_eq!(after(&failed(5), false, later).open_until, Some(later.plus(OPEN_FOR)));
        let mut closed = after(&failed(5), true, later);
        assert_eq!(allows(&closed, later), Allows::AtMost(1));
        for expected in [2, 4, 8, 16, 32, 64] {
            closed = after(&closed, true, later);
            assert_eq!(allows(&closed, later), Allows::AtMost(expected));
        }
        assert!(after(&closed, true, later).is_clean());
    }

    #[test]
    fn late_failures_do_not_prolong_an_open_breaker() {
        assert_eq!(after(&failed(5), false, T0.plus(Duration::from_secs(30))), failed(5));
    }
}
