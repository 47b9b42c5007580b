//! `/callback/{token}`: answers from outside to steps that wait for them. The token is the right to answer.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::body;
use super::error::Refusal;
use super::path::Path;
use super::router::State;
use crate::engine::callback::{Answer, NotAnswered};

/// `POST /callback/{token}`: the body is the step's response.
pub async fn done(
    Extract(state): Extract<Arc<State>>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let bytes = read(&state, request).await?;
    answer(&state, &token, Answer::Done(bytes)).await
}

/// `POST /callback/{token}/fail`: the step fails with class `callback_failed`. The body may hold a `message`.
pub async fn failed(
    Extract(state): Extract<Arc<State>>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let bytes = read(&state, request).await?;
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let text = body["message"].as_str().map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), str::to_owned);
    let why = if text.trim().is_empty() { "the caller said that it failed".to_owned() } else { text };
    answer(&state, &token, Answer::Failed(why)).await
}

/// `POST /callback/{token}/heartbeat`: whoever works on it still does.
pub async fn heartbeat(Extract(state): Extract<Arc<State>>, Path(token): Path<String>) -> Result<Json<Value>, Refusal> {
    answer(&state, &token, Answer::Beat).await
}

pub(super) async fn read(state: &State, request: Request) -> Result<Vec<u8>, Refusal> {
    let bytes_max = state.engine.config().server.body_bytes_max;
    body::judge(request.headers(), bytes_max)?;
    let _reading = state.place(&state.reading)?;
    Ok(body::read(request.into_body(), bytes_max).await?.to_vec())
}

pub(super) async fn answer(state: &State, token: &str, answer: Answer) -> Result<Json<Value>, Refusal> {
    let message = if matches!(answer, Answer::Beat) { "heartbeat received" } else { "callback received" };
    match state.engine.answer(token, &answer).await {
        Ok(answered) => Ok(Json(json!({
            "status": "ok", "message": message, "run_id": answered.run.to_string(), "duplicate": answered.duplicate,
        }))),
        Err(NotAnswered::Unknown) => Err(Refusal::not_found("not found")),
        Err(NotAnswered::Conflict) => {
            Err(Refusal::new(StatusCode::CONFLICT, "conflict", "this callback was answered before, with another body"))
        }
        Err(NotAnswered::Gone) => Err(Refusal::new(StatusCode::GONE, "gone", "the step waits no longer")),
        Err(NotAnswered::NotDone(error)) => Err(error.into()),
    }
}
