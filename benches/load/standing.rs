//! What stands around a load: kept rows, blocked backlogs, a second process, nothing at all, and a
//! hostile one.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection, raw_sql};
use tidehook::model::Secret;
use tidehook::store::{self, Address, ClaimRequest};

use super::engine::{Engine, Handler, Kind, Place, Setup, Store};
use super::figures::{Database, cpu_seconds, machine_idle, memory_mb};
use super::generate::generate;
use super::lanes::{hot_lane, many_lanes};
use super::scenarios::{TYPE, closed, handler, merge, open, post};
use super::sink::Sink;

/// A measurement of the engine alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// What one commit costs without an engine, at 300 a second.
    OneCommit,
    /// A running engine without work.
    Idle,
    /// 100 events a second before and beside a backlog that cannot run; then a start with that
    /// backlog.
    Blocked,
    /// 300 events a second, and claims alone, beside a million kept rows.
    Kept,
    /// One process, then two on the same database.
    TwoProcesses,
    /// Claims with 100,000 lanes that have due work, and with ten.
    ManyLanes,
    /// One lane with a backlog: one process, then four.
    HotLane,
    /// Strangers: names that never repeat, large bodies with bad signatures, endless answers,
    /// requests that never end.
    Hostile,
}

impl Standing {
    pub const ALL: [Self; 8] = [
        Self::OneCommit,
        Self::Idle,
        Self::Blocked,
        Self::Kept,
        Self::TwoProcesses,
        Self::ManyLanes,
        Self::HotLane,
        Self::Hostile,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::OneCommit => "one commit, 300 a second",
            Self::Idle => "idle",
            Self::Blocked => "backlog of a blocked lane",
            Self::Kept => "a million kept rows",
            Self::TwoProcesses => "two processes",
            Self::ManyLanes => "many lanes",
            Self::HotLane => "one hot lane",
            Self::Hostile => "hostile",
        }
    }

    /// SQLite belongs to one process. What fills a database by hand knows no MariaDB.
    pub fn is_for(self, store: &Store) -> bool {
        match store {
            Store::Sqlite => !matches!(self, Self::TwoProcesses | Self::HotLane),
            Store::Postgres(_) => true,
            Store::Mariadb(_) => {
                matches!(self, Self::Idle | Self::TwoProcesses | Self::ManyLanes | Self::HotLane)
            }
        }
    }

    pub async fn run(self, store: &Store, sink: &Sink, quick: bool) -> Value {
        let place = Place::new(store).await;
        let n = |full: u64, short: u64| if quick { short } else { full };
        match self {
            Self::OneCommit => one_commit(&place, n(3_000, 300)).await,
            Self::Idle => idle(&place, sink, Duration::from_secs(n(60, 5))).await,
            Self::Blocked => blocked(&place, sink, n(100_000, 5_000), n(3_000, 300)).await,
            Self::Kept => kept(&place, sink, n(1_000_000, 50_000), n(6_000, 900)).await,
            Self::TwoProcesses => two_processes(store, sink, n(10_000, 2_000)).await,
            Self::ManyLanes => {
                many_lanes(store, n(100_000, 2_000) as usize, n(2_000, 100) as usize).await
            }
            Self::HotLane => hot_lane(store, sink, n(3_000, 200)).await,
            Self::Hostile => hostile(&place, sink, n(10_000, 500)).await,
        }
    }
}

pub fn quantiles(of: &Histogram<u64>) -> Value {
    let at = |quantile| of.value_at_quantile(quantile) as f64 / 1e3;
    json!({ "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0) })
}

/// A connection beside the engine's.
enum Beside {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Beside {
    async fn connect(place: &Place) -> Self {
        if place.is_server {
            return Self::Postgres(PgConnection::connect(&place.url).await.unwrap());
        }
        let mut this = Self::Sqlite(SqliteConnection::connect(&place.url).await.unwrap());
        this.run(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000",
        )
        .await;
        this
    }

    async fn run(&mut self, sql: &str) {
        let sql = raw_sql(AssertSqlSafe(sql));
        match self {
            Self::Sqlite(conn) => sql.execute(conn).await.map(drop),
            Self::Postgres(conn) => sql.execute(conn).await.map(drop),
        }
        .unwrap();
    }

    /// One prepared insert, which is a commit.
    async fn insert(&mut self, id: i64, body: &str) {
        match self {
            Self::Sqlite(conn) => sqlx::query("INSERT INTO one VALUES (?, ?)")
                .bind(id)
                .bind(body)
                .execute(conn)
                .await
                .map(drop),
            Self::Postgres(conn) => sqlx::query("INSERT INTO one VALUES ($1, $2)")
                .bind(id)
                .bind(body)
                .execute(conn)
                .await
                .map(drop),
        }
        .unwrap();
    }
}

async fn one_commit(place: &Place, commits: u64) -> Value {
    let mut conn = Beside::connect(place).await;
    conn.run("CREATE TABLE one (id BIGINT PRIMARY KEY, body TEXT)").await;
    let body = "x".repeat(300);
    let mut took = Histogram::new(3).unwrap();
    let mut beat = tokio::time::interval(Duration::from_micros(1_000_000 / 300));
    for id in 0..commits {
        beat.tick().await;
        let began = Instant::now();
        conn.insert(id as i64, &body).await;
        took.record((began.elapsed().as_micros() as u64).max(1)).unwrap();
    }
    json!({ "commit_ms": quantiles(&took) })
}

async fn idle(place: &Place, sink: &Sink, time: Duration) -> Value {
    let engine = Engine::start(&Kind::Tidehook, place, sink.address, &one_handler()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (before, cpu) = (Database::read(place.server()).await, cpu_seconds(engine.pid()));
    tokio::time::sleep(time).await;
    let cpu = (cpu_seconds(engine.pid()) - cpu) / time.as_secs_f64() * 100.0;
    let mut line = json!({
        "cpu_percent": (cpu * 100.0).round() / 100.0,
        "memory_mb": memory_mb(engine.pid()).0.round(),
    });
    if let (Some(before), Some(after)) = (before, Database::read(place.server()).await) {
        line["database"] = after.since(&before, 1, time.as_secs_f64());
    }
    line
}

fn one_handler() -> Setup {
    Setup { handlers: vec![handler("h", TYPE, "/ok")], ..Setup::default() }
}

/// One load at a fixed rate, all of it awaited.
async fn steady(engine: &Engine, sink: &Sink, events: u64, per_second: u64) -> Value {
    sink.reset(0);
    let sent = generate(engine.address, &open(events, per_second)).await;
    sink.wait_for(sent.accepted, Duration::from_secs(60)).await;
    let mut line = sent.figures;
    merge(&mut line, sink.figures(sent.accepted, sent.started_us));
    line
}

async fn blocked(place: &Place, sink: &Sink, backlog: u64, events: u64) -> Value {
    let handlers: Vec<Handler> =
        vec![handler("h", TYPE, "/ok"), handler("blocked", "blocked", "/ok/blocked")];
    let setup = Setup { handlers, ..Setup::default() };
    let engine = Engine::start(&Kind::Tidehook, place, sink.address, &setup).await;
    let before = steady(&engine, sink, events, 100).await;
    post(&engine, "/api/lanes/handler%3Ablocked/pause").await;
    let path = "/events/app/blocked".to_owned();
    generate(engine.address, &super::generate::Load { path, first: 1_000_000, ..closed(backlog) })
        .await;
    let mut beside = steady(&engine, sink, events, 100).await;
    let p95 = |line: &Value| line["end_to_end_ms"]["p95"].as_f64().unwrap_or(f64::NAN);
    beside["p95_to_before"] = json!((p95(&beside) / p95(&before) * 100.0).round() / 100.0);
    let memory = memory_mb(engine.pid());
    drop(engine);
    // The start with the backlog, on the lane that is open again: how soon it is at work.
    let engine = Engine::start(&Kind::Tidehook, place, sink.address, &setup).await;
    sink.reset(0);
    let began = Instant::now();
    post(&engine, "/api/lanes/handler%3Ablocked/resume").await;
    while sink.unique() == 0 && began.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let first = began.elapsed().as_millis();
    sink.wait_for(backlog, Duration::from_secs(30)).await;
    let drained = (sink.unique() as f64 / began.elapsed().as_secs_f64()).round();
    json!({
        "before": before, "beside": beside, "memory_mb": memory.1.round(),
        "cold_start": { "first_delivery_ms": first, "delivered_per_s": drained, "missing": backlog - sink.unique().min(backlog),
            "memory_mb_highest": memory_mb(engine.pid()).1.round() },
    })
}

/// Ended jobs with their events and attempts, written by SQL.
async fn fill(conn: &mut Beside, rows: u64, is_server: bool) {
    let last = rows - 1;
    let series = if is_server {
        format!("WITH series AS (SELECT n FROM generate_series(0, {last}) AS g(n))")
    } else {
        format!(
            "WITH RECURSIVE series(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM series WHERE n < \
             {last})"
        )
    };
    let id = if is_server { "LPAD(n::text, 26, '0')" } else { "printf('%026d', n)" };
    let body =
        if is_server { "CONVERT_TO('{\"n\":1}', 'UTF8')" } else { "CAST('{\"n\":1}' AS BLOB)" };
    let empty = if is_server { "''::bytea" } else { "x''" };
    for (table, columns, values) in [
        (
            "events",
            "id, source, kind, headers, body, created_at",
            format!("{id}, 'app', 'old', '[]', {body}, 9000000000000"),
        ),
        (
            "jobs",
            "id, event_id, target_kind, target_name, lane, state, attempt, lost, claim, due_at, \
             created_at, finished_at",
            format!(
                "{id}, {id}, 'handler', 'h', 'handler:h', 'done', 1, 0, 1, n, n, 9000000000000"
            ),
        ),
        (
            "attempts",
            "job_id, claim, number, ending, duration_ms, response, at",
            format!("{id}, 1, 1, 'delivered', 1, {empty}, 9000000000000"),
        ),
    ] {
        // Postgres wants the common table before the insert's select, SQLite before the insert.
        let sql = if is_server {
            format!("INSERT INTO {table} ({columns}) {series} SELECT {values} FROM series")
        } else {
            format!("{series} INSERT INTO {table} ({columns}) SELECT {values} FROM series")
        };
        conn.run(&sql).await;
    }
    conn.run("ANALYZE").await;
}

async fn kept(place: &Place, sink: &Sink, rows: u64, events: u64) -> Value {
    let engine = Engine::start(&Kind::Tidehook, place, sink.address, &one_handler()).await;
    let before = steady(&engine, sink, events, 300).await;
    let mut conn = Beside::connect(place).await;
    fill(&mut conn, rows, place.is_server).await;
    let beside = steady(&engine, sink, events, 300).await;
    let memory = memory_mb(engine.pid()).1.round();
    // Claims alone, by the store's verb: a backlog behind a pause, the engine gone, ten at a time.
    post(&engine, "/api/lanes/handler%3Ah/pause").await;
    generate(engine.address, &super::generate::Load { first: 2_000_000, ..closed(events) }).await;
    drop(engine);
    let address = Address::new(Secret::new(&place.url), 4);
    let store = store::connect(address).await.unwrap();
    store.pause(&tidehook::model::LaneId("handler:h".to_owned()), false).await.unwrap();
    let mut took = Histogram::new(3).unwrap();
    let mut claimed = 0;
    loop {
        let slots = tidehook::decide::fair::Slots::free(10);
        let began = Instant::now();
        let some = store
            .claim(&ClaimRequest {
                slots,
                lease: Duration::from_secs(60),
                skip: Vec::new(),
                unserved: Vec::new(),
                only: Vec::new(),
            })
            .await
            .unwrap();
        if some.is_empty() {
            break;
        }
        claimed += some.len();
        took.record((began.elapsed().as_micros() as u64).max(1)).unwrap();
    }
    json!({
        "before": before,
        "beside": beside,
        "memory_mb": memory,
        "claimed": claimed,
        "claim_ms": quantiles(&took),
    })
}

async fn two_processes(store: &Store, sink: &Sink, events: u64) -> Value {
    let mut line = json!({});
    for processes in [1_usize, 2] {
        let place = Place::new(store).await;
        let mut engines = Vec::new();
        for _ in 0..processes {
            engines
                .push(Engine::start(&Kind::Tidehook, &place, sink.address, &one_handler()).await);
        }
        sink.reset(0);
        let (began, idle) = (Instant::now(), machine_idle());
        let share = events / processes as u64;
        let load = |at: usize| super::generate::Load {
            first: share * at as u64,
            connections: 50 / processes as u64,
            ..closed(share)
        };
        let started_us = super::figures::now_us();
        let sent = futures::future::join_all(engines.iter().enumerate().map(|(at, engine)| {
            let load = load(at);
            async move { generate(engine.address, &load).await }
        }))
        .await;
        let accepting = began.elapsed().as_secs_f64();
        let accepted: u64 = sent.iter().map(|sent| sent.accepted).sum();
        sink.wait_for(accepted, Duration::from_secs(60)).await;
        let idle = (machine_idle() - idle) / began.elapsed().as_secs_f64() * 100.0;
        let mut one = sink.figures(accepted, started_us);
        one["accepted_per_s"] = json!((accepted as f64 / accepting).round());
        // Of all processors together: 100 would be one of them doing nothing all the time.
        one["machine_idle_percent_of_one_processor"] = json!(idle.round());
        line[if processes == 1 { "one" } else { "two" }] = one;
    }
    let rate = |of: &str| line[of]["delivered_per_s"].as_f64().unwrap_or(f64::NAN);
    let ratio = (rate("two") / rate("one") * 100.0).round() / 100.0;
    line["delivered_two_to_one"] = json!(ratio);
    line
}

async fn hostile(place: &Place, sink: &Sink, requests: u64) -> Value {
    let setup = Setup {
        handlers: vec![handler("h", TYPE, "/ok"), handler("huge", "huge", "/huge")],
        more: "  signed: { type: webhook, verify: github, secret: fictional }\n".to_owned(),
        ..Setup::default()
    };
    let engine = Engine::start(&Kind::Tidehook, place, sink.address, &setup).await;
    let mut stages = Vec::new();
    let mut note = |stage: &str, figures: Value, series: usize, cpu: f64| {
        let (now, highest) = memory_mb(engine.pid());
        stages.push(json!({
            "stage": stage,
            "statuses": figures["statuses"],
            "memory_mb": now.round(),
            "memory_mb_highest": highest.round(),
            "metric_series": series,
            "cpu_ms_per_request": (cpu * 1e5).round() / 1e2,
        }));
    };
    let load = |path: &str, events, body_bytes| super::generate::Load {
        path: path.to_owned(),
        body_bytes,
        ..closed(events)
    };
    note("before", json!({}), series(&engine).await, 0.0);
    for (stage, load) in [
        ("types that never repeat", load("/events/app/type.{n}", requests, 300)),
        ("sources that do not exist", load("/events/app{n}/x", requests, 300)),
        (
            "1 MB bodies with bad signatures",
            super::generate::Load {
                signature: Some(format!("sha256={}", "0".repeat(64))),
                ..load("/webhooks/signed", requests / 5, 1_000_000)
            },
        ),
        ("receiver that never stops answering", load("/events/app/huge", requests / 50, 300)),
    ] {
        let (cpu, events) = (cpu_seconds(engine.pid()), load.events.max(1));
        sink.reset(0);
        let sent = generate(engine.address, &load).await;
        if stage.starts_with("receiver") {
            sink.wait_for(events, Duration::from_secs(30)).await;
        }
        note(
            stage,
            sent.figures,
            series(&engine).await,
            (cpu_seconds(engine.pid()) - cpu) / events as f64,
        );
    }
    let mut unended = Vec::new();
    for _ in 0..500 {
        use tokio::io::AsyncWriteExt;
        let mut stream = tokio::net::TcpStream::connect(engine.address).await.unwrap();
        let _ = stream.write_all(b"POST /events/app/x HTTP/1.1\r\nhost: a\r\nx-slow: ").await;
        unended.push(stream);
    }
    let sent = steady(&engine, sink, 300, 100).await;
    note(
        "500 requests that never end, beside 100 a second",
        sent.clone(),
        series(&engine).await,
        0.0,
    );
    json!({
        "stages": stages,
        "good_requests_ms": sent["ingest_ms"],
        "good_requests_missing": sent["missing"],
    })
}

/// How many lines `/metrics` has.
async fn series(engine: &Engine) -> usize {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(engine.address).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.lines().filter(|line| line.starts_with("tidehook_")).count()
}
