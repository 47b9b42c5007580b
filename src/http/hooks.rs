//! Webhooks and events in. A request is judged before anything is read, parsed or stored on its behalf.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::around::ClientAddress;
use super::error::Refusal;
use super::path::Path;
use super::router::State;
use super::{auth, body, client};
use crate::config::{Source, SourceKind};
use crate::engine::Receipt;
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
    body::judge(request.headers(), config.server.body_bytes_max)?;
    let source = config.source(&name).filter(|s| s.kind == SourceKind::Webhook);
    let source = source.ok_or_else(|| Refusal::not_found("Unknown source"))?;
    let client = client_of(&request);
    ingress::admit_address(source, client).map_err(|why| refused(&state, source, why))?;
    let (raw, _permit) = raw(&state, request).await?;
    let admitted = ingress::admit(source, &raw, client, state.engine.clock().now());
    match admitted.map_err(|why| refused(&state, source, why))? {
        Admitted::Challenge(challenge) => Ok(answer(challenge)),
        Admitted::Event(inbound) => Ok(result(StatusCode::OK, state.engine.accept(inbound).await?)),
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
    body::judge(request.headers(), config.server.body_bytes_max)?;
    if kind.trim().is_empty() || kind.chars().count() > ingress::admit::KIND_CHARS_MAX || kind.chars().any(char::is_control) {
        return Err(Refusal::invalid_field("type", "the event type must be readable text of at most 255 characters"));
    }
    let (raw, _permit) = raw(state, request).await?;
    let inbound = ingress::call(source, &raw, kind).map_err(|why| refused(state, source, why))?;
    Ok(result(StatusCode::ACCEPTED, state.engine.accept(inbound).await?))
}

/// Who sends, behind trusted proxies; an address that nobody has where that is not known.
fn client_of(request: &Request) -> std::net::IpAddr {
    request.extensions().get::<ClientAddress>().map_or(std::net::IpAddr::from([0, 0, 0, 0]), |client| client.0)
}

/// The whole request, with one of the places for requests at once. The place is taken when the body is there,
/// so that those who dribble theirs keep nobody out.
async fn raw(state: &State, request: Request) -> Result<(Raw, OwnedSemaphorePermit), Refusal> {
    let config = state.engine.config();
    let (parts, stream) = request.into_parts();
    let origin = match &config.server.public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => client::origin(&parts.headers, &config.server.trust),
    };
    let bytes = {
        let _reading = state.place(&state.reading)?;
        body::read(stream, config.server.body_bytes_max).await?
    };
    Ok((Raw::new(parts.uri, origin, parts.headers, bytes), state.place(&state.inbound)?))
}

/// The sender of a bad signature learns nothing but that; the cause is counted.
fn refused(state: &State, source: &Source, why: ingress::Refusal) -> Refusal {
    state.engine.reject(&source.name, why.word());
    match why {
        ingress::Refusal::Address => Refusal::new(StatusCode::FORBIDDEN, "forbidden", "IP not allowed"),
        ingress::Refusal::Signature(_) => Refusal::new(StatusCode::UNAUTHORIZED, "signature_invalid", "Invalid signature"),
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

fn result(status: StatusCode, receipt: Receipt) -> Response {
    let Receipt { event, duplicate, jobs, runs } = receipt;
    let body = json!({ "event_id": event.to_string(), "duplicate": duplicate, "jobs_created": jobs, "runs_started": runs });
    (status, Json(body)).into_response()
}
