//! A steady state: events come in and old ones go, for as long as it runs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::engine::{Engine, Kind, Place, Setup, Store, WORKER};
use super::figures::{Database, cpu_seconds};
use super::generate::generate;
use super::scenarios::{TYPE, closed, handler};
use super::sink::Sink;

/// Into how many parts a run is divided, to see what grows.
const PARTS: u64 = 6;

/// The same load without retention and with one of a few seconds, in turns.
pub async fn steady_state(store: &Store, sink: &Sink, events: u64, rounds: u32) -> Value {
    let (mut kept, mut deleted) = (Vec::new(), Vec::new());
    let brief = format!("{WORKER}, retention: {{ completed: {{ age: 5s }} }}");
    for _ in 0..rounds {
        kept.push(run(store, sink, events, WORKER).await);
        deleted.push(run(store, sink, events, &brief).await);
    }
    let rates = |runs: &[Value]| -> Vec<f64> {
        runs.iter().map(|run| run["delivered_per_s"].as_f64().unwrap()).collect()
    };
    let mut ratios: Vec<f64> =
        rates(&deleted).iter().zip(rates(&kept)).map(|(with, without)| with / without).collect();
    ratios.sort_by(f64::total_cmp);
    let hundredths = |ratio: &f64| (ratio * 100.0).round() / 100.0;
    json!({
        "with_to_without_retention": hundredths(&ratios[ratios.len() / 2]),
        "from": hundredths(&ratios[0]),
        "to": hundredths(&ratios[ratios.len() - 1]),
        "without": kept,
        "with": deleted,
    })
}

async fn run(store: &Store, sink: &Sink, events: u64, worker: &str) -> Value {
    let place = Place::new(store).await;
    let setup = Setup {
        handlers: vec![handler("h", TYPE, "/ok")],
        worker: worker.to_owned(),
        ..Setup::default()
    };
    let engine = Engine::start(&Kind::Tidehook, &place, sink.address, &setup).await;
    let (began, cpu, mut parts) = (Instant::now(), cpu_seconds(engine.pid()), Vec::new());
    let mut delivered = 0;
    for part in 0..PARTS {
        sink.reset(0);
        let first = part * (events / PARTS);
        let load = super::generate::Load { first, ..closed(events / PARTS) };
        let sent = generate(engine.address, &load).await;
        sink.wait_for(sent.accepted, Duration::from_secs(60)).await;
        delivered += sink.unique();
        let database = Database::read(place.server()).await;
        parts.push(json!({
            "megabytes": (place.bytes().await as f64 / 1e5).round() / 10.0,
            "dead_rows": database.map(|database| database.dead_rows),
        }));
    }
    let seconds = began.elapsed().as_secs_f64();
    json!({
        "delivered": delivered,
        "delivered_per_s": (delivered as f64 / seconds).round(),
        "cpu_ms_per_event":
            ((cpu_seconds(engine.pid()) - cpu) * 1e5 / events as f64).round() / 100.0,
        "parts": parts,
    })
}
