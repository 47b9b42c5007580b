//! `tidehook test-step`: runs one step of a workflow against a made-up answer.
//!
//! It shows the request that the step sends, what it makes of the answer, and which step follows.
//! Nothing is called and nothing is stored.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use serde_json::{Value, json};
use ulid::Ulid;

use super::runs::read;
use super::{Done, Global, context, print};
use crate::config::{Config, STARS};
use crate::decide::retry::RetryPolicy;
use crate::decide::settle::{OutcomeRules, Timing, settle};
use crate::decide::workflow::data::ExpressionScope;
use crate::decide::workflow::machine::{NewRun, at_step};
use crate::decide::workflow::{Context, Draw, Fact, Flow, advance};
use crate::deliver::compose::Signing;
use crate::deliver::step::{StepRequest, compose_step};
use crate::engine::advance::fact_of;
use crate::engine::targets::step::StepContext;
use crate::model::Body;
use crate::model::history::Note;
use crate::model::history::NoteKind;
use crate::model::run::{Change, RunJob, VisitPhase};
use crate::model::{
    Clock, Event, EventId, Failure, Job, JobId, Outcome, Payload, Request, Response, Run, RunId,
    SystemClock, Timestamp,
};

/// Run one step of a workflow against a mock response
#[derive(Debug, Args)]
pub(super) struct TestStep {
    /// The name of the workflow
    workflow: String,
    /// The name of the step
    step: String,
    /// File with the payload of the step, `-` for standard input; an empty object if omitted
    #[arg(short, long, value_name = "FILE")]
    payload: Option<PathBuf>,
    /// File with the body of the response; an empty object if omitted
    #[arg(short, long, value_name = "FILE")]
    answer: Option<PathBuf>,
    /// The HTTP status of the response
    #[arg(
        short, long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(100..600),
    )]
    status: u16,
    /// Simulate a timeout: the call gets no response
    #[arg(long, conflicts_with_all = ["answer", "status"])]
    times_out: bool,
}

/// Ids that count up and fixed values in place of chance, so that a dry run of a step prints the
/// same each time.
struct FixedIds(Cell<u128>);

impl Draw for FixedIds {
    fn id(&self) -> Ulid {
        self.0.set(self.0.get() + 1);
        Ulid(self.0.get())
    }

    fn token(&self) -> String {
        "MADE".repeat(13)
    }

    fn chance(&self) -> f64 {
        0.5
    }
}

pub(super) fn run(test: &TestStep, global: &Global) -> Done {
    let config = context::configuration(global, false)?;
    let workflow = context::workflow(&config, &test.workflow)?;
    let payload = test.payload.as_deref().map(read).transpose()?.unwrap_or_else(|| b"{}".to_vec());
    let answer = test.answer.as_deref().map(read).transpose()?.unwrap_or_else(|| b"{}".to_vec());
    let shown = play(&config, &Arc::new(workflow.flow.clone()), test, &payload, answer)?;
    match global.json {
        true => print::json(&shown),
        false => show(&shown),
    }
    Ok(())
}

fn play(
    config: &Config,
    flow: &Arc<Flow>,
    test: &TestStep,
    payload: &[u8],
    answer: Vec<u8>,
) -> anyhow::Result<Value> {
    let at = flow.steps.iter().position(|step| step.name == test.step);
    let at = at.ok_or_else(|| {
        let names: Vec<&str> = flow.steps.iter().map(|step| step.name.as_str()).collect();
        anyhow!("the workflow has no step `{}`; its steps are {}", test.step, names.join(", "))
    })?;
    let now = SystemClock.now();
    let draw = FixedIds(Cell::new(u128::from(u64::MAX)));
    let context = Context { flow, now, draw: &draw };
    let event = event(now, payload);
    let birth = NewRun {
        id: RunId(draw.id()),
        event: event.id,
        event_context: json!({ "source": event.source, "type": event.kind }),
        input: Payload::read(payload.to_vec()),
        parent: None,
        depth: 0,
    };
    let entered = at_step(birth, at, &context);
    let Some((seq, visit)) = entered.run.state.visits.iter().find(|(_, visit)| visit.at == [at])
    else {
        return Ok(outcome(&entered, None, flow, 1));
    };
    if let Some(emit) = flow.steps[at].kind.emission() {
        let view = ExpressionScope::of(&entered.run, *seq, &test.step, &visit.payload);
        let rendered = emit.body.as_ref().map(|body| view.render(body)).transpose();
        let job = visit.jobs.first().copied().unwrap_or(JobId(Ulid(0)));
        let (fact, emits) = match rendered {
            Ok(body) => {
                let body = body.unwrap_or_else(|| visit.payload.clone()).into_value();
                let emits = json!({ "source": emit.source, "type": emit.event, "body": body });
                (
                    Fact::Answered {
                        visit: *seq,
                        job,
                        status: 202,
                        body: Payload::Json(Value::Null),
                    },
                    emits,
                )
            }
            Err(error) => (Fact::Failed { visit: *seq, job, error }, Value::Null),
        };
        let next = advance(&entered.run, &fact, &context).unwrap_or_else(|| entered.clone());
        let mut shown = outcome(&next, None, flow, *seq);
        shown["emits"] = emits;
        return Ok(shown);
    }
    let call = match (flow.call(&visit.at), &visit.phase) {
        (Some(call), VisitPhase::Call { .. }) => call,
        _ => return Ok(outcome(&entered, None, flow, *seq)),
    };
    let Some(job) = entered.jobs.iter().find(|job| visit.jobs.contains(&job.id)) else {
        return Ok(outcome(&entered, None, flow, *seq));
    };
    let job = job_of(job, &event, now);
    let step = &flow.steps[at];
    let around = Signing { signing_key: None, qhook_headers: false, now };
    let (public_url, policy) = (config.server.public_url.as_ref(), &config.server.policy);
    let calling = StepRequest {
        job: &job,
        event: &event,
        run: &entered.run,
        seq: *seq,
        visit,
        step,
        call,
        public_url,
        policy,
    };
    let (request, sent) = match compose_step(&calling, around) {
        Ok(request) if test.times_out => (
            Some(request),
            Outcome::Failed(Failure::Timeout(crate::model::attempt::CallPhase::Headers)),
        ),
        Ok(request) => (Some(request), Outcome::Answered(Response::of(test.status, answer))),
        Err(why) => (None, Outcome::Failed(why)),
    };
    let fact = call_fact(flow, &entered.run, (*seq, &job), sent, now);
    let next = fact
        .and_then(|fact| advance(&entered.run, &fact, &context))
        .unwrap_or_else(|| entered.clone());
    let mut shown = outcome(&next, request.as_ref(), flow, *seq);
    // What a variable put into the URL may be a secret, as everywhere else.
    if request.is_some() && call.shown_url.contains(STARS) {
        shown["request"]["url"] = call.shown_url.clone().into();
    }
    Ok(shown)
}

/// The fact that the state machine gets for an outcome, as if no retries were left.
fn call_fact(
    flow: &Arc<Flow>,
    run: &Run,
    (visit, job): (u32, &Job),
    sent: Outcome,
    now: Timestamp,
) -> Option<Fact> {
    let timing = Timing { duration: Duration::ZERO, now };
    let (outcome, step_context) = StepContext::judge(flow, run, visit, sent);
    let once = [RetryPolicy { max: 1, ..RetryPolicy::default() }];
    let job_outcome = settle(
        job,
        &outcome,
        OutcomeRules { retry: &once, ..step_context.rules(&[]) },
        timing,
        0.5,
    );
    fact_of(Some(&step_context), (visit, job.id), &job_outcome, &outcome)
}

fn event(now: Timestamp, payload: &[u8]) -> Event {
    Event {
        id: EventId(Ulid(1)),
        source: "test-step".to_owned(),
        kind: "test-step".to_owned(),
        headers: Vec::new(),
        body: Body::new(payload.to_vec()),
        unique_key: None,
        created_at: now,
    }
}

fn job_of(job: &RunJob, event: &Event, now: Timestamp) -> Job {
    Job::leased(job.id, event.id, job.target.clone(), now, now)
}

/// The result as data: the request, what became of the step, and the state of the run.
fn outcome(change: &Change, request: Option<&Request>, flow: &Flow, seq: u32) -> Value {
    let run = &change.run;
    // What came of the steps after it is not this step's.
    let its: Vec<&Note> = change.notes.iter().filter(|note| note.visit == Some(seq)).collect();
    let notes: Vec<NoteKind> = its.iter().map(|note| note.kind).collect();
    let request = request.map(|request| {
        let headers: serde_json::Map<String, Value> = request
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), Value::String(shown(name, value))))
            .collect();
        json!({
            "method": request.method.to_string(),
            "url": request.url.as_str(),
            "headers": headers,
            "body": String::from_utf8_lossy(&request.body),
        })
    });
    let failed =
        its.iter().find(|note| note.kind == NoteKind::StepFailed).map(|note| note.data.clone());
    let step = [
        (NoteKind::StepFailed, "failed"),
        (NoteKind::StepSkipped, "skipped"),
        (NoteKind::StepCompleted, "completed"),
    ]
    .into_iter()
    .find(|(kind, _)| notes.contains(kind))
    .map_or("waits", |(_, status)| status);
    let next = run.state.visits.values().map(|visit| {
        json!({
            "step": flow.place(&visit.at),
            "payload": visit.payload.clone().into_value(),
        })
    });
    json!({
        "request": request,
        "step": step,
        "failed": failed,
        "caught": notes.contains(&NoteKind::Caught) || notes.contains(&NoteKind::Continued),
        "next": next.collect::<Vec<_>>(),
        "run": run.status.as_str(),
        "vars": run.state.vars,
        "output": run.state.output.clone().map(Payload::into_value),
    })
}

/// The value of a header as it is printed: stars for one that may be a secret.
fn shown(name: &str, value: &str) -> String {
    let name = name.to_ascii_lowercase();
    let is_secret = ["authorization", "cookie", "secret", "token", "api-key", "apikey", "password"]
        .iter()
        .any(|w| name.contains(w));
    if is_secret { "***".to_owned() } else { value.to_owned() }
}

fn show(shown: &Value) {
    let text = |value: &Value| print::one_line(&print::text(value));
    if let Value::Object(request) = &shown["request"] {
        print::line(&format!("sends   {} {}", text(&request["method"]), text(&request["url"])));
        for (name, value) in request["headers"].as_object().into_iter().flatten() {
            print::line(&format!("        {}: {}", print::one_line(name), text(value)));
        }
        print::line(&format!("        {}", text(&request["body"])));
    }
    if let Value::Object(emits) = &shown["emits"] {
        let (kind, source) = (text(&emits["type"]), text(&emits["source"]));
        print::line(&format!(
            "emits   {kind} of {source} with {}",
            print::one_line(&emits["body"].to_string())
        ));
    }
    let why = match &shown["failed"] {
        Value::Object(failed) => {
            format!(": {} ({})", text(&failed["error"]), text(&failed["class"]))
        }
        _ => String::new(),
    };
    let caught = if shown["caught"] == true { ", caught" } else { "" };
    print::line(&format!("step    {}{why}{caught}", text(&shown["step"])));
    for next in shown["next"].as_array().into_iter().flatten() {
        print::line(&format!(
            "next    {} with {}",
            text(&next["step"]),
            print::one_line(&next["payload"].to_string())
        ));
    }
    let output = if shown["output"].is_null() {
        String::new()
    } else {
        format!(" with {}", print::one_line(&shown["output"].to_string()))
    };
    print::line(&format!("run     {}{output}", text(&shown["run"])));
}
