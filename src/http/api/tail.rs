//! `/api/tail`: streams what happens in this process as lines of JSON, for as long as the caller
//! listens.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Allowed;
use super::page::Query;
use crate::engine::Engine;
use crate::engine::operate::BY_HAND;
use crate::http::error::ApiError;
use crate::observe::feed::{ENDINGS, FeedEvent, FeedFilter};

/// The answer of a process that does not see all work.
const NOT_HERE: &str = "/api/tail is not available in functions, because a function does not see \
                        the work of the others; poll GET /api/events, /api/jobs and \
                        /api/runs instead";

/// How often an empty line is sent while nothing happens, so that idle connections stay open and
/// dead ones are noticed.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// `GET /api/tail?source=&handler=&status=`: lines until the caller hangs up or the server shuts
/// down.
///
/// # Errors
/// 422 for a name that the configuration does not have: no line would ever match it. 501 in a
/// function.
pub async fn tail(
    Allowed(engine): Allowed,
    State(state): State<Arc<super::super::router::State>>,
    query: RawQuery,
) -> Result<Response, ApiError> {
    if !state.has_live_feed {
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "not_here", NOT_HERE));
    }
    let wanted = wanted(&engine, query)?;
    let moments = engine.feed().follow();
    let lines =
        stream::unfold((engine, moments, wanted), |(engine, mut moments, wanted)| async move {
            let line = line(&engine, &mut moments, &wanted).await?;
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(line)), (engine, moments, wanted)))
        });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn wanted(engine: &Engine, query: RawQuery) -> Result<FeedFilter, ApiError> {
    let query = Query::read(query, &["source", "handler", "status"])?;
    let config = engine.config();
    let one_of = |field: &str, known: Vec<&str>| {
        let wanted = query.text(field).map(str::to_owned);
        match &wanted {
            Some(name) if !known.contains(&name.as_str()) => {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(ApiError::invalid_field(
                    field,
                    format!("unknown {field}; valid values: {known}"),
                ))
            }
            _ => Ok(wanted),
        }
    };
    let sources = config.sources.iter().map(|s| s.name.as_str()).chain([BY_HAND]).collect();
    let handlers = config.handlers.iter().map(|h| h.name.as_str());
    let handlers = handlers.chain(config.workflows.iter().map(|w| w.name.as_str())).collect();
    Ok(FeedFilter {
        source: one_of("source", sources)?,
        handler: one_of("handler", handlers)?,
        status: one_of("status", ENDINGS.to_vec())?,
    })
}

async fn line(
    engine: &Engine,
    moments: &mut Receiver<FeedEvent>,
    wanted: &FeedFilter,
) -> Option<String> {
    let alive = tokio::time::sleep(ALIVE_EVERY);
    tokio::pin!(alive);
    loop {
        tokio::select! {
            moment = moments.recv() => match moment {
                Ok(moment) if !wanted.wants(&moment) => {}
                Ok(moment) => return Some(format!("{}\n", moment.json())),
                Err(RecvError::Lagged(missed)) => return Some(format!(
                    "{}\n", json!({ "moment": "missed", "count": missed }),
                )),
                Err(RecvError::Closed) => return None,
            },
            () = &mut alive => return Some("\n".to_owned()),
            () = engine.draining() => return None,
        }
    }
}
