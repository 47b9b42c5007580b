//! Executes one job: checks whether it may still run, then does what its kind of target does.

use std::sync::Arc;

use tokio::time::Instant;

use super::Engine;
use super::targets::step::StepContext;
use super::targets::{Doing, is_crash_suspect, kind_of};
use crate::decide::errors::class_of;
use crate::decide::settle::Timing;
use crate::model::{CallPhase, Event, Failure, Job, Outcome, Request, Run, Timestamp};

/// The result of one execution: its outcome, its timing, and what settling it needs.
pub struct Execution {
    pub(super) outcome: Outcome,
    pub(super) timing: Timing,
    /// For a job of a step, what the step's definition says about the outcome; `None` for other
    /// jobs, or when the step no longer applies.
    pub(super) step_context: Option<StepContext>,
    /// Class and status of the job's earlier failures. Filled only where several retry policies
    /// need them.
    pub(super) before: Vec<(&'static str, Option<u16>)>,
    /// The run as it was before the execution, for a job of a run.
    pub(super) run: Option<Arc<Run>>,
}

impl Execution {
    /// A job that was not executed: its lease is given back, and no attempt is counted.
    pub(super) fn released(now: Timestamp) -> Self {
        Self {
            outcome: Outcome::Released,
            timing: Timing { duration: std::time::Duration::ZERO, now },
            step_context: None,
            before: Vec::new(),
            run: None,
        }
    }
}

impl Engine {
    /// Executes a job once that was claimed at `now`. A call ends before `end`: its timeout is
    /// shortened to that.
    pub(super) async fn execute(
        &self,
        (job, now): (&Job, Timestamp),
        event: &Event,
        run: Option<Arc<Run>>,
        end: Option<Instant>,
    ) -> Execution {
        let started = Instant::now();
        // If earlier workers of this job disappeared, the beginning of the send is marked: the mark
        // tells a job that kills its workers from one that was never sent.
        let kind = kind_of(&job.target);
        if kind.sends() && job.interrupted > 0 && !is_crash_suspect(job) {
            match self.health().learn(self.store().begin_send(job.lease()).await) {
                Ok(true) => {}
                Ok(false) | Err(_) => {
                    return Execution { run, ..Execution::released(self.clock().now()) };
                }
            }
        }
        let before = match self.failures_before(job, run.as_deref()).await {
            Ok(before) => before,
            // Nothing was sent yet: the lease goes back.
            Err(_) => return Execution { run, ..Execution::released(self.clock().now()) },
        };
        let (outcome, step_context) = match is_crash_suspect(job) {
            true => (Outcome::Failed(Failure::CrashSuspect), None),
            false => kind.execute(self, Doing { job, event, now, run: run.as_ref(), end }).await,
        };
        Execution {
            outcome,
            timing: Timing { duration: started.elapsed(), now: self.clock().now() },
            step_context,
            before,
            run,
        }
    }

    /// Reads class and status of a job's earlier failures. It queries the store only for a job with
    /// several retry policies.
    async fn failures_before(
        &self,
        job: &Job,
        run: Option<&Run>,
    ) -> crate::store::Result<Vec<(&'static str, Option<u16>)>> {
        if job.attempt == 0 || !kind_of(&job.target).has_policies(self, job, run).await {
            return Ok(Vec::new());
        }
        let attempts = self.health().learn(self.store().attempts(job.id).await)?;
        let failure = |attempt: &crate::model::Attempt| {
            let code =
                attempt.code.filter(|_| attempt.ending == crate::model::AttemptResult::Failed)?;
            Some((class_of(code, attempt.status), attempt.status))
        };
        Ok(attempts.iter().filter_map(failure).collect())
    }

    /// Sends a request that could be built, until `end` at the latest.
    pub(super) async fn send(
        &self,
        request: Result<Request, Failure>,
        end: Option<Instant>,
    ) -> Outcome {
        match request {
            Ok(mut request) => {
                if let Some(end) = end {
                    request.timeout =
                        request.timeout.min(end.saturating_duration_since(Instant::now()));
                }
                let progress = request.progress.clone();
                // Nothing is begun by a worker that stops.
                if self.0.aborting.is_cancelled() {
                    return Outcome::Released;
                }
                let sent = self.0.parts.deliver.send(request);
                match (self.0.aborting.run_until_cancelled(sent).await, progress.phase()) {
                    (Some(outcome), _) => outcome,
                    (None, CallPhase::Connect) => Outcome::Released,
                    (None, CallPhase::Headers | CallPhase::Body) => {
                        Outcome::Failed(Failure::Interrupted(
                            "the worker was stopped before the response arrived".to_owned(),
                        ))
                    }
                }
            }
            Err(why) => Outcome::Failed(why),
        }
    }
}
