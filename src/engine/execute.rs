//! Doing a job: gate, then the exchange.

use tokio::time::Instant;

use super::Engine;
use crate::decide::settle::{Timing, is_crash_suspect};
use crate::deliver::compose::{Around, compose};
use crate::model::{Event, Failure, Job, Outcome, Target, Timestamp};

/// What came of an execution, and how long it took.
pub struct Ran {
    pub(super) outcome: Outcome,
    pub(super) timing: Timing,
}

impl Ran {
    /// Not run at all: the lease goes back untouched.
    pub(super) fn postponed(now: Timestamp) -> Self {
        Self { outcome: Outcome::Postponed, timing: Timing { duration: std::time::Duration::ZERO, now } }
    }
}

impl Engine {
    /// Runs a job once.
    pub(super) async fn execute(&self, job: &Job, event: &Event) -> Ran {
        let started = Instant::now();
        let outcome = self.outcome(job, event).await;
        Ran { outcome, timing: Timing { duration: started.elapsed(), now: self.clock().now() } }
    }

    async fn outcome(&self, job: &Job, event: &Event) -> Outcome {
        if is_crash_suspect(job) {
            return Outcome::Failed(Failure::CrashSuspect);
        }
        let Target::Handler(name) = &job.target;
        // Its lane was skipped unless the handler was there; a job that slipped through is handed back.
        let Some(handler) = self.handler(name) else { return Outcome::Postponed };
        let delivery = &self.config().delivery;
        let around = Around {
            signing_key: delivery.signing_key.as_ref().map(|key| key.0.as_slice()),
            qhook_headers: self.config().compat.qhook_headers,
            now: self.clock().now(),
        };
        match compose(job, event, handler, around) {
            Ok(request) => {
                let sent = self.0.parts.deliver.send(request);
                self.0.aborting.run_until_cancelled(sent).await.unwrap_or(Outcome::Postponed)
            }
            Err(why) => Outcome::Failed(Failure::Compose(why)),
        }
    }
}
