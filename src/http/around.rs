//! Middleware around every request: limits before it, headers after it.

use std::sync::Arc;

use axum::extract::{Request, State as Extract};
use axum::http::{HeaderName, HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::client::{self, OverSocket, Peer};
use super::error::ApiError;
use super::router::State;
use crate::engine::NotAccepted;
use crate::model::EventId;

/// Paths of probes and metrics, which are answered under any load.
const UNCOUNTED: [&str; 5] = ["/health", "/healthz", "/livez", "/readyz", "/metrics"];

/// The client's address behind trusted proxies; `around` puts it into each request for the routes.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub std::net::IpAddr);

/// Applies the limits, runs the request, then adds the headers that every answer carries.
pub async fn around(
    Extract(state): Extract<Arc<State>>,
    mut request: Request,
    next: Next,
) -> Response {
    let own = request
        .headers()
        .get("x-request-id")
        .and_then(|id| id.to_str().ok())
        .filter(|id| crate::model::trace::is_request_id(id));
    let request_id = own.map_or_else(|| EventId::next(&*state.ids).to_string(), str::to_owned);
    let peer = request
        .extensions()
        .get::<Peer>()
        .map_or(std::net::IpAddr::from([0, 0, 0, 0]), |p| p.0.ip());
    let address = client::address(peer, request.headers(), &state.engine.config().server.trust);
    request.extensions_mut().insert(ClientAddress(address));
    let rest = super::body::Rest::of(&mut request);
    let response = match limited(&state, &request, address) {
        Err(refusal) => refusal.into_response(),
        // Held until the answer is on its way.
        Ok(_permit) => next.run(request).await,
    };
    // A sender that is still sending would lose the answer with its connection.
    if let Some(rest) = rest
        && !response.status().is_success()
    {
        rest.linger().await;
    }
    with_headers(response, &request_id)
}

fn limited(
    state: &State,
    request: &Request,
    address: std::net::IpAddr,
) -> Result<Option<tokio::sync::OwnedSemaphorePermit>, ApiError> {
    // RFC 9112, section 3.2.
    let is_wire =
        request.extensions().get::<OverSocket>().is_some() && request.version() == Version::HTTP_11;
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if is_wire && hosts != 1 || hosts > 1 {
        return Err(
            ApiError::bad_request("the request must have exactly one Host header").closing()
        );
    }
    let is_host = |value: &HeaderValue| {
        let host = http::uri::Authority::try_from(value.as_bytes());
        host.is_ok_and(|host| !host.host().is_empty() && !host.as_str().contains(['@', ',']))
    };
    if !request.headers().get_all(header::HOST).iter().all(is_host) {
        return Err(ApiError::bad_request("the Host header is empty or invalid").closing());
    }
    if UNCOUNTED.contains(&request.uri().path()) {
        return Ok(None);
    }
    if state.per_address.as_ref().is_some_and(|limit| !limit.allows(address)) {
        return Err(ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limited",
            "Too many requests",
        )
        .after(1));
    }
    // A process that starts says so, whatever is asked of its store. A function, and the command line over a store, do not start.
    let asks_store = ["/api/", "/callback/", "/approve/"]
        .iter()
        .any(|start| request.uri().path().starts_with(start));
    if asks_store
        && request.extensions().get::<OverSocket>().is_some()
        && !state.engine.health().is_prepared()
    {
        return Err(NotAccepted::Starting.into());
    }
    // What brings a body takes its place when the body is there.
    let has_body = !axum::body::HttpBody::is_end_stream(request.body());
    if has_body { Ok(None) } else { state.place().map(Some) }
}

fn with_headers(mut response: Response, request_id: &str) -> Response {
    const FIXED: [(&str, &str); 4] = [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cache-control", "no-store"),
        ("x-api-version", "1"),
    ];
    let headers = response.headers_mut();
    for (name, value) in FIXED {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    response
}
