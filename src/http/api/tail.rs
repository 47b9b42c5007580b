//! `/api/tail`: what happens in this process, a JSON object a line, for as long as the caller listens.

use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Allowed;
use crate::engine::Engine;
use crate::observe::feed::Moment;

/// An empty line this often shows that the line is alive.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// `GET /api/tail`: lines until the caller hangs up or the server shuts down.
pub async fn tail(Allowed(engine): Allowed) -> Response {
    let moments = engine.feed().follow();
    let lines = stream::unfold((engine, moments), |(engine, mut moments)| async move {
        let line = line(&engine, &mut moments).await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(line)), (engine, moments)))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

async fn line(engine: &Engine, moments: &mut Receiver<Moment>) -> Option<String> {
    tokio::select! {
        moment = moments.recv() => match moment {
            Ok(moment) => Some(format!("{}\n", moment.json())),
            Err(RecvError::Lagged(missed)) => Some(format!("{}\n", json!({ "moment": "missed", "count": missed }))),
            Err(RecvError::Closed) => None,
        },
        () = tokio::time::sleep(ALIVE_EVERY) => Some("\n".to_owned()),
        () = engine.draining() => None,
    }
}
