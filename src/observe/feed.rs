//! The feed: a broadcast of what happens to events, deliveries, runs and lanes, for everyone who
//! follows.
//!
//! Nobody waits for followers. One that is too slow misses moments, and learns how many.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::model::time::millis;
use crate::model::{EventId, JobId, RunId};

/// How many moments a follower may fall behind before it misses some.
const BEHIND_MAX: usize = 4096;

/// A moment of the feed: one thing that happened and is committed, or a request that was refused.
#[derive(Debug, Clone)]
pub enum FeedEvent {
    /// An event was accepted and committed.
    Accepted {
        /// The id of the event; of a duplicate, the id of the one that was accepted first.
        event: EventId,
        /// The source that the event came in by.
        source: String,
        /// The event type, such as `order.created`.
        kind: String,
        /// The signature scheme that the event was verified with; `None` for a source without
        /// verification.
        verified: Option<String>,
        /// Whether the event had been accepted before: nothing is done again, and `handlers` is
        /// empty.
        duplicate: bool,
        /// The handlers and workflows that get it, in the order of the configuration.
        handlers: Vec<String>,
    },
    /// A request to a source was refused, and nothing of it was stored.
    Rejected {
        /// The source it was sent to.
        source: String,
        /// A stable word for the reason, as in `GET /api/rejections`.
        reason: &'static str,
    },
    /// A run started, paused or ended, and that is committed.
    Run {
        /// The id of the run that started, paused or ended.
        run: RunId,
        /// The event it started from.
        event: EventId,
        /// The source of the event that the run started from.
        source: String,
        /// The name of the workflow that the run belongs to.
        workflow: String,
        /// `started`, `paused`, `completed`, `failed` or `cancelled`.
        status: &'static str,
        /// The message of the failure, for a run that failed or paused because of one.
        error: Option<String>,
    },
    /// What keeps the deliveries of a lane waiting has changed, or nothing does any more.
    Lane {
        /// The id of the lane, such as `handler:billing`.
        lane: String,
        /// The name of the handler; `None` when the lane is not a handler's.
        handler: Option<String>,
        /// A stable word for the state: `open`, `paused`, `tripped`, `probing`, `retry_after`,
        /// `ramp`, `rate`.
        state: &'static str,
        /// A sentence for people that says why it waits; `None` when it is open again.
        why: Option<String>,
    },
    /// An attempt of a job ended, or a delivery expired without one, and that is committed.
    Tried {
        /// The event that is delivered, or that started the run.
        event: EventId,
        /// Where the event came from.
        source: String,
        /// The job whose attempt ended: a delivery or a step's call.
        job: JobId,
        /// The name of the handler, or `workflow/step`.
        handler: String,
        /// The number of the attempt; of a delivery that expired, how many were made.
        attempt: u32,
        /// The response status, if there was one.
        status: Option<u16>,
        /// The failure as a sentence; `None` for a success.
        error: Option<String>,
        /// The duration of the exchange; zero when the delivery expired without one.
        took: Duration,
        /// What the outcome means for the job: done, another attempt, or given up.
        next: Next,
    },
}

impl FeedEvent {
    /// The moment as one JSON object, as `/api/tail` and `tidehook tail --json` show it.
    pub fn json(&self) -> Value {
        match self {
            Self::Accepted { event, source, kind, verified, duplicate, handlers } => json!({
                "moment": "accepted", "event": event.to_string(), "source": source, "type": kind,
                "verified": verified,
                "duplicate": duplicate, "handlers": handlers,
            }),
            Self::Rejected { source, reason } => {
                json!({ "moment": "rejected", "source": source, "reason": reason })
            }
            Self::Run { run, event, source, workflow, status, error } => json!({
                "moment": "run", "run": run.to_string(), "event": event.to_string(),
                "source": source, "workflow": workflow, "status": status,
                "error": error,
            }),
            Self::Lane { lane, handler, state, why } => {
                json!({
                    "moment": "lane",
                    "lane": lane,
                    "handler": handler,
                    "state": state,
                    "why": why,
                })
            }
            Self::Tried { event, source, job, handler, attempt, status, error, took, next } => {
                json!({
                    "moment": "tried", "event": event.to_string(), "source": source,
                    "job": job.to_string(), "handler": handler,
                    "attempt": attempt,
                    "status": status, "error": error, "took_ms": millis(*took),
                    "next": next.as_str(), "retry_in_ms": next.delay_ms(),
                })
            }
        }
    }
}

/// A follower's filter: every field that is set must match a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedFilter {
    /// Only moments of events or requests of this source.
    pub source: Option<String>,
    /// Only moments of this handler, or of this workflow with its steps.
    pub handler: Option<String>,
    /// Only attempts and runs with this result: one of [`ENDINGS`].
    pub status: Option<String>,
}

/// The words that a follower may filter by: the first four end attempts, the others are of runs.
pub const ENDINGS: [&str; 9] = [
    "delivered",
    "retry",
    "dead",
    "stale",
    "started",
    "paused",
    "completed",
    "failed",
    "cancelled",
];

impl FeedFilter {
    /// Whether a moment passes the filter.
    pub fn wants(&self, moment: &FeedEvent) -> bool {
        let (source, ending) = match moment {
            FeedEvent::Accepted { source, .. } | FeedEvent::Rejected { source, .. } => {
                (Some(source), None)
            }
            FeedEvent::Tried { source, next, .. } => (Some(source), Some(next.as_str())),
            FeedEvent::Run { source, status, .. } => (Some(source), Some(*status)),
            FeedEvent::Lane { .. } => (None, None),
        };
        let of_handler = |wanted: &String| match moment {
            FeedEvent::Accepted { handlers, .. } => handlers.contains(wanted),
            FeedEvent::Rejected { .. } => false,
            FeedEvent::Lane { handler, .. } => handler.as_ref() == Some(wanted),
            FeedEvent::Run { workflow, .. } => workflow == wanted,
            FeedEvent::Tried { handler, .. } => handler
                .strip_prefix(wanted.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        };
        self.source.as_ref().is_none_or(|wanted| source == Some(wanted))
            && self.handler.as_ref().is_none_or(of_handler)
            && self.status.as_ref().is_none_or(|wanted| ending == Some(wanted.as_str()))
    }
}

/// What happens to a job after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The receiver accepted it, and the job is done.
    Delivered,
    /// Another attempt follows after this time.
    RetryIn(Duration),
    /// The job is dead: no retries are left, or another attempt cannot help.
    Dead,
    /// The lease was lost before the outcome was recorded, so the outcome changed nothing; another
    /// worker has the job.
    Stale,
}

impl Next {
    fn as_str(self) -> &'static str {
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

/// The sending side of the feed; clones share one feed.
#[derive(Debug, Clone)]
pub struct Feed(broadcast::Sender<FeedEvent>);

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEHIND_MAX))
    }
}

impl Feed {
    /// Sends a moment to all followers. `moment` is only called when somebody follows.
    pub fn publish(&self, moment: impl FnOnce() -> FeedEvent) {
        if self.0.receiver_count() > 0 {
            // Nobody left to hear it is no failure.
            let _ = self.0.send(moment());
        }
    }

    /// Subscribes to what happens from now on. A follower that falls 4096 moments behind misses the
    /// oldest ones and learns how many.
    pub fn follow(&self) -> broadcast::Receiver<FeedEvent> {
        self.0.subscribe()
    }
}
