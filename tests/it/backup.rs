//! Backup and restore, with the commands of docs/operations.md.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use sqlx::{Connection, SqliteConnection};
use tidehook::model::Clock;

use crate::support::cluster::Cluster;
use crate::support::endpoint::Endpoint;
use crate::support::process::{Home, binary};
use crate::support::producer::produce;
use crate::support::stores::{self, Kind};
use crate::support::world::client;

fn file(database: &str, receiver: &Endpoint) -> String {
    let driver = database.split(':').next().unwrap();
    format!(
        "server: {{ port: {{port}}, bind: 127.0.0.1, allow_private_urls: true }}\ndatabase: \
         {{ driver: {driver}, url: \"{database}\" }}\nsources: {{ app: {{ type: event }} \
         }}\nhandlers: {{ h: {{ source: app, url: \"{}\" }} }}\n",
        receiver.url("/ok")
    )
}

const SQLITE: &str = "sqlite:{dir}/t.db";

fn backup(home: &Home, to: &Path) -> Output {
    Command::new(binary())
        .arg("backup")
        .arg(to)
        .arg("--config")
        .arg(home.path())
        .env_remove("DATABASE_URL")
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn post(home: &Home, path: &str) -> u16 {
    client().post(home.url(path)).body("{}").send().await.unwrap().status().as_u16()
}

async fn health(home: &Home) -> Value {
    client().get(home.url("/health")).send().await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_holds_every_event_that_was_acknowledged_before() {
    let receiver = Endpoint::start().await;
    let home = Home::new(&file(SQLITE, &receiver));
    let server = home.start().await;
    let before = produce(home.url("/events/app/w"), "before", 100, 200).await;
    assert_eq!(before.acked.len(), 100);
    let producing = tokio::spawn(produce(home.url("/events/app/w"), "during", 400, 200));
    let copy = home.dir.path().join("copy.db");
    let made = tokio::task::block_in_place(|| backup(&home, &copy));
    assert!(made.status.success(), "{}", said(&made));
    assert_eq!(producing.await.unwrap().acked.len(), 400);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let mut held =
        SqliteConnection::connect(&format!("sqlite:{}?mode=ro", copy.display())).await.unwrap();
    let count: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM events").fetch_one(&mut held).await.unwrap();
    assert!((100..=500).contains(&count), "{count}");
    assert!(said(&made).contains(&format!(": {count} events")), "{}", said(&made));
    held.close().await.unwrap();
    let again = backup(&home, &copy);
    assert!(
        again.status.code() == Some(1) && said(&again).contains("already exists"),
        "{}",
        said(&again)
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_copy_goes_on_where_it_was_taken() {
    let receiver = Endpoint::start().await;
    let home = Home::new(&file(SQLITE, &receiver));
    let server = home.start().await;
    assert_eq!(post(&home, "/api/lanes/handler:h/pause").await, 200);
    for _ in 0..5 {
        assert_eq!(post(&home, "/events/app/x").await, 202);
    }
    let copy = home.dir.path().join("copy.db");
    let made = tokio::task::block_in_place(|| backup(&home, &copy));
    assert!(made.status.success(), "{}", said(&made));
    server.kill();
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(home.dir.path().join(format!("t.db{ending}")));
    }
    std::fs::rename(&copy, home.dir.path().join("t.db")).unwrap();
    let server = home.start().await;
    assert_eq!(health(&home).await["queue_depth"], 5);
    assert_eq!(post(&home, "/api/lanes/handler:h/resume").await, 200);
    receiver.until_count(5).await;
    server.stop().await;
    assert_eq!(receiver.got().len(), 5);
}

#[tokio::test]
async fn a_database_server_is_copied_by_its_own_tools() {
    let receiver = Endpoint::start().await;
    let home = Home::new(&file("postgres://nobody@127.0.0.1:1/x", &receiver));
    let output = backup(&home, Path::new("never"));
    assert!(
        output.status.code() == Some(1) && said(&output).contains("pg_dump"),
        "{}",
        said(&output)
    );
    let home = Home::new(&file(SQLITE, &receiver));
    let output = backup(&home, Path::new("never"));
    assert!(
        output.status.code() == Some(1)
            && said(&output).contains("the database does not exist yet"),
        "{}",
        said(&output)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_of_postgres_goes_on_in_another_database() {
    let Some(cluster) = Cluster::start() else { return };
    let receiver = Endpoint::start().await;
    let home = Home::new(&file(&cluster.url(), &receiver));
    let server = home.start().await;
    assert_eq!(post(&home, "/api/lanes/handler:h/pause").await, 200);
    for _ in 0..5 {
        assert_eq!(post(&home, "/events/app/x").await, 202);
    }
    let dump = cluster.tool("pg_dump", &["--format=custom", &cluster.url()], &[]);
    server.stop().await;
    let other = cluster.url_of("restored");
    cluster.tool("psql", &[&cluster.url(), "-qc", "CREATE DATABASE restored"], &[]);
    cluster.tool("pg_restore", &["--no-owner", "--exit-on-error", "--dbname", &other], &dump);
    home.write(&file(&other, &receiver));
    let server = home.start().await;
    assert_eq!(health(&home).await["queue_depth"], 5);
    assert_eq!(post(&home, "/api/lanes/handler:h/resume").await, 200);
    receiver.until_count(5).await;
    server.stop().await;
}

/// The schema as the first release left it, with an event of its own that has yet to be delivered.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_from_an_older_version_is_brought_up_to_date_and_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let now = tidehook::model::SystemClock.now().0;
    let seed = format!(
        "INSERT INTO events (id, source, kind, headers, body, unique_key, created_at) VALUES ('01KC0000000000000000000001', 'app', 'x', '[]', '7b7d', NULL, {now});
         INSERT INTO jobs (id, event_id, target_kind, target_name, lane, state, attempt, lost, claim, due_at, created_at)
         VALUES ('01KC0000000000000000000002', '01KC0000000000000000000001', 'handler', 'h', 'handler:h', 'pending', 0, 0, 0, {now}, {now});
         INSERT INTO counters (name, shard, value) VALUES ('created', 0, 1);"
    );
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let Some(url) = stores::url(kind, &dir).await else { continue };
        let folder = if kind == Kind::Sqlite { "sqlite" } else { "postgres" };
        let url = if kind == Kind::Sqlite { format!("{url}?mode=rwc") } else { url };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
        let first = std::fs::read_to_string(root.join("0001_first.sql")).unwrap();
        old::make(&url, &first, &seed).await;
        let receiver = Endpoint::start().await;
        let home = Home::new(&file(&url, &receiver));
        let server = home.start().await;
        receiver.until_count(1).await;
        assert_eq!(post(&home, "/events/app/x").await, 202, "{kind:?}");
        receiver.until_count(2).await;
        server.stop().await;
    }
}

/// A database as an older binary left it.
mod old {
    use sqlx::migrate::{Migration, MigrationType, Migrator};
    use sqlx::{AssertSqlSafe, SqlSafeStr};

    pub async fn make(url: &str, first: &str, seed: &str) {
        let text = AssertSqlSafe(first.to_owned()).into_sql_str();
        let migration = Migration::new(1, "first".into(), MigrationType::Simple, text, false);
        let migrator = Migrator { migrations: vec![migration].into(), ..Migrator::DEFAULT };
        if url.starts_with("sqlite") {
            let pool = sqlx::SqlitePool::connect(url).await.unwrap();
            migrator.run(&pool).await.unwrap();
            let seed = seed.replace("'7b7d'", "x'7b7d'");
            sqlx::raw_sql(AssertSqlSafe(seed)).execute(&pool).await.unwrap();
            pool.close().await;
        } else {
            let pool = sqlx::PgPool::connect(url).await.unwrap();
            migrator.run(&pool).await.unwrap();
            let seed = seed.replace("'7b7d'", "'\\x7b7d'");
            sqlx::raw_sql(AssertSqlSafe(seed)).execute(&pool).await.unwrap();
            pool.close().await;
        }
    }
}
