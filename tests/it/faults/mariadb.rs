//! What only MySQL and MariaDB do: deadlocks, idle connections that are ended, migrations that are
//! half done, settings that lose events.

use std::time::Duration;

use sqlx::{Connection, MySqlConnection};
use tidehook::decide::settle::NextState;
use tidehook::model::Secret;
use tidehook::store::{self, Address, Error, JobFilter, Page};

use super::{config, get};
use crate::conformance::build::{claim_request, outcome, seed};
use crate::support::endpoint::Endpoint;
use crate::support::mariadb::Server;
use crate::support::process::Home;
use crate::support::producer::produce;
use crate::support::stores::{Kind, fresh};

async fn run(conn: &mut MySqlConnection, sql: impl Into<String>) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.into())).execute(conn).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_repeated_inside_the_store() {
    let Some(fresh) = fresh(Kind::Mariadb).await else { return };
    seed(&*fresh.store, &["a"], 2).await;
    let mut claimed = fresh.store.claim(&claim_request(2)).await.unwrap();
    claimed.sort_by_key(|claimed| claimed.job.id);
    let (first, second) = (claimed[0].job.id, claimed[1].job.id);
    let mut other = MySqlConnection::connect(&fresh.url).await.unwrap();
    // Whoever has changed more rows wins a deadlock.
    run(&mut other, "CREATE TABLE weight (n INT PRIMARY KEY)").await;
    let many: Vec<String> = (0..500).map(|n| format!("({n})")).collect();
    run(&mut other, format!("BEGIN; INSERT INTO weight VALUES {}", many.join(","))).await;
    run(&mut other, format!("UPDATE jobs SET lost = lost WHERE id = '{second}'")).await;
    let outcomes: Vec<_> = claimed.iter().map(|c| outcome(&c.job, NextState::Done)).collect();
    let store = fresh.store.clone();
    let recording = tokio::spawn(async move { store.record(&outcomes).await });
    // It has the first job, and waits for the second one. The server looks anew once it was not
    // asked for a tenth of a second.
    let waits = "SELECT COUNT(*) FROM information_schema.innodb_lock_waits";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut other).await.unwrap() == 0 {
        assert!(!recording.is_finished(), "{:?}", recording.await);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    run(&mut other, format!("UPDATE jobs SET lost = lost WHERE id = '{first}'; COMMIT")).await;
    let recorded = recording.await.unwrap().unwrap();
    assert!(recorded.iter().all(Result::is_ok), "{recorded:?}");
    assert_eq!(fresh.store.totals().await.unwrap().open, 0);
    let deadlocks = "SELECT COUNT(*) FROM information_schema.innodb_metrics WHERE name = \
        'lock_deadlocks' AND count > 0";
    assert_eq!(sqlx::query_scalar::<_, i64>(deadlocks).fetch_one(&mut other).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_lock_too_long_is_told_of_contention_and_not_of_an_outage() {
    let Some(fresh) = fresh(Kind::Mariadb).await else { return };
    seed(&*fresh.store, &["a"], 1).await;
    let claimed = fresh.store.claim(&claim_request(1)).await.unwrap();
    let mut other = MySqlConnection::connect(&fresh.url).await.unwrap();
    run(&mut other, "BEGIN; UPDATE jobs SET lost = lost").await;
    let outcome = outcome(&claimed[0].job, NextState::Done);
    let refused = fresh.store.record(std::slice::from_ref(&outcome)).await.unwrap_err();
    assert!(matches!(refused, Error::Conflict(_) | Error::Down(_)), "{refused:?}");
    assert!(refused.is_passing());
    run(&mut other, "ROLLBACK").await;
    fresh.store.record(&[outcome]).await.unwrap()[0].as_ref().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_server_has_ended_are_replaced() {
    let Some(server) = Server::start_with(&["--wait-timeout=1"]) else { return };
    let receiver = Endpoint::start().await;
    let home = Home::new(&config(&server.url(), &receiver, "/ok", ""));
    let tidehook = home.start().await;
    let before = produce(home.url("/events/app/w"), "before", 5, 100).await;
    before.verdict(&receiver, "/ok").await;
    // Idle for longer than the server lets connections live.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let burst = produce(home.url("/events/app/w"), "burst", 50, 1_000).await;
    assert!(burst.refused.is_empty(), "{:?}", burst.refused);
    // And killed one by one under load.
    let producing = tokio::spawn(produce(home.url("/events/app/w"), "k", 400, 100));
    let mut operator = MySqlConnection::connect(&server.url()).await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let ids = "SELECT id FROM information_schema.processlist WHERE db = 'tide' AND id <> \
            CONNECTION_ID()";
        let ids: Vec<i64> = sqlx::query_scalar(ids).fetch_all(&mut operator).await.unwrap();
        for id in ids {
            // Some have gone meanwhile.
            let kill = sqlx::AssertSqlSafe(format!("KILL CONNECTION {id}"));
            let _ = sqlx::raw_sql(kill).execute(&mut operator).await;
        }
    }
    let ledger = producing.await.unwrap();
    assert_eq!(ledger.acked.len(), 400);
    assert!(ledger.refused.iter().all(|(status, _)| *status == 503), "{:?}", ledger.refused);
    before.and(burst).and(ledger).verdict(&receiver, "/ok").await;
    tidehook.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_was_interrupted_is_finished_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let Some(url) = crate::support::stores::url(Kind::Mariadb, &dir).await else { return };
    let store = crate::support::stores::open(&url, None).await;
    store.migrate().await.unwrap();
    // As a kill in the middle leaves it: the migration is marked as begun, and half of it is there.
    let mut operator = MySqlConnection::connect(&url).await.unwrap();
    run(&mut operator, "UPDATE _sqlx_migrations SET success = 0; DROP TABLE gates, tokens").await;
    assert!(store.missing_migrations().await.unwrap() > 0);
    let other = crate::support::stores::open(&url, None).await;
    let (first, second) = tokio::join!(store.migrate(), other.migrate());
    first.unwrap();
    second.unwrap();
    assert_eq!(store.missing_migrations().await.unwrap(), 0);
    seed(&*store, &["a"], 1).await;
    let applied = "SELECT COUNT(*) FROM _sqlx_migrations";
    assert_eq!(sqlx::query_scalar::<_, i64>(applied).fetch_one(&mut operator).await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_lose_events_are_named_and_the_session_is_strict_whatever_the_server() {
    let weak = [
        "--innodb-flush-log-at-trx-commit=2",
        "--max-allowed-packet=1M",
        "--sql-mode=",
        "--default-time-zone=+05:30",
        "--transaction-isolation=REPEATABLE-READ",
    ];
    let Some(server) = Server::start_with(&weak) else { return };
    let store = store::connect(Address::new(Secret::new(server.url()), 4)).await.unwrap();
    store.migrate().await.unwrap();
    let found = store.weaknesses().await.unwrap().join("\n");
    assert!(found.contains("trx_commit=2") && found.contains("max_allowed_packet"), "{found}");
    // The clock is the world's, whatever the zone.
    let now = store.now().await.unwrap().0;
    let here = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    assert!(i64::try_from(here).unwrap().abs_diff(now) < 60_000, "{now} against {here}");
    // A body that the server does not accept is refused for good, and its neighbours are stored.
    let large = crate::conformance::build::new_event_of(&"x".repeat(3 << 20), &["a"]);
    let small = crate::conformance::build::new_event(&["a"]);
    let answers = store.accept(&[large, small]).await.unwrap();
    let refused = answers[0].as_ref().unwrap_err().to_string();
    assert!(refused.contains("max_allowed_packet"), "{refused}");
    assert!(answers[1].is_ok());
    let page = Page { limit: 10, newest_first: false };
    assert_eq!(store.jobs(&JobFilter::default(), page).await.unwrap().len(), 1);
    // A read-only server stores nothing, and says so.
    let mut operator = MySqlConnection::connect(&server.url()).await.unwrap();
    run(&mut operator, "CREATE USER plain@'%'; GRANT ALL ON tide.* TO plain@'%'").await;
    run(&mut operator, "SET GLOBAL read_only = 1").await;
    let url = server.url().replace("root", "plain");
    let plain = store::connect(Address::new(Secret::new(url.as_str()), 2)).await.unwrap();
    let event = crate::conformance::build::new_event(&["a"]);
    let refused = plain.accept(std::slice::from_ref(&event)).await.unwrap_err();
    assert!(matches!(refused, Error::ReadOnly(_)), "{refused:?}");
    run(&mut operator, "SET GLOBAL read_only = 0").await;
    assert!(plain.accept(&[event]).await.unwrap()[0].is_ok());
    // One that may not write is told what to grant.
    run(&mut operator, "REVOKE ALL ON tide.* FROM plain@'%'; GRANT SELECT ON tide.* TO plain@'%'")
        .await;
    let event = crate::conformance::build::new_event(&["a"]);
    let plain = store::connect(Address::new(Secret::new(url), 2)).await.unwrap();
    let refused = plain.accept(&[event]).await.unwrap()[0].as_ref().unwrap_err().to_string();
    assert!(refused.contains("grant the user"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_program_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let Some(url) = crate::support::stores::url(Kind::Mariadb, &dir).await else { return };
    let mut operator = MySqlConnection::connect(&url).await.unwrap();
    run(&mut operator, "CREATE TABLE jobs (id INT)").await;
    let store = crate::support::stores::open(&url, None).await;
    let refused = store.migrate().await.unwrap_err().to_string();
    assert!(refused.contains("another program"), "{refused}");
    let tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()";
    assert_eq!(sqlx::query_scalar::<_, i64>(tables).fetch_one(&mut operator).await.unwrap(), 1);
}

/// A certificate for 127.0.0.1 and the authority that signed it.
fn certificates(dir: &std::path::Path) {
    let script = "set -e
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.crt
openssl req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout server.key -out server.csr
printf 'subjectAltName=IP:127.0.0.1' > san
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.crt";
    let made =
        std::process::Command::new("sh").args(["-c", script]).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_verified_to_its_name_and_authority() {
    let tls = ["--ssl-cert={dir}/server.crt", "--ssl-key={dir}/server.key"];
    let Some(server) = Server::prepare(&tls) else { return };
    certificates(server.dir());
    server.up();
    let connect = |more: String| {
        let url = format!("{}?{more}", server.url());
        async move {
            let store = store::connect(Address::new(Secret::new(url), 2)).await.unwrap();
            store.migrate().await
        }
    };
    let authority = server.dir().join("ca.crt");
    connect(format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={}", authority.display())).await.unwrap();
    connect("ssl-mode=REQUIRED".to_owned()).await.unwrap();
    let refused = connect("ssl-mode=VERIFY_CA".to_owned()).await.unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_doctor_say_which_server_it_is() {
    let Some(server) = Server::start() else { return };
    let receiver = Endpoint::start().await;
    let home = Home::new(&config(&server.url(), &receiver, "/ok", ""));
    let tidehook = home.start().await;
    let store = store::connect(Address::new(Secret::new(server.url()), 2)).await.unwrap();
    let about = store.about().await.unwrap().join(", ");
    assert!(about.starts_with("MariaDB 1") && about.contains("connections"), "{about}");
    assert_eq!(get(&home, "/health").await["status"], "ok");
    tidehook.stop().await;
}
