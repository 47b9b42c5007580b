//! Who may use a route: bearer tokens, checked before anything is looked up.

use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};

use super::client::Peer;
use super::error::ApiError;
use crate::config::server::Api;
use crate::model::Secret;

/// Whether a caller may use the management API: with the token, or, when none is configured, from
/// this machine.
///
/// # Errors
/// 401 for a missing or wrong token; 403 with what to configure when there is no token and the
/// caller is elsewhere.
pub fn management(parts: &Parts, api: &Api) -> Result<(), ApiError> {
    if api.auth_token.is_some() || api.open {
        return bearer(&parts.headers, api.auth_token.as_ref());
    }
    // Whoever forwards a request hides where it comes from.
    const FORWARDING: [&str; 5] =
        ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"];
    let is_forwarded = FORWARDING.iter().any(|name| parts.headers.contains_key(*name));
    // A caller inside this process comes through no socket.
    let is_local =
        parts.extensions.get::<Peer>().is_none_or(|peer| peer.0.ip().to_canonical().is_loopback());
    if is_local && !is_forwarded {
        return Ok(());
    }
    let message = "api.auth_token is not set, so this route accepts requests from this machine \
        only: set api.auth_token, or api.open: true";
    Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message))
}

/// Checks `Authorization: Bearer …` in constant time; the scheme may be in any case (RFC 9110,
/// section 11.1). Everybody passes when `token` is `None`.
///
/// # Errors
/// The same 401 for every cause.
pub fn bearer(headers: &HeaderMap, token: Option<&Secret>) -> Result<(), ApiError> {
    let Some(token) = token else { return Ok(()) };
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let given = match (values.next(), values.next()) {
        (Some(one), None) => one.to_str().ok().and_then(token_of),
        _ => None,
    };
    if given.is_some_and(|given| token.matches(given)) {
        Ok(())
    } else {
        Err(ApiError::unauthorized())
    }
}

/// The token in the value of an `Authorization` header; `None` when its scheme is not `Bearer`.
pub fn token_of(credential: &str) -> Option<&str> {
    let (scheme, token) = credential.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start())
}
