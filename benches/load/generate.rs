//! Posts events: as fast as they are answered (closed loop), or at a rate whatever the answers
//! (open loop).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::figures::now_us;

/// How much, how.
#[derive(Debug, Clone)]
pub struct Load {
    pub events: u64,
    pub connections: u64,
    /// Events a second over all connections; 0 is a closed loop.
    pub per_second: u64,
    /// `{n}` in it is replaced by the event's number.
    pub path: String,
    /// Bodies of about this size.
    pub body_bytes: usize,
    /// Sent as GitHub's signature header.
    pub signature: Option<String>,
    /// The number of the first event, so that several loads of a run differ.
    pub first: u64,
}

/// What the senders saw.
pub struct Sent {
    pub accepted: u64,
    pub started_us: u64,
    pub figures: Value,
}

/// Timers have a resolution of a millisecond and may be one late.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

pub async fn generate(to: SocketAddr, load: &Load) -> Sent {
    let next = Arc::new(AtomicU64::new(0));
    let padding: Arc<str> = "x".repeat(load.body_bytes.saturating_sub(60)).into();
    let (start, started_us) = (Instant::now(), now_us());
    let mut senders = JoinSet::new();
    for _ in 0..load.connections {
        let (load, next, padding) = (load.clone(), Arc::clone(&next), Arc::clone(&padding));
        senders.spawn(async move { send(to, &load, &next, &padding, start).await });
    }
    let mut latency = Histogram::<u64>::new(3).unwrap();
    let mut statuses: BTreeMap<u16, u64> = BTreeMap::new();
    while let Some(sender) = senders.join_next().await {
        let (mine, seen) = sender.unwrap();
        latency.add(mine).unwrap();
        seen.into_iter().for_each(|(status, n)| *statuses.entry(status).or_default() += n);
    }
    let seconds = start.elapsed().as_secs_f64();
    let accepted: u64 =
        statuses.iter().filter(|(status, _)| (200..300).contains(*status)).map(|(_, n)| n).sum();
    let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    let statuses: BTreeMap<String, u64> =
        statuses.into_iter().map(|(s, n)| (s.to_string(), n)).collect();
    let figures = json!({
        "accepted": accepted, "accepted_per_s": (accepted as f64 / seconds).round(),
        "statuses": statuses,
        "ingest_ms": { "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0) },
    });
    Sent { accepted, started_us, figures }
}

type Seen = (Histogram<u64>, BTreeMap<u16, u64>);

async fn send(
    to: SocketAddr,
    load: &Load,
    next: &AtomicU64,
    padding: &Arc<str>,
    start: Instant,
) -> Seen {
    let mut latency = Histogram::new(3).unwrap();
    let mut statuses = BTreeMap::new();
    while next.load(Ordering::Relaxed) < load.events {
        let Ok(stream) = TcpStream::connect(to).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let Ok((mut sender, connection)) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await
        else {
            continue;
        };
        tokio::spawn(connection);
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= load.events {
                return (latency, statuses);
            }
            let (mut began, mut at_us) = (Instant::now(), now_us());
            if let Some(due_ns) = (n * 1_000_000_000).checked_div(load.per_second) {
                let due = start + Duration::from_nanos(due_ns);
                tokio::time::sleep_until(due.into()).await;
                // In an open loop an event counts from the moment it was due, however late a
                // connection is free for it; only what the timer itself is late by does not count.
                let late = due.elapsed();
                let stalled = if late > TIMER_GRAIN { late } else { Duration::ZERO };
                (began, at_us) = (Instant::now() - stalled, now_us() - stalled.as_micros() as u64);
            }
            let n = load.first + n;
            let body =
                json!({ "id": format!("e-{n}"), "n": n, "at_us": at_us, "padding": &**padding })
                    .to_string();
            let request = hyper::Request::post(load.path.replace("{n}", &n.to_string()))
                .header("host", "127.0.0.1")
                .header("content-type", "application/json");
            let request = load
                .signature
                .iter()
                .fold(request, |request, value| request.header("x-hub-signature-256", value));
            let Ok(response) =
                sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await
            else {
                *statuses.entry(0).or_default() += 1;
                break;
            };
            let status = response.status().as_u16();
            let _ = response.into_body().collect().await;
            let _ = latency.record((began.elapsed().as_micros() as u64).max(1));
            *statuses.entry(status).or_default() += 1;
            if sender.ready().await.is_err() {
                break;
            }
        }
    }
    (latency, statuses)
}
