//! Outages of the database: refused at once, nothing lost, back without a restart.

use std::time::{Duration, Instant};

use super::{config, get, post, until};
use crate::support::cluster::{Cluster, LOAD, Server, on_each_server};
use crate::support::endpoint::Endpoint;
use crate::support::process::{Home, until_ready};
use crate::support::producer::produce;
use crate::support::proxy::Proxy;
use crate::support::world::client;

on_each_server!(
    restarts_under_load_lose_nothing_and_are_over_soon,
    an_outage_is_answered_at_once_and_its_end_is_noticed,
    an_outage_beside_a_hanging_delivery_holds_nobody_up,
    a_bad_signature_is_told_apart_from_an_outage,
    a_database_that_falls_silent_is_noticed_and_the_pool_survives,
    clients_that_hang_up_poison_no_connection,
);

async fn restarts_under_load_lose_nothing_and_are_over_soon(database: Server) {
    let _alone = LOAD.lock().await;
    let receiver = Endpoint::start().await;
    let home = Home::new(&config(
        &database.url(),
        &receiver,
        "/ok",
        "worker: { stale_threshold_secs: 3, max_concurrency: 20 }\n",
    ));
    let server = home.start().await;
    let producing = tokio::spawn(produce(home.url("/events/app/w"), "k", 100 * 12, 100));
    let mut back = Instant::now();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(1_800)).await;
        database.stop();
        database.up();
        back = Instant::now();
    }
    let ledger = producing.await.unwrap();
    assert_eq!(ledger.acked.len(), 1_200);
    assert!(
        ledger.refused.iter().all(|(status, _)| *status == 503),
        "{:?}",
        ledger.refused.iter().find(|(s, _)| *s != 503)
    );
    let late =
        ledger.last_refusal.map_or(Duration::ZERO, |last| last.saturating_duration_since(back));
    // Generous, since other tests may have most of the processors: what this catches is a server
    // that does not come back by itself. How soon it does is for a benchmark to say.
    assert!(
        late <= Duration::from_secs(10),
        "refused until {late:?} after the database was back\n{}",
        home.log().lines().rev().take(60).collect::<Vec<_>>().join("\n")
    );
    ledger.verdict(&receiver, "/ok").await;
    server.stop().await;
}

async fn an_outage_is_answered_at_once_and_its_end_is_noticed(database: Server) {
    let receiver = Endpoint::start().await;
    let home = Home::new(&config(&database.url(), &receiver, "/ok", ""));
    let server = home.start().await;
    database.crash();
    for _ in 0..3 {
        let start = Instant::now();
        let response = client().post(home.url("/events/app/x")).body("{}").send().await.unwrap();
        assert!(start.elapsed() <= Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(response.status(), 503);
        let seconds: u32 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=10).contains(&seconds));
        let body = response.text().await.unwrap();
        assert!(body.contains("Database temporarily unavailable"), "{body}");
    }
    assert_eq!(client().get(home.url("/livez")).send().await.unwrap().status(), 200);
    assert_eq!(client().get(home.url("/readyz")).send().await.unwrap().status(), 503);
    let health = client().get(home.url("/health")).send().await.unwrap();
    assert_eq!(health.status(), 503);
    assert!(health.text().await.unwrap().contains("database unreachable"));
    // A forged request is refused as such although nothing could be stored.
    tokio::time::sleep(Duration::from_secs(3)).await;
    database.up();
    let start = Instant::now();
    until_ready(&home.url("/readyz")).await;
    let event = loop {
        match post(&home, "/events/app/x").await {
            Some((202, answer)) => break answer["event_id"].as_str().unwrap().to_owned(),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert!(start.elapsed() <= Duration::from_secs(3), "back after {:?}", start.elapsed());
    until(&home, &event, "completed").await;
    assert_eq!(get(&home, "/health").await["status"], "recovered");
    server.stop().await;
}

async fn an_outage_beside_a_hanging_delivery_holds_nobody_up(database: Server) {
    let receiver = Endpoint::start().await;
    let text = config(&database.url(), &receiver, "/ok", "")
        .replace("app: { type: event }", "app: { type: event }, slow: { type: event }")
        + &format!(
            "  hang: {{ source: slow, url: \"{}\", timeout: 10m }}\n",
            receiver.url("/hang")
        );
    let home = Home::new(&text);
    let server = home.start().await;
    post(&home, "/events/slow/x").await.unwrap();
    receiver.until_count(1).await;
    database.stop();
    // The worker, woken by this, finds no store.
    post(&home, "/events/app/x").await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    database.up();
    until_ready(&home.url("/readyz")).await;
    let start = Instant::now();
    let event = loop {
        match post(&home, "/events/app/x").await {
            Some((202, answer)) => break answer["event_id"].as_str().unwrap().to_owned(),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    until(&home, &event, "completed").await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_verified_to_its_name_and_authority() {
    let Some((cluster, authority)) = Cluster::start_with_tls() else { return };
    let receiver = Endpoint::start().await;
    let verified =
        format!("{}?sslmode=verify-full&sslrootcert={}", cluster.url(), authority.display());
    let home = Home::new(&config(&verified, &receiver, "/ok", ""));
    let server = home.start().await;
    let event =
        post(&home, "/events/app/x").await.unwrap().1["event_id"].as_str().unwrap().to_owned();
    until(&home, &event, "completed").await;
    server.stop().await;
    // The system's authorities did not sign it.
    let unknown =
        Home::new(&config(&format!("{}?sslmode=verify-full", cluster.url()), &receiver, "/ok", ""));
    let refused = unknown.spawn();
    let told = async {
        while !unknown.log().contains("certificate") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::support::endpoint::PATIENCE, told).await.unwrap();
    // It lives, takes nothing, and says so at once.
    assert_eq!(client().get(unknown.url("/livez")).send().await.unwrap().status(), 200);
    assert_eq!(client().get(unknown.url("/readyz")).send().await.unwrap().status(), 503);
    assert_eq!(post(&unknown, "/events/app/x").await.unwrap().0, 503);
    drop(refused);
}

async fn a_bad_signature_is_told_apart_from_an_outage(database: Server) {
    let receiver = Endpoint::start().await;
    let text = config(&database.url(), &receiver, "/ok", "").replace(
        "app: { type: event }",
        "app: { type: event }, hub: { type: webhook, verify: github, secret: fictional }",
    );
    let home = Home::new(&text);
    let server = home.start().await;
    database.crash();
    // One request to learn of the outage.
    post(&home, "/events/app/x").await.unwrap();
    let forged = client()
        .post(home.url("/webhooks/hub"))
        .header("x-hub-signature-256", "sha256=00")
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(forged.status(), 401);
    drop(server);
}

async fn a_database_that_falls_silent_is_noticed_and_the_pool_survives(database: Server) {
    let receiver = Endpoint::start().await;
    let proxy = Proxy::start(database.port()).await;
    let home = Home::new(&config(&database.url_through(proxy.port), &receiver, "/ok", ""));
    let server = home.start().await;
    post(&home, "/events/app/x").await.unwrap();
    proxy.blackhole(true);
    let start = Instant::now();
    let (status, _) = post(&home, "/events/app/x").await.unwrap();
    assert_eq!(status, 503);
    assert!(start.elapsed() <= Duration::from_secs(5), "{:?}", start.elapsed());
    let start = Instant::now();
    assert_eq!(post(&home, "/events/app/x").await.unwrap().0, 503);
    assert!(start.elapsed() <= Duration::from_secs(2), "known by now: {:?}", start.elapsed());
    proxy.blackhole(false);
    let recovered = async {
        while post(&home, "/events/app/x").await.is_none_or(|(status, _)| status != 202) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(crate::support::endpoint::PATIENCE, recovered).await.unwrap();
    for _ in 0..20 {
        assert_eq!(post(&home, "/events/app/x").await.unwrap().0, 202);
    }
    server.stop().await;
}

async fn clients_that_hang_up_poison_no_connection(database: Server) {
    let receiver = Endpoint::start().await;
    let proxy = Proxy::start(database.port()).await;
    let home = Home::new(&config(&database.url_through(proxy.port), &receiver, "/ok", ""));
    let server = home.start().await;
    proxy.delay(300);
    let impatient: Vec<_> = (0..200u64)
        .map(|n| {
            let url = home.url("/events/app/x");
            tokio::spawn(async move {
                let patience = Duration::from_millis(50 + n * 37 % 850);
                let _ = tokio::time::timeout(
                    patience,
                    client().post(url).body(format!("{{\"k\":\"i{n}\"}}")).send(),
                )
                .await;
            })
        })
        .collect();
    for client in impatient {
        client.await.unwrap();
    }
    for _ in 0..5 {
        assert_eq!(stuck(&database.url()).await, 0);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let acknowledged = loop {
        if let Some((202, answer)) = post(&home, "/events/app/x").await {
            break answer["event_id"].as_str().unwrap().to_owned();
        }
    };
    // What was acknowledged survives a kill at the very next moment.
    server.kill();
    proxy.delay(0);
    let second = home.start().await;
    assert_eq!(
        get(&home, &format!("/api/events/{acknowledged}")).await["id"],
        acknowledged.as_str()
    );
    second.stop().await;
}

/// How many transactions have been open for more than a second with nothing going on in them.
async fn stuck(url: &str) -> i64 {
    if url.starts_with("postgres") {
        let pool = sqlx::PgPool::connect(url).await.unwrap();
        let sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' \
            AND now() - state_change > interval '1 second'";
        return sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap();
    }
    let pool = sqlx::MySqlPool::connect(url).await.unwrap();
    let sql = "SELECT COUNT(*) FROM information_schema.innodb_trx t
        JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
        WHERE p.command = 'Sleep' AND p.time_ms > 1000";
    sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap()
}
