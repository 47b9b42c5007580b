//! A receiver that counts: every event once per path, repeats, and the time since each was posted.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::figures::now_us;

#[derive(Default)]
struct Seen {
    copies: HashMap<(String, u64), u32>,
    latency_us: Option<Histogram<u64>>,
    last_us: u64,
}

/// The receiver. Paths that start with `/slow` answer late, those with `/hang` never, those with
/// `/huge` endlessly.
#[derive(Clone)]
pub struct Sink {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    delay_ms: Arc<AtomicU64>,
}

impl Sink {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            delay_ms: Arc::default(),
        };
        let routes = Router::new().fallback(take).with_state(sink.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        sink
    }

    pub fn reset(&self, delay_ms: u64) {
        *self.seen.lock().unwrap() = Seen { latency_us: Histogram::new(3).ok(), ..Seen::default() };
        self.delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    pub fn unique(&self) -> u64 {
        self.seen.lock().unwrap().copies.len() as u64
    }

    /// Waits until so many have arrived, or until nothing has for `patience`.
    pub async fn wait_for(&self, count: u64, patience: Duration) {
        let mut best = (self.unique(), tokio::time::Instant::now());
        while best.0 < count && best.1.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let unique = self.unique();
            if unique > best.0 {
                best = (unique, tokio::time::Instant::now());
            }
        }
    }

    /// What arrived, for `expected` deliveries posted from `started_us` on.
    pub fn figures(&self, expected: u64, started_us: u64) -> Value {
        let seen = self.seen.lock().unwrap();
        let unique = seen.copies.len() as u64;
        let all: u64 = seen.copies.values().map(|n| u64::from(*n)).sum();
        let seconds = seen.last_us.saturating_sub(started_us) as f64 / 1e6;
        let at = |quantile| {
            seen.latency_us.as_ref().map_or(0.0, |h| h.value_at_quantile(quantile) as f64 / 1e3)
        };
        json!({
            "delivered": unique, "missing": expected.saturating_sub(unique),
            "duplicates": all - unique,
            "delivered_per_s": if seconds > 0.0 { (unique as f64 / seconds).round() } else { 0.0 },
            "end_to_end_ms": { "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0) },
        })
    }
}

async fn take(State(sink): State<Sink>, uri: Uri, body: Bytes) -> Response {
    if uri.path().starts_with("/huge") {
        let chunks = futures::stream::repeat_with(|| {
            Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'x'; 64 * 1024]))
        });
        let posted = count(&sink, &uri, &body);
        return (posted.await, axum::body::Body::from_stream(chunks)).into_response();
    }
    count(&sink, &uri, &body).await.into_response()
}

async fn count(sink: &Sink, uri: &Uri, body: &Bytes) -> StatusCode {
    let arrived = now_us();
    if uri.path().starts_with("/hang") {
        std::future::pending::<()>().await;
    }
    let delay = sink.delay_ms.load(Ordering::Relaxed);
    if delay > 0 && uri.path().starts_with("/slow") {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return StatusCode::BAD_REQUEST };
    let (Some(n), Some(at)) = (value["n"].as_u64(), value["at_us"].as_u64()) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut seen = sink.seen.lock().unwrap();
    *seen.copies.entry((uri.path().to_owned(), n)).or_default() += 1;
    seen.last_us = seen.last_us.max(arrived);
    if let Some(histogram) = &mut seen.latency_us {
        let _ = histogram.record(arrived.saturating_sub(at).max(1));
    }
    StatusCode::OK
}
