//! The engines: the binary under test, and qhook for comparison, each on a database of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::Connection;
use tokio::net::TcpStream;

/// Which engine.
#[derive(Debug, Clone)]
pub enum Kind {
    Tidehook,
    Qhook(PathBuf),
}

impl Kind {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tidehook => "tidehook",
            Self::Qhook(_) => "qhook",
        }
    }
}

/// On which store.
#[derive(Debug, Clone)]
pub enum Store {
    Sqlite,
    Postgres(String),
    Mariadb(String),
}

impl Store {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres(_) => "postgres",
            Self::Mariadb(_) => "mariadb",
        }
    }
}

/// A handler: its name, the event type it wants, and the path of the sink it posts to.
#[derive(Debug, Clone)]
pub struct Handler {
    pub name: String,
    pub event: String,
    pub path: String,
}

/// What an engine reads: one file that both understand.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    pub handlers: Vec<Handler>,
    /// The keys of the section `worker`, where they are not the usual ones.
    pub worker: String,
    /// More text for the file, of parts that qhook need not know.
    pub more: String,
    /// The section of workflows, if there are any.
    pub workflow: String,
}

/// A database that engines work on.
pub struct Place {
    pub url: String,
    driver: &'static str,
    /// Whether it is a server's.
    pub is_server: bool,
    dir: tempfile::TempDir,
}

impl Place {
    /// A fresh one.
    pub async fn new(store: &Store) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (driver, url) = match store {
            Store::Sqlite => {
                ("sqlite", format!("sqlite:{}/bench.db?mode=rwc", dir.path().display()))
            }
            Store::Postgres(server) => {
                let name = format!("bench_{}_{}", std::process::id(), free_port());
                ("postgres", crate::database::create(server, &name).await)
            }
            Store::Mariadb(server) => {
                let name = format!("bench_{}_{}", std::process::id(), free_port());
                ("mysql", crate::database::create_mariadb(server, &name).await)
            }
        };
        Self { url, driver, is_server: driver != "sqlite", dir }
    }

    /// Its address for the figures that only Postgres has.
    pub fn server(&self) -> Option<&str> {
        (self.driver == "postgres").then_some(self.url.as_str())
    }

    /// How many bytes its files have, or its tables and indexes on a server; 0 where nobody knows.
    pub async fn bytes(&self) -> u64 {
        let of_files = std::fs::read_dir(self.dir.path()).unwrap();
        match self.driver {
            "sqlite" => of_files
                .map(|file| file.unwrap())
                .filter(|file| file.file_name().to_string_lossy().starts_with("bench.db"))
                .map(|file| file.metadata().unwrap().len())
                .sum(),
            "postgres" => {
                let mut conn = sqlx::PgConnection::connect(&self.url).await.unwrap();
                let sql = "SELECT pg_database_size(current_database())";
                let bytes: i64 = sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap();
                bytes as u64
            }
            _ => {
                let mut conn = sqlx::MySqlConnection::connect(&self.url).await.unwrap();
                let sql = "SELECT CAST(SUM(data_length + index_length) AS UNSIGNED)
                    FROM information_schema.tables WHERE table_schema = DATABASE()";
                sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap_or(0)
            }
        }
    }
}

/// The usual keys of the section `worker`.
pub const WORKER: &str = "max_concurrency: 64, batch_size: 500";

/// A running engine. It ends with this.
pub struct Engine {
    process: Child,
    pub address: SocketAddr,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Engine {
    /// Starts one on a database. Both engines read the same file.
    pub async fn start(kind: &Kind, place: &Place, sink: SocketAddr, setup: &Setup) -> Self {
        let (port, driver, url) = (free_port(), place.driver, &place.url);
        let mut text = format!(
            "database: {{ driver: {driver}, url: \"{url}\", max_connections: 20 }}
server: {{ port: {port}, allow_private_urls: true, max_inbound: 1000 }}
worker: {{ {} }}
delivery: {{ default_retry: {{ max: 5, interval: 1s }} }}
sources:
  app: {{ type: event }}
{}handlers:\n",
            if setup.worker.is_empty() { WORKER } else { &setup.worker },
            setup.more
        );
        for Handler { name, event, path } in &setup.handlers {
            text += &format!(
                "  {name}: {{ source: app, events: [{event}], url: \"http://{sink}{path}\", \
                 timeout: 30s }}\n"
            );
        }
        text += &setup.workflow;
        let dir = place.dir.path();
        let config = dir.join(format!("config-{port}.yaml"));
        std::fs::write(&config, text).unwrap();
        let binary = match kind {
            Kind::Tidehook => PathBuf::from(env!("CARGO_BIN_EXE_tidehook")),
            Kind::Qhook(binary) => binary.clone(),
        };
        let log = std::fs::File::create(dir.join(format!("log-{port}"))).unwrap();
        let mut command = Command::new(binary);
        command
            .arg("start")
            .arg("--config")
            .arg(&config)
            .current_dir(dir)
            .env_remove("DATABASE_URL");
        command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let engine = Self {
            process: command.spawn().expect("the engine starts"),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        };
        engine.until_ready().await;
        engine
    }

    async fn until_ready(&self) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) {
            if TcpStream::connect(self.address).await.is_ok() {
                // It listens; its first look and its migrations are behind it a moment later.
                tokio::time::sleep(Duration::from_millis(500)).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the engine does not listen");
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
