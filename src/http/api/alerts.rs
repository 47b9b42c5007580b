//! `/api/alerts`: tries the channel out over which operators are notified.

use axum::Json;
use serde_json::{Value, json};

use super::Allowed;
use crate::http::error::ApiError;

/// `POST /api/alerts/test`: sends a test alert. Its event tells what became of it.
pub async fn test(Allowed(engine): Allowed) -> Result<Json<Value>, ApiError> {
    let none = || ApiError::not_found("the configuration has no section `alerts`");
    if engine.directory().alerts().is_none() {
        return Err(none());
    }
    let event = engine.test_alerts().await?.ok_or_else(|| {
        ApiError::new(
            axum::http::StatusCode::TOO_MANY_REQUESTS,
            "rate_limited",
            "five tests a minute are enough; try again later",
        )
        .retry_after(60)
    })?;
    Ok(Json(json!({ "event_id": event.to_string() })))
}
