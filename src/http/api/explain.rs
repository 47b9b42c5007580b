//! `/api/explain`: why an event reaches a handler, and why it does not reach the others.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Extract};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Allowed, State};
use crate::config::{Config, Source};
use crate::decide::plan::{Routes, explain as decide};
use crate::decide::workflow::data::check_params;
use crate::engine::Engine;
use crate::engine::near::NearMiss;
use crate::http::error::ApiError;
use crate::ingress::{self, AdmitError};
use crate::model::Body;
use crate::model::json;
use crate::model::{EventId, Inbound, Payload, Target};

/// The message for a body that is no object.
const EXPECTED: &str =
    "expected an object with `event_id`, or with `source`, `event_type` and `payload`";

/// The body of `POST /api/explain`: a stored event, or a payload as it might come in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    event_id: Option<String>,
    source: Option<String>,
    event_type: Option<String>,
    payload: Option<Value>,
}

/// `POST /api/explain` with `{"event_id"}`, or `{"source", "event_type", "payload"}`.
pub async fn explain(
    Extract(state): Extract<Arc<State>>,
    Allowed(engine): Allowed,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let received = state.read(request).await?;
    let question = json::value_of(&received.bytes)
        .map_err(|why| ApiError::invalid_field("body", why.to_string()))?;
    if !question.is_object() {
        return Err(ApiError::invalid_field("body", EXPECTED));
    }
    let question: Question = serde_json::from_value(question)
        .map_err(|e| ApiError::invalid_field("body", e.to_string()))?;
    let inbound = match &question.event_id {
        Some(id) => stored(&engine, id).await?,
        None => asked(&engine, question)?,
    };
    Ok(Json(answer(engine.config(), engine.routes(), &inbound)))
}

/// Explains the routing of an event: the handlers that match, the first clause that failed for each
/// other one, and why its source would refuse it.
pub fn answer(config: &Config, routes: &Routes, inbound: &Inbound) -> Value {
    let source = config.source(&inbound.source);
    let refused = source.and_then(|source| match ingress::check_schema(source, &inbound.body) {
        Ok(()) => None,
        Err(AdmitError::Schema(violations)) => {
            Some(format!("the payload does not satisfy the schema: {}", violations.join("; ")))
        }
        Err(other) => Some(format!("the source would refuse this payload: {}", other.as_str())),
    });
    let handlers: Vec<Value> = decide(routes, inbound)
        .into_iter()
        .map(|(route, why)| {
            json!({
                "handler": route.target.name(),
                "kind": route.target.kind(),
                "matches": why.is_none(),
                "fails": why.is_none().then(|| fails(config, &route.target, inbound)).flatten(),
                "why_not": why.map(|why| why.sentence(route, inbound)),
            })
        })
        .collect();
    json!({
        "source": inbound.source,
        "event_type": inbound.kind,
        "aliases": inbound.type_aliases,
        "refused": refused,
        "is_json": inbound.body.parsed_unless_text().is_some(),
        "unreadable": inbound.body.view().err().map(|why| why.why.clone()),
        "handlers": handlers,
    })
}

/// Why the workflow's run would fail before its first step: the payload lacks a parameter. `None`
/// for handlers.
fn fails(config: &Config, target: &Target, inbound: &Inbound) -> Option<String> {
    let Target::Workflow(name) = target else { return None };
    check_params(&config.workflow(name)?.flow, &Payload::of(&inbound.body)).err()
}

async fn stored(engine: &Engine, id: &str) -> Result<Inbound, ApiError> {
    let id: EventId =
        id.parse().map_err(|_| ApiError::invalid_field("event_id", "must be an event id"))?;
    let event = engine
        .store()
        .events_by_id(&[id])
        .await?
        .remove(&id)
        .ok_or_else(|| ApiError::not_found("event not found"))?;
    let source = find(engine, &event.source)?;
    Ok(ingress::again(source, &event.kind, event.headers, event.body))
}

fn asked(engine: &Engine, question: Question) -> Result<Inbound, ApiError> {
    let name = question.source.ok_or_else(|| {
        ApiError::invalid_field("source", "is required, unless `event_id` is given")
    })?;
    let kind = question.event_type.filter(|kind| !kind.trim().is_empty());
    let kind = kind.ok_or_else(|| {
        ApiError::invalid_field("event_type", "is required and must not be empty")
    })?;
    let body = question.payload.map_or(String::new(), |payload| payload.to_string());
    Ok(ingress::again(find(engine, &name)?, &kind, Vec::new(), Body::new(body)))
}

fn find<'a>(engine: &'a Engine, name: &str) -> Result<&'a Source, ApiError> {
    engine
        .config()
        .source(name)
        .map(AsRef::as_ref)
        .ok_or_else(|| ApiError::not_found("source not found"))
}

/// `GET /api/near-misses`: events that a handler of their source did not get, since this process
/// started.
pub async fn near_misses(Allowed(engine): Allowed) -> Json<Value> {
    let near = engine.near_misses();
    let counts: Vec<Value> = near
        .counts()
        .into_iter()
        .map(|near| json!({ "handler": near.handler, "clause": near.clause, "count": near.count }))
        .collect();
    let miss = |m: NearMiss| {
        json!({
            "event_id": m.event.to_string(),
            "handler": m.handler,
            "clause": m.clause,
            "saw": m.saw,
        })
    };
    Json(json!({ "counts": counts, "last": near.last().into_iter().map(miss).collect::<Vec<_>>() }))
}
