//! `/api/explain`: why does an event reach a handler, and why not the others?

use axum::Json;
use axum::extract::Request;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Allowed;
use crate::config::Source;
use crate::decide::plan::{Routes, explain as decide};
use crate::engine::Engine;
use crate::engine::near::NearMiss;
use crate::http::body;
use crate::http::error::Refusal;
use crate::ingress;
use crate::model::event::Body;
use crate::model::{EventId, Inbound};

/// What to explain: a stored event, or a payload as it might come in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    event_id: Option<String>,
    source: Option<String>,
    event_type: Option<String>,
    payload: Option<Value>,
}

/// `POST /api/explain` with `{"event_id"}`, or `{"source", "event_type", "payload"}`.
pub async fn explain(Allowed(engine): Allowed, request: Request) -> Result<Json<Value>, Refusal> {
    let bytes = body::read(request.into_body(), engine.config().server.body_bytes_max).await?;
    let question: Question = serde_json::from_slice(&bytes).map_err(|e| Refusal::invalid_field("body", e.to_string()))?;
    let inbound = match &question.event_id {
        Some(id) => stored(&engine, id).await?,
        None => asked(&engine, question)?,
    };
    Ok(Json(answer(engine.routes(), &inbound)))
}

/// Which handlers of the event's source get it, and for each other one the first clause that failed.
pub fn answer(routes: &Routes, inbound: &Inbound) -> Value {
    let handlers: Vec<Value> = decide(routes, inbound)
        .into_iter()
        .map(|(target, why)| {
            json!({ "handler": target.name(), "kind": target.kind(), "matches": why.is_none(), "why_not": why.map(|why| why.sentence(inbound)) })
        })
        .collect();
    json!({ "source": inbound.source, "event_type": inbound.kind, "aliases": inbound.aliases, "handlers": handlers })
}

async fn stored(engine: &Engine, id: &str) -> Result<Inbound, Refusal> {
    let missing = || Refusal::not_found("event not found");
    let id: EventId = id.parse().map_err(|_| missing())?;
    let event = engine.store().events_by_id(&[id]).await?.remove(&id).ok_or_else(missing)?;
    let source = find(engine, &event.source)?;
    Ok(ingress::again(source, &event.kind, event.headers, event.body))
}

fn asked(engine: &Engine, question: Question) -> Result<Inbound, Refusal> {
    let name = question.source.ok_or_else(|| Refusal::invalid_field("source", "name a source, or an `event_id`"))?;
    let kind = question.event_type.ok_or_else(|| Refusal::invalid_field("event_type", "name a type"))?;
    let body = question.payload.map_or(String::new(), |payload| payload.to_string());
    Ok(ingress::again(find(engine, &name)?, &kind, Vec::new(), Body::new(body)))
}

fn find<'a>(engine: &'a Engine, name: &str) -> Result<&'a Source, Refusal> {
    engine.config().source(name).ok_or_else(|| Refusal::not_found("source not found"))
}

/// `GET /api/near-misses`: events that a handler of their source did not get, since this process started.
pub async fn near_misses(Allowed(engine): Allowed) -> Json<Value> {
    let near = engine.near_misses();
    let counts: Vec<Value> = near
        .counts()
        .into_iter()
        .map(|(handler, clause, count)| json!({ "handler": handler, "clause": clause, "count": count }))
        .collect();
    let miss = |m: NearMiss| json!({ "event_id": m.event.to_string(), "handler": m.handler, "clause": m.clause, "saw": m.saw });
    Json(json!({ "counts": counts, "last": near.last().into_iter().map(miss).collect::<Vec<_>>() }))
}
