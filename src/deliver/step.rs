//! A run's step into a request. Pure: each attempt sends the same bytes under the same key.

use bytes::Bytes;
use serde_json::json;
use url::Url;

use super::client::STEP_RESPONSE_BYTES_MAX;
use super::compose::{Around, Headers, traceparent};
use crate::decide::signature::signature;
use crate::decide::workflow::flow::Call;
use crate::model::run::{Phase, Visit};
use crate::model::{AttemptId, Event, Job, Method, Payload, Request, Run, Target};

/// The destination of every step: the address rules of the server.
pub const DESTINATION: &str = "steps of workflows";

/// What is called, for whom.
pub struct Calling<'a> {
    /// The job.
    pub job: &'a Job,
    /// The event behind the run.
    pub event: &'a Event,
    /// The run.
    pub run: &'a Run,
    /// The visit's number.
    pub seq: u32,
    /// The visit.
    pub visit: &'a Visit,
    /// The call, with the secrets of today.
    pub call: &'a Call,
    /// Where this server is reached from outside.
    pub public_url: Option<&'a Url>,
}

/// Builds the request of a step.
///
/// # Errors
/// It cannot be built: a sentence for people.
pub fn compose_step(calling: &Calling<'_>, around: Around<'_>) -> Result<Request, String> {
    let Calling { job, event, run, seq, visit, call, .. } = calling;
    let token = match &visit.phase {
        Phase::Call { token, .. } => token.as_deref(),
        _ => return Err("the step waits for no call".to_owned()),
    };
    let body = if call.method == Method::Get { Bytes::new() } else { Bytes::from(body(calling, token)) };
    let mut headers = Headers::default();
    let is_text = token.is_none() && matches!((&visit.phase, &visit.payload), (Phase::Call { body: None, .. }, Payload::Text(_)));
    headers.set("Content-Type", if is_text { "text/plain; charset=utf-8" } else { "application/json" });
    let key = operation(run, *seq, visit);
    let step = match &job.target {
        Target::Step(visiting) => visiting.step.clone(),
        other => other.name().to_owned(),
    };
    let facts = [
        ("Job-ID", job.id.to_string()),
        ("Event-ID", event.id.to_string()),
        ("Handler", step),
        ("Attempt", (job.attempt + 1).to_string()),
        ("Delivery-ID", key.clone()),
        ("Run-ID", run.id.to_string()),
    ];
    for (name, value) in &facts {
        headers.set(&format!("X-Tidehook-{name}"), value);
        if around.qhook_headers && *name != "Run-ID" {
            headers.set(&format!("X-Qhook-{name}"), value);
        }
    }
    headers.set("X-Tidehook-Attempt-ID", &AttemptId::of(job.id, job.claim).to_string());
    headers.set("Idempotency-Key", &key);
    headers.set("traceparent", &traceparent(event, job));
    if let Some(token) = token {
        headers.set("X-Tidehook-Callback-Token", token);
        if around.qhook_headers {
            headers.set("X-Qhook-Callback-Token", token);
        }
    }
    if let Some(signing) = around.signing_key {
        let timestamp = around.now.seconds().to_string();
        headers.set("webhook-id", &key);
        headers.set("webhook-timestamp", &timestamp);
        headers.set("webhook-signature", &signature(signing, &key, &timestamp, &body));
    }
    for (name, value) in &call.headers {
        headers.set(name, value);
    }
    Ok(Request {
        url: call.url.clone(),
        method: call.method,
        headers: headers.into_list(),
        body,
        timeout: call.timeout,
        response_bytes_max: STEP_RESPONSE_BYTES_MAX,
        destination: DESTINATION.to_owned(),
    })
}

/// The operation: the same for all attempts of a visit, another one for another visit.
fn operation(run: &Run, seq: u32, visit: &Visit) -> String {
    let seq = visit.operation.unwrap_or(seq);
    match visit.within {
        Some((_, place)) => format!("{}-{seq}-{place}", run.id),
        None => format!("{}-{seq}", run.id),
    }
}

fn body(calling: &Calling<'_>, token: Option<&str>) -> String {
    let Calling { run, visit, job, public_url, .. } = calling;
    let Some(token) = token else {
        return match &visit.phase {
            Phase::Call { body: Some(body), .. } => body.clone(),
            _ => visit.payload.to_body(),
        };
    };
    let step = job.target.name().rsplit('/').next().unwrap_or_default().to_owned();
    let mut notice = json!({
        "callback_token": token,
        "workflow": run.workflow,
        "step": step,
        "run_id": run.id.to_string(),
        "payload": visit.payload.clone().into_value(),
    });
    if let Some(base) = public_url {
        notice["callback_url"] = json!(format!("{}/callback/{token}", base.as_str().trim_end_matches('/')));
    }
    notice.to_string()
}
