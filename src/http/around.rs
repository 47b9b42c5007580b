//! Middleware: what is checked before a route runs, and the headers that every answer carries.

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

/// The client's address behind trusted proxies; `around` puts it into each request for the routes.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub std::net::IpAddr);

/// Around every request: finds the client's address, refuses an invalid `Host`, and adds the
/// headers that every answer carries.
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
    let response = match check_host(&request) {
        Err(refusal) => refusal.into_response(),
        Ok(()) => next.run(request).await,
    };
    // A sender that is still sending would lose the answer with its connection.
    if let Some(rest) = rest
        && !response.status().is_success()
    {
        rest.linger().await;
    }
    with_headers(response, &request_id)
}

/// RFC 9112, section 3.2: a request over the wire has exactly one valid `Host`.
fn check_host(request: &Request) -> Result<(), ApiError> {
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
    match request.headers().get_all(header::HOST).iter().all(is_host) {
        true => Ok(()),
        false => Err(ApiError::bad_request("the Host header is empty or invalid").closing()),
    }
}

/// Around all routes but probes and metrics: the rate limit of the client's address, and a place
/// among the requests at once.
pub async fn limit(
    Extract(state): Extract<Arc<State>>,
    client: axum::Extension<ClientAddress>,
    request: Request,
    next: Next,
) -> Response {
    if let Err(refusal) = within_rate(&state, client.0) {
        return refusal.into_response();
    }
    // A request with a body takes its place when the body is there.
    if !axum::body::HttpBody::is_end_stream(request.body()) {
        return next.run(request).await;
    }
    match state.place() {
        // The place is free again when the answer is on its way.
        Ok(_permit) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Around requests that may wait for a long time: the rate limit of the client's address only.
pub async fn limit_per_address(
    Extract(state): Extract<Arc<State>>,
    client: axum::Extension<ClientAddress>,
    request: Request,
    next: Next,
) -> Response {
    match within_rate(&state, client.0) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn within_rate(state: &State, client: ClientAddress) -> Result<(), ApiError> {
    match state.per_address.as_ref().is_some_and(|limit| !limit.allows(client.0)) {
        false => Ok(()),
        true => {
            let refusal =
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many requests");
            Err(refusal.retry_after(1))
        }
    }
}

/// Around routes that need the store: a server that starts says so. A function, and the command
/// line over a store, have no such phase.
pub async fn refuse_while_starting(
    Extract(state): Extract<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    let is_served = request.extensions().get::<OverSocket>().is_some();
    if is_served && !state.engine.health().is_prepared() {
        return ApiError::from(NotAccepted::Starting).into_response();
    }
    next.run(request).await
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
