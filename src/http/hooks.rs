//! The routes on which events come in: webhooks of providers and events of applications.
//!
//! Source, address and token are checked before a body is read, and a signature before anything is
//! parsed or stored.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::around::ClientAddress;
use super::body::Received;
use super::error::ApiError;
use super::path::Path;
use super::router::State;
use super::{auth, client};
use crate::config::{Source, SourceKind};
use crate::decide::alert::RESERVED;
use crate::engine::{Planned, Receipt};
use crate::ingress::{self, Admitted, Challenge, Raw};
use crate::model::{Inbound, Timestamp};

/// The source of `POST /events/{type}`.
const APP: &str = "app";

/// `POST /webhooks/{source}`: takes a provider's webhook, and answers 200 after the event is
/// committed.
pub async fn webhook(
    Extract(state): Extract<Arc<State>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let source =
        state.engine.config().source(&name).filter(|s| s.kind == SourceKind::Webhook).cloned();
    let Some(source) = source else { return Err(ApiError::not_found("Unknown source").closing()) };
    let client = client_of(&request);
    ingress::admit_address(&source, client).map_err(|why| refused(&state, &source, why))?;
    take(&state, source, request, StatusCode::OK, move |source, raw, now| {
        ingress::admit(source, raw, client, now)
    })
    .await
}

/// Reads a request, judges it, and accepts its events or answers its challenge. Large bodies are
/// judged on a blocking thread.
async fn take(
    state: &State,
    source: Arc<Source>,
    request: Request,
    status: StatusCode,
    judge: impl FnOnce(&Source, &Raw, Timestamp) -> Result<Admitted, ingress::AdmitError>
    + Send
    + 'static,
) -> Result<Response, ApiError> {
    let (raw, _held) = raw(state, &source, request).await?;
    let (judged, engine, now) =
        (Arc::clone(&source), state.engine.clone(), state.engine.clock().now());
    let admitted = state.bodies.judging(raw.bytes().len(), move || {
        Ok(match judge(&judged, &raw, now)? {
            Admitted::Event(event) => Content::Event(Box::new(engine.plan(*event))),
            Admitted::Batch(events) => {
                Content::Batch(events.into_iter().map(|event| engine.plan(event)).collect())
            }
            Admitted::Challenge(challenge) => Content::Challenge(challenge),
        })
    });
    match admitted.await?.map_err(|why| refused(state, &source, why))? {
        Content::Challenge(challenge) => Ok(answer(challenge)),
        Content::Event(planned) => {
            let receipt = state.engine.accept_planned(*planned).await?;
            Ok((status, Json(shown(receipt))).into_response())
        }
        // The events of a batch are answered together. When one of them cannot be accepted the
        // whole batch is refused; sent again, those that were accepted are duplicates.
        Content::Batch(planned) => {
            let accepted = planned.into_iter().map(|planned| state.engine.accept_planned(planned));
            let receipts = futures::future::try_join_all(accepted).await?;
            Ok((
                status,
                Json(json!({ "events": receipts.into_iter().map(shown).collect::<Vec<_>>() })),
            )
                .into_response())
        }
    }
}

/// What a request holds: an event, a batch of them, or a provider's handshake.
enum Content {
    Event(Box<Planned>),
    Batch(Vec<Planned>),
    Challenge(Challenge),
}

/// `POST /events/{source}/{type}`: takes an application's event, and answers 202 after it is
/// committed.
pub async fn event(
    Extract(state): Extract<Arc<State>>,
    Path((source, kind)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    call(&state, &source, &kind, request).await
}

/// `POST /events/{type}`: the same for the source `app`.
pub async fn event_of_app(
    Extract(state): Extract<Arc<State>>,
    Path(kind): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    call(&state, APP, &kind, request).await
}

async fn call(
    state: &State,
    name: &str,
    kind: &str,
    request: Request,
) -> Result<Response, ApiError> {
    let config = state.engine.config();
    auth::bearer(request.headers(), config.api.auth_token.as_ref())?;
    let source =
        config.source(name).filter(|s| matches!(s.kind, SourceKind::Event | SourceKind::Outbound));
    let source = source.cloned().ok_or_else(|| ApiError::not_found("Unknown event source"))?;
    ingress::admit_address(&source, client_of(&request))
        .map_err(|why| refused(state, &source, why))?;
    if kind.trim().is_empty()
        || kind.chars().count() > ingress::admit::KIND_CHARS_MAX
        || kind.chars().any(char::is_control)
    {
        return Err(ApiError::invalid_field(
            "type",
            "the event type must be UTF-8 text of at most 255 characters",
        ));
    }
    let kind = kind.to_owned();
    let judge = move |source: &Source, raw: &Raw, _now| {
        let admitted = ingress::call(source, raw, &kind)?;
        let is_reserved = |event: &Inbound| event.kind.starts_with(RESERVED);
        let is_forged = match &admitted {
            Admitted::Event(event) => is_reserved(event),
            Admitted::Batch(events) => events.iter().any(is_reserved),
            Admitted::Challenge(_) => false,
        };
        if is_forged { Err(ingress::AdmitError::Reserved) } else { Ok(admitted) }
    };
    take(state, source, request, StatusCode::ACCEPTED, judge).await
}

/// The client's address behind trusted proxies; `0.0.0.0` where it is unknown.
fn client_of(request: &Request) -> std::net::IpAddr {
    request
        .extensions()
        .get::<ClientAddress>()
        .map_or(std::net::IpAddr::from([0, 0, 0, 0]), |client| client.0)
}

/// Reads the whole request and takes one of the places for requests at once. The place is taken
/// after the body has arrived, so that slow senders keep nobody out.
async fn raw(
    state: &State,
    source: &Source,
    request: Request,
) -> Result<(Raw, (Received, OwnedSemaphorePermit)), ApiError> {
    let server = &state.engine.config().server;
    let mut received =
        state.bodies.read(request, source.body_bytes_max.unwrap_or(server.body_bytes_max)).await?;
    let (uri, headers) =
        (std::mem::take(&mut received.head.uri), std::mem::take(&mut received.head.headers));
    let origin = match &server.public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => client::origin(&headers, &server.trust),
    };
    let raw = Raw::new(uri, origin, headers, received.bytes.clone());
    Ok((raw, (received, state.place()?)))
}

/// Counts a refusal and makes its answer. The sender of a bad signature learns nothing but that it
/// is invalid.
fn refused(state: &State, source: &Source, why: ingress::AdmitError) -> ApiError {
    state.engine.reject(&source.name, why.as_str());
    match why {
        ingress::AdmitError::Address => {
            ApiError::new(StatusCode::FORBIDDEN, "forbidden", "IP not allowed")
        }
        ingress::AdmitError::Signature(_) => {
            ApiError::new(StatusCode::UNAUTHORIZED, "signature_invalid", "Invalid signature")
        }
        ingress::AdmitError::Batch(why) => ApiError::invalid_field("payload", why),
        ingress::AdmitError::ManyKeys => {
            ApiError::bad_request("the request has several `Idempotency-Key` headers; send one")
        }
        ingress::AdmitError::Reserved => ApiError::invalid_field(
            "type",
            "event types that begin with `__` are tidehook's own; use another name",
        ),
        ingress::AdmitError::NotUtf8 => ApiError::invalid_field("payload", "Invalid UTF-8 payload"),
        ingress::AdmitError::Schema(violations) => ApiError::invalid(
            violations
                .into_iter()
                .map(|v| ("payload".to_owned(), format!("Schema validation failed: {v}"))),
        ),
    }
}

fn answer(challenge: Challenge) -> Response {
    let status = StatusCode::from_u16(challenge.status).unwrap_or(StatusCode::OK);
    match challenge.body {
        Some((content_type, body)) => {
            (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
        }
        None => status.into_response(),
    }
}

fn shown(receipt: Receipt) -> Value {
    let Receipt { event, duplicate, jobs, runs } = receipt;
    json!({
        "event_id": event.to_string(),
        "duplicate": duplicate,
        "jobs_created": jobs,
        "runs_started": runs,
    })
}
