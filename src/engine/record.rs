//! Recording what a job led to: settle, commit, tell.

use std::time::Duration;

use super::Engine;
use super::execute::Ran;
use crate::decide::retry::RetryPolicy;
use crate::decide::settle::{Commit, Finish, LaneFact, settle};
use crate::model::{Event, Target};
use crate::observe::feed::{Moment, Next};
use crate::observe::metrics;
use crate::store::{Claimed, Error};

/// A record that the store does not take is tried again after this, then after twice as long, and so on.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(2);

impl Engine {
    /// Settles an outcome and commits it; what became of the job, or `None` when the lease was lost.
    pub(super) async fn record(&self, claimed: &Claimed, event: &Event, ran: Ran) -> Option<Finish> {
        let Target::Handler(name) = &claimed.job.target;
        let fallback = RetryPolicy::default();
        let policy = self.handler(name).map_or(&fallback, |h| &h.retry);
        let mut commit = settle(&claimed.job, &ran.outcome, policy, ran.timing, self.0.parts.chance.draw());
        // A success is news only to a breaker that remembers something.
        if commit.lane_fact == Some(LaneFact::Succeeded) && claimed.lane_clean {
            commit.lane_fact = None;
        }
        let held = self.commit(&commit).await;
        let ended = held.then(|| commit.finish.clone());
        if let Some(Finish::Retry { after, .. }) = &ended {
            self.0.parts.wake.wake_after(*after);
        }
        self.tell(&commit, event, name, ended.as_ref());
        ended
    }

    /// Commits until the store answers. The outcome is a fact: it is kept and offered again, and the exchange
    /// is never repeated for its sake. False when the lease was lost.
    async fn commit(&self, commit: &Commit) -> bool {
        let mut again = AGAIN_FIRST;
        loop {
            match self.health().learn(self.0.commits.put(commit.clone()).await) {
                Ok(()) => return true,
                Err(Error::LeaseLost) => return false,
                Err(error) if error.is_passing() => {
                    tracing::debug!(job = %commit.lease.job, %error, "An outcome waits for the database.");
                    // At shutdown the leases run out by themselves.
                    if self.0.aborting.is_cancelled() && again >= AGAIN_MAX {
                        return false;
                    }
                    tokio::time::sleep(again).await;
                    again = (again * 2).min(AGAIN_MAX);
                }
                Err(error) => {
                    tracing::error!(job = %commit.lease.job, %error, "An outcome cannot be recorded.");
                    return false;
                }
            }
        }
    }

    fn tell(&self, commit: &Commit, event: &Event, handler: &str, ended: Option<&Finish>) {
        let Some(attempt) = &commit.attempt else {
            if let Some(Finish::Dead { error }) = ended {
                metrics::dead(handler);
                tracing::warn!(job = %commit.lease.job, event = %event.id, handler, %error, "A delivery is given up untried.");
            }
            return;
        };
        let code = attempt.code.as_deref();
        match ended {
            Some(_) => metrics::tried(handler, code, attempt.duration),
            None => metrics::stale(handler),
        }
        if matches!(ended, Some(Finish::Dead { .. })) {
            metrics::dead(handler);
        }
        let (job, number, took) = (commit.lease.job, attempt.number, attempt.duration);
        let next = match ended {
            Some(Finish::Done) => Next::Delivered,
            Some(Finish::Retry { after, .. }) => Next::RetryIn(*after),
            Some(Finish::Dead { .. }) => Next::Dead,
            Some(Finish::Released) | None => Next::Stale,
        };
        let error = attempt.error.as_deref().unwrap_or("");
        match next {
            Next::Delivered => tracing::debug!(%job, event = %event.id, handler, attempt = number, ?took, "Delivered."),
            Next::RetryIn(after) => {
                tracing::info!(%job, event = %event.id, handler, attempt = number, error, retry_in = ?after, "A delivery failed and is tried again.");
            }
            Next::Dead => tracing::warn!(%job, event = %event.id, handler, attempt = number, error, "A delivery is given up."),
            Next::Stale => tracing::warn!(%job, event = %event.id, handler, attempt = number, "A late outcome changed nothing."),
        }
        self.feed().tell(|| Moment::Tried {
            event: event.id,
            job,
            handler: handler.to_owned(),
            attempt: number,
            status: attempt.status,
            error: attempt.error.clone(),
            took,
            next,
        });
    }
}
