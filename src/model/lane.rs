//! A lane: the queue of one destination, with the state about it that all processes share.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// The name of a lane: the kind of target and the target's name, such as `handler:billing`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub String);

impl LaneId {
    /// The lane of a handler's deliveries, `handler:<name>`.
    pub fn handler(name: &str) -> Self {
        Self(format!("handler:{name}"))
    }

    /// The lane of a queue's messages, `queue:<name>`.
    pub fn queue(name: &str) -> Self {
        Self(format!("queue:{name}"))
    }

    /// Whether consumers pull its jobs. Workers never look at such a lane, so an unread queue costs
    /// them nothing, and it has no pause, rate or breaker.
    pub fn is_pulled(&self) -> bool {
        self.queue_name().is_some()
    }

    /// The name of the queue whose lane this is; `None` for lanes that workers look at.
    pub fn queue_name(&self) -> Option<&str> {
        self.0.strip_prefix("queue:")
    }

    /// The lane of a cron source's slots, `cron:<source>`.
    pub fn cron(source: &str) -> Self {
        Self(format!("cron:{source}"))
    }

    /// The lane of a step, named as `workflow/step`.
    pub fn step(place: &str) -> Self {
        Self(format!("step:{place}"))
    }

    /// The lane of all timers of runs.
    pub fn timers() -> Self {
        Self("timers".to_owned())
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The settings of a lane from the configuration, written when a process starts.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneSpec {
    /// The lane's name, which is also its key in the database.
    pub id: LaneId,
    /// The group it shares turns with, so that no group can take every worker slot. For handlers
    /// this is the source.
    pub tenant: String,
    /// Deliveries per second, over all processes together; `None` is unlimited.
    pub rate: Option<u32>,
    /// When its circuit breaker opens and closes.
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
    /// How many probes in a row must succeed to close it.
    pub probes: u32,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self { failures: 5, open_for_ms: 60_000, max_open_ms: 60_000, probes: 1 }
    }
}

/// The present state of a lane's circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    /// Failures in a row since the last success. The breaker opens when they reach the limit in its
    /// rules.
    pub failures: u32,
    /// Until when it is open: nothing is claimed before, one probe at a time after. `None` when
    /// closed.
    pub open_until: Option<Timestamp>,
    /// Nothing is claimed before this instant. Either a probe is in flight (until its lease ends),
    /// or the receiver asked for a pause (`Retry-After`), or a ramp allows no more at the moment.
    pub not_before: Option<Timestamp>,
    /// While closed: the deliveries per second allowed after an outage or after a response that
    /// asked for less, doubling about every second; 0 is no limit. While open: how many probes have
    /// succeeded.
    pub ramp: u32,
}

impl Breaker {
    /// Whether it is closed and remembers nothing: no failure, no pause, no ramp.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// The state of a lane's rate limit, as a token bucket: one token per delivery.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Tokens per second, and the most it can hold.
    pub rate: u32,
    /// The tokens that were left at `refilled_at`, fractions included.
    pub tokens: f64,
    /// When `tokens` was computed.
    pub refilled_at: Timestamp,
}

/// A lane as the database holds it: its settings, and the state all processes share.
#[derive(Debug, Clone, PartialEq)]
pub struct Lane {
    /// The lane's name, which is also its key in the database.
    pub id: LaneId,
    /// The group it shares turns with. For handlers this is the source.
    pub tenant: String,
    /// Whether an operator has paused it. Due times of its jobs stay as they are.
    pub paused: bool,
    /// The present state of its circuit breaker, changed by claims and outcomes.
    pub breaker: Breaker,
    /// The rules by which its breaker opens and closes.
    pub rules: BreakerRules,
    /// Its rate limit; `None` if it has none.
    pub bucket: Option<Bucket>,
    /// When it was last served. Lanes that were served longest ago come first.
    pub last_served_at: Timestamp,
}

/// Why a lane gives no jobs, or fewer than are due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Waits {
    /// An operator has paused it.
    Paused,
    /// Its breaker is open until then.
    Tripped(Timestamp),
    /// Its breaker is half open: one probe at a time.
    Probing,
    /// Its receiver asked for a pause until this instant.
    NotBefore(Timestamp),
    /// It is ramping up after an outage: this many a second.
    Ramp(u32),
    /// No token is left in its bucket. The number is the limit per second.
    Rate(u32),
}

impl Lane {
    /// Why deliveries of this lane wait; `None` if the lane does not hold them back.
    pub fn waits(&self, now: Timestamp) -> Option<Waits> {
        let Breaker { open_until, not_before, ramp, .. } = self.breaker;
        match (open_until, not_before.filter(|at| *at > now)) {
            _ if self.paused => Some(Waits::Paused),
            (Some(until), _) if until > now => Some(Waits::Tripped(until)),
            (Some(_), _) => Some(Waits::Probing),
            // The pause between two steps of a ramp is a second at most.
            (None, Some(at)) if ramp == 0 || at.since(now).as_millis() > 1_000 => {
                Some(Waits::NotBefore(at))
            }
            (None, _) if ramp > 0 => Some(Waits::Ramp(ramp)),
            (None, _) => self
                .bucket
                .filter(|bucket| bucket.tokens < 1.0)
                .map(|bucket| Waits::Rate(bucket.rate)),
        }
    }
}

impl Waits {
    /// The stable word for the API and metrics, such as `paused`.
    pub fn as_str(&self) -> &'static str {
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
            Self::Paused => f.write_str("the lane is paused until it is resumed"),
            Self::Tripped(until) => write!(f, "the circuit breaker is open until {until}"),
            Self::Probing => f.write_str("the circuit breaker is half-open: one probe at a time"),
            Self::NotBefore(at) => write!(f, "the receiver asked to wait until {at} (Retry-After)"),
            Self::Ramp(rate) => write!(
                f,
                "the receiver has just recovered: the lane sends {rate} per second and doubles \
                 that each second"
            ),
            Self::Rate(rate) => write!(f, "the rate limit of {rate} per second is used up"),
        }
    }
}
