//! `kill -9` at any moment loses nothing.

use std::time::Duration;

use super::{SQLITE, config, get, post, until};
use crate::support::cluster::{LOAD, Server, on_each_server};
use crate::support::endpoint::Endpoint;
use crate::support::process::{Home, Process};
use crate::support::producer::produce;
use crate::support::proxy::Proxy;

on_each_server!(
    thirty_kills_under_load_lose_nothing,
    a_delivery_under_way_at_a_kill_is_made_again_within_its_lease,
    a_kill_between_the_answer_and_its_record_makes_one_duplicate_at_most,
    a_commit_whose_answer_is_lost_is_never_acknowledged_and_never_doubled,
    two_processes_that_start_at_once_migrate_once_and_share_the_work,
);

/// A short lease, so that what a dead process held is taken over soon.
const SHORT_LEASE: &str = "worker: { stale_threshold_secs: 2 }\n";

async fn killed_under_load(database: &str) {
    let _alone = LOAD.lock().await;
    let receiver = Endpoint::start().await;
    let home = Home::new(&config(database, &receiver, "/slow/20", SHORT_LEASE));
    let mut server = home.start().await;
    let kills = 30;
    let producing = tokio::spawn(produce(home.url("/events/app/w"), "k", 50 * 33, 50));
    for n in 0u64..kills {
        // Between 0.6 and 1.6 s, a different moment each time.
        tokio::time::sleep(Duration::from_millis(600 + n * 379 % 1000)).await;
        server.kill();
        server = home.spawn();
    }
    let ledger = producing.await.unwrap();
    assert_eq!(ledger.acked.len(), ledger.sent.len(), "every key was acknowledged in the end");
    let copies = ledger.verdict(&receiver, "/slow").await;
    // A copy beyond the first needs a death that is on record as an interrupted attempt.
    let mut repeated = 0;
    for (key, count) in copies.iter().filter(|(_, count)| **count > 1) {
        let event = ledger.acked[key].first().unwrap();
        let (_, attempts) = until(&home, event, "completed").await;
        let interrupted = attempts
            .iter()
            .filter(|a| a["result"] == "interrupted" || a["result"] == "stale")
            .count();
        assert!(
            *count <= 1 + interrupted,
            "{key} came {count} times with {interrupted} interruptions"
        );
        repeated += 1;
    }
    assert!(repeated < copies.len() / 4, "{repeated} of {} came twice", copies.len());
    // A retried key is answered with the first id.
    let (key, ids) = ledger.acked.first_key_value().unwrap();
    let request = crate::support::world::client()
        .post(home.url("/events/app/w"))
        .header("idempotency-key", key);
    let n = key.trim_start_matches("k-").parse::<usize>().unwrap();
    let body = serde_json::json!({ "k": key, "n": n }).to_string();
    let again: serde_json::Value =
        serde_json::from_str(&request.body(body).send().await.unwrap().text().await.unwrap())
            .unwrap();
    assert_eq!(
        (again["event_id"].as_str(), again["duplicate"].as_bool()),
        (ids.first().map(String::as_str), Some(true))
    );
    assert!(!home.log().contains("panicked"), "{}", home.log());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_kills_under_load_lose_nothing_on_sqlite() {
    killed_under_load(SQLITE).await;
}

async fn thirty_kills_under_load_lose_nothing(database: Server) {
    killed_under_load(&database.url()).await;
}

async fn a_delivery_under_way_at_a_kill_is_made_again_within_its_lease(database: Server) {
    let receiver = Endpoint::start().await;
    let home = Home::new(&config(
        &database.url(),
        &receiver,
        "/slow/2500",
        "worker: { stale_threshold_secs: 3 }\n",
    ));
    let server = home.start().await;
    let event =
        post(&home, "/events/app/x").await.unwrap().1["event_id"].as_str().unwrap().to_owned();
    receiver.until_count(1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.kill();
    let _second = home.start().await;
    let got = receiver.until_count(2).await;
    assert!(got[1].at.duration_since(got[0].at) < Duration::from_secs(3 + 5), "lease + 5 s");
    assert_eq!(got[0].header("webhook-id"), got[1].header("webhook-id"));
    assert_eq!(
        (got[0].header("x-tidehook-attempt"), got[1].header("x-tidehook-attempt")),
        (Some("1"), Some("2"))
    );
    let (_, attempts) = until(&home, &event, "completed").await;
    let results: Vec<&str> = attempts.iter().map(|a| a["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["interrupted", "delivered"]);
}

async fn a_kill_between_the_answer_and_its_record_makes_one_duplicate_at_most(database: Server) {
    let receiver = Endpoint::start().await;
    let proxy = Proxy::start(database.port()).await;
    let home = Home::new(&config(&database.url_through(proxy.port), &receiver, "/ok", SHORT_LEASE));
    let server = home.start().await;
    post(&home, "/api/lanes/handler%3Ah/pause").await.unwrap();
    let event =
        post(&home, "/events/app/x").await.unwrap().1["event_id"].as_str().unwrap().to_owned();
    post(&home, "/api/lanes/handler%3Ah/resume").await.unwrap();
    proxy.delay(300);
    receiver.until_count(1).await;
    server.kill();
    proxy.delay(0);
    let _second = home.start().await;
    until(&home, &event, "completed").await;
    assert!(receiver.got().len() <= 2, "{} copies", receiver.got().len());
}

async fn a_commit_whose_answer_is_lost_is_never_acknowledged_and_never_doubled(database: Server) {
    let receiver = Endpoint::start().await;
    let proxy = Proxy::start(database.port()).await;
    let home = Home::new(&config(&database.url_through(proxy.port), &receiver, "/ok", SHORT_LEASE));
    let server = home.start().await;
    // Bounded, so that no claim of one job is lost three times in a row: that would be taken for a
    // job that kills its workers.
    proxy.lose_answers(5, 25);
    let ledger = produce(home.url("/events/app/w"), "k", 200, 50).await;
    assert_eq!(proxy.losses_left(), 0, "the answers were lost while events came in");
    assert_eq!(ledger.acked.len(), 200);
    ledger.verdict(&receiver, "/ok").await;
    let events = get(&home, "/api/events?limit=1000").await["events"].as_array().unwrap().len();
    assert_eq!(events, 200, "one event per key");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_sqlite_file_is_refused_with_one_clear_line() {
    let receiver = Endpoint::start().await;
    let home = Home::new(&config(SQLITE, &receiver, "/ok", ""));
    let _server = home.start().await;
    let text = std::fs::read_to_string(home.path()).unwrap();
    let other = home.dir.path().join("other.yaml");
    std::fs::write(&other, text.replace(&home.port.to_string(), "0")).unwrap();
    let log = home.dir.path().join("other.log");
    let status = Process::spawn(&other, &log, &[]).ended().await;
    assert_eq!(status.code(), Some(1));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("in use by another tidehook process"), "{log}");
}

async fn two_processes_that_start_at_once_migrate_once_and_share_the_work(database: Server) {
    let receiver = Endpoint::start().await;
    let text = config(&database.url(), &receiver, "/ok", "");
    let (a, b) = (Home::new(&text), Home::new(&text));
    let (first, second) = tokio::join!(a.start(), b.start());
    let (x, y) = tokio::join!(
        produce(a.url("/events/app/w"), "a", 200, 100),
        produce(b.url("/events/app/w"), "b", 200, 100)
    );
    let both = x.and(y);
    both.verdict(&receiver, "/ok").await;
    // Without faults nothing comes twice.
    assert_eq!(receiver.got().len(), 400);
    first.stop().await;
    second.stop().await;
}
