//! Probes: whether the process is alive, whether it can take requests, and how the work stands.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::router::State;
use crate::engine::health::NoWrites;
use crate::store;

/// How long a probe waits for the store.
const WAIT_MAX: Duration = Duration::from_millis(1_800);
/// The clock difference to the database above which `/readyz` fails: timestamps of signatures could
/// not be judged.
const SKEW_MAX: Duration = Duration::from_secs(60);

/// `GET /livez`: answers whenever the process is alive, without asking the store.
pub async fn live() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// `GET /readyz`: whether requests may be sent here. It writes to the store, so success means that
/// an event could be stored.
pub async fn ready(Extract(state): Extract<Arc<State>>) -> Response {
    let not = |why: &str| {
        let body = Json(json!({ "status": "unavailable", "reason": why }));
        (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
    };
    if state.engine.is_draining() {
        return not("shutting down");
    }
    if !state.engine.health().is_prepared() {
        return not("starting");
    }
    let store_now = match tokio::time::timeout(WAIT_MAX, state.engine.write_check()).await {
        Ok(Ok(now)) => now,
        _ => {
            return not(&state
                .engine
                .health()
                .no_writes()
                .map_or("database unreachable".to_owned(), |why| why.to_string()));
        }
    };
    let now = state.engine.clock().now();
    let skew = now.since(store_now).max(store_now.since(now));
    if skew > SKEW_MAX {
        return not("the clocks of this machine and the database differ by more than a minute");
    }
    Json(json!({ "status": "ok" })).into_response()
}

/// `GET /health`: how the work stands, from counters that the store maintains.
pub async fn health(Extract(state): Extract<Arc<State>>) -> Response {
    let answer = tokio::time::timeout(WAIT_MAX, state.engine.store().totals()).await;
    let answer = answer.unwrap_or_else(|_| {
        Err(store::Error::down("the database did not respond in time".to_owned()))
    });
    match state.engine.health().learn(answer) {
        Ok(totals) => {
            let was_down = state.was_down.swap(false, Ordering::Relaxed);
            let no_writes = state.engine.health().no_writes();
            let status = match () {
                () if no_writes.is_some() => no_writes.map_or("", NoWrites::as_str),
                () if was_down => "recovered",
                () if totals.dead > 0 => "degraded",
                () => "ok",
            };
            let (depth, dead) = (totals.open.max(0), totals.dead.max(0));
            Json(json!({
                "status": status,
                "db_healthy": true,
                "queue_depth": depth,
                "dead_jobs": dead,
            }))
            .into_response()
        }
        Err(_) => {
            state.was_down.store(true, Ordering::Relaxed);
            let body =
                json!({ "status": "error", "db_healthy": false, "detail": "database unreachable" });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}
