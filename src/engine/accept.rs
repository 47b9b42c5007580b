//! An inbound event, planned and committed: the answer comes after the commit and never before.

use std::time::Duration;

use super::Engine;
use crate::decide::plan::plan;
use crate::model::{EventId, Inbound};
use crate::observe::feed::Moment;
use crate::store::{Accepted, Error, Offer};

/// A caller waits no longer than this for its commit. Longer than a commit takes over a slow line, short
/// enough that a sender gets its answer from a database that has fallen silent.
const WAIT_MAX: Duration = Duration::from_millis(4_500);

/// What a sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The event; the first one's id for a duplicate.
    pub event: EventId,
    /// It was there already.
    pub duplicate: bool,
    /// Deliveries that were created.
    pub jobs: usize,
}

/// Why an event was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// The store does not answer. Whether the event was committed is not known; sending it again is safe.
    #[error("the database does not answer")]
    Unavailable,
    /// The store has no room.
    #[error("the database is full")]
    Full,
    /// The idempotency key was used with another body, for this event.
    #[error("the idempotency key was used with another body")]
    Conflict(EventId),
    /// It cannot be stored, whatever is tried.
    #[error("the event cannot be stored: {0}")]
    Unstorable(String),
}

impl Engine {
    /// Accepts an event: routes it, and commits it with all the work it causes.
    ///
    /// # Errors
    /// Why not; nothing was promised.
    pub async fn accept(&self, inbound: Inbound) -> Result<Receipt, NotAccepted> {
        let health = self.health();
        if !health.is_up() {
            return Err(NotAccepted::Unavailable);
        }
        let inner = &self.0;
        let plan = plan(&inner.routes, &inbound, &*inner.parts.ids);
        let handlers: Vec<String> = plan.jobs.iter().map(|job| job.target.name().to_owned()).collect();
        let told = inbound.clone();
        let delivery = &self.config().delivery;
        let offer = Offer {
            id: EventId::next(&*inner.parts.ids),
            inbound,
            plan,
            key_ttl: delivery.idempotency_ttl,
            event_ttl: delivery.event_ttl,
        };
        let Ok(answer) = tokio::time::timeout(WAIT_MAX, inner.offers.put(offer)).await else {
            health.set_down("no commit in time");
            return Err(NotAccepted::Unavailable);
        };
        let receipt = match health.learn(answer) {
            Ok(Accepted::New { event, jobs }) => Receipt { event, duplicate: false, jobs: jobs.len() },
            Ok(Accepted::Duplicate(event)) => Receipt { event, duplicate: true, jobs: 0 },
            Ok(Accepted::Conflict(event)) => return Err(NotAccepted::Conflict(event)),
            Err(Error::Full(_)) => return Err(NotAccepted::Full),
            Err(Error::Down(_)) => return Err(NotAccepted::Unavailable),
            Err(error @ (Error::InUse(_) | Error::LeaseLost | Error::Corrupt(_))) => {
                tracing::error!(source = told.source, %error, "An event cannot be stored.");
                return Err(NotAccepted::Unstorable(error.to_string()));
            }
        };
        if receipt.jobs > 0 {
            inner.parts.wake.wake();
        }
        let Receipt { event, duplicate, jobs } = receipt;
        tracing::debug!(%event, source = told.source, kind = told.kind, duplicate, jobs, "An event was accepted.");
        self.feed().tell(|| Moment::Accepted {
            event,
            verified: self.config().source(&told.source).and_then(|s| s.verify.clone()),
            source: told.source,
            kind: told.kind,
            duplicate,
            handlers: if duplicate { Vec::new() } else { handlers },
        });
        Ok(receipt)
    }
}
