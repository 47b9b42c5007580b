//! Copies between databases: everything arrives, and what was pending happens exactly once.
//!
//! `TIDEHOOK_COPY_EVENTS` makes the move larger than the suite needs it: 100000 is the full one.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use sqlx::Connection;
use tidehook::store::port::tables::TABLES;

use crate::support::endpoint::{Endpoint, PATIENCE};
use crate::support::process::{Home, binary};
use crate::support::stores::{self, Kind, fresh, url};
use crate::support::world::client;

#[tokio::test]
async fn every_column_of_the_schema_is_copied() {
    let fresh = fresh(Kind::Sqlite).await.unwrap();
    let mut conn = sqlx::SqliteConnection::connect(&fresh.url).await.unwrap();
    // The mark of a copy stays where it is.
    let query =
        "SELECT m.name || '.' || c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
        WHERE m.type = 'table' AND m.name NOT LIKE '%sqlx%' AND m.name NOT LIKE 'sqlite%'
            AND m.name <> 'moves' ORDER BY 1";
    let schema: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut conn).await.unwrap();
    let mut copied: Vec<String> = TABLES
        .iter()
        .flat_map(|table| table.columns.iter().map(|(name, _)| format!("{}.{name}", table.name)))
        .collect();
    copied.sort();
    assert_eq!(copied, schema);
}

fn copy(from: &str, more: &[&str]) -> Output {
    Command::new(binary()).args(["copy", "--from", from]).args(more).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn config(database: &str, receiver: &Endpoint) -> String {
    let driver = database.split(':').next().unwrap();
    format!(
        r#"database: {{ driver: {driver}, url: "{database}" }}
server: {{ bind: 127.0.0.1, port: {{port}}, allow_private_urls: true }}
worker: {{ stale_threshold_secs: 2 }}
delivery: {{ signing_secret: plainly-fictional }}
sources: {{ app: {{ type: event }} }}
handlers:
  now: {{ source: app, events: [now], url: "{now}" }}
  later: {{ source: app, events: [later], url: "{later}", retry: {{ max: 9, interval: 3s, backoff: fixed }} }}
workflows:
  asks:
    source: app
    events: [asks]
    steps:
      - {{ name: ask, type: callback, url: "{ask}", result_path: "$.answer" }}
      - {{ name: last, url: "{last}" }}
"#,
        now = receiver.url("/ok/now"),
        later = receiver.url("/seq/503,503,503,200"),
        ask = receiver.url("/ok/ask"),
        last = receiver.url("/ok/last"),
    )
}

async fn post(home: &Home, kind: &str, body: &Value) -> String {
    let request = client().post(home.url(&format!("/events/app/{kind}")));
    let response =
        request.header("idempotency-key", body.to_string()).body(body.to_string()).send().await;
    let text = response.unwrap().text().await.unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["event_id"].as_str().unwrap().to_owned()
}

async fn get(home: &Home, path: &str) -> Value {
    let text = client().get(home.url(path)).send().await.unwrap().text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

async fn moves_a_live_server_to(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let Some(target) = url(kind, &dir).await else { return };
    let receiver = Endpoint::start().await;
    let old = Home::new(&config("sqlite:{dir}/test.db", &receiver));
    let source = format!("sqlite:{}/test.db", old.dir.path().display());
    let server = old.start().await;
    let events: usize =
        std::env::var("TIDEHOOK_COPY_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let body = |n: usize| json!({ "n": n, "text": "snow ☃, quote \", blank ", "nul": "\u{0}" });
    for page in (0..events).step_by(1000) {
        let upto = events.min(page + 1000);
        let bodies: Vec<Value> = (page..upto).map(body).collect();
        let posts = bodies.iter().map(|body| post(&old, "now", body));
        futures::stream::iter(posts).buffer_unordered(20).collect::<Vec<String>>().await;
        receiver.until_count(upto).await;
    }
    let later = post(&old, "later", &json!({ "n": "later" })).await;
    let asks = post(&old, "asks", &json!({ "n": "asks" })).await;
    receiver
        .until("one failure, one question", |got| {
            let at = |path: &str| got.iter().any(|got| got.path.starts_with(path));
            at("/seq/") && at("/ok/ask")
        })
        .await;

    // The server works on while it is copied, and cannot any more afterwards.
    let copied = copy(&source, &["--to", &target]);
    assert!(copied.status.success(), "{}", said(&copied));
    let table = String::from_utf8_lossy(&copied.stdout).into_owned();
    assert!(
        table
            .lines()
            .any(|line| line.starts_with("events") && line.contains(&format!(" {} ", events + 2))),
        "{table}"
    );
    let refused = client().post(old.url("/events/app/now")).body("{}").send().await.unwrap();
    assert_eq!(refused.status(), 503);
    server.kill();
    let told = old.spawn().ended().await;
    assert_eq!(told.code(), Some(1));
    assert!(old.log().contains("this database was copied to"), "{}", old.log());
    // Again, it finds everything done and changes nothing more.
    let again = copy(&source, &["--to", &target]);
    assert!(!again.status.success() && said(&again).contains("is not empty"), "{}", said(&again));

    let new = Home::new(&config(&target, &receiver));
    let server = new.start().await;
    // A key that was seen is a duplicate still.
    let known = post(&new, "now", &body(0)).await;
    assert!(get(&new, &format!("/api/events/{known}")).await["created_at"].is_string());
    let question = receiver.got_at("/ok/ask").pop().unwrap();
    let token = question.header("x-tidehook-callback-token").unwrap();
    let answered =
        client().post(new.url(&format!("/callback/{token}"))).body("{\"yes\":true}").send().await;
    assert!(answered.unwrap().status().is_success());
    let done = async {
        loop {
            let job = get(&new, &format!("/api/events/{later}/jobs")).await["jobs"][0].clone();
            let run = get(&new, &format!("/api/runs?event={asks}")).await["runs"][0].clone();
            if job["status"] == "completed" && run["status"] == "completed" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, done).await.expect("what was pending finishes");
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for got in receiver.got_at("/ok/now") {
        *times.entry(got.header("webhook-id").unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!((times.len(), times.values().max()), (events, Some(&1)), "each came once");
    assert_eq!(receiver.got_at("/seq/").len(), 4, "three failures and one success");
    assert_eq!((receiver.got_at("/ok/ask").len(), receiver.got_at("/ok/last").len()), (1, 1));
    let page = get(&new, "/api/events?limit=1000").await["events"].as_array().unwrap().len();
    assert_eq!(page, (events + 2).min(1000));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_sqlite_server_moves_to_postgres() {
    moves_a_live_server_to(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_sqlite_server_moves_to_mariadb() {
    moves_a_live_server_to(Kind::Mariadb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_round_and_an_interrupted_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let first = url(Kind::Sqlite, &dir).await.unwrap();
    let store = stores::open(&first, None).await;
    store.migrate().await.unwrap();
    crate::conformance::build::seed(&*store, &["a", "b"], 700).await;
    store.close().await;
    drop(store);
    let (Some(postgres), Some(mariadb)) =
        (url(Kind::Postgres, &dir).await, url(Kind::Mariadb, &dir).await)
    else {
        return;
    };
    // As a kill in the middle leaves it: marked, and some rows are there.
    let store = stores::open(&postgres, None).await;
    store.migrate().await.unwrap();
    let file = first.trim_start_matches("sqlite:");
    store.set_target(Some(&format!("sqlite:{file}"))).await.unwrap();
    let source = stores::open(&first, None).await;
    let events = TABLES.iter().find(|table| table.name == "events").unwrap();
    let some = source.rows(events, None, false, 300).await.unwrap();
    store.put(events, Vec::new(), some).await.unwrap();
    source.close().await;
    drop(source);
    let last = format!("sqlite:{}", dir.path().join("last.db").display());
    let mut hashes = Vec::new();
    for (from, to) in [(&first, &postgres), (&postgres, &mariadb), (&mariadb, &last)] {
        let copied = copy(from, &["--json", "--to", to]);
        assert!(copied.status.success(), "{from} to {to}: {}", said(&copied));
        hashes.push(serde_json::from_slice::<Value>(&copied.stdout).unwrap()["tables"].clone());
    }
    assert!(hashes.iter().all(|tables| *tables == hashes[0]), "the same rows everywhere");
    let back = stores::open(&last, None).await;
    assert_eq!(back.totals().await.unwrap().open, 1_400);
    // A move can be taken back.
    let undone = copy(&mariadb, &["--undo"]);
    assert!(undone.status.success(), "{}", said(&undone));
    let mariadb = stores::open(&mariadb, None).await;
    assert_eq!(mariadb.moved().await.unwrap(), None);
    assert_eq!(mariadb.totals().await.unwrap().open, 1_400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_used_and_a_source_that_is_old_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = fresh(Kind::Sqlite).await.unwrap();
    let used = fresh(Kind::Sqlite).await.unwrap();
    crate::conformance::build::seed(&*used.store, &["a"], 1).await;
    // Its server runs.
    let refused = copy(&source.url, &["--to", &used.url]);
    assert!(said(&refused).contains("in use by another tidehook process"), "{}", said(&refused));
    used.store.close().await;
    drop(used.store);
    let refused = copy(&source.url, &["--to", &used.url]);
    assert!(said(&refused).contains("is not empty"), "{}", said(&refused));
    let empty = format!("sqlite:{}", dir.path().join("no-schema.db").display());
    let other = format!("sqlite:{}", dir.path().join("other.db").display());
    let refused = copy(&empty, &["--to", &other]);
    assert!(said(&refused).contains("tidehook migrate"), "{}", said(&refused));
    let refused = copy("nonsense:x", &["--to", &empty]);
    assert!(said(&refused).contains("supports"), "{}", said(&refused));
}
