//! A lane: one destination, and the state that every process must agree on about it.

use std::fmt;

use serde::{Deserialize, Serialize};

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
    /// Its breaker.
    pub breaker: BreakerRules,
}

impl LaneSpec {
    /// A lane without a rate, with the breaker of the defaults.
    pub fn new(id: LaneId, tenant: impl Into<String>) -> Self {
        Self { id, tenant: tenant.into(), rate: None, breaker: BreakerRules::default() }
    }
}

/// When a circuit breaker opens and closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerRules {
    /// Consecutive failures that open it.
    pub failures: u32,
    /// How long it stays open, in milliseconds.
    pub open_for_ms: u64,
    /// After each failed probe it stays open for twice as long, up to this, in milliseconds.
    pub max_open_ms: u64,
    /// So many probes must succeed, one after the other, to close it.
    pub probes: u32,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self { failures: 5, open_for_ms: 60_000, max_open_ms: 60_000, probes: 1 }
    }
}

/// What a lane's circuit breaker does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    /// Consecutive failures.
    pub failures: u32,
    /// Open until then: nothing is claimed; afterwards one probe at a time.
    pub open_until: Option<Timestamp>,
    /// Nothing is claimed before then: a probe is under way (its lease), the receiver asked to be left alone (`Retry-After`),
    /// or a ramp lets out no more at the moment.
    pub not_before: Option<Timestamp>,
    /// After an outage, or after an answer that asked for less: so many deliveries a second, doubling with each second;
    /// 0 is no limit. While it is open: how many probes have succeeded.
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
    /// When that opens and closes.
    pub rules: BreakerRules,
    /// Its throttle, if it has one.
    pub bucket: Option<Bucket>,
    /// When it was last served; the one served longest ago comes first.
    pub turn: Timestamp,
}

/// Why a lane gives nothing, or less than it has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Waits {
    /// A person has paused it.
    Paused,
    /// Its breaker is open until then.
    Tripped(Timestamp),
    /// Its breaker is half open: one probe at a time.
    Probing,
    /// Its receiver asked to be left alone until then.
    NotBefore(Timestamp),
    /// It goes on slowly after an outage: so many a second.
    Ramp(u32),
    /// Its rate is used up.
    Rate(u32),
}

impl Lane {
    /// Why deliveries of this lane wait; `None` when nothing of the lane holds them back.
    pub fn waits(&self, now: Timestamp) -> Option<Waits> {
        let Breaker { open_until, not_before, ramp, .. } = self.breaker;
        match (open_until, not_before.filter(|at| *at > now)) {
            _ if self.paused => Some(Waits::Paused),
            (Some(until), _) if until > now => Some(Waits::Tripped(until)),
            (Some(_), _) => Some(Waits::Probing),
            // The pause between two steps of a ramp is a second at most.
            (None, Some(at)) if ramp == 0 || at.since(now).as_millis() > 1_000 => Some(Waits::NotBefore(at)),
            (None, _) if ramp > 0 => Some(Waits::Ramp(ramp)),
            (None, _) => self.bucket.filter(|bucket| bucket.tokens < 1.0).map(|bucket| Waits::Rate(bucket.rate)),
        }
    }
}

impl Waits {
    /// A stable word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Tripped(_) => "tripped",
            Self::Probing => "probing",
            Self::NotBefore(_) => "retry_after",
            Self::Ramp(_) => "ramp",
            Self::Rate(_) => "rate",
        }
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused => f.write_str("the lane is paused until somebody resumes it"),
            Self::Tripped(until) => write!(f, "the breaker is open until {until}"),
            Self::Probing => f.write_str("the breaker is half open: one probe at a time"),
            Self::NotBefore(at) => write!(f, "the receiver asked for nothing before {at}"),
            Self::Ramp(rate) => write!(f, "the receiver has just come back: {rate} a second, doubling each second"),
            Self::Rate(rate) => write!(f, "the rate limit of {rate} a second is used up"),
        }
    }
}
