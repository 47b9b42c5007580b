//! Advances workflow runs: turns the outcome of a job into the change of its run that is committed
//! with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use ulid::Ulid;

use super::Engine;
use super::execute::Execution;
use super::flows::FlowError;
use super::targets::step::StepContext;
use crate::decide::settle::{JobOutcome, NextState};
use crate::decide::workflow::catch::{self, of_failure};
use crate::decide::workflow::gate::at_gate;
use crate::decide::workflow::machine::NewRun;
use crate::decide::workflow::{Context, Draw, Fact, Flow, advance, start};
use crate::model::FailureCode;
use crate::model::VisitRef;
use crate::model::history::NoteKind;
use crate::model::run::{Change, Due, RunError, Start, Visit, VisitPhase};
use crate::model::{
    Cut, Event, Failure, Job, JobId, Outcome, Payload, Run, RunId, RunStatus, Target, Timestamp,
};
use crate::observe::feed::FeedEvent;
use crate::observe::metrics;
use crate::store::{Claimed, Error};
use crate::wake::Wakeup;

/// Gives the workflow machine ids, tokens and random numbers from the engine's sources.
pub(super) struct Entropy<'a>(pub(super) &'a Engine);

impl Draw for Entropy<'_> {
    fn id(&self) -> Ulid {
        self.0.0.parts.ids.next()
    }

    fn token(&self) -> String {
        data_encoding::BASE32_NOPAD.encode(&self.0.0.parts.chance.bytes())
    }

    fn chance(&self) -> f64 {
        self.0.0.parts.chance.draw()
    }
}

/// Why a change of a run could not be computed.
pub(super) enum ChangeError {
    /// The store does not answer.
    Store(Error),
    /// The run cannot continue for now: its definition is missing or unusable, or its state cannot
    /// be read.
    Unusable(String),
}

impl From<Error> for ChangeError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<FlowError> for ChangeError {
    fn from(none: FlowError) -> Self {
        match none {
            FlowError::Store(error) => Self::Store(error),
            FlowError::Unusable(why) => Self::Unusable(why),
        }
    }
}

impl Engine {
    /// Computes how the end of a job changes its run; `None` when nothing changes. `known` is the
    /// run as it was claimed, which saves a query.
    pub(super) async fn change_of(
        &self,
        claimed: &Claimed,
        event: &Event,
        ran: &Execution,
        job_outcome: &JobOutcome,
        known: Option<Arc<Run>>,
    ) -> Result<Option<Change>, ChangeError> {
        let job = &claimed.job;
        let change = match &job.target {
            Target::Handler(_) | Target::Queue(_) | Target::Alert(_) | Target::Slot(_) => None,
            Target::Workflow(name) => Some(self.start_of(name, job, event, claimed.now)?),
            Target::Step(visiting) | Target::Timer(visiting) => {
                let run = match known {
                    Some(run) => Some(run),
                    None => self.store().run(visiting.run).await?.map(Arc::new),
                };
                match run {
                    Some(run) => {
                        self.next_of(&run, visiting, job, ran, job_outcome, claimed.now).await?
                    }
                    None => None,
                }
            }
        };
        match change {
            Some(change) => self.with_children(change, claimed.now).await.map(Some),
            None => Ok(None),
        }
    }

    fn start_of(
        &self,
        name: &str,
        job: &Job,
        event: &Event,
        now: Timestamp,
    ) -> Result<Change, ChangeError> {
        let gone = || ChangeError::Unusable(format!("the configuration has no workflow `{name}`"));
        let workflow = self.config().workflow(name).ok_or_else(gone)?;
        let input = Payload::of(&event.body);
        let birth = NewRun {
            id: RunId::of(job.id),
            event: event.id,
            event_context: event_context(event),
            input,
            parent: None,
            depth: 0,
        };
        Ok(start(birth, &Context { flow: &workflow.flow, now, draw: &Entropy(self) }))
    }

    async fn next_of(
        &self,
        run: &Run,
        visiting: &VisitRef,
        job: &Job,
        ran: &Execution,
        job_outcome: &JobOutcome,
        now: Timestamp,
    ) -> Result<Option<Change>, ChangeError> {
        if let (Target::Timer(_), 0) = (&job.target, visiting.visit) {
            return self.timer_change(run, job, now).await;
        }
        if run.status.is_closed() {
            return Ok(None);
        }
        let flow = self.flow_of(run).await?;
        let Some(fact) = self.fact(run, visiting, job, ran, job_outcome).await? else {
            return Ok(None);
        };
        Ok(advance(run, &fact, &Context { flow: &flow, now, draw: &Entropy(self) }))
    }

    /// Translates the end of a step's job or timer into the fact that the run's visit is waiting
    /// for.
    async fn fact(
        &self,
        run: &Run,
        visiting: &VisitRef,
        job: &Job,
        ran: &Execution,
        job_outcome: &JobOutcome,
    ) -> Result<Option<Fact>, ChangeError> {
        let visit = visiting.visit;
        if let Target::Timer(_) = job.target {
            return match run.state.visits.get(&visit) {
                Some(Visit { phase: VisitPhase::Child { run: child, .. }, jobs, .. })
                    if !jobs.contains(&job.id) =>
                {
                    self.child_fact(*child, visit).await
                }
                _ => Ok(Some(Fact::Elapsed { visit, job: job.id })),
            };
        }
        Ok(fact_of(ran.step_context.as_ref(), (visit, job.id), job_outcome, &ran.outcome))
    }

    /// Handles a timer that concerns the run as a whole: its deadline, its turn under its
    /// concurrency key, or a parent that no longer waits for it.
    async fn timer_change(
        &self,
        run: &Run,
        job: &Job,
        now: Timestamp,
    ) -> Result<Option<Change>, ChangeError> {
        run.readable().map_err(ChangeError::Unusable)?;
        // The end of a run needs no definition.
        let flow = self.flow_to_end(run).await?;
        let drawn = Entropy(self);
        let context = || Context { flow: &flow, now, draw: &drawn };
        if run.state.deadline_job == Some(job.id) {
            return Ok(advance(run, &Fact::Elapsed { visit: 0, job: job.id }, &context()));
        }
        if let Some(gate) = &run.state.gate {
            let (version, known) = self.store().gate(gate).await?;
            if let Some(change) = at_gate(run, job.id, (version, known), &context()) {
                return Ok(Some(change));
            }
        }
        if run.status.is_closed() {
            return Ok(None);
        }
        // Nobody waits for it any more: the step that started it is over.
        let Some((parent, visit)) = run.parent else { return Ok(None) };
        let parent = self.store().run(parent).await?;
        let waits = |parent: &Run| {
            let phase = parent.state.visits.get(&visit).map(|visit| &visit.phase);
            matches!(phase, Some(VisitPhase::Child { run: child, .. }) if *child == run.id)
        };
        let is_wanted = parent.is_some_and(|parent| {
            !parent.status.is_closed() && (parent.unreadable.is_some() || waits(&parent))
        });
        Ok(if is_wanted { None } else { advance(run, &Fact::Cancelled, &context()) })
    }

    async fn child_fact(&self, child: RunId, visit: u32) -> Result<Option<Fact>, ChangeError> {
        let Some(child) = self.store().run(child).await? else { return Ok(None) };
        child.readable().map_err(ChangeError::Unusable)?;
        let cancelled = || catch::error("cancelled", "the called run was cancelled");
        let result = match child.status {
            RunStatus::Completed => {
                Ok(child.state.output.unwrap_or(Payload::Json(serde_json::Value::Null)))
            }
            RunStatus::Failed | RunStatus::Cancelled => Err(child.error.unwrap_or_else(cancelled)),
            RunStatus::Queued
            | RunStatus::Running
            | RunStatus::Paused
            | RunStatus::Compensating => return Ok(None),
        };
        Ok(Some(Fact::ChildEnded { visit, result }))
    }

    /// Starts the sub-workflow runs that a change asks for. If the configuration has no such
    /// workflow, the parent's step fails in the same change.
    pub(super) async fn with_children(
        &self,
        mut change: Change,
        now: Timestamp,
    ) -> Result<Change, ChangeError> {
        let mut asked: Vec<(Start, u32)> =
            change.starts.drain(..).map(|start| (start, change.run.state.depth + 1)).collect();
        while let Some((Start { run, visit, workflow, input }, depth)) = asked.pop() {
            let Some(workflow) = self.config().workflow(&workflow) else {
                let error = catch::error(
                    "workflow_failed",
                    format!("the configuration has no workflow `{workflow}`"),
                );
                let flow = self.flow_of(&change.run).await?;
                change =
                    self.also(change, &Fact::ChildEnded { visit, result: Err(error) }, &flow, now);
                asked.extend(change.starts.drain(..).map(|start| (start, depth)));
                continue;
            };
            let (event, event_context) = (change.run.event, change.run.state.event_context.clone());
            let birth = NewRun {
                id: run,
                event,
                event_context,
                input,
                parent: Some((change.run.id, visit)),
                depth,
            };
            let mut child =
                start(birth, &Context { flow: &workflow.flow, now, draw: &Entropy(self) });
            // A child that starts children of its own does so by itself, one level at a time.
            child = Box::pin(self.with_children(child, now)).await?;
            change.children.push(child);
        }
        Ok(change)
    }

    /// Applies a further fact to a change that is not committed yet, and joins the two changes into
    /// one.
    fn also(&self, change: Change, fact: &Fact, flow: &Arc<Flow>, now: Timestamp) -> Change {
        let Some(next) = advance(&change.run, fact, &Context { flow, now, draw: &Entropy(self) })
        else {
            return change;
        };
        let unstored = |id: &JobId| change.jobs.iter().any(|job| job.id == *id);
        let cancel_jobs: Vec<_> =
            next.cancel_jobs.iter().copied().filter(|id| !unstored(id)).collect();
        let jobs = change
            .jobs
            .iter()
            .filter(|job| !next.cancel_jobs.contains(&job.id))
            .cloned()
            .chain(next.jobs)
            .collect();
        Change {
            run: next.run,
            is_new: change.is_new,
            ends: change.ends || next.ends,
            jobs,
            cancel_jobs: change.cancel_jobs.into_iter().chain(cancel_jobs).collect(),
            pause_jobs: change.pause_jobs.into_iter().chain(next.pause_jobs).collect(),
            resume_jobs: change.resume_jobs.into_iter().chain(next.resume_jobs).collect(),
            gate: next.gate.or(change.gate),
            retention: next.retention.or(change.retention),
            notes: change.notes.into_iter().chain(next.notes).collect(),
            tokens: change.tokens.into_iter().chain(next.tokens).collect(),
            spent: change.spent.or(next.spent),
            starts: next.starts,
            children: change.children,
        }
    }

    fn report_run(&self, run: &Run, status: &'static str) {
        metrics::run(&run.workflow, status);
        self.feed().publish(|| FeedEvent::Run {
            run: run.id,
            event: run.event,
            source: run.state.event_context["source"].as_str().unwrap_or("").to_owned(),
            workflow: run.workflow.clone(),
            status,
            error: run.error.as_ref().map(|error| format!("{}: {}", error.class, error.message)),
        });
    }

    /// Runs after a change was committed: wakes workers for the new jobs, and reports what started,
    /// paused or ended. If a worker made the change, it continues with the first due job itself.
    pub(super) async fn after_change(&self, change: &Change, by_worker: bool) {
        let now = self.clock().now();
        let (mut open, mut due) = (vec![change], Vec::new());
        while let Some(change) = open.pop() {
            open.extend(&change.children);
            let after = |due: &Due| match due {
                Due::After(delay) => *delay,
                Due::At(at) => at.since(now),
            };
            let announced =
                change.jobs.iter().filter(|job| change.pause_jobs.iter().all(|id| *id != job.id));
            due.extend(announced.map(|job| Wakeup::of(job.id, after(&job.due))));
            if !change.resume_jobs.is_empty() {
                due.push(Wakeup::LOOK);
            }
            if change.is_new {
                self.report_run(&change.run, "started");
            }
            if change.notes.iter().any(|note| note.kind == NoteKind::Paused) {
                self.report_run(&change.run, "paused");
                if let Some(error) = &change.run.error {
                    let (run, workflow) = (change.run.id, &change.run.workflow);
                    tracing::warn!(%run, workflow, error = error.message, "A failure paused a run. \
                        The run waits until it is resumed.");
                }
            }
            if change.ends {
                let (run, workflow) = (change.run.id, &change.run.workflow);
                self.report_run(&change.run, change.run.status.as_str());
                let error = change.run.error.as_ref().map_or("", |error| error.message.as_str());
                match change.run.status {
                    RunStatus::Failed => tracing::warn!(%run, workflow, error, "A run failed."),
                    status => tracing::info!(%run, workflow, %status, "A run finished."),
                }
            }
        }
        if let Some(first) = due.iter_mut().find(|wakeup| wakeup.after.is_zero()) {
            first.here = by_worker;
            self.0.has_new_due_job.store(true, Ordering::Release);
        }
        self.notify_workers(&due).await;
    }
}

/// Translates the end of a step's call into a fact for its run; `None` while the run must not hear
/// of it, such as before a retry.
pub fn fact_of(
    step_context: Option<&StepContext>,
    (visit, job): (u32, JobId),
    job_outcome: &JobOutcome,
    outcome: &Outcome,
) -> Option<Fact> {
    let error = match (&job_outcome.next_state, outcome) {
        (NextState::Done, Outcome::Answered(response)) if response.cut == Some(Cut::AtCap) => {
            RunError {
                status: Some(response.status),
                attempts: job_outcome.sent,
                job: Some(job.to_string()),
                ..catch::error("response_too_large", "the response is larger than the size limit")
            }
        }
        (NextState::Done, Outcome::Answered(response)) => {
            let body = step_context
                .map_or_else(|| Payload::of(&response.as_body()), |step| step.body(response));
            return Some(Fact::Answered { visit, job, status: response.status, body });
        }
        (NextState::Dead { .. } | NextState::FailedIntoRun { .. }, outcome) => {
            let failure = match outcome {
                Outcome::Answered(response) => {
                    match job_outcome.attempt.as_ref().and_then(|attempt| attempt.code) {
                        Some(FailureCode::Expectation) => Failure::Expectation(response.status),
                        _ => Failure::Status(response.status),
                    }
                }
                // An interrupted call that is not retried could be made only once, so its outcome
                // is unknown.
                Outcome::Failed(Failure::Interrupted(why)) => Failure::UnknownOutcome(why.clone()),
                Outcome::Failed(failure) => failure.clone(),
                Outcome::Released
                | Outcome::NothingToSend
                | Outcome::Parked(_)
                | Outcome::Postponed(_) => return None,
            };
            RunError {
                app: step_context.and_then(|step| step.receiver_error.clone()),
                ..of_failure(&failure, job, job_outcome.sent)
            }
        }
        _ => return None,
    };
    Some(Fact::Failed { visit, job, error })
}

/// Builds what expressions of a run read as `$$.event`: source, type, headers and time of receipt.
fn event_context(event: &Event) -> Value {
    let headers: serde_json::Map<String, Value> = event
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), Value::String(value.clone())))
        .collect();
    json!({
        "source": event.source,
        "type": event.kind,
        "received_at": event.created_at.rfc3339(),
        "headers": headers,
    })
}
