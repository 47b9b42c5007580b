//! Runs of workflows while their servers are killed, again and again: nothing stuck, nothing
//! skipped, every step completed once, the items of a map in their order, everything undone once
//! and in reverse when the last step fails, the last word said, and a second call only where an
//! attempt is on record.
//!
//! `TIDEHOOK_STORM_RUNS` and `TIDEHOOK_STORM_SECONDS` make it longer than the suite needs it: 500
//! and 60 are the full one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{SQLITE, get};
use crate::support::cluster::{Server, on_each_server};
use crate::support::endpoint::{Endpoint, ReceivedRequest};
use crate::support::process::Home;
use crate::support::world::client;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn config(database: &str, receiver: &Endpoint) -> String {
    let driver = database.split(':').next().unwrap();
    let url = |path: &str| receiver.url(path);
    format!(
        r#"database: {{ driver: {driver}, url: "{database}" }}
server: {{ bind: 127.0.0.1, port: {{port}}, allow_private_urls: true }}
worker: {{ max_concurrency: 50, batch_size: 100, stale_threshold_secs: 2 }}
delivery: {{ default_retry: {{ max: 3, interval: 200ms }} }}
sources: {{ app: {{ type: event }} }}
workflows:
  storm:
    source: app
    on_failure: compensate
    finally: [{{ name: undo, url: "{undo}" }}]
    steps:
      - {{ name: first, url: "{first}", result_path: "null", compensate: {{ url: "{unfirst}" }} }}
      - name: each
        type: map
        items_path: "$.items"
        max_concurrency: 10
        steps: [{{ name: one, url: "{one}", result_path: "null", compensate: {{ url: "{unone}", body: {{ item: "{{{{ $$.step.input }}}}" }} }} }}]
        result_path: "$.each"
      - name: three
        type: parallel
        branches: [{{ name: a, url: "{a}" }}, {{ name: b, url: "{b}" }}, {{ name: c, url: "{c}" }}]
        result_path: "$.three"
      - {{ name: which, type: choice, choices: [{{ when: "$.n >= 0", goto: pause }}], default: never }}
      - {{ name: never, url: "{never}", end: true }}
      - {{ name: pause, type: wait, seconds: 1 }}
      - {{ name: ask, type: callback, url: "{ask}", result_path: "$.answer" }}
      - {{ name: last, url: "{last}", retry: {{ max: 2, interval: 200ms }} }}
"#,
        first = url("/ok/first"),
        unfirst = url("/ok/unfirst"),
        unone = url("/ok/unone"),
        one = url("/ok/one"),
        a = url("/ok/a"),
        b = url("/ok/b"),
        c = url("/ok/c"),
        never = url("/ok/never"),
        ask = url("/ok/ask"),
        last = url("/status/500"),
        undo = url("/ok/undo"),
    )
}

/// Posts until it is answered with 2xx; the key makes repeats harmless.
async fn surely(url: String, key: &str, body: String) {
    let http = client();
    for _ in 0..2_000 {
        let request = http.post(&url).header("idempotency-key", key).body(body.clone());
        if let Ok(response) = request.send().await
            && (response.status().is_success() || matches!(response.status().as_u16(), 404 | 410))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    panic!("{url} never answered");
}

/// Answers every callback that is asked for, as often as it is asked for.
async fn answer_callbacks(receiver: Endpoint, base: String) {
    let mut answered = BTreeSet::new();
    loop {
        for got in receiver.got_at("/ok/ask") {
            let token = got.header("x-tidehook-callback-token").unwrap().to_owned();
            if answered.insert(token.clone()) {
                tokio::spawn(surely(
                    format!("{base}/callback/{token}"),
                    "",
                    json!({ "yes": true }).to_string(),
                ));
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn storm(database: &str) {
    let (runs, seconds) = (number("TIDEHOOK_STORM_RUNS", 40), number("TIDEHOOK_STORM_SECONDS", 10));
    let receiver = Endpoint::start().await;
    let home = Home::new(&config(database, &receiver));
    let mut server = home.start().await;
    let answering = tokio::spawn(answer_callbacks(receiver.clone(), home.url("")));
    let items: Vec<u64> = (0..25).collect();
    let posting = tokio::spawn(futures::future::join_all((0..runs).map(|n| {
        let body = json!({ "n": n, "items": items.clone() }).to_string();
        surely(
            home.url("/events/app/storm"),
            Box::leak(format!("storm-{n}").into_boxed_str()),
            body,
        )
    })));
    let start = Instant::now();
    let mut kills = 0_u64;
    while start.elapsed() < Duration::from_secs(seconds) {
        // Between 0.3 and 1.2 s, a different moment each time.
        tokio::time::sleep(Duration::from_millis(300 + kills * 379 % 900)).await;
        server.kill();
        server = home.spawn();
        kills += 1;
    }
    posting.await.unwrap();
    crate::support::process::until_ready(&home.url("/readyz")).await;
    let waiting = async {
        while !open(&home).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(240), waiting).await.is_err() {
        panic!("stuck: {:?}", open(&home).await);
    }
    answering.abort();
    let fsck = get(&home, "/api/fsck").await;
    assert_eq!(
        (fsck["runs"].as_u64(), &fsck["faults"]),
        (Some(runs), &json!([])),
        "after {kills} kills"
    );
    let failed =
        get(&home, "/api/runs?status=failed&limit=1000").await["runs"].as_array().unwrap().clone();
    assert_eq!(failed.len() as u64, runs, "every run failed at its last step");
    for run in &failed {
        let id = run["id"].as_str().unwrap();
        let shown = get(&home, &format!("/api/runs/{id}")).await;
        steps_completed_once(&shown);
        undone_in_reverse(&shown);
    }
    let undone: BTreeMap<u64, Value> = receiver.got_at("/ok/undo").iter().map(body).collect();
    assert_eq!(undone.len() as u64, runs, "every rollback came");
    for body in undone.values() {
        assert_eq!(body["each"], json!(items), "in the order of the items");
        assert_eq!(
            (&body["answer"], &body["failed_step"], &body["status"]),
            (&json!({"yes": true}), &json!("last"), &json!(500))
        );
        assert_eq!(body["three"].as_object().unwrap().len(), 3);
    }
    assert!(receiver.got_at("/ok/never").is_empty());
    calls_are_on_record(&home, &receiver).await;
    assert!(!home.log().contains("panicked"), "{}", home.log());
    server.stop().await;
}

fn body(got: &ReceivedRequest) -> (u64, Value) {
    let value: Value = serde_json::from_slice(&got.body).unwrap();
    (value["n"].as_u64().unwrap(), value)
}

/// In a run's history every visit was entered once and left once.
fn steps_completed_once(run: &Value) {
    let history = run["history"].as_array().unwrap();
    let of = |kinds: &[&str]| -> Vec<u64> {
        let entries =
            history.iter().filter(|entry| kinds.contains(&entry["kind"].as_str().unwrap()));
        entries.filter_map(|entry| entry["visit"].as_u64()).collect()
    };
    let (entered, left) = (of(&["StepEntered"]), of(&["StepCompleted", "StepFailed"]));
    let unique: BTreeSet<u64> = entered.iter().copied().collect();
    assert_eq!(unique.len(), entered.len(), "{run}");
    // first, each, 25 items, three, 3 branches, which, pause, ask, last; 25 items and first undone;
    // undo.
    assert_eq!(entered.len(), 1 + 1 + 25 + 1 + 3 + 1 + 1 + 1 + 1 + 26 + 1, "{run}");
    let left_once: BTreeSet<u64> = left.iter().copied().collect();
    assert_eq!((left_once.len(), left.len()), (entered.len(), entered.len()), "{run}");
}

/// What was done was undone, the last first.
fn undone_in_reverse(run: &Value) {
    let history = run["history"].as_array().unwrap();
    let done = |step: &str| -> Vec<i64> {
        let of_step = history
            .iter()
            .filter(|entry| entry["kind"] == "StepCompleted" && entry["step"] == step);
        of_step.filter_map(|entry| entry["seq"].as_i64()).collect()
    };
    let (items, undone) = (done("storm/each:one"), done("storm/each:one.compensate"));
    assert_eq!((items.len(), undone.len()), (25, 25), "{run}");
    let first = done("storm/first.compensate");
    assert!(
        first.len() == 1 && undone.iter().all(|seq| *seq < first[0]),
        "what was done first is undone last: {run}"
    );
    assert_eq!(done("storm/undo").len(), 1);
}

/// Runs that have not ended.
async fn open(home: &Home) -> Vec<Value> {
    let mut open = Vec::new();
    for status in ["running", "compensating", "paused"] {
        let runs = get(home, &format!("/api/runs?status={status}&limit=3")).await;
        open.extend(runs["runs"].as_array().unwrap().iter().cloned());
    }
    open
}

/// An operation was called no more often than it has attempts on record.
async fn calls_are_on_record(home: &Home, receiver: &Endpoint) {
    let mut calls: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for got in receiver.got() {
        let key = got.header("idempotency-key").unwrap().to_owned();
        let job = got.header("x-tidehook-job-id").unwrap().to_owned();
        calls.entry(key).or_insert((0, job)).0 += 1;
    }
    let repeated: Vec<(usize, String)> =
        calls.values().filter(|(count, _)| *count > 1).cloned().collect();
    for (count, job) in &repeated {
        let attempts = get(home, &format!("/api/jobs/{job}/attempts")).await["attempts"]
            .as_array()
            .unwrap()
            .len();
        assert!(
            *count <= attempts,
            "job {job} called {count} times with {attempts} attempts on record"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_survive_a_storm_of_kills_on_sqlite() {
    storm(SQLITE).await;
}

on_each_server!(runs_survive_a_storm_of_kills);

async fn runs_survive_a_storm_of_kills(database: Server) {
    storm(&database.url()).await;
}
