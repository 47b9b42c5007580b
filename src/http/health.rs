//! Probes: is the process alive, may it get requests, how does the work stand.

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

/// A probe waits no longer for the store.
const WAIT_MAX: Duration = Duration::from_millis(1_800);
/// A wall clock further off than this must not judge signature windows.
const SKEW_MAX: Duration = Duration::from_secs(60);

/// `GET /livez`: the process is alive.
pub async fn live() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// `GET /readyz`: requests may be sent here, because an event could be stored: the probe writes.
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
    let store_now = match tokio::time::timeout(WAIT_MAX, state.engine.probe()).await {
        Ok(Ok(now)) => now,
        _ => return not(&state.engine.health().no_writes().map_or("database unreachable".to_owned(), |why| why.to_string())),
    };
    let now = state.engine.clock().now();
    let skew = now.since(store_now).max(store_now.since(now));
    if skew > SKEW_MAX {
        return not("this machine's clock and the database's differ by more than a minute");
    }
    Json(json!({ "status": "ok" })).into_response()
}

/// `GET /health`: the state of the work, from maintained counters.
pub async fn health(Extract(state): Extract<Arc<State>>) -> Response {
    let answer = tokio::time::timeout(WAIT_MAX, state.engine.store().totals()).await;
    let answer = answer.unwrap_or_else(|_| Err(store::Error::Down("no answer in time".to_owned())));
    match state.engine.health().learn(answer) {
        Ok(totals) => {
            let was_down = state.was_down.swap(false, Ordering::Relaxed);
            let no_writes = state.engine.health().no_writes();
            let status = match () {
                () if no_writes.is_some() => no_writes.map_or("", NoWrites::word),
                () if was_down => "recovered",
                () if totals.dead > 0 => "degraded",
                () => "ok",
            };
            let (depth, dead) = (totals.open.max(0), totals.dead.max(0));
            Json(json!({ "status": status, "db_healthy": true, "queue_depth": depth, "dead_jobs": dead })).into_response()
        }
        Err(_) => {
            state.was_down.store(true, Ordering::Relaxed);
            let body = json!({ "status": "error", "db_healthy": false, "detail": "database unreachable" });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}
