//! `/api/jobs`: jobs, which the API calls deliveries, with the statuses that the API gives them.

use std::collections::HashMap;

use axum::Json;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Allowed;
use super::page::{Query, and_one, has_more};
use crate::engine::Engine;
use crate::engine::parked::unserved;
use crate::http::error::ApiError;
use crate::http::path::Path;
use crate::model::FailureCode;
use crate::model::{Attempt, Failure, Job, JobId, JobState, Lane, LaneId, Target};
use crate::store::{JobFilter, Retry};

/// The API's status of a job. It splits the stored state `Pending` into `parked`, `available` (no
/// attempt yet) and `retryable`.
pub fn status_of(engine: &Engine, job: &Job) -> &'static str {
    match job.state {
        JobState::Pending if engine.why_parked(job).is_some() => "parked",
        JobState::Pending if job.attempt == 0 => "available",
        JobState::Pending => "retryable",
        JobState::Leased => "running",
        JobState::Done => "completed",
        JobState::Dead => "dead",
        JobState::Cancelled => "cancelled",
    }
}

/// The API's kind of a job: a delivery to a handler, a message of a queue, the start of a run, a
/// step's call, or a time that a run waits for.
pub fn kind_of(job: &Job) -> &'static str {
    match job.target {
        Target::Handler(_) => "delivery",
        Target::Queue(_) => "message",
        Target::Alert(_) => "alert",
        Target::Workflow(_) => "start",
        Target::Slot(_) => "slot",
        Target::Step(_) => "step",
        Target::Timer(_) => "timer",
    }
}

/// The jobs that one status of the API selects.
#[derive(Debug, Clone, Copy, Default)]
struct Selects {
    state: Option<JobState>,
    /// Whether at least one attempt must have been made; `None` accepts both.
    attempted: Option<bool>,
    /// Whether the job must be parked; `None` accepts both.
    parked: Option<bool>,
}

fn selects(status: &str) -> Option<Selects> {
    let of = |state| Selects { state: Some(state), ..Selects::default() };
    Some(match status {
        "available" => {
            Selects { attempted: Some(false), parked: Some(false), ..of(JobState::Pending) }
        }
        "retryable" => {
            Selects { attempted: Some(true), parked: Some(false), ..of(JobState::Pending) }
        }
        "parked" => Selects { parked: Some(true), ..of(JobState::Pending) },
        "running" => of(JobState::Leased),
        "completed" => of(JobState::Done),
        "dead" => of(JobState::Dead),
        "cancelled" => of(JobState::Cancelled),
        _ => return None,
    })
}

/// The last error of a job; `cancelled` for a cancelled one.
pub fn error_of(job: &Job) -> Option<String> {
    match job.state {
        JobState::Cancelled => Some("cancelled".to_owned()),
        _ => job.last_error.clone(),
    }
}

/// The failure code of a job that ended for a reason that no attempt records: `cancelled`,
/// `expired` or `crash_suspect`. Attempts have codes of their own.
pub fn code_of(job: &Job) -> Option<&'static str> {
    let error = job.last_error.as_deref().unwrap_or("");
    match job.state {
        JobState::Cancelled => Some("cancelled"),
        JobState::Dead if error == Failure::Expired.to_string() => {
            Some(FailureCode::Expired.as_str())
        }
        JobState::Dead if error == Failure::CrashSuspect.to_string() => {
            Some(FailureCode::CrashSuspect.as_str())
        }
        _ => None,
    }
}

/// How many attempts the job's handler allows in the current configuration, over all its retry
/// policies; `None` for other jobs.
pub fn max_attempts(engine: &Engine, job: &Job) -> Option<u32> {
    engine
        .handler(job.target.name())
        .map(|h| h.retry.iter().map(|retry| retry.max.max(1) - 1).sum::<u32>() + 1)
}

/// The URL of the job's handler in the current configuration, with stars for secrets; `None` for
/// other jobs.
pub fn url_of(engine: &Engine, job: &Job) -> Option<String> {
    engine.handler(job.target.name()).map(|h| h.shown_url.clone())
}

/// A job as the API's lists show it, without attempts.
pub fn summary(engine: &Engine, job: &Job) -> Value {
    json!({
        "id": job.id.to_string(), "kind": kind_of(job), "event_id": job.event.to_string(),
        "handler": job.target.name(), "status": status_of(
            engine, job,
        ),
        "attempt": job.attempt, "max_attempts": max_attempts(
            engine, job,
        ), "scheduled_at": job.due_at.to_string(),
        "last_error": error_of(job), "code": code_of(job), "created_at": job.created_at.to_string(),
    })
}

/// `GET /api/jobs`: a page of jobs without their attempts, filtered by status and handler.
pub async fn list(Allowed(engine): Allowed, query: RawQuery) -> Result<Json<Value>, ApiError> {
    let query = Query::read(query, &["status", "handler", "limit", "after", "order"])?;
    let page = query.page()?;
    let expected = "available, running, retryable, parked, completed, dead or cancelled";
    let selects = query.parsed("status", expected, selects)?.unwrap_or_default();
    let parked = match selects.parked {
        None => None,
        Some(yes) => Some((yes, unserved(engine.directory(), &engine.store().lanes().await?))),
    };
    let filter = JobFilter {
        states: selects.state.into_iter().collect(),
        attempted: selects.attempted,
        parked,
        handler: query.text("handler").map(str::to_owned),
        event: None,
        after: query.parsed("after", "a job id", |t| t.parse().ok())?,
    };
    let mut jobs = engine.store().jobs(&filter, and_one(page)).await?;
    let has_more = has_more(&mut jobs, page);
    let mut shown: Vec<Value> = jobs.iter().map(|j| summary(&engine, j)).collect();
    add_waits(&engine, &jobs, &mut shown).await?;
    Ok(Json(json!({ "jobs": shown, "has_more": has_more })))
}

/// Adds `waits` to each open job that is shown: why it is not worked on, such as a paused lane, a
/// due time or a full worker.
pub async fn add_waits(engine: &Engine, jobs: &[Job], shown: &mut [Value]) -> Result<(), ApiError> {
    if jobs.iter().all(|job| job.state != JobState::Pending) {
        return Ok(());
    }
    let now = engine.store().now().await?;
    let lanes: HashMap<LaneId, Lane> =
        engine.store().lanes().await?.into_iter().map(|lane| (lane.id.clone(), lane)).collect();
    for (job, shown) in jobs.iter().zip(shown).filter(|(job, _)| job.state == JobState::Pending) {
        let lane = lanes.get(&job.target.lane());
        let parked = engine.why_parked(job);
        let why = match lane.and_then(|lane| lane.waits(now)) {
            _ if parked.is_some() => parked,
            Some(waits) => Some(waits.to_string()),
            None if job.due_at > now => Some(format!("it is due at {}", job.due_at)),
            None => engine.why_no_slot(&job.target.lane()),
        };
        shown["waits"] = json!(why);
    }
    Ok(())
}

async fn find(engine: &Engine, id: &str) -> Result<Job, ApiError> {
    let missing = || ApiError::not_found("job not found");
    let id: JobId = id.parse().map_err(|_| missing())?;
    engine.store().job(id).await?.ok_or_else(missing)
}

/// `GET /api/jobs/{id}`: one job with its URL; with `include_attempts=true`, its attempts, too.
pub async fn show(
    Allowed(engine): Allowed,
    Path(id): Path<String>,
    query: RawQuery,
) -> Result<Json<Value>, ApiError> {
    let query = Query::read(query, &["include_attempts"])?;
    let with_attempts = query
        .parsed("include_attempts", "true or false", |t| t.parse::<bool>().ok())?
        .unwrap_or(false);
    let job = find(&engine, &id).await?;
    let mut shown = summary(&engine, &job);
    shown["url"] = json!(url_of(&engine, &job));
    add_waits(&engine, std::slice::from_ref(&job), std::slice::from_mut(&mut shown)).await?;
    if with_attempts {
        let attempts = engine.store().attempts(job.id).await?;
        shown["attempts"] = attempts.iter().map(attempt).collect();
    }
    Ok(Json(shown))
}

/// `GET /api/jobs/{id}/attempts`: all attempts of a job that were recorded.
pub async fn attempts(
    Allowed(engine): Allowed,
    Path(id): Path<String>,
    query: RawQuery,
) -> Result<Json<Value>, ApiError> {
    Query::read(query, &[])?;
    let job = find(&engine, &id).await?;
    let attempts = engine.store().attempts(job.id).await?;
    Ok(Json(json!({ "attempts": attempts.iter().map(attempt).collect::<Vec<_>>() })))
}

/// An attempt as JSON. For an address that may not be called, response and duration are left out:
/// they would reveal what is there.
fn attempt(attempt: &Attempt) -> Value {
    let blocked = attempt.code == Some(FailureCode::BlockedAddress);
    json!({
        "attempt": attempt.number, "status_code": attempt.status, "error": attempt.error,
        "code": attempt.code.map(FailureCode::as_str),
        "result": attempt.ending.as_str(),
        "duration_ms": if blocked { 0 } else { crate::model::time::millis(attempt.duration) },
        "response": String::from_utf8_lossy(if blocked { b"" } else { &attempt.response }),
        "created_at": attempt.at.to_string(),
    })
}

/// `POST /api/jobs/retry?status=dead|retryable[&handler=]`: tries all of them again now, with a
/// fresh budget of attempts.
pub async fn retry_all(Allowed(engine): Allowed, query: RawQuery) -> Result<Json<Value>, ApiError> {
    let query = Query::read(query, &["status", "handler"])?;
    let status = query
        .text("status")
        .ok_or_else(|| ApiError::bad_request("missing required query parameter: status"))?;
    let state = match status {
        "dead" => JobState::Dead,
        "retryable" => JobState::Pending,
        _ => return Err(ApiError::bad_request("status must be 'dead' or 'retryable'")),
    };
    let handler = query.text("handler").map(str::to_owned);
    let which = Retry::All { state, handler: handler.clone() };
    let retried = engine.store().retry(&which).await?;
    engine.wake().await;
    Ok(Json(json!({ "retried": retried, "status": status, "handler": handler })))
}

/// `POST /api/jobs/{id}/retry`: tries a dead or cancelled job again, with a fresh budget of
/// attempts. Jobs of runs are refused.
pub async fn retry(
    Allowed(engine): Allowed,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let job = find(&engine, &id).await?;
    if let Some(visiting) = job.target.visit_ref() {
        return Err(conflict(
            &engine,
            &job,
            &format!(
                "a job of a run cannot be retried on its own: redrive run {} instead",
                visiting.run
            ),
        ));
    }
    let retried = engine.store().retry(&Retry::One(job.id)).await?;
    if retried == 0 {
        return Err(conflict(&engine, &job, "only a dead or cancelled job can be retried"));
    }
    engine.wake().await;
    Ok(Json(json!({ "id": job.id.to_string(), "retried": retried })))
}

/// `POST /api/jobs/{id}/cancel`: cancels an open job. Jobs of runs are refused.
pub async fn cancel(
    Allowed(engine): Allowed,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let job = find(&engine, &id).await?;
    if let Some(visiting) = job.target.visit_ref() {
        return Err(conflict(
            &engine,
            &job,
            &format!(
                "a job of a run cannot be cancelled on its own: cancel run {} instead",
                visiting.run
            ),
        ));
    }
    match engine.store().cancel(job.id).await? {
        true => Ok(Json(json!({ "id": job.id.to_string(), "cancelled": true }))),
        false => Err(conflict(&engine, &job, "only an open job can be cancelled")),
    }
}

/// `POST /api/jobs/cancel?handler=NAME`: cancels every open delivery to a handler, also to one that
/// the configuration no longer names.
pub async fn cancel_all(
    Allowed(engine): Allowed,
    query: RawQuery,
) -> Result<Json<Value>, ApiError> {
    let query = Query::read(query, &["handler"])?;
    let handler = query
        .text("handler")
        .ok_or_else(|| ApiError::bad_request("missing required query parameter: handler"))?;
    let cancelled = engine.cancel_handler_jobs(handler).await?;
    Ok(Json(json!({ "cancelled": cancelled, "handler": handler })))
}

fn conflict(engine: &Engine, job: &Job, why: &str) -> ApiError {
    ApiError::new(
        StatusCode::CONFLICT,
        "conflict",
        format!("{why}; this one is {}", status_of(engine, job)),
    )
}
