//! A lane: one destination, and the state that every process must agree on about it.

use std::fmt;

use super::time::Timestamp;

/// The name of a lane: the kind of its target and the target's name, `handler:billing`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub String);

impl LaneId {
    /// The lane of a handler.
    pub fn handler(name: &str) -> Self {
        Self(format!("handler:{name}"))
    }

    /// The lane of a step, named as `workflow/step`.
    pub fn step(place: &str) -> Self {
        Self(format!("step:{place}"))
    }

    /// The lane in which the instants of runs wait.
    pub fn timers() -> Self {
        Self("timers".to_owned())
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the configuration says of a lane; written at start.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneSpec {
    /// Which lane.
    pub id: LaneId,
    /// The group it shares its turn with: no group may take every worker slot.
    pub tenant: String,
    /// Deliveries per second over all processes; `None` is unlimited.
    pub rate: Option<u32>,
}

/// What a lane's circuit breaker does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    /// Consecutive failures.
    pub failures: u32,
    /// Open until then: nothing is claimed; afterwards one probe at a time.
    pub open_until: Option<Timestamp>,
    /// A probe is under way until then (its lease).
    pub probe_until: Option<Timestamp>,
    /// After an outage: at most this many leases at once, doubling with each success; 0 is no limit.
    pub ramp: u32,
}

impl Breaker {
    /// Nothing to remember: closed, no failure, no ramp.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Tokens per second, and the most it can hold.
    pub rate: u32,
    /// Tokens left at `refilled_at`.
    pub tokens: f64,
    /// When `tokens` was computed.
    pub refilled_at: Timestamp,
}

/// A lane as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Lane {
    /// Which lane.
    pub id: LaneId,
    /// The group it shares its turn with.
    pub tenant: String,
    /// Set and cleared by people; due times are kept.
    pub paused: bool,
    /// Its circuit breaker.
    pub breaker: Breaker,
    /// Its throttle, if it has one.
    pub bucket: Option<Bucket>,
    /// When it was last served; the one served longest ago comes first.
    pub turn: Timestamp,
}
