//! `/metrics`: counters of this process and gauges of the store, in Prometheus's text format.

use std::sync::Arc;

use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::auth;
use super::router::State;
use crate::engine::Engine;
use crate::model::Lane;
use crate::observe::metrics::{Gauge, longest, render};
use crate::store::Result;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /metrics`: when the store is unreachable, only its gauges are left out.
pub async fn metrics(Extract(state): Extract<Arc<State>>, headers: HeaderMap) -> Response {
    let config = state.engine.config();
    if auth::bearer(&headers, config.api.metrics_auth_token.as_ref()).is_err() {
        return (StatusCode::UNAUTHORIZED, "Invalid token").into_response();
    }
    let mut all = of_process(&state.engine);
    match of_store(&state.engine).await {
        Ok(gauges) => all.extend(gauges),
        Err(error) => {
            tracing::debug!(%error, "The gauges from the database are omitted from this scrape.")
        }
    }
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], render(&all, config.compat.qhook_metrics))
        .into_response()
}

fn gauge(name: &'static str, value: f64) -> Gauge {
    Gauge { name, label: None, value }
}

fn of_process(engine: &Engine) -> Vec<Gauge> {
    let mut gauges = vec![
        gauge("slots_in_use", f64::from(engine.slots_in_use())),
        gauge("delivery_duration_seconds_max", longest().as_secs_f64()),
    ];
    if let Some((open, idle)) = engine.store().connections() {
        let of_state = |state: &str, n: u32| Gauge {
            label: Some(("state", state.to_owned())),
            ..gauge("pool_connections", n.into())
        };
        gauges.extend([
            of_state("idle", idle.min(open)),
            of_state("used", open.saturating_sub(idle)),
        ]);
    }
    gauges
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a double; counts beyond 2^53 do not occur"
)]
async fn of_store(engine: &Engine) -> Result<Vec<Gauge>> {
    let store = engine.store();
    let (totals, lanes, backlog, now) =
        (store.totals().await?, store.lanes().await?, store.backlog().await?, store.now().await?);
    let parked: u64 = engine.parked(&lanes).await?.iter().map(|parked| parked.jobs).sum();
    let mut gauges = vec![
        gauge("queue_depth", totals.open.max(0) as f64),
        gauge("dead_jobs", totals.dead.max(0) as f64),
        gauge("parked_jobs", parked as f64),
    ];
    // Only the configured ones: what others left behind must not add labels.
    let lanes: Vec<&Lane> = lanes
        .iter()
        .filter(|lane| engine.handler(lane.id.0.trim_start_matches("handler:")).is_some())
        .collect();
    let of_lane = |name, lane: &Lane, value| Gauge {
        name,
        label: Some(("lane", lane.id.to_string())),
        value,
    };
    gauges.extend(lanes.iter().map(|lane| {
        let age = backlog.get(&lane.id).map_or(0.0, |since| now.since(*since).as_secs_f64());
        of_lane("lane_oldest_due_seconds", lane, age)
    }));
    gauges.extend(lanes.iter().map(|lane| {
        let is_open = !lane.paused && lane.breaker.open_until.is_none_or(|until| until <= now);
        of_lane("lane_open", lane, f64::from(u8::from(is_open)))
    }));
    gauges.extend(
        lanes.iter().map(|lane| of_lane("lane_failures", lane, f64::from(lane.breaker.failures))),
    );
    Ok(gauges)
}
