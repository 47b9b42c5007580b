//! `/api/lanes`: lists lanes (destinations) with what keeps their deliveries waiting, pauses and
//! resumes them.

use std::collections::BTreeMap;

use axum::Json;
use serde_json::{Value, json};

use super::Allowed;
use crate::engine::Engine;
use crate::engine::parked::ParkedLane;
use crate::http::error::ApiError;
use crate::http::path::Path;
use crate::model::lane::Waits;
use crate::model::{Lane, LaneId};

/// `GET /api/lanes`: every lane that the configuration serves or that still has parked jobs, with
/// its state.
pub async fn list(Allowed(engine): Allowed) -> Result<Json<Value>, ApiError> {
    let now = engine.store().now().await?;
    let mut lanes = engine.store().lanes().await?;
    let parked: BTreeMap<LaneId, ParkedLane> = engine
        .parked(&lanes)
        .await?
        .into_iter()
        .map(|parked| (parked.lane.clone(), parked))
        .collect();
    // What nobody serves and nothing waits for is of the past.
    lanes.retain(|lane| {
        parked.contains_key(&lane.id) || engine.directory().why_parked(&lane.id).is_none()
    });
    let lane = |lane: &Lane| {
        let parked = parked.get(&lane.id);
        let open_until = lane.breaker.open_until.filter(|until| *until > now);
        let waits = lane.waits(now);
        let state = match waits {
            _ if parked.is_some() => "parked",
            Some(Waits::Paused) => "paused",
            Some(Waits::Tripped(_) | Waits::Probing) => "tripped",
            _ => "open",
        };
        json!({
            "id": lane.id.to_string(),
            "state": state,
            "failures": lane.breaker.failures,
            "tripped_until": open_until.map(|t| t.to_string()),
            "rate_limit": lane.bucket.map(|b| b.rate),
            "not_before": lane.breaker.not_before.filter(|at| *at > now).map(|t| t.to_string()),
            "parked_jobs": parked.map(|parked| parked.jobs),
            "waits": parked.map(|_| "parked").or(waits.map(|waits| waits.as_str())),
            "why": parked.map(|parked| parked.why.clone()).or(waits.map(|waits| waits.to_string())),
        })
    };
    Ok(Json(json!({ "lanes": lanes.iter().map(lane).collect::<Vec<_>>() })))
}

/// `POST /api/lanes/{id}/pause` and `POST /api/lanes/{id}/resume`: stop or continue the deliveries
/// of a lane.
///
/// A pause keeps due times. When the breaker is open, a resumed lane tries one delivery at once.
/// The lane id of a step holds a slash, encoded or not.
pub async fn operate(
    Allowed(engine): Allowed,
    Path(path): Path<String>,
) -> Result<Json<Value>, ApiError> {
    match path.rsplit_once('/') {
        Some((id, "pause")) => set(&engine, id.to_owned(), true).await,
        Some((id, "resume")) => set(&engine, id.to_owned(), false).await,
        _ => Err(ApiError::not_found(
            "no such route; use /api/lanes/LANE/pause or /api/lanes/LANE/resume",
        )),
    }
}

async fn set(engine: &Engine, id: String, paused: bool) -> Result<Json<Value>, ApiError> {
    let lane = LaneId(id);
    if lane.0.contains(char::is_control) {
        return Err(ApiError::not_found("lane not found"));
    }
    if !engine.store().pause(&lane, paused).await? {
        return Err(ApiError::not_found("lane not found"));
    }
    engine.wake().await;
    Ok(Json(json!({ "id": lane.to_string(), "paused": paused })))
}
