//! A step of a run: its HTTP call, or the event that an `emit` step publishes.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;

use super::{Doing, FALLBACK, TargetKind};
use crate::decide::retry::RetryPolicy;
use crate::decide::settle::{Log, OutcomeRules};
use crate::decide::workflow::data::ExpressionScope;
use crate::decide::workflow::flow::{Call, Flow, Reads};
use crate::decide::workflow::step_type::Emission;
use crate::deliver::compose::Signing;
use crate::deliver::step::{StepRequest, compose_step, operation};
use crate::engine::directory::Directory;
use crate::engine::execute::Execution;
use crate::engine::flows::FlowError;
use crate::engine::{Engine, NotAccepted};
use crate::model::run::{Visit, VisitPhase};
use crate::model::{
    Body, Cut, Failure, Inbound, Job, Outcome, Payload, Response, Run, Target, Timestamp,
};

/// Calls and events of steps.
pub struct Step;

#[async_trait]
impl TargetKind for Step {
    fn sends(&self) -> bool {
        true
    }

    fn changes_run(&self) -> bool {
        true
    }

    /// A run keeps the definition that it started with.
    fn missing(&self, _: &Directory, _: &str) -> Option<String> {
        None
    }

    async fn has_policies(&self, engine: &Engine, job: &Job, run: Option<&Run>) -> bool {
        let (Some(visiting), Some(run)) = (job.target.visit_ref(), run) else { return false };
        let at = run.state.visits.get(&visiting.visit).map(|visit| visit.at.clone());
        let flow = engine.flow_of(run).await.ok();
        let (Some(at), Some(flow)) = (at, flow) else { return false };
        StepContext::of(&flow, &at, None).retry().len() > 1
    }

    async fn execute(&self, engine: &Engine, doing: Doing<'_>) -> (Outcome, Option<StepContext>) {
        engine.call_step(doing).await
    }

    fn rules<'a>(&self, _: &'a Engine, _: &Job, ran: &'a Execution) -> OutcomeRules<'a> {
        match &ran.step_context {
            Some(step) => step.rules(&ran.before),
            None => OutcomeRules::of(&FALLBACK),
        }
    }
}

/// How the step of a run judges the outcome of its call: its place in the definition, and what the
/// response says.
pub struct StepContext {
    flow: Arc<Flow>,
    position: Vec<usize>,
    /// The run's deadline. A retry that would come later is not made; the step fails at once
    /// instead.
    pub deadline_at: Option<Timestamp>,
    /// The response does not meet the step's `expect.when`, whatever its status.
    is_unexpected: bool,
    /// The error name that the receiver put into its response, at the step's `error_path`.
    pub receiver_error: Option<String>,
}

impl StepContext {
    fn of(flow: &Arc<Flow>, at: &[usize], deadline_at: Option<Timestamp>) -> Self {
        Self {
            flow: Arc::clone(flow),
            position: at.to_vec(),
            deadline_at,
            is_unexpected: false,
            receiver_error: None,
        }
    }

    /// Judges the outcome of a step's call by what the step expects. Returns the outcome, which may
    /// have become a failure, and what settling it needs.
    pub fn judge(flow: &Arc<Flow>, run: &Run, seq: u32, outcome: Outcome) -> (Outcome, Self) {
        let visit = run.state.visits.get(&seq);
        let mut step_context =
            Self::of(flow, visit.map_or(&[], |visit| &visit.at), run.state.deadline_at);
        let (Some(visit), Some(step)) = (visit, flow.step(&step_context.position)) else {
            return (outcome, step_context);
        };
        let Some(call) = step.kind.call() else { return (outcome, step_context) };
        let is_notice = matches!(visit.phase, VisitPhase::Call { token: Some(_), .. });
        let outcome = fail_if_unusable(outcome, is_notice, call.reads);
        if let Outcome::Answered(response) = &outcome {
            let body = Payload::of(&response.as_body());
            let answer = json!({ "status": response.status, "body": body.clone().into_value() });
            let view = ExpressionScope::of(run, seq, &step.name, &body).with("response", answer);
            step_context.is_unexpected =
                !is_notice && call.expect.when.as_ref().is_some_and(|when| !view.holds(when));
            step_context.receiver_error = receiver_error(call, response.status, &body);
        }
        (outcome, step_context)
    }

    /// Parses a response's body as the step's `reads` setting says.
    pub fn body(&self, response: &Response) -> Payload {
        match self.call().map(|call| call.reads) {
            Some(Reads::Text) => {
                Payload::Text(String::from_utf8_lossy(&response.body).into_owned())
            }
            _ => Payload::of(&response.as_body()),
        }
    }

    /// The HTTP call of the step; `None` for an `emit` step, which makes none.
    pub(super) fn call(&self) -> Option<&Call> {
        self.flow.call(&self.position)
    }

    /// The retry policies of the step; empty means that no failure is retried.
    pub(super) fn retry(&self) -> &[RetryPolicy] {
        self.flow.step(&self.position).map_or(&[], |step| step.kind.retry())
    }

    /// The rules by which the outcome is settled: retries, expected statuses, and what is stored of
    /// the response.
    pub fn rules<'a>(&'a self, before: &'a [(&'static str, Option<u16>)]) -> OutcomeRules<'a> {
        let call = self.call();
        OutcomeRules {
            retry: self.retry(),
            before,
            success: call.map_or(&[], |call| &call.expect.status),
            is_unexpected: self.is_unexpected,
            app: self.receiver_error.as_deref(),
            at_most_once: call.is_some_and(|call| call.at_most_once),
            log: call.map_or(Log::Full, |call| call.log),
            redact: call.map_or(&[], |call| &call.redact),
        }
    }
}

/// Turns a response that is incomplete, or not JSON where JSON is required, into a failure. The
/// response of a `callback` step's notify call is not used, so it may be incomplete.
fn fail_if_unusable(outcome: Outcome, is_notice: bool, reads: Reads) -> Outcome {
    match outcome {
        Outcome::Answered(response) if is_notice => {
            Outcome::Answered(Response { cut: None, ..response })
        }
        Outcome::Answered(response) if response.cut == Some(Cut::BrokeOff) => {
            Outcome::Failed(Failure::Protocol("the response body was cut off".to_owned()))
        }
        Outcome::Answered(response)
            if reads == Reads::Json
                && (200..300).contains(&response.status)
                && !response.as_body().is_json_or_empty() =>
        {
            Outcome::Failed(Failure::Protocol("the response is not JSON".to_owned()))
        }
        other => other,
    }
}

impl Engine {
    /// Executes the job of a step, if its run still waits for it: the HTTP call, or the event of an
    /// `emit` step.
    async fn call_step(
        &self,
        Doing { job, event, run, end, .. }: Doing<'_>,
    ) -> (Outcome, Option<StepContext>) {
        let Target::Step(visiting) = &job.target else { return (Outcome::NothingToSend, None) };
        let Some(run) = run.filter(|run| !run.status.is_closed()) else {
            return (Outcome::NothingToSend, None);
        };
        if let Err(why) = run.readable() {
            return (Outcome::Parked(why), None);
        }
        let Some(visit) =
            run.state.visits.get(&visiting.visit).filter(|visit| visit.jobs.contains(&job.id))
        else {
            return (Outcome::NothingToSend, None);
        };
        let flow = match self.flow_of(run).await {
            Ok(flow) => flow,
            Err(FlowError::Store(error)) => return (Outcome::Postponed(error.to_string()), None),
            Err(FlowError::Unusable(why)) => {
                tracing::error!(run = %run.id, why, "A run cannot continue. Its job is parked and \
                    tried again later.");
                return (Outcome::Parked(why), None);
            }
        };
        let Some(step) = flow.step(&visit.at) else { return (Outcome::NothingToSend, None) };
        let step_context = StepContext::of(&flow, &visit.at, run.state.deadline_at);
        if let Some(emit) = step.kind.emission() {
            return (
                self.emit(run, visiting.visit, visit, &step.name, emit).await,
                Some(step_context),
            );
        }
        let Some(call) = step.kind.call() else { return (Outcome::NothingToSend, None) };
        if call.at_most_once && job.interrupted > 0 {
            let why = "the worker stopped before it recorded a response".to_owned();
            return (Outcome::Failed(Failure::UnknownOutcome(why)), Some(step_context));
        }
        let config = self.config();
        let around = Signing {
            signing_key: config.delivery.signing_key.as_ref().map(|key| key.0.as_slice()),
            qhook_headers: config.compat.qhook_headers,
            now: self.clock().now(),
        };
        let (public_url, address_policy) =
            (config.server.public_url.as_ref(), &config.server.policy);
        let calling = StepRequest {
            job,
            event,
            run,
            seq: visiting.visit,
            visit,
            step,
            call,
            public_url,
            policy: address_policy,
        };
        let sent = self.send(compose_step(&calling, around), end).await;
        let (outcome, step_context) = StepContext::judge(&flow, run, visiting.visit, sent);
        (outcome, Some(step_context))
    }

    /// Publishes the event of an `emit` step. Its deduplication key comes from the visit, so
    /// repeats store no second event.
    async fn emit(
        &self,
        run: &Run,
        seq: u32,
        visit: &Visit,
        step: &str,
        emit: &Emission,
    ) -> Outcome {
        let rendered = match &emit.body {
            Some(template) => {
                ExpressionScope::of(run, seq, step, &visit.payload).render(template).map(Some)
            }
            None => Ok(None),
        };
        let body = match rendered {
            Ok(rendered) => Body::new(rendered.unwrap_or_else(|| visit.payload.clone()).to_body()),
            Err(why) => return Outcome::Failed(Failure::Template(why.message)),
        };
        let schema = self.config().source(&emit.source).and_then(|source| source.schema.as_ref());
        if let Some(schema) = schema {
            let violations = match body.parsed_unless_text() {
                Some(json) => schema.violations(json),
                None => vec!["the payload is not JSON".to_owned()],
            };
            if !violations.is_empty() {
                let why = format!(
                    "the event does not satisfy the schema of source `{}`: {}",
                    emit.source,
                    violations.join("; ")
                );
                return Outcome::Failed(Failure::Compose(why));
            }
        }
        let inbound = Inbound {
            source: emit.source.clone(),
            kind: emit.event.clone(),
            type_aliases: Vec::new(),
            headers: Vec::new(),
            body,
            dedupe_key: Some(operation(run, seq, visit, 0)),
            idempotency_key: None,
        };
        match self.accept(inbound).await {
            Ok(receipt) => Outcome::Answered(Response {
                content_type: Some("application/json".to_owned()),
                ..Response::of(202, json!({ "event_id": receipt.event.to_string() }).to_string())
            }),
            Err(
                why @ (NotAccepted::Starting
                | NotAccepted::Stopping
                | NotAccepted::Unavailable
                | NotAccepted::Full),
            ) => Outcome::Postponed(why.to_string()),
            Err(why @ (NotAccepted::Conflict(_) | NotAccepted::Unstorable(_))) => {
                Outcome::Failed(Failure::Compose(why.to_string()))
            }
        }
    }
}

/// Reads the receiver's own error name from a response; `None` for a success without `expect.when`.
fn receiver_error(call: &Call, status: u16, body: &Payload) -> Option<String> {
    if (200..300).contains(&status) && call.expect.when.is_none() {
        return None;
    }
    let found = call.error_path.one(body.view().ok()?)?;
    found.as_str().or_else(|| found.as_number()).map(std::borrow::Cow::into_owned)
}
