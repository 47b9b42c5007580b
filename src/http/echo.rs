//! A mirror for trying things out: answers what it was sent. Served only where the configuration says so.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Extract};
use serde_json::{Map, Value, json};

use super::body;
use super::error::Refusal;
use super::router::State;

/// `ANY /_echo`: `{"headers":{…},"body": JSON or string}`.
pub async fn echo(Extract(state): Extract<Arc<State>>, request: Request) -> Result<Json<Value>, Refusal> {
    let bytes_max = state.engine.config().server.body_bytes_max;
    body::judge(request.headers(), bytes_max)?;
    let headers: Map<String, Value> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned().into()))
        .collect();
    let bytes = body::read(request.into_body(), bytes_max).await?;
    let body = serde_json::from_slice::<Value>(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
    Ok(Json(json!({ "headers": headers, "body": body })))
}
