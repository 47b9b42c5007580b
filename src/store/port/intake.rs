//! Accepting events, with everything they cause.

use async_trait::async_trait;

use super::Each;
pub use crate::decide::plan::NewEvent;
use crate::model::{EventId, JobId, Timestamp};

/// The result of accepting one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It was stored with these jobs, in one transaction.
    New {
        /// The id under which the event is stored.
        event: EventId,
        /// The jobs that were stored. A job is left out if the idempotency key of its handler or
        /// workflow was seen before.
        jobs: Vec<JobId>,
        /// Those of `jobs` that were leased by the same commit, with claim 1: their lane was open,
        /// without a rate limit and with a clean breaker.
        started: Vec<JobId>,
        /// When it was stored, by the database's clock. Set only if `started` is not empty.
        at: Timestamp,
    },
    /// A duplicate: one of its keys is held by the event with this id.
    Duplicate(EventId),
    /// The idempotency key was used before with another body, by the event with this id.
    Conflict(EventId),
}

/// Accepts events, with everything they cause.
#[async_trait]
pub trait Intake: Send + Sync {
    /// Stores each new event with the jobs it causes, in one transaction. A duplicate is answered
    /// with the id of the event that holds its key.
    async fn accept(&self, new_events: &[NewEvent]) -> Each<Accepted>;
}
