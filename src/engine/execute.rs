//! Doing a job: gate, then the exchange.

use std::sync::Arc;

use tokio::time::Instant;

use super::Engine;
use super::flows::NoFlow;
use crate::decide::retry::RetryPolicy;
use crate::decide::settle::{Timing, is_crash_suspect};
use crate::deliver::compose::{Around, compose};
use crate::deliver::step::{Calling, compose_step};
use crate::model::job::Visiting;
use crate::model::run::Phase;
use crate::model::{Cut, Event, Failure, Job, Outcome, Request, Response, Run, Target, Timestamp};

/// What came of an execution, and how long it took.
pub struct Ran {
    pub(super) outcome: Outcome,
    pub(super) timing: Timing,
    /// What holds for a step's call.
    pub(super) of_step: Option<OfStep>,
    /// The run as it was before.
    pub(super) run: Option<Arc<Run>>,
}

/// What holds for the retries of a step's call.
pub(super) struct OfStep {
    /// Its policy.
    pub(super) retry: RetryPolicy,
    /// Which statuses are a success; empty is 200 to 299.
    pub(super) expect: Vec<(u16, u16)>,
    /// When its run ends at the latest: a retry that would come later is none.
    pub(super) deadline_at: Option<Timestamp>,
}

impl Ran {
    /// Not run at all: the lease goes back untouched.
    pub(super) fn postponed(now: Timestamp) -> Self {
        Self {
            outcome: Outcome::Postponed,
            timing: Timing { duration: std::time::Duration::ZERO, now },
            of_step: None,
            run: None,
        }
    }
}

/// A step's response is data: half of it is none. That of a notice does not matter.
fn whole(outcome: Outcome, is_notice: bool) -> Outcome {
    match outcome {
        Outcome::Answered(response) if is_notice => Outcome::Answered(Response { cut: None, ..response }),
        Outcome::Answered(response) if response.cut == Some(Cut::BrokeOff) => {
            Outcome::Failed(Failure::Protocol("the response body broke off".to_owned()))
        }
        other => other,
    }
}

impl Engine {
    /// Runs a job once.
    pub(super) async fn execute(&self, job: &Job, event: &Event, run: Option<Arc<Run>>) -> Ran {
        let started = Instant::now();
        let (outcome, of_step) = match &job.target {
            Target::Step(visiting) if !is_crash_suspect(job) => self.step(job, event, visiting, run.as_ref()).await,
            _ => (self.outcome(job, event).await, None),
        };
        Ran { outcome, timing: Timing { duration: started.elapsed(), now: self.clock().now() }, of_step, run }
    }

    async fn outcome(&self, job: &Job, event: &Event) -> Outcome {
        if is_crash_suspect(job) {
            return Outcome::Failed(Failure::CrashSuspect);
        }
        let name = match &job.target {
            Target::Handler(name) => name,
            // Nothing is sent: the run starts, or goes on, with the commit.
            Target::Workflow(_) | Target::Timer(_) | Target::Step(_) => return Outcome::Elapsed,
        };
        // Its lane was skipped unless the handler was there; a job that slipped through is handed back.
        let Some(handler) = self.handler(name) else { return Outcome::Postponed };
        let delivery = &self.config().delivery;
        let around = Around {
            signing_key: delivery.signing_key.as_ref().map(|key| key.0.as_slice()),
            qhook_headers: self.config().compat.qhook_headers,
            now: self.clock().now(),
        };
        self.send(compose(job, event, handler, around)).await
    }

    async fn send(&self, request: Result<Request, String>) -> Outcome {
        match request {
            Ok(request) => {
                let sent = self.0.parts.deliver.send(request);
                self.0.aborting.run_until_cancelled(sent).await.unwrap_or(Outcome::Postponed)
            }
            Err(why) => Outcome::Failed(Failure::Compose(why)),
        }
    }

    /// The call of a run's step, if the run still waits for it.
    async fn step(&self, job: &Job, event: &Event, visiting: &Visiting, run: Option<&Arc<Run>>) -> (Outcome, Option<OfStep>) {
        let Some(run) = run.filter(|run| !run.status.is_closed()) else { return (Outcome::Elapsed, None) };
        let Some(visit) = run.state.visits.get(&visiting.visit).filter(|visit| visit.jobs.contains(&job.id)) else {
            return (Outcome::Elapsed, None);
        };
        let flow = match self.flow(&run.definition).await {
            Ok(flow) => flow,
            Err(NoFlow::Store(error)) => return (Outcome::Parked(error.to_string()), None),
            Err(NoFlow::Unusable(why)) => {
                tracing::error!(run = %run.id, why, "A run cannot go on; it is looked at again.");
                return (Outcome::Parked(why), None);
            }
        };
        let Some(call) = flow.call(&visit.at) else { return (Outcome::Elapsed, None) };
        let config = self.config();
        let around = Around {
            signing_key: config.delivery.signing_key.as_ref().map(|key| key.0.as_slice()),
            qhook_headers: config.compat.qhook_headers,
            now: self.clock().now(),
        };
        let public_url = config.server.public_url.as_ref();
        let calling = Calling { job, event, run, seq: visiting.visit, visit, call, public_url };
        let of_step = OfStep { retry: call.retry.clone(), expect: call.expect.clone(), deadline_at: run.state.deadline_at };
        let outcome = self.send(compose_step(&calling, around)).await;
        let is_notice = matches!(visit.phase, Phase::Call { token: Some(_), .. });
        (whole(outcome, is_notice), Some(of_step))
    }
}
