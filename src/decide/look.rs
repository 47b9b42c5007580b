//! When a claim looks at a lane again. Claims look at lanes that may have due work and at no
//! others, so what they cost does not grow with the number of lanes.

use std::time::Duration;

use crate::model::Timestamp;

/// The pauses between looks that find nothing. What was being stored during a look is nearly always
/// visible at the next one; the last pause is longer than any statement lasts, and after it nothing
/// can be hidden.
const RESTS: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(12),
];
/// Where the pauses begin for a lane that came up at an instant rather than in turn: whoever stores
/// a job around that instant has the lane looked at again.
const FIRST_OF_TIMED: u8 = 2;
/// How long a lane is put off that this process does not serve; another one may.
pub const UNSERVED_REST: Duration = Duration::from_secs(15);

/// What a claim found in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// As many jobs as were wanted: there may be more.
    More,
    /// Fewer. The next open job, leased ones included, is due at this instant.
    Less {
        /// `None` if the lane has no open job.
        next: Option<Timestamp>,
    },
    /// Nothing was taken, because the lane gives nothing before this instant.
    Closed {
        /// `None` if only an operator ends it (a pause).
        until: Option<Timestamp>,
    },
}

/// When a lane is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Now, in turn with other lanes; `at` is its place among them.
    pub ready: bool,
    /// The instant of the look; `None` is never, until something wakes the lane.
    pub at: Option<Timestamp>,
    /// How many looks in a row found nothing.
    pub rest: u8,
}

/// The next look at a lane, after a claim. `ready` and `rest` are those of the look that led to it.
///
/// A job that is being stored reads whether its lane is looked at in time, and writes nothing if
/// so. If at that moment a claim finds the lane empty, neither knows of the other. So an empty lane
/// comes up a few times more before it is forgotten.
pub fn after_claim(found: Found, ready: bool, rest: u8, now: Timestamp) -> Look {
    let next = match found {
        Found::More => return Look { ready: true, at: Some(now), rest: 0 },
        Found::Closed { until } => return Look { ready: false, at: until, rest: 0 },
        // Others have locked its due jobs, or they became due meanwhile.
        Found::Less { next: Some(next) } if next <= now => {
            return Look { ready: true, at: Some(now), rest: 0 };
        }
        Found::Less { next } => next,
    };
    let at = if rest == 0 && !ready { FIRST_OF_TIMED } else { rest };
    let Some(pause) = RESTS.get(usize::from(at)).copied() else {
        return Look { ready: false, at: next, rest: 0 };
    };
    let rest = at + 1;
    match next {
        Some(next) if next <= now.plus(pause) => Look { ready: false, at: Some(next), rest: 0 },
        _ => Look { ready: false, at: Some(now.plus(pause)), rest },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn at(ms: i64) -> Option<Timestamp> {
        Some(Timestamp(NOW.0 + ms))
    }

    #[test]
    fn a_lane_with_more_goes_to_the_end_of_the_line() {
        let look = after_claim(Found::More, true, 2, NOW);
        assert_eq!(look, Look { ready: true, at: at(0), rest: 0 });
        let locked = after_claim(Found::Less { next: at(-5) }, true, 0, NOW);
        assert!(locked.ready);
    }

    #[test]
    fn an_empty_lane_is_looked_at_a_few_times_more_and_then_forgotten() {
        let empty = Found::Less { next: None };
        let mut look = Look { ready: true, at: at(0), rest: 0 };
        for ms in [100, 500, 2_000, 12_000] {
            look = after_claim(empty, look.ready, look.rest, NOW);
            assert_eq!((look.ready, look.at), (false, at(ms)));
        }
        let last = after_claim(empty, false, look.rest, NOW);
        assert_eq!(last, Look { ready: false, at: None, rest: 0 });
        // One that came up because a lease might have ended needs no short looks.
        assert_eq!(after_claim(empty, false, 0, NOW).at, at(2_000));
    }

    #[test]
    fn the_next_job_is_never_missed() {
        for rest in 0..6 {
            for ready in [true, false] {
                for ms in [1, 50, 99, 101, 5_000, 11_999, 12_001, 900_000] {
                    let look = after_claim(Found::Less { next: at(ms) }, ready, rest, NOW);
                    assert!(look.at <= at(ms) && look.at.is_some(), "{ms} {rest} {ready}");
                }
            }
        }
    }

    #[test]
    fn a_closed_lane_comes_up_when_it_opens() {
        let look = after_claim(Found::Closed { until: at(60_000) }, true, 1, NOW);
        assert_eq!(look, Look { ready: false, at: at(60_000), rest: 0 });
        assert_eq!(after_claim(Found::Closed { until: None }, true, 0, NOW).at, None);
    }
}
