//! What is measured.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::engine::{Engine, Handler, Kind, Place, Setup, Store};
use super::figures::{Database, cpu_seconds, memory_mb};
use super::generate::{Load, Sent, generate};
use super::sink::Sink;

/// When nothing more arrives for this long, the rest is missing.
const PATIENCE: Duration = Duration::from_secs(60);

/// One measurement.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: &'static str,
    /// Whether qhook runs it too.
    pub with_qhook: bool,
    handlers: Vec<Handler>,
    load: Load,
    /// The sink's delay on `/slow` paths.
    delay_ms: u64,
    /// Deliveries per event.
    fan_out: u64,
    /// The event starts a workflow of three calls instead of deliveries.
    is_workflow: bool,
    /// Before the load: a flood on a receiver that never answers, or a backlog behind a pause.
    before: Before,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// So many events for a receiver that hangs.
    Flood(u64),
    /// The load itself is posted while its lane is paused; what is measured is the drain.
    Pause,
}

pub const TYPE: &str = "order.created";

pub fn handler(name: &str, event: &str, path: &str) -> Handler {
    Handler { name: name.to_owned(), event: event.to_owned(), path: path.to_owned() }
}

pub fn closed(events: u64) -> Load {
    Load {
        events,
        connections: 50,
        per_second: 0,
        path: format!("/events/app/{TYPE}"),
        body_bytes: 300,
        signature: None,
        first: 0,
    }
}

pub fn open(events: u64, per_second: u64) -> Load {
    Load { per_second, ..closed(events) }
}

/// All of them; the long ones are short in a quick run.
pub fn all(quick: bool) -> Vec<Scenario> {
    let n = |full: u64, short: u64| if quick { short } else { full };
    let base = Scenario {
        name: "",
        with_qhook: true,
        handlers: vec![handler("h", TYPE, "/ok")],
        load: closed(n(10_000, 2_000)),
        delay_ms: 0,
        fan_out: 1,
        is_workflow: false,
        before: Before::Nothing,
    };
    let fan_out = |name, handlers: u64, events| Scenario {
        name,
        handlers: (0..handlers)
            .map(|h| handler(&format!("h{h}"), TYPE, &format!("/ok/{h}")))
            .collect(),
        load: closed(events),
        fan_out: handlers,
        ..base.clone()
    };
    vec![
        Scenario {
            name: "ingest only",
            handlers: vec![handler("h", "nothing.else", "/ok")],
            fan_out: 0,
            ..base.clone()
        },
        Scenario { name: "ingest and deliver", ..base.clone() },
        Scenario { name: "300 a second", load: open(n(6_000, 900), 300), ..base.clone() },
        fan_out("fan-out 10", 10, n(1_000, 200)),
        fan_out("fan-out 100", 100, n(200, 50)),
        Scenario {
            name: "slow receiver, 100 ms",
            handlers: vec![handler("h", TYPE, "/slow")],
            delay_ms: 100,
            load: closed(n(3_000, 600)),
            ..base.clone()
        },
        Scenario {
            name: "workflow of three steps",
            handlers: vec![handler("h", "nothing.else", "/ok")],
            load: closed(n(3_000, 500)),
            fan_out: 3,
            is_workflow: true,
            ..base.clone()
        },
        Scenario {
            name: "backlog drain",
            with_qhook: false,
            before: Before::Pause,
            ..base.clone()
        },
        Scenario {
            name: "flooded neighbour, 100 a second",
            with_qhook: false,
            handlers: vec![handler("h", TYPE, "/ok"), handler("flooded", "flood", "/hang")],
            load: open(n(2_000, 500), 100),
            before: Before::Flood(n(20_000, 2_000)),
            ..base.clone()
        },
        Scenario {
            name: "soak, 300 a second",
            with_qhook: false,
            load: open(n(54_000, 1_500), 300),
            ..base
        },
    ]
}

/// Runs one on an engine of its own.
pub async fn run(scenario: &Scenario, kind: &Kind, store: &Store, sink: &Sink) -> Value {
    let place = Place::new(store).await;
    let workflow = if scenario.is_workflow { three_steps(sink) } else { String::new() };
    let setup = Setup { handlers: scenario.handlers.clone(), workflow, ..Setup::default() };
    let engine = Engine::start(kind, &place, sink.address, &setup).await;
    sink.reset(scenario.delay_ms);
    prepare(scenario, &engine).await;
    let database = place.server();
    let (cpu, before) = (cpu_seconds(engine.pid()), Database::read(database).await);
    let (memory, start) = (memory_mb(engine.pid()).0, Instant::now());
    let (sent, started_us) = load(scenario, &engine, sink).await;
    let expected = sent.accepted * scenario.fan_out;
    sink.wait_for(expected, PATIENCE).await;
    let seconds = start.elapsed().as_secs_f64();
    let mut line = sent.figures;
    if scenario.fan_out > 0 {
        merge(&mut line, sink.figures(expected, started_us));
    }
    let (now, highest) = memory_mb(engine.pid());
    let round = |x: f64| (x * 100.0).round() / 100.0;
    line["cpu_ms_per_event"] =
        json!(round((cpu_seconds(engine.pid()) - cpu) * 1e3 / sent.accepted.max(1) as f64));
    line["memory_mb"] =
        json!({ "before": round(memory), "after": round(now), "highest": round(highest) });
    if let (Some(before), Some(after)) = (before, Database::read(database).await) {
        line["database"] = after.since(&before, sent.accepted, seconds);
    }
    line
}

/// Each step leaves the payload alone, so that each call can be counted.
fn three_steps(sink: &Sink) -> String {
    let step = |n: u32| {
        format!(
            "      - {{ name: s{n}, url: \"http://{}/ok/{n}\", result_path: \"null\" }}\n",
            sink.address
        )
    };
    let steps: String = (1..=3).map(step).collect();
    format!("workflows:\n  w:\n    source: app\n    events: [{TYPE}]\n    steps:\n{steps}")
}

async fn prepare(scenario: &Scenario, engine: &Engine) {
    match scenario.before {
        Before::Nothing => {}
        Before::Flood(events) => {
            generate(
                engine.address,
                &Load { path: "/events/app/flood".to_owned(), ..closed(events) },
            )
            .await;
        }
        Before::Pause => post(engine, "/api/lanes/handler%3Ah/pause").await,
    }
}

/// The load, and from when on deliveries are counted.
async fn load(scenario: &Scenario, engine: &Engine, sink: &Sink) -> (Sent, u64) {
    let sent = generate(engine.address, &scenario.load).await;
    if scenario.before != Before::Pause {
        let started_us = sent.started_us;
        return (sent, started_us);
    }
    assert_eq!(sink.unique(), 0, "a paused lane delivers nothing");
    let started_us = super::figures::now_us();
    post(engine, "/api/lanes/handler%3Ah/resume").await;
    (sent, started_us)
}

pub async fn post(engine: &Engine, path: &str) {
    use http_body_util::Empty;
    let stream = tokio::net::TcpStream::connect(engine.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::post(path)
        .header("host", "127.0.0.1")
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let status = sender.send_request(request).await.unwrap().status();
    assert!(status.is_success(), "{path}: {status}");
}

pub fn merge(line: &mut Value, more: Value) {
    if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
        line.extend(more);
    }
}
