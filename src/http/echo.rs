//! A mirror for trying things out: answers what it was sent. Served only where the configuration says so.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Extract};
use serde_json::{Map, Value, json};

use super::error::Refusal;
use super::router::State;
use crate::model::Payload;

/// `ANY /_echo`: `{"headers":{…},"body": JSON or string}`.
pub async fn echo(Extract(state): Extract<Arc<State>>, request: Request) -> Result<Json<Value>, Refusal> {
    let bytes_max = state.engine.config().server.body_bytes_max;
    let headers: Map<String, Value> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned().into()))
        .collect();
    let received = state.bodies.read(request, bytes_max).await?;
    let body = Payload::read(received.bytes.clone()).into_value();
    Ok(Json(json!({ "headers": headers, "body": body })))
}
