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
use crate::store;

/// A probe waits no longer for the store.
const WAIT_MAX: Duration = Duration::from_millis(1_800);
/// A wall clock further off than this must not judge signature windows.
const SKEW_MAX: Duration = Duration::from_secs(60);

/// `GET /livez`: the process is alive.
pub async fn live() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// `GET /readyz`: requests may be sent here.
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
    let Ok(Ok(store_now)) = tokio::time::timeout(WAIT_MAX, state.engine.probe()).await else {
        return not("database unreachable");
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
            let status = match () {
                () if state.engine.health().is_full() => "full",
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
