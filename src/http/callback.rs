//! `/callback/{token}`: answers from outside to steps that wait for them. Whoever has the token may
//! answer.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::body::Received;
use super::error::ApiError;
use super::path::Path;
use super::router::State;
use crate::engine::callback::{Answer, NotAnswered, is_token};
use crate::model::Body;
use crate::model::body::Declared;

/// `POST /callback/{token}`: the body is the step's response.
pub async fn done(
    Extract(state): Extract<Arc<State>>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    known(&token)?;
    let body = read(&state, request).await?;
    answer(&state, &token, Answer::Done(body)).await
}

/// `POST /callback/{token}/fail`: the step fails with class `callback_failed`. The body may hold a
/// `message`.
pub async fn failed(
    Extract(state): Extract<Arc<State>>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    known(&token)?;
    let body = read(&state, request).await?;
    let text = body.text_at("/message").map(std::borrow::Cow::into_owned);
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(body.bytes()).into_owned());
    let why =
        if text.trim().is_empty() { "the callback reported a failure".to_owned() } else { text };
    answer(&state, &token, Answer::Failed(why)).await
}

/// `POST /callback/{token}/heartbeat`: reports that the work continues, which renews the step's
/// `heartbeat` time.
pub async fn heartbeat(
    Extract(state): Extract<Arc<State>>,
    Path(token): Path<String>,
) -> Result<Json<Value>, ApiError> {
    known(&token)?;
    answer(&state, &token, Answer::Heartbeat).await
}

/// Refuses with 404 a text that cannot be a token, before a body is read or the store is asked.
pub(super) fn known(token: &str) -> Result<(), ApiError> {
    if is_token(token) { Ok(()) } else { Err(ApiError::not_found("not found").closing()) }
}

pub(super) async fn read(state: &State, request: Request) -> Result<Body, ApiError> {
    let Received { head, bytes, .. } = state.read(request).await?;
    Ok(Body::declared(bytes, Declared::of_headers(&head.headers)))
}

pub(super) async fn answer(
    state: &State,
    token: &str,
    answer: Answer,
) -> Result<Json<Value>, ApiError> {
    let message = if matches!(answer, Answer::Heartbeat) {
        "heartbeat received"
    } else {
        "callback received"
    };
    match state.engine.answer(token, &answer).await {
        Ok(answered) => Ok(Json(json!({
            "status": "ok", "message": message, "run_id": answered.run.to_string(),
            "duplicate": answered.duplicate,
        }))),
        Err(NotAnswered::Unknown) => Err(ApiError::not_found("not found")),
        Err(NotAnswered::Conflict) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "conflict",
            "this callback was already answered with a different body",
        )),
        Err(NotAnswered::Gone) => Err(ApiError::new(
            StatusCode::GONE,
            "gone",
            "the step no longer waits for this callback",
        )),
        Err(NotAnswered::Unclear(why)) => Err(ApiError::invalid_field("approved", why)),
        Err(NotAnswered::OperateError(error)) => Err(error.into()),
    }
}
