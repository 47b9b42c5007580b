//! Who may: bearer tokens, checked before anything is looked up.

use axum::http::{HeaderMap, header};

use super::error::Refusal;
use crate::model::Secret;

/// Checks `Authorization: Bearer …` in constant time. Without a configured token the door is open.
///
/// # Errors
/// One uniform 401, whatever the cause.
pub fn bearer(headers: &HeaderMap, token: Option<&Secret>) -> Result<(), Refusal> {
    let Some(token) = token else { return Ok(()) };
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let given = match (values.next(), values.next()) {
        (Some(one), None) => one.to_str().ok().and_then(|v| v.strip_prefix("Bearer ")),
        _ => None,
    };
    if given.is_some_and(|given| token.matches(given)) { Ok(()) } else { Err(Refusal::unauthorized()) }
}
