//! Webhooks and events in. A request is judged before anything is read, parsed or stored on its behalf.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::around::ClientAddress;
use super::body::Received;
use super::error::Refusal;
use super::path::Path;
use super::router::State;
use super::{auth, client};
use crate::config::{Source, SourceKind};
use crate::engine::{Planned, Receipt};
use crate::ingress::{self, Admitted, Challenge, Raw};

/// The source of `POST /events/{type}`.
const APP: &str = "app";

/// `POST /webhooks/{source}`: a provider's webhook; 200 after it is committed.
pub async fn webhook(
    Extract(state): Extract<Arc<State>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let config = Arc::clone(state.engine.config());
    let source = config.source(&name).filter(|s| s.kind == SourceKind::Webhook);
    let Some(source) = source.cloned() else { return Err(Refusal::not_found("Unknown source").closing()) };
    let client = client_of(&request);
    ingress::admit_address(&source, client).map_err(|why| refused(&state, &source, why))?;
    let (raw, _held) = raw(&state, request, source.body_bytes_max.unwrap_or(config.server.body_bytes_max)).await?;
    let (source, engine, now) = (Arc::new(source), state.engine.clone(), state.engine.clock().now());
    let judged = Arc::clone(&source);
    let admitted = state.bodies.judging(raw.bytes().len(), move || {
        let admitted = ingress::admit(&judged, &raw, client, now)?;
        Ok(match admitted {
            Admitted::Events(events) => Ok(events.into_iter().map(|inbound| engine.plan(inbound)).collect::<Vec<_>>()),
            Admitted::Challenge(challenge) => Err(challenge),
        })
    });
    match admitted.await?.map_err(|why| refused(&state, &source, why))? {
        Err(challenge) => Ok(answer(challenge)),
        Ok(planned) => accept_all(&state, StatusCode::OK, planned).await,
    }
}

/// Accepts what one request brought: an event, or the events of a batch, which are answered together. When one of these cannot be
/// accepted the whole batch is refused; sent again, those that were accepted are duplicates.
async fn accept_all(state: &State, status: StatusCode, planned: Vec<Planned>) -> Result<Response, Refusal> {
    let is_batch = planned.len() != 1;
    let receipts = futures::future::try_join_all(planned.into_iter().map(|planned| state.engine.accept_planned(planned))).await?;
    match (is_batch, receipts.first()) {
        (false, Some(receipt)) => Ok((status, Json(shown(*receipt))).into_response()),
        _ => Ok((status, Json(json!({ "events": receipts.into_iter().map(shown).collect::<Vec<_>>() }))).into_response()),
    }
}

/// `POST /events/{source}/{type}`: an application's event; 202 after it is committed.
pub async fn event(
    Extract(state): Extract<Arc<State>>,
    Path((source, kind)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    call(&state, &source, &kind, request).await
}

/// `POST /events/{type}`: the same for the source `app`.
pub async fn event_of_app(
    Extract(state): Extract<Arc<State>>,
    Path(kind): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    call(&state, APP, &kind, request).await
}

async fn call(state: &State, name: &str, kind: &str, request: Request) -> Result<Response, Refusal> {
    let config = Arc::clone(state.engine.config());
    auth::bearer(request.headers(), config.api.auth_token.as_ref())?;
    let source = config.source(name).filter(|s| matches!(s.kind, SourceKind::Event | SourceKind::Outbound));
    let source = source.ok_or_else(|| Refusal::not_found("Unknown event source"))?;
    ingress::admit_address(source, client_of(&request)).map_err(|why| refused(state, source, why))?;
    if kind.trim().is_empty() || kind.chars().count() > ingress::admit::KIND_CHARS_MAX || kind.chars().any(char::is_control) {
        return Err(Refusal::invalid_field("type", "the event type must be readable text of at most 255 characters"));
    }
    let source = Arc::new(source.clone());
    let (raw, _held) = raw(state, request, source.body_bytes_max.unwrap_or(config.server.body_bytes_max)).await?;
    let (judged, engine, kind) = (Arc::clone(&source), state.engine.clone(), kind.to_owned());
    let planned = state.bodies.judging(raw.bytes().len(), move || {
        let events = ingress::call(&judged, &raw, &kind)?;
        Ok(events.into_iter().map(|inbound| engine.plan(inbound)).collect::<Vec<_>>())
    });
    let planned = planned.await?.map_err(|why| refused(state, &source, why))?;
    accept_all(state, StatusCode::ACCEPTED, planned).await
}

/// Who sends, behind trusted proxies; an address that nobody has where that is not known.
fn client_of(request: &Request) -> std::net::IpAddr {
    request.extensions().get::<ClientAddress>().map_or(std::net::IpAddr::from([0, 0, 0, 0]), |client| client.0)
}

/// The whole request, with one of the places for requests at once. The place is taken when the body is there,
/// so that those who dribble theirs keep nobody out.
async fn raw(state: &State, request: Request, bytes_max: usize) -> Result<(Raw, (Received, OwnedSemaphorePermit)), Refusal> {
    let config = state.engine.config();
    let (uri, headers) = (request.uri().clone(), request.headers().clone());
    let origin = match &config.server.public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => client::origin(&headers, &config.server.trust),
    };
    let received = state.bodies.read(request, bytes_max).await?;
    let raw = Raw::new(uri, origin, headers, received.bytes.clone());
    Ok((raw, (received, state.place()?)))
}

/// The sender of a bad signature learns nothing but that; the cause is counted.
fn refused(state: &State, source: &Source, why: ingress::Refusal) -> Refusal {
    state.engine.reject(&source.name, why.word());
    match why {
        ingress::Refusal::Address => Refusal::new(StatusCode::FORBIDDEN, "forbidden", "IP not allowed"),
        ingress::Refusal::Signature(_) => Refusal::new(StatusCode::UNAUTHORIZED, "signature_invalid", "Invalid signature"),
        ingress::Refusal::Batch(why) => Refusal::invalid_field("payload", why),
        ingress::Refusal::NotUtf8 => Refusal::invalid_field("payload", "Invalid UTF-8 payload"),
        ingress::Refusal::Schema(violations) => {
            Refusal::invalid(violations.into_iter().map(|v| ("payload".to_owned(), format!("Schema validation failed: {v}"))))
        }
    }
}

fn answer(challenge: Challenge) -> Response {
    let status = StatusCode::from_u16(challenge.status).unwrap_or(StatusCode::OK);
    match challenge.body {
        Some((content_type, body)) => (status, [(header::CONTENT_TYPE, content_type)], body).into_response(),
        None => status.into_response(),
    }
}

fn shown(receipt: Receipt) -> Value {
    let Receipt { event, duplicate, jobs, runs } = receipt;
    json!({ "event_id": event.to_string(), "duplicate": duplicate, "jobs_created": jobs, "runs_started": runs })
}
