//! The routes under `/api/events`: list events, show one with its payload, list its jobs.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State as Extract};

use serde_json::{Value, json};

use super::jobs::{add_waits, error_of, max_attempts, status_of, summary, url_of};
use super::page::{Query, and_one, has_more};
use super::{Allowed, State};
use crate::engine::Engine;
use crate::http::error::ApiError;
use crate::http::path::Path;
use crate::model::{Event, EventId, Job};
use crate::store::{EventFilter, JobFilter, Page};

/// The jobs of one event that are shown: the first thousand.
const JOBS: Page = Page { limit: 1000, newest_first: false };

/// `GET /api/events`: a page of events without payloads, the oldest first unless `order=desc`.
pub async fn list(Allowed(engine): Allowed, query: RawQuery) -> Result<Json<Value>, ApiError> {
    let query =
        Query::read(query, &["source", "event_type", "since", "until", "limit", "after", "order"])?;
    let page = query.page()?;
    let filter = EventFilter {
        source: query.text("source").map(str::to_owned),
        kind: query.text("event_type").map(str::to_owned),
        since: query.instant("since")?,
        until: query.instant("until")?,
        after: query.parsed("after", "an event id", |t| t.parse().ok())?,
    };
    let mut events = engine.store().events(&filter, and_one(page)).await?;
    let has_more = has_more(&mut events, page);
    let event = |e: &Event| {
        json!({
            "id": e.id.to_string(),
            "source": e.source,
            "event_type": e.kind,
            "unique_key": e.unique_key,
            "created_at": e.created_at.to_string(),
        })
    };
    Ok(Json(
        json!({ "events": events.iter().map(event).collect::<Vec<_>>(), "has_more": has_more }),
    ))
}

/// `GET /api/events/{id}`: one event with its payload and jobs.
pub async fn show(
    Allowed(engine): Allowed,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let missing = || ApiError::not_found("event not found");
    let id: EventId = id.parse().map_err(|_| missing())?;
    let mut found = engine.store().events_by_id(&[id]).await?;
    let event = found.remove(&id).ok_or_else(missing)?;
    let jobs = jobs_of(&engine, id).await?;
    let runs = super::runs::of_event(&engine, id).await?;
    let unreadable = event.body.view().err().map(|why| why.why.clone());
    let payload = match event.body.view() {
        Ok(value) if event.body.is_json() => value.to_value(),
        _ => String::from_utf8_lossy(event.body.bytes()).into_owned().into(),
    };
    let headers: serde_json::Map<String, Value> =
        event.headers.iter().map(|(n, v)| (n.clone(), v.clone().into())).collect();
    let job = |job: &Job| {
        json!({ "id": job.id.to_string(), "handler": job.target.name(), "url": url_of(&engine, job),
                "status": status_of(
                    &engine, job,
                ), "attempt": job.attempt, "max_attempts": max_attempts(&engine, job),
                "last_error": error_of(job) })
    };
    let mut shown: Vec<Value> = jobs.iter().map(job).collect();
    add_waits(&engine, &jobs, &mut shown).await?;
    Ok(Json(json!({
        "id": event.id.to_string(), "source": event.source, "event_type": event.kind,
        "payload": payload, "unreadable": unreadable,
        "headers": headers, "unique_key": event.unique_key,
        "created_at": event.created_at.to_string(),
        "jobs": shown, "workflow_runs": runs.iter().map(super::runs::summary).collect::<Vec<_>>(),
    })))
}

/// `GET /api/events/{id}/jobs`: the jobs of an event; an unknown event has none.
pub async fn jobs(
    Extract(_): Extract<Arc<State>>,
    Allowed(engine): Allowed,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let jobs = match id.parse() {
        Ok(id) => jobs_of(&engine, id).await?,
        Err(_) => Vec::new(),
    };
    let mut shown: Vec<Value> = jobs.iter().map(|job| summary(&engine, job)).collect();
    add_waits(&engine, &jobs, &mut shown).await?;
    Ok(Json(json!({ "jobs": shown })))
}

async fn jobs_of(engine: &Engine, event: EventId) -> Result<Vec<Job>, ApiError> {
    let filter = JobFilter { event: Some(event), ..JobFilter::default() };
    Ok(engine.store().jobs(&filter, JOBS).await?)
}
