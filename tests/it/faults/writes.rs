//! A database that answers and takes no writes: said once, and ready again by itself.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection, SqliteConnection};

use super::{SQLITE, config, get, post};
use crate::support::endpoint::{Endpoint, PATIENCE};
use crate::support::process::{Home, binary, until_ready};
use crate::support::stores::{self, Kind};
use crate::support::world::client;

async fn status(home: &Home, path: &str) -> (u16, String) {
    let answer = client().get(home.url(path)).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn eventually(mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < PATIENCE, "it never came to that");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn count(home: &Home, sentence: &str) -> usize {
    home.log().matches(sentence).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_turns_read_only_is_not_ready_and_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let Some(url) = stores::url(Kind::Postgres, &dir).await else { return };
    let receiver = Endpoint::start().await;
    let home = Home::new(&config(&url, &receiver, "/ok", ""));
    let server = home.start().await;
    post(&home, "/events/app/x").await.unwrap();
    let (base, name) = url.rsplit_once('/').unwrap();
    let mut operator = PgConnection::connect(&format!("{base}/postgres")).await.unwrap();
    let mut set = async |text: &str| {
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        let text = format!("ALTER DATABASE {name} {text}; {end}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut operator).await.unwrap();
    };
    set("SET default_transaction_read_only = on").await;
    eventually(async || status(&home, "/readyz").await.1.contains("read-only")).await;
    for _ in 0..20 {
        assert_eq!(post(&home, "/events/app/x").await.unwrap().0, 503);
        assert_eq!(status(&home, "/readyz").await.0, 503);
        let health = get(&home, "/health").await;
        assert_eq!(health["status"], "read_only", "{health}");
    }
    assert_eq!(status(&home, "/livez").await.0, 200);
    let metrics = status(&home, "/metrics").await.1;
    assert!(
        metrics.contains("tidehook_db_errors_total")
            && !metrics.contains("tidehook_db_errors_total 0\n"),
        "{metrics}"
    );
    set("RESET default_transaction_read_only").await;
    until_ready(&home.url("/readyz")).await;
    assert_eq!(post(&home, "/events/app/x").await.unwrap().0, 202);
    receiver.until_count(2).await;
    assert_eq!(
        (
            count(&home, "does not accept writes: the database is read-only"),
            count(&home, "The database accepts writes again.")
        ),
        (1, 1),
        "{}",
        home.log()
    );
    server.stop().await;
}

/// A small file system of a server's own, which the test fills and empties.
struct SmallDisk {
    server: std::process::Child,
    inside: PathBuf,
}

impl SmallDisk {
    /// Starts a server that sees it, full; nothing where this machine lets nobody mount.
    fn start(home: &Home) -> Option<Self> {
        let disk = home.dir.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let script = "mount -t tmpfs -o size=8m tmpfs \"$1\" && \
            { head -c 16m /dev/zero > \"$1/ballast\" 2>/dev/null; exec \"$2\" start --config \
                \"$3\"; }";
        let probe = Command::new("unshare")
            .args(["-rm", "mount", "-t", "tmpfs", "tmpfs"])
            .arg(&disk)
            .stderr(Stdio::null())
            .status();
        if !probe.is_ok_and(|ended| ended.success()) {
            eprintln!("skipped: this machine lets nobody mount a small file system (unshare -rm)");
            return None;
        }
        let log = std::fs::File::create(home.dir.path().join("log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script, "sh"]).arg(&disk).arg(binary()).arg(home.path());
        command
            .env_remove("DATABASE_URL")
            .env("RUST_LOG", "tidehook=info")
            .stdout(Stdio::null())
            .stderr(log);
        let server = command.spawn().unwrap();
        let inside = PathBuf::from(format!("/proc/{}/root{}", server.id(), disk.display()));
        Some(Self { server, inside })
    }

    fn fill(&self) {
        let zeros = vec![0; 64 << 10];
        let mut file = std::fs::File::create(self.inside.join("ballast")).unwrap();
        while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.inside.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for_and_an_event_that_does_not_fit_makes_the_server_unready() {
    let receiver = Endpoint::start().await;
    let home = Home::new(&config(&SQLITE.replace("{dir}", "{dir}/disk"), &receiver, "/ok", ""));
    let Some(disk) = SmallDisk::start(&home) else { return };
    eventually(async || count(&home, "database is full") > 0).await;
    assert_eq!(status(&home, "/livez").await.0, 200, "the process lives while it waits");
    assert!(status(&home, "/readyz").await.1.contains("starting"));
    disk.empty();
    until_ready(&home.url("/readyz")).await;
    assert_eq!(post(&home, "/events/app/x").await.unwrap().0, 202);
    disk.fill();
    let large = || async {
        let body = format!("\"{}\"", "x".repeat(500_000));
        client().post(home.url("/events/app/x")).body(body).send().await.unwrap().status().as_u16()
    };
    eventually(async || large().await == 503).await;
    let refused = client()
        .post(home.url("/events/app/x"))
        .body(format!("\"{}\"", "x".repeat(900_000)))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.json::<serde_json::Value>().await.unwrap()["code"], "store_full");
    for _ in 0..10 {
        let (ready, said) = status(&home, "/readyz").await;
        assert!(ready == 503 && said.contains("the database is full"), "{ready} {said}");
        assert_eq!(get(&home, "/health").await["status"], "full");
    }
    disk.empty();
    until_ready(&home.url("/readyz")).await;
    assert_eq!(large().await, 202);
    assert_eq!(
        (
            count(&home, "does not accept writes: the database is full"),
            count(&home, "The database accepts writes again.")
        ),
        (1, 1),
        "{}",
        home.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_that_are_tried_again_fill_no_log() {
    let receiver = Endpoint::start().await;
    let text = format!(
        "server: {{ port: {{port}}, bind: 127.0.0.1, allow_private_urls: true }}\ndatabase: \
         {{ url: \"{SQLITE}\" }}\nsources: {{ app: {{ type: event }} }}\nhandlers: \
         {{ h: {{ source: app, url: \"{}\", retry: {{ max: 5, interval: 1h }}, breaker: \
         {{ failures: 1000 }} }} }}\n",
        receiver.url("/status/500")
    );
    let home = Home::new(&text);
    let server = home.start().await;
    for _ in 0..30 {
        assert_eq!(post(&home, "/events/app/x").await.unwrap().0, 202);
    }
    receiver.until_count(30).await;
    server.stop().await;
    assert_eq!(count(&home, "will be retried"), 5, "{}", home.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_somebody_has_locked_is_waited_for_and_everybody_is_told_so() {
    let receiver = Endpoint::start().await;
    let home = Home::new(&config(SQLITE, &receiver, "/ok", ""));
    let url = format!("sqlite:{}?mode=rwc", home.dir.path().join("test.db").display());
    let mut other = SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("PRAGMA journal_mode = WAL; BEGIN IMMEDIATE; CREATE TABLE held (x)")
        .execute(&mut other)
        .await
        .unwrap();
    let server = home.spawn();
    eventually(async || client().get(home.url("/livez")).send().await.is_ok()).await;
    for path in ["/api/jobs", "/api/runs", "/api/lanes", "/approve/x"] {
        let (code, said) = status(&home, path).await;
        assert!(
            code == 503
                && said.contains("tidehook is starting")
                && said.contains("service_unavailable"),
            "{path}: {code} {said}"
        );
    }
    let callback = client().post(home.url("/callback/x")).body("{}").send().await.unwrap();
    assert!(callback.text().await.unwrap().contains("tidehook is starting"));
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    until_ready(&home.url("/readyz")).await;
    assert_eq!(post(&home, "/events/app/x").await.unwrap().0, 202);
    server.stop().await;
}
