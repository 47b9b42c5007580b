//! `/api/rejections`: the refused requests, counted by source and reason.

use axum::Json;
use serde_json::{Value, json};

use super::Allowed;
use crate::http::error::ApiError;
use crate::store::Rejection;

/// `GET /api/rejections`: how many requests each source refused, by reason, those that are counted
/// only in memory included.
pub async fn list(Allowed(engine): Allowed) -> Result<Json<Value>, ApiError> {
    // What is counted in memory belongs to the answer.
    engine.flush().await?;
    let rejections = engine.store().rejections().await?;
    let rejection = |r: &Rejection| {
        json!({
            "source": r.source,
            "reason": r.reason,
            "count": r.count,
            "last_at": r.last_at.to_string(),
        })
    };
    Ok(Json(json!({ "rejections": rejections.iter().map(rejection).collect::<Vec<_>>() })))
}
