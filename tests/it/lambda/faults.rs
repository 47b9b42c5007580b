//! What must hold when messages get lost, doubled and late, processes die, freeze and thaw, and the
//! database is away.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tidehook::model::JobState;
use tidehook::store::{JobFilter, OVERDUE, Page};

use crate::support::endpoint::PATIENCE;
use crate::support::functions::install::{Install, answer, http};
use crate::support::functions::runtime::Function;

const TEXT: &str = "server: { allow_private_urls: true }
database: { driver: postgres }
worker: { stale_threshold_secs: 5 }
sources: { app: { type: event } }
handlers:
  h: { source: app, url: \"http://{receiver}/ok\" }
";
const PAGE: Page = Page { limit: 1000, newest_first: false };

async fn send(ingress: &Function, n: usize) {
    let (status, said) = answer(
        &ingress
            .invoke(http("POST", "/events/app/go", &[], &format!("{{\"n\":{n}}}")))
            .await
            .unwrap(),
    );
    assert_eq!(status, 202, "{said}");
}

fn bodies(install: &Install) -> BTreeSet<String> {
    install.receiver.got().iter().map(|got| got.text()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_delivered_tenfold_at_once_make_one_attempt() {
    let Some(install) = Install::new(TEXT).await else { return };
    install.queue.lead(|_| vec![Duration::ZERO; 10]);
    let ingress = install.function("ingress").await;
    let workers = [
        install.function("worker").await,
        install.function("worker").await,
        install.function("worker").await,
    ];
    for n in 0..20 {
        send(&ingress, n).await;
    }
    tokio::join!(
        install.drain(&workers[0]),
        install.drain(&workers[1]),
        install.drain(&workers[2])
    );
    assert_eq!((install.receiver.got().len(), bodies(&install).len()), (20, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_that_fails_after_the_commit_is_made_good_by_the_next_tick() {
    let Some(install) = Install::new(TEXT).await else { return };
    let (ingress, ticker, worker) = (
        install.function("ingress").await,
        install.function("ticker").await,
        install.function("worker").await,
    );
    install.queue.refuse(true);
    send(&ingress, 1).await;
    install.queue.refuse(false);
    assert_eq!(install.queue.len(), 0);
    let log = std::fs::read_to_string(install.log()).unwrap();
    assert!(log.contains("\"tidehook_hints_failed_total\":1.0"), "{log}");
    tokio::time::sleep(OVERDUE).await;
    assert_eq!(ticker.invoke(json!({})).await.unwrap()["announced"], 1);
    assert_eq!(ticker.invoke(json!({})).await.unwrap()["announced"], 0, "it was told of");
    install.drain(&worker).await;
    assert_eq!(install.receiver.got().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_hints_are_dropped_doubled_late_and_out_of_order() {
    let Some(install) = Install::new(TEXT).await else { return };
    // Three of ten are lost, three are doubled, all are late by their own time.
    install.queue.lead(|n| {
        let late = |k: u64| Duration::from_millis((n * 7919 + k * 104_729) % 1500);
        match (n * 7) % 10 {
            0..3 => Vec::new(),
            3..6 => vec![late(1), late(2)],
            _ => vec![late(1)],
        }
    });
    let (ingress, ticker) = (install.function("ingress").await, install.function("ticker").await);
    let workers = [install.function("worker").await, install.function("worker").await];
    for n in 0..100 {
        send(&ingress, n).await;
    }
    let all = || bodies(&install).len() == 100;
    let ticking = async {
        while !all() {
            ticker.invoke(json!({})).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::join!(ticking, install.poll(&workers[0], all), install.poll(&workers[1], all));
    assert_eq!(install.receiver.got().len(), 100, "nothing is sent twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_with_a_batch_repeats_only_what_was_under_way() {
    let text = TEXT.replace("/ok", "/slow/1000").replace("secs: 5", "secs: 5, max_concurrency: 4");
    let Some(install) = Install::new(&text).await else { return };
    let (ingress, ticker) = (install.function("ingress").await, install.function("ticker").await);
    for n in 0..10 {
        send(&ingress, n).await;
    }
    let first = install.function("worker").await;
    let (_, event) = install.queue.receive(Duration::from_secs(600)).unwrap();
    let invoked = async {
        tokio::select! {
            _ = first.invoke(event) => panic!("a batch of ten takes longer"),
            () = async { while install.receiver.got().len() < 6 { tokio::time::sleep(Duration::from_millis(10)).await } } => {}
        }
    };
    invoked.await;
    first.kill();
    let second = install.function("worker").await;
    let done = async || {
        let jobs = install.store().await.jobs(&JobFilter::default(), PAGE).await.unwrap();
        jobs.iter().filter(|job| job.state == JobState::Done).count()
    };
    while done().await < 10 {
        ticker.invoke(json!({})).await.unwrap();
        while let Some((batch, event)) = install.queue.receive(Duration::from_secs(600)) {
            let answer = second.invoke(event).await.unwrap();
            install.queue.delete(&batch, &answer);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (sent, unique) = (install.receiver.got().len(), bodies(&install).len());
    assert!(unique == 10 && sent <= 14, "{sent} calls for ten jobs, four of them were under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ticks_at_once_tell_of_everything_once() {
    let Some(install) = Install::new(TEXT).await else { return };
    let ingress = install.function("ingress").await;
    let tickers = [install.function("ticker").await, install.function("ticker").await];
    install.queue.refuse(true);
    for n in 0..30 {
        send(&ingress, n).await;
    }
    install.queue.refuse(false);
    tokio::time::sleep(OVERDUE).await;
    let (one, other) = tokio::join!(tickers[0].invoke(json!({})), tickers[1].invoke(json!({})));
    let count = |ticked: crate::support::functions::runtime::Ended| {
        ticked.unwrap()["announced"].as_u64().unwrap()
    };
    assert_eq!(count(one) + count(other), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_was_frozen_finds_its_connections_dead_and_goes_on() {
    let Some(install) = Install::new(TEXT).await else { return };
    let (ingress, worker) = (install.function("ingress").await, install.function("worker").await);
    send(&ingress, 1).await;
    install.drain(&worker).await;
    for function in [&ingress, &worker] {
        function.signal(Signal::STOP);
    }
    let mut conn = PgConnection::connect(&install.url).await.unwrap();
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = \
        current_database() AND pid <> pg_backend_pid()";
    sqlx::raw_sql(ended).execute(&mut conn).await.unwrap();
    for function in [&ingress, &worker] {
        function.signal(Signal::CONT);
    }
    send(&ingress, 2).await;
    install.drain(&worker).await;
    assert_eq!(install.receiver.got().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_an_answer_and_not_an_end() {
    let Some(install) = Install::new(TEXT).await else { return };
    let mut variables = install.variables(true);
    let away = ("DATABASE_URL".to_owned(), "postgres://nobody@127.0.0.1:1/none".to_owned());
    variables.retain(|(name, _)| name != "DATABASE_URL");
    variables.push(away);
    let (ingress, worker) = (
        Function::start("ingress", &variables, &install.log()).await,
        Function::start("worker", &variables, &install.log()).await,
    );
    for _ in 0..2 {
        let said = ingress.invoke(http("POST", "/events/app/go", &[], "{}")).await.unwrap();
        assert_eq!(answer(&said).0, 503, "{said}");
        assert!(said["headers"]["retry-after"].is_string(), "{said}");
    }
    let batch = json!({ "Records": [
        { "messageId": "m-1", "body": "{\"tidehook\":1,\"jobs\":[]}" },
        { "messageId": "m-2", "body": "?" },
    ] });
    assert_eq!(
        worker.invoke(batch).await.unwrap(),
        json!({ "batchItemFailures": [{ "itemIdentifier": "m-1" }] })
    );
    assert_eq!(answer(&ingress.invoke(http("GET", "/livez", &[], "")).await.unwrap()).0, 200);
    let log = std::fs::read_to_string(install.log()).unwrap();
    assert!(log.contains("Connection refused"), "the log says why:\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_set_up_is_said_at_the_start() {
    let Some(install) = Install::new(TEXT).await else { return };
    let with = |name: &str, value: &str| {
        let mut variables = install.variables(true);
        variables.retain(|(known, _)| known != name);
        variables.push((name.to_owned(), value.to_owned()));
        variables
    };
    let broken = install.dir.path().join("broken.yaml");
    std::fs::write(&broken, "sources: { app: { typ: event } }\ndatabase: { driver: postgres }\n")
        .unwrap();
    let cases = [
        ("dance", install.variables(true), "unknown function handler `dance`"),
        ("ingress", with("TIDEHOOK_CONFIG", &broken.display().to_string()), "did you mean `type`?"),
        ("ingress", with("TIDEHOOK_CONFIG", "/nowhere.yaml"), "/nowhere.yaml"),
        ("worker", with("DATABASE_URL", ""), "neither `database.url` nor DATABASE_URL is set"),
        (
            "ticker",
            with("TIDEHOOK_TICK_RATE", "rate(10"),
            "TIDEHOOK_TICK_RATE must be a rate such as `rate(1 minute)`",
        ),
    ];
    for (n, (handler, variables, why)) in cases.into_iter().enumerate() {
        let log = install.dir.path().join(format!("{n}.log"));
        let function = Function::start(handler, &variables, &log).await;
        let ended = tokio::time::timeout(PATIENCE, function.ended()).await.expect("it ends");
        assert_eq!(ended.code(), Some(1));
        let log = std::fs::read_to_string(&log).unwrap();
        assert!(log.contains(why), "{why} is missing in\n{log}");
        // Whoever invokes it, a deployment above all, reads the same.
        let told = function.not_started().expect("the runtime was told");
        assert_eq!(told["errorType"], "Tidehook.NotStarted");
        assert!(told["errorMessage"].as_str().unwrap().contains(why), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_of_an_older_version_is_named_as_such() {
    let Some(install) = Install::new(TEXT).await else { return };
    let mut old = PgConnection::connect(&install.url).await.unwrap();
    let text =
        "ALTER TABLE jobs DROP COLUMN woken_until; DELETE FROM _sqlx_migrations WHERE version = 4";
    sqlx::raw_sql(text).execute(&mut old).await.unwrap();
    let ticker = install.function("ticker").await;
    let refused = ticker.invoke(json!({})).await.unwrap_err();
    assert!(
        refused["errorMessage"].as_str().unwrap().contains("run `tidehook migrate`"),
        "{refused}"
    );
    let said = ticker.invoke(json!({ "tidehook": "doctor" })).await.unwrap();
    let schema = said["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["what"] == "database schema")
        .unwrap();
    assert!(schema["why"].as_str().unwrap().contains("1 migration(s) are missing"), "{said}");
    assert_eq!(
        ticker.invoke(json!({ "tidehook": "migrate" })).await.unwrap(),
        json!({ "migrated": true })
    );
    assert_eq!(ticker.invoke(json!({})).await.unwrap()["announced"], 0);
}
