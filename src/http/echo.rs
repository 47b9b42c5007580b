//! `/_echo`: answers with the request it was sent, for trying things out. It is served only where
//! `server.echo` allows it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Extract};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::router::State;
use crate::model::Payload;

/// `ANY /_echo`: `{"headers":{…},"body": JSON or string}`.
pub async fn echo(
    Extract(state): Extract<Arc<State>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let received = state.read(request).await?;
    let headers: Map<String, Value> = received
        .head
        .headers
        .iter()
        .map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned().into())
        })
        .collect();
    let body = Payload::read(received.bytes.clone()).into_value();
    Ok(Json(json!({ "headers": headers, "body": body })))
}
