//! What happens to events and deliveries, for those who follow along. Nobody is waited for: a follower who
//! is too slow misses moments, and knows how many.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::model::time::millis;
use crate::model::{EventId, JobId, RunId};

/// Followers may fall this many moments behind.
const BEHIND_MAX: usize = 4096;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum FeedEvent {
    /// An event was accepted and committed.
    Accepted {
        /// The event; the first one's id for a duplicate.
        event: EventId,
        /// Where it came from.
        source: String,
        /// Its type.
        kind: String,
        /// How it was verified; `None` for a call and for a source without verification.
        verified: Option<String>,
        /// It was there already.
        duplicate: bool,
        /// Who gets it, in the order of the configuration.
        handlers: Vec<String>,
    },
    /// A request was refused.
    Rejected {
        /// The source it was sent to.
        source: String,
        /// Why: a stable word.
        reason: &'static str,
    },
    /// A run started or ended, and that is committed.
    Run {
        /// The run.
        run: RunId,
        /// The event it started from.
        event: EventId,
        /// Where that came from.
        source: String,
        /// Its workflow.
        workflow: String,
        /// `started`, `paused`, `completed`, `failed` or `cancelled`.
        status: &'static str,
        /// Why it failed, or was paused.
        error: Option<String>,
    },
    /// A lane waits for something else than before, or for nothing any more.
    Lane {
        /// The lane.
        lane: String,
        /// The handler, if it is one's.
        handler: Option<String>,
        /// A stable word: `open`, `paused`, `tripped`, `probing`, `retry_after`, `ramp`, `rate`.
        state: &'static str,
        /// For people.
        why: Option<String>,
    },
    /// A delivery was tried, and what came of it is committed.
    Tried {
        /// The event.
        event: EventId,
        /// Where the event came from.
        source: String,
        /// The delivery.
        job: JobId,
        /// The handler, or `workflow/step`.
        handler: String,
        /// Which attempt.
        attempt: u32,
        /// The response status, if there was one.
        status: Option<u16>,
        /// The failure, for people.
        error: Option<String>,
        /// How long it took.
        took: Duration,
        /// What follows.
        next: Next,
    },
}

impl FeedEvent {
    /// The moment as data, for programs that follow along.
    pub fn json(&self) -> Value {
        match self {
            Self::Accepted { event, source, kind, verified, duplicate, handlers } => json!({
                "moment": "accepted", "event": event.to_string(), "source": source, "type": kind, "verified": verified,
                "duplicate": duplicate, "handlers": handlers,
            }),
            Self::Rejected { source, reason } => json!({ "moment": "rejected", "source": source, "reason": reason }),
            Self::Run { run, event, source, workflow, status, error } => json!({
                "moment": "run", "run": run.to_string(), "event": event.to_string(), "source": source, "workflow": workflow, "status": status,
                "error": error,
            }),
            Self::Lane { lane, handler, state, why } => {
                json!({ "moment": "lane", "lane": lane, "handler": handler, "state": state, "why": why })
            }
            Self::Tried { event, source, job, handler, attempt, status, error, took, next } => json!({
                "moment": "tried", "event": event.to_string(), "source": source, "job": job.to_string(), "handler": handler,
                "attempt": attempt,
                "status": status, "error": error, "took_ms": millis(*took), "next": next.word(), "retry_in_ms": next.delay_ms(),
            }),
        }
    }
}

/// What a follower wants to hear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only what comes from this source.
    pub source: Option<String>,
    /// Only what concerns this handler or workflow, the steps of the workflow included.
    pub handler: Option<String>,
    /// Only attempts and runs that ended like this: one of [`ENDINGS`].
    pub status: Option<String>,
}

/// How attempts and runs end, as a follower may ask for it.
pub const ENDINGS: [&str; 9] = ["delivered", "retry", "dead", "stale", "started", "paused", "completed", "failed", "cancelled"];

impl Wanted {
    /// Whether a moment is wanted.
    pub fn wants(&self, moment: &FeedEvent) -> bool {
        let (source, ending) = match moment {
            FeedEvent::Accepted { source, .. } | FeedEvent::Rejected { source, .. } => (Some(source), None),
            FeedEvent::Tried { source, next, .. } => (Some(source), Some(next.word())),
            FeedEvent::Run { source, status, .. } => (Some(source), Some(*status)),
            FeedEvent::Lane { .. } => (None, None),
        };
        let of_handler = |wanted: &String| match moment {
            FeedEvent::Accepted { handlers, .. } => handlers.contains(wanted),
            FeedEvent::Rejected { .. } => false,
            FeedEvent::Lane { handler, .. } => handler.as_ref() == Some(wanted),
            FeedEvent::Run { workflow, .. } => workflow == wanted,
            FeedEvent::Tried { handler, .. } => {
                handler.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        };
        self.source.as_ref().is_none_or(|wanted| source == Some(wanted))
            && self.handler.as_ref().is_none_or(of_handler)
            && self.status.as_ref().is_none_or(|wanted| ending == Some(wanted.as_str()))
    }
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: delivered.
    Delivered,
    /// Another attempt after this time.
    RetryIn(Duration),
    /// Nothing: given up.
    Dead,
    /// The lease was lost; someone else goes on.
    Stale,
}

impl Next {
    fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::RetryIn(_) => "retry",
            Self::Dead => "dead",
            Self::Stale => "stale",
        }
    }

    fn delay_ms(self) -> Option<i64> {
        match self {
            Self::RetryIn(after) => Some(millis(after)),
            Self::Delivered | Self::Dead | Self::Stale => None,
        }
    }
}

/// Where moments are told.
#[derive(Debug, Clone)]
pub struct Feed(broadcast::Sender<FeedEvent>);

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEHIND_MAX))
    }
}

impl Feed {
    /// Tells a moment, if anyone follows.
    pub fn tell(&self, moment: impl FnOnce() -> FeedEvent) {
        if self.0.receiver_count() > 0 {
            // Nobody left to hear it is no failure.
            let _ = self.0.send(moment());
        }
    }

    /// Follows from now on.
    pub fn follow(&self) -> broadcast::Receiver<FeedEvent> {
        self.0.subscribe()
    }
}
