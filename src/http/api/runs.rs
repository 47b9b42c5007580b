//! `/api/runs`: routes to list, show, start and operate runs of workflows.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, Request, State as Extract};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::page::{Query, and_one, has_more};
use super::{Allowed, State};
use crate::engine::Engine;
use crate::engine::approval::Decision;
use crate::engine::operate::{NotStarted, OperateError, RedriveOptions};
use crate::engine::parked::ParkedLane;
use crate::http::error::ApiError;
use crate::http::path::Path;
use crate::model::body::Declared;
use crate::model::history::HistoryEntry;
use crate::model::run::{Visit, VisitPhase};
use crate::model::{Body, EventId, Run, RunId};
use crate::store::{Page, RunFilter};

/// The runs of one event that are shown: the first hundred.
const OF_EVENT: Page = Page { limit: 100, newest_first: false };

/// The most open visits of a run that are shown.
const VISITS_MAX: usize = 50;

/// A run as the API's lists show it, without its history.
pub fn summary(run: &Run) -> Value {
    let mut shown = json!({
        "id": run.id.to_string(), "workflow": run.workflow, "status": run.status.as_str(),
        "event_id": run.event.to_string(),
        "current_step": current(run), "error": run.error, "parent": run.parent.map(|(
            id, _,
        )| id.to_string()),
        "redrives": run.state.redrives, "created_at": run.created_at.to_string(),
        "completed_at": run.finished_at.map(|at| at.to_string()),
    });
    // Only where something is wrong with it.
    if let Some(why) = &run.unreadable {
        shown["unreadable"] = json!(why);
    }
    shown
}

/// The step that was entered last and is still open, else the one at which the run failed.
fn current(run: &Run) -> Option<&str> {
    let open = run.state.visits.values().next_back().map(|visit| visit.step.as_str());
    open.or_else(|| run.error.as_ref().and_then(|error| error.step.as_deref()))
}

/// The first hundred runs that an event started, the oldest first.
pub async fn of_event(engine: &Engine, event: EventId) -> Result<Vec<Run>, ApiError> {
    let filter = RunFilter { event: Some(event), ..RunFilter::default() };
    Ok(engine.store().runs(&filter, OF_EVENT).await?)
}

/// `GET /api/runs`: a page of runs without their histories, filtered by status, workflow and event.
pub async fn list(Allowed(engine): Allowed, query: RawQuery) -> Result<Json<Value>, ApiError> {
    let query = Query::read(query, &["status", "workflow", "event", "limit", "after", "order"])?;
    let page = query.page()?;
    let filter = RunFilter {
        workflow: query.text("workflow").map(str::to_owned),
        status: query.parsed(
            "status",
            "queued, running, paused, compensating, completed, failed or cancelled",
            |t| t.parse().ok(),
        )?,
        event: query.parsed("event", "an event id", |t| t.parse().ok())?,
        after: query.parsed("after", "a run id", |t| t.parse().ok())?,
    };
    let mut runs = engine.store().runs(&filter, and_one(page)).await?;
    let has_more = has_more(&mut runs, page);
    Ok(Json(json!({ "runs": runs.iter().map(summary).collect::<Vec<_>>(), "has_more": has_more })))
}

fn read_id(id: &str) -> Result<RunId, ApiError> {
    id.parse().map_err(|_| ApiError::not_found("run not found"))
}

/// `GET /api/runs/{id}`: a run with its open visits, their jobs, and its history.
pub async fn show(
    Allowed(engine): Allowed,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = read_id(&id)?;
    let run = engine.store().run(id).await?.ok_or_else(|| ApiError::not_found("run not found"))?;
    let history = engine.store().history(id).await?;
    let mut shown = summary(&run);
    shown["input"] = run.state.input.clone().into_value();
    shown["output"] = json!(run.state.output.clone().map(crate::model::Payload::into_value));
    let mut visits = Vec::new();
    for (seq, visit) in run.state.visits.iter().take(VISITS_MAX) {
        let mut open = open(*seq, visit);
        let mut jobs = Vec::new();
        for id in &visit.jobs {
            jobs.extend(
                engine.store().job(*id).await?.map(|job| super::jobs::summary(&engine, &job)),
            );
        }
        open["jobs"] = Value::Array(jobs);
        visits.push(open);
    }
    shown["open"] = Value::Array(visits);
    shown["history"] = history.iter().map(entry).collect();
    Ok(Json(shown))
}

/// An open visit as JSON. It shows the callback token of a step that sends it to nobody; a token
/// that a notification carries stays hidden.
fn open(seq: u32, visit: &Visit) -> Value {
    let mut shown = json!({ "visit": seq, "step": visit.step, "waits_for": word(&visit.phase) });
    if let VisitPhase::Token { token, .. } = &visit.phase {
        shown["callback_token"] = json!(token);
    }
    shown
}

fn word(phase: &VisitPhase) -> &'static str {
    match phase {
        VisitPhase::Call { .. } => "call",
        VisitPhase::Time => "time",
        VisitPhase::Answer { .. } | VisitPhase::Token { .. } => "callback",
        VisitPhase::Child { .. } => "workflow",
        VisitPhase::Inside { .. } => "steps inside",
    }
}

fn entry(entry: &HistoryEntry) -> Value {
    json!({
        "seq": entry.seq,
        "at": entry.at.to_string(),
        "kind": entry.kind,
        "step": entry.step,
        "visit": entry.visit,
        "data": entry.data,
    })
}

/// `GET /api/fsck`: inconsistencies of stored runs, and the parked jobs, which are no fault of the
/// store.
pub async fn fsck(Allowed(engine): Allowed) -> Result<Json<Value>, ApiError> {
    let fsck = engine.fsck().await?;
    let found = engine.parked(&engine.store().lanes().await?).await?;
    let fault = |(run, what): &(RunId, String)| json!({ "run_id": run.to_string(), "fault": what });
    let parked = |parked: &ParkedLane| {
        json!({
            "lane": parked.lane.to_string(),
            "jobs": parked.jobs,
            "why": parked.why,
        })
    };
    Ok(Json(json!({
        "runs": fsck.runs, "faults": fsck.faults.iter().map(fault).collect::<Vec<_>>(),
        "parked": found.iter().map(parked).collect::<Vec<_>>(),
    })))
}

/// `POST /api/runs/{id}/cancel`: ends a run after its rollback, if it has one, and its last steps.
pub async fn cancel(
    Allowed(engine): Allowed,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(summary(&engine.cancel_run(read_id(&id)?).await?)))
}

/// `POST /api/runs/{id}/kill`: ends a run at once, without rollback and last steps.
pub async fn kill(
    Allowed(engine): Allowed,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(summary(&engine.kill_run(read_id(&id)?).await?)))
}

/// `POST /api/runs/{id}/pause`: sends nothing for the run until it is resumed; due times are kept.
pub async fn pause(
    Allowed(engine): Allowed,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(summary(&engine.pause_run(read_id(&id)?).await?)))
}

/// `POST /api/runs/{id}/resume`: lets a paused run continue; one that a failure paused repeats what
/// failed.
pub async fn resume(
    Allowed(engine): Allowed,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(summary(&engine.resume_run(read_id(&id)?).await?)))
}

/// `POST /api/runs/{id}/redrive?from=STEP&latest=true`: continues a failed or cancelled run from
/// the step where it stopped, or from another one. A body replaces the payload of that step.
pub async fn redrive(
    Extract(state): Extract<Arc<State>>,
    Allowed(engine): Allowed,
    Path(id): Path<String>,
    query: RawQuery,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let query = Query::read(query, &["from", "latest"])?;
    let latest =
        query.parsed("latest", "true or false", |text| text.parse::<bool>().ok())?.unwrap_or(false);
    let bytes = state.read(request).await?.bytes;
    let wish = RedriveOptions {
        from: query.text("from").map(str::to_owned),
        payload: (!bytes.is_empty()).then_some(bytes),
        latest,
    };
    Ok(Json(summary(&engine.redrive_run(read_id(&id)?, &wish).await?)))
}

/// `POST /api/runs/{id}/steps/{step}/approve` with `{"by", "comment"}`: approves a step that waits
/// for a decision.
pub async fn approve(
    Extract(state): Extract<Arc<State>>,
    Allowed(engine): Allowed,
    Path((id, step)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    decide(&state, &engine, (&id, &step), true, request).await
}

/// `POST /api/runs/{id}/steps/{step}/reject` with `{"by", "comment"}`: rejects a step that waits
/// for a decision.
pub async fn reject(
    Extract(state): Extract<Arc<State>>,
    Allowed(engine): Allowed,
    Path((id, step)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    decide(&state, &engine, (&id, &step), false, request).await
}

async fn decide(
    state: &State,
    engine: &Engine,
    (id, step): (&str, &str),
    approved: bool,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = Body::new(state.read(request).await?.bytes);
    let decision =
        Decision::of(approved, &body).map_err(|why| ApiError::invalid_field("body", why))?;
    Ok(Json(summary(&engine.decide_step(read_id(id)?, step, &decision).await?)))
}

/// `POST /api/workflows/{name}/runs`: starts a run with the body as its payload, and answers 202
/// with its id.
pub async fn start(
    Extract(state): Extract<Arc<State>>,
    Allowed(engine): Allowed,
    Path(name): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let received = state.read(request).await?;
    let headers = &received.head.headers;
    let content_type =
        headers.get(axum::http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let body = Body::declared(received.bytes.clone(), Declared::of_headers(headers));
    let started = engine.start_run(&name, body, content_type).await;
    let (receipt, run) = started.map_err(|why| match why {
        NotStarted::NotAccepted(why) => ApiError::from(why),
        NotStarted::NoSuchWorkflow => OperateError::Missing.into(),
    })?;
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "run_id": run.to_string(), "event_id": receipt.event.to_string() })),
    ))
}
