//! `/api/queues`: consumers receive messages of pull queues and acknowledge them; operators see
//! what the queues hold, peek, drain, and try dead messages again.
//!
//! Consumers show the queue's `api_key`, operators the token of the management API.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, RawQuery, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::page::Query;
use super::{Allowed, State};
use crate::config::Queue;
use crate::engine::pull::{Answered, Message, Named, Verdict};
use crate::http::auth;
use crate::http::error::ApiError;
use crate::http::path::Path;
use crate::model::time::parse_duration;
use crate::model::{Body, Job, LaneId};
use crate::store::{QueueCounts, Retry};

/// The longest long poll, and the longest in a function, where waiting is paid for.
const WAIT_MAX: Duration = Duration::from_secs(30);
const WAIT_MAX_IN_FUNCTIONS: Duration = Duration::from_secs(5);
/// The most messages of one receive.
const BATCH_MAX: u32 = 100;
/// The most messages that one request may acknowledge.
const NAMED_MAX: usize = 1_000;
/// The longest a message can be hidden by one request.
const HIDDEN_MAX: Duration = Duration::from_secs(12 * 3600);
/// The longest reason of a `nack` that is kept, in characters.
const REASON_CHARS_MAX: usize = 1_000;
/// The body of an acknowledgement: a thousand receipts fit, with room.
const BODY_BYTES_MAX: usize = 128 * 1024;
/// How many messages a transaction of a drain cancels.
const DRAINED_AT_ONCE: u32 = 500;

/// A queue whose messages the caller may receive and acknowledge.
pub struct Consumer {
    state: Arc<State>,
    queue: Arc<Queue>,
}

impl FromRequestParts<Arc<State>> for Consumer {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &Arc<State>,
    ) -> Result<Self, Response> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(IntoResponse::into_response)?;
        let queue = state.engine.directory().queue(&name).cloned();
        let Some(queue) = queue else { return Err(missing().into_response()) };
        // Without a key of its own a queue is open, which the configuration warns of.
        if let Some(key) = &queue.api_key
            && auth::bearer(&parts.headers, Some(key)).is_err()
        {
            let token = state.engine.config().api.auth_token.as_ref();
            let is_operator = token.is_some() && auth::bearer(&parts.headers, token).is_ok();
            if !is_operator {
                let why = match parts.headers.contains_key(header::AUTHORIZATION) {
                    true => "Invalid token",
                    false => "Missing or invalid Authorization header",
                };
                return Err((StatusCode::UNAUTHORIZED, why).into_response());
            }
        }
        Ok(Self { state: Arc::clone(state), queue })
    }
}

fn missing() -> ApiError {
    ApiError::not_found("queue not found")
}

/// `GET /api/queues/{name}/messages?wait=10s&batch=5`: messages that are visible, or the first that
/// become visible while the request waits. `batch` is 1 unless it says otherwise.
pub async fn receive(
    Consumer { state, queue }: Consumer,
    query: RawQuery,
) -> Result<Response, ApiError> {
    let query = Query::read(query, &["wait", "batch"])?;
    let wait = query.parsed("wait", "a duration of at most 30s, such as 10s", |text| {
        parse_duration(text).ok().filter(|wait| *wait <= WAIT_MAX)
    })?;
    let batch = query.parsed("batch", "a whole number from 1 to 100", |text| {
        text.parse().ok().filter(|batch| (1..=BATCH_MAX).contains(batch))
    })?;
    let longest = if state.has_live_feed { WAIT_MAX } else { WAIT_MAX_IN_FUNCTIONS };
    let wait = wait.unwrap_or(Duration::ZERO).min(longest);
    let messages = state.engine.receive(&queue, batch.unwrap_or(1), wait).await?;
    let shown: Result<Vec<Shown>, ApiError> = messages.iter().map(Shown::of).collect();
    Ok(Json(json_of(&shown?)?).into_response())
}

fn json_of(messages: &[Shown]) -> Result<Box<RawValue>, ApiError> {
    #[derive(serde::Serialize)]
    struct List<'a> {
        messages: &'a [Shown],
    }
    serde_json::value::to_raw_value(&List { messages }).map_err(|_| ApiError::internal())
}

/// A message as consumers get it.
#[derive(serde::Serialize)]
struct Shown {
    id: String,
    event_id: String,
    source: String,
    event_type: String,
    /// A JSON body as it was received, byte for byte; any other text as a string; any other bytes
    /// in base64, which `payload_encoding` says.
    payload: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_encoding: Option<&'static str>,
    headers: Map<String, Value>,
    attempt: u32,
    created_at: String,
    receipt: String,
}

impl Shown {
    fn of(message: &Message) -> Result<Self, ApiError> {
        let Message { job, event } = message;
        let (payload, payload_encoding) = payload(&event.body)?;
        let headers = event.headers.iter().map(|(name, value)| (name.clone(), json!(value)));
        Ok(Self {
            id: job.id.to_string(),
            event_id: event.id.to_string(),
            source: event.source.clone(),
            event_type: event.kind.clone(),
            payload,
            payload_encoding,
            headers: headers.collect(),
            attempt: job.attempt,
            created_at: event.created_at.to_string(),
            receipt: message.receipt().to_string(),
        })
    }
}

fn payload(body: &Body) -> Result<(Box<RawValue>, Option<&'static str>), ApiError> {
    let text = std::str::from_utf8(body.bytes());
    if let Ok(text) = text
        && body.is_json()
        && let Ok(raw) = RawValue::from_string(text.to_owned())
    {
        return Ok((raw, None));
    }
    let (text, encoding) = match text {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (STANDARD.encode(body.bytes()), Some("base64")),
    };
    let raw = serde_json::value::to_raw_value(&text).map_err(|_| ApiError::internal())?;
    Ok((raw, encoding))
}

/// What a consumer says of messages: which, and for `nack` and `extend` for how long.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    ids: Option<Vec<String>>,
    receipts: Option<Vec<String>>,
    delay: Option<Value>,
    reason: Option<String>,
    seconds: Option<u64>,
}

/// Which keys a body may have besides `ids` and `receipts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Ack,
    Nack,
    Extend,
}

/// The messages of a request in its order, as it names them.
struct Wanted {
    named: Vec<(String, Result<Named, Answered>)>,
    delay: Duration,
    reason: Option<String>,
}

async fn said(state: &State, verb: Verb, request: Request) -> Result<Wanted, ApiError> {
    let received = state.bodies.read(request, BODY_BYTES_MAX).await?;
    let said: Said = serde_json::from_slice(&received.bytes).map_err(|why| {
        let example = r#"send a JSON object like {"ids":["…"]} or {"receipts":["…"]}"#;
        ApiError::bad_request(format!("the body cannot be read: {why}; {example}"))
    })?;
    let not_here = |key: &str| ApiError::invalid_field(key, "this route does not know this key");
    if said.delay.is_some() && verb != Verb::Nack {
        return Err(not_here("delay"));
    }
    if said.reason.is_some() && verb != Verb::Nack {
        return Err(not_here("reason"));
    }
    if said.seconds.is_some() && verb != Verb::Extend {
        return Err(not_here("seconds"));
    }
    let (key, names) = match (said.ids, said.receipts) {
        (Some(ids), None) => ("ids", ids),
        (None, Some(receipts)) => ("receipts", receipts),
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid_field("ids", "send either `ids` or `receipts`"));
        }
        (None, None) => {
            return Err(ApiError::invalid_field("ids", "`ids` or `receipts` is required"));
        }
    };
    if names.len() > NAMED_MAX {
        let message = format!("at most {NAMED_MAX} at once; send the rest in another request");
        return Err(ApiError::invalid_field(key, message));
    }
    let named = names.into_iter().map(|text| {
        let named = match key {
            "receipts" => text.parse().map(Named::Receipt).map_err(|_| Answered::Stale),
            _ => text.parse().map(Named::Id).map_err(|_| Answered::Unknown),
        };
        (text, named)
    });
    let named = named.collect();
    let delay = match (verb, &said.delay, said.seconds) {
        (Verb::Ack, ..) | (Verb::Nack, None, _) => Duration::ZERO,
        (Verb::Nack, Some(delay), _) => {
            let text = delay.as_str().map_or_else(|| delay.to_string(), str::to_owned);
            hidden("delay", parse_duration(&text).ok())?
        }
        (Verb::Extend, _, None) => {
            return Err(ApiError::invalid_field("seconds", "`seconds` is required"));
        }
        (Verb::Extend, _, Some(seconds)) => {
            let seconds = Some(Duration::from_secs(seconds)).filter(|by| !by.is_zero());
            hidden("seconds", seconds)?
        }
    };
    let reason = said.reason.map(|reason| reason.chars().take(REASON_CHARS_MAX).collect());
    Ok(Wanted { named, delay, reason })
}

fn hidden(key: &str, time: Option<Duration>) -> Result<Duration, ApiError> {
    time.filter(|time| *time <= HIDDEN_MAX)
        .ok_or_else(|| ApiError::invalid_field(key, "expected a time of at most 12 hours"))
}

/// `POST /api/queues/{name}/ack` with `ids` or `receipts`: the consumer is done with these
/// messages.
pub async fn ack(
    Consumer { state, queue }: Consumer,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let said = said(&state, Verb::Ack, request).await?;
    let answers = judged(&state, &queue, &said, &Verdict::Ack).await?;
    let acked = count(&answers, Answered::Acked);
    answer(&said, &answers, json!({ "acked": acked }), acked)
}

/// `POST /api/queues/{name}/nack` with `ids` or `receipts`, and perhaps `delay` and `reason`: these
/// messages are to be received again. A message that has no attempt left is dead.
pub async fn nack(
    Consumer { state, queue }: Consumer,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let said = said(&state, Verb::Nack, request).await?;
    let verdict = Verdict::Nack { delay: said.delay, reason: said.reason.clone() };
    let answers = judged(&state, &queue, &said, &verdict).await?;
    let (retried, dead) = (count(&answers, Answered::Retried), count(&answers, Answered::Dead));
    answer(&said, &answers, json!({ "retried": retried, "dead": dead }), retried + dead)
}

/// `POST /api/queues/{name}/extend` with `ids` or `receipts` and `seconds`: these messages stay
/// hidden for so long from now.
pub async fn extend(
    Consumer { state, queue }: Consumer,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let said = said(&state, Verb::Extend, request).await?;
    let named: Vec<Named> =
        said.named.iter().filter_map(|(_, n)| n.as_ref().ok()).copied().collect();
    let answers = state.engine.extend_messages(&queue, &named, said.delay).await?;
    let answers = merged(&said, answers);
    let extended = count(&answers, Answered::Extended);
    answer(&said, &answers, json!({ "extended": extended }), extended)
}

async fn judged(
    state: &State,
    queue: &Queue,
    said: &Wanted,
    verdict: &Verdict,
) -> Result<Vec<Answered>, ApiError> {
    let named: Vec<Named> =
        said.named.iter().filter_map(|(_, n)| n.as_ref().ok()).copied().collect();
    let answers = state.engine.judge_messages(queue, &named, verdict).await?;
    Ok(merged(said, answers))
}

/// The answers in the order of the request, unreadable names included.
fn merged(said: &Wanted, answers: Vec<Answered>) -> Vec<Answered> {
    let mut answers = answers.into_iter();
    said.named
        .iter()
        .map(|(_, named)| match named {
            Ok(_) => answers.next().unwrap_or(Answered::Unknown),
            Err(answered) => *answered,
        })
        .collect()
}

fn count(answers: &[Answered], wanted: Answered) -> usize {
    answers.iter().filter(|answered| **answered == wanted).count()
}

/// The answer: the counts, and what was refused with a code each. 409 if nothing could be done and
/// a receipt was stale.
fn answer(
    said: &Wanted,
    answers: &[Answered],
    mut counts: Value,
    done: usize,
) -> Result<Json<Value>, ApiError> {
    if done == 0 && answers.contains(&Answered::Stale) {
        let message = "the message was received again since, or is finished; nothing was changed";
        return Err(ApiError::new(StatusCode::CONFLICT, "stale_receipt", message));
    }
    let refused: Vec<Value> = said
        .named
        .iter()
        .zip(answers)
        .filter_map(|((text, _), answered)| {
            let code = match answered {
                Answered::Stale => "stale_receipt",
                Answered::Unknown => "not_found",
                _ => return None,
            };
            let shown: String = text.chars().take(64).collect();
            Some(json!({ "message": shown, "code": code }))
        })
        .collect();
    counts["refused"] = json!(refused);
    Ok(Json(counts))
}

fn shown(queue: &Queue, counts: QueueCounts, now: crate::model::Timestamp) -> Value {
    let QueueCounts { visible, in_flight, delayed, dead, oldest_at } = counts;
    json!({
        "name": queue.name,
        "source": queue.source,
        "events": queue.events.iter().map(|pattern| pattern.text()).collect::<Vec<_>>(),
        "visibility_timeout": format!("{}s", queue.visibility.as_secs()),
        "max_attempts": queue.attempts_max,
        "depth": visible + in_flight + delayed,
        "visible": visible, "in_flight": in_flight, "delayed": delayed, "dead": dead,
        "oldest_seconds": oldest_at.map(|at| now.since(at).as_secs()),
    })
}

/// `GET /api/queues`: every queue of the configuration, with what it holds.
pub async fn list(Allowed(engine): Allowed, query: RawQuery) -> Result<Json<Value>, ApiError> {
    Query::read(query, &[])?;
    let queues = &engine.config().queues;
    let lanes: Vec<LaneId> = queues.iter().map(|queue| LaneId::queue(&queue.name)).collect();
    let counts = engine.store().queue_counts(&lanes).await?;
    let now = engine.store().now().await?;
    let of =
        |queue: &Arc<Queue>| counts.get(&LaneId::queue(&queue.name)).copied().unwrap_or_default();
    let queues: Vec<Value> = queues.iter().map(|queue| shown(queue, of(queue), now)).collect();
    Ok(Json(json!({ "queues": queues })))
}

/// `GET /api/queues/{name}`: one queue, with what it holds.
pub async fn show(
    Allowed(engine): Allowed,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let queue = engine.directory().queue(&name).ok_or_else(missing)?;
    let lane = LaneId::queue(&name);
    let counts = engine.store().queue_counts(std::slice::from_ref(&lane)).await?;
    let now = engine.store().now().await?;
    Ok(Json(shown(queue, counts.get(&lane).copied().unwrap_or_default(), now)))
}

/// `GET /api/queues/{name}/peek?limit=`: the first open messages without receiving them.
pub async fn peek(
    allowed: Allowed,
    Path(name): Path<String>,
    query: RawQuery,
) -> Result<Json<Value>, ApiError> {
    looked(allowed, &name, query, false).await
}

/// `GET /api/queues/{name}/dlq?limit=`: the oldest dead messages.
pub async fn dlq(
    allowed: Allowed,
    Path(name): Path<String>,
    query: RawQuery,
) -> Result<Json<Value>, ApiError> {
    looked(allowed, &name, query, true).await
}

async fn looked(
    Allowed(engine): Allowed,
    name: &str,
    query: RawQuery,
    dead: bool,
) -> Result<Json<Value>, ApiError> {
    let query = Query::read(query, &["limit"])?;
    let limit = query.page()?.limit.min(BATCH_MAX);
    engine.directory().queue(name).ok_or_else(missing)?;
    let jobs = engine.store().peek(&LaneId::queue(name), dead, limit).await?;
    let ids: Vec<_> = jobs.iter().map(|job| job.event).collect();
    let events = engine.store().events_by_id(&ids).await?;
    let message = |job: &Job| -> Option<Result<Value, ApiError>> {
        let event = events.get(&job.event)?;
        Some(payload(&event.body).map(|(payload, encoding)| {
            let payload: Value = serde_json::from_str(payload.get()).unwrap_or(Value::Null);
            json!({
                "id": job.id.to_string(), "event_id": event.id.to_string(),
                "source": event.source, "event_type": event.kind,
                "payload": payload, "payload_encoding": encoding,
                "attempt": job.attempt, "status": super::jobs::status_of(&engine, job),
                "visible_at": job.due_at.to_string(), "last_error": job.last_error,
                "created_at": event.created_at.to_string(),
            })
        }))
    };
    let messages: Result<Vec<Value>, ApiError> = jobs.iter().filter_map(message).collect();
    Ok(Json(json!({ "messages": messages? })))
}

/// `POST /api/queues/{name}/retry`: makes the dead messages of a queue visible again, with fresh
/// attempts.
pub async fn retry(
    Allowed(engine): Allowed,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    engine.directory().queue(&name).ok_or_else(missing)?;
    let retried = engine.store().retry(&Retry::Queue(name.clone())).await?;
    engine.wake().await;
    Ok(Json(json!({ "queue": name, "retried": retried })))
}

/// `POST /api/queues/{name}/drain`: cancels every open message of a queue, also of one that the
/// configuration no longer names.
pub async fn drain(
    Allowed(engine): Allowed,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let lane = LaneId::queue(&name);
    let mut drained = 0;
    loop {
        let few = engine.store().drain(&lane, DRAINED_AT_ONCE).await?;
        drained += few;
        if few < u64::from(DRAINED_AT_ONCE) {
            return Ok(Json(json!({ "queue": name, "drained": drained })));
        }
    }
}
