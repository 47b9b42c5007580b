//! Builds the HTTP request of a delivery from job, event and handler. Pure: the same attempt gives
//! the same bytes.

use std::cell::Cell;

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::client::RESPONSE_BYTES_MAX;
use crate::config::Handler;
use crate::decide::operand::Scope;
use crate::decide::signature::signature;
use crate::model::request::Progress;
use crate::model::{AttemptId, Event, Failure, Job, Method, Request, Timestamp, event, trace};

/// What the request of a delivery depends on besides its job, event and handler.
#[derive(Debug, Clone, Copy)]
pub struct Signing<'a> {
    /// The key that signs requests; `None` sends them unsigned.
    pub signing_key: Option<&'a [u8]>,
    /// Whether to send `X-Qhook-*` headers beside `X-Tidehook-*`.
    pub qhook_headers: bool,
    /// Wall time, for the signature's timestamp.
    pub now: Timestamp,
}

/// Builds the request of a handler's delivery.
///
/// # Errors
/// The transform cannot be rendered, or the request cannot be built.
pub fn compose(
    job: &Job,
    event: &Event,
    handler: &Handler,
    around: Signing<'_>,
) -> Result<Request, Failure> {
    let body = body(job, event, handler)?;
    let mut headers = Headers(Vec::with_capacity(20));
    if let Some(content_type) = content_type(event, handler) {
        headers.set("Content-Type", &content_type);
    }
    headers.identify(job, event, &handler.name, &delivery_id(event, &handler.name), around);
    headers.set("X-Tidehook-Event-Type", &event.kind);
    headers.set("X-Tidehook-Source", &event.source);
    // What the source keeps of a request goes along: it names the event as the provider does. A
    // message that is signed here has our id: verifiers would look for another one under the older
    // names first.
    let is_foreign_id = |name: &str| around.signing_key.is_some() && name.starts_with("svix-");
    for (name, value) in event
        .headers
        .iter()
        .filter(|(name, _)| !is_foreign_id(name) && !OWN.contains(&name.as_str()))
    {
        headers.set(name, value);
    }
    headers.sign(&event.id.to_string(), &body, around);
    for (name, value) in &handler.headers {
        headers.set(name, value);
    }
    Ok(Request {
        url: handler.url.clone(),
        method: handler.method,
        headers: headers.0,
        body,
        timeout: handler.timeout,
        at_most_once: false,
        response_bytes_max: RESPONSE_BYTES_MAX,
        destination: handler.name.clone(),
        progress: Progress::default(),
    })
}

/// Headers kept from the incoming request that each delivery sets anew.
const OWN: [&str; 2] = ["content-type", trace::TRACEPARENT];

/// Headers without repeats: a later one replaces an earlier one of the same name.
#[derive(Default)]
pub(super) struct Headers(Vec<(String, String)>);

impl Headers {
    pub(super) fn into_list(self) -> Vec<(String, String)> {
        self.0
    }

    /// Names the job, its event and this attempt, for logs and for telling repeats apart.
    pub(super) fn identify(
        &mut self,
        job: &Job,
        event: &Event,
        handler: &str,
        delivery_id: &str,
        around: Signing<'_>,
    ) {
        self.set_own("Job-ID", &job.id.to_string(), around);
        self.set_own("Event-ID", &event.id.to_string(), around);
        self.set_own("Handler", handler, around);
        self.set_own("Attempt", &(job.attempt + 1).to_string(), around);
        self.set_own("Delivery-ID", delivery_id, around);
        self.set("X-Tidehook-Attempt-ID", &AttemptId::of(job.id, job.claim).to_string());
        self.set("traceparent", &traceparent(event, job));
    }

    /// Sets a header that qhook knows too: under both prefixes, unless the configuration turned
    /// qhook's off.
    pub(super) fn set_own(&mut self, name: &str, value: &str, around: Signing<'_>) {
        self.set(&format!("X-Tidehook-{name}"), value);
        if around.qhook_headers {
            self.set(&format!("X-Qhook-{name}"), value);
        }
    }

    /// Signs the request as in Standard Webhooks, if there is a key. `id` is the same for all
    /// attempts.
    pub(super) fn sign(&mut self, id: &str, body: &[u8], around: Signing<'_>) {
        let Some(key) = around.signing_key else { return };
        let timestamp = around.now.seconds().to_string();
        self.set("webhook-id", id);
        self.set("webhook-timestamp", &timestamp);
        self.set("webhook-signature", &signature(key, id, &timestamp, body));
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        let value = sendable(value);
        match self.0.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some(old) => *old = (name.to_owned(), value),
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

/// A value in a form that fits a header. Bytes that cannot stand there are percent-encoded, as in
/// the CloudEvents HTTP binding.
fn sendable(value: &str) -> String {
    use std::fmt::Write;
    if value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return value.to_owned();
    }
    let mut out = String::with_capacity(value.len() * 3);
    for byte in value.bytes() {
        match byte {
            b' '..=b'~' => out.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// The body: as received without a template, else what the template yields.
fn body(job: &Job, event: &Event, handler: &Handler) -> Result<Bytes, Failure> {
    if handler.method == Method::Get {
        return Ok(Bytes::new());
    }
    let Some(template) = &handler.transform else { return Ok(event.body.bytes().clone()) };
    let payload = event.body.view().map_err(|why| why.why.as_str());
    let context = json!({
        "event": { "id": event.id.to_string(), "source": event.source, "type": event.kind,
                   "created_at": event.created_at.rfc3339() },
        "job": { "id": job.id.to_string(), "handler": handler.name },
    });
    // Time and chance are the event's, so that every attempt sends the same bytes.
    let scope = Scope {
        payload,
        context: &context,
        now: event.created_at,
        seed: job.id.0.0,
        drawn: Cell::new(0),
    };
    template.render(&scope).map(|rendered| Bytes::from(rendered.body)).map_err(Failure::Template)
}

/// The content type: that of the received body if it passes through, JSON if a template makes JSON
/// or if the sender named none. An empty body without a type has none.
fn content_type(event: &Event, handler: &Handler) -> Option<String> {
    let stored = event::content_type(&event.headers).filter(|stored| !stored.trim().is_empty());
    match (&handler.transform, stored) {
        (None, Some(stored)) => Some(stored.to_owned()),
        (None, None) if event.body.bytes().is_empty() => None,
        (Some(template), _) if !template.is_json() => Some("text/plain; charset=utf-8".to_owned()),
        _ => Some("application/json".to_owned()),
    }
}

/// A hash that is distinct per event and handler and the same for all attempts: its first 16 bytes
/// in hexadecimal.
fn delivery_id(event: &Event, handler: &str) -> String {
    let hash = Sha256::digest(format!("{}:{handler}", event.id));
    hex::encode(&hash[..16])
}

/// The W3C Trace Context header: the sender's trace if the event came with one, else one trace per
/// event; a span of its own per attempt.
fn traceparent(event: &Event, job: &Job) -> String {
    let came = event.headers.iter().find(|(name, _)| name == trace::TRACEPARENT);
    let (trace, flags) = match came.and_then(|(_, value)| trace::parse(value)) {
        Some((trace, flags)) => (trace.to_owned(), flags),
        None => (format!("{:032x}", event.id.0.0.max(1)), "01"),
    };
    let span = Sha256::digest(format!("{}:{}", job.id, job.claim));
    format!("00-{trace}-{}-{flags}", hex::encode(&span[..8]))
}
