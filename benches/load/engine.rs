//! The engines: the binary under test, and qhook for comparison, each on a database of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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
}

impl Store {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres(_) => "postgres",
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

/// A running engine. It ends with this.
pub struct Engine {
    process: Child,
    pub address: SocketAddr,
    /// Its database, where that is a server's.
    pub database: Option<String>,
    _dir: tempfile::TempDir,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Engine {
    /// Starts it with a fresh database. Both engines read the same file.
    pub async fn start(kind: &Kind, store: &Store, sink: SocketAddr, handlers: &[Handler]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let (driver, url, database) = match store {
            Store::Sqlite => ("sqlite", format!("sqlite:{}/bench.db?mode=rwc", dir.path().display()), None),
            Store::Postgres(server) => {
                let name = format!("bench_{}_{port}", std::process::id());
                let url = tidehook::store::sql::postgres::create_database(server, &name).await.unwrap();
                ("postgres", url.clone(), Some(url))
            }
        };
        let mut text = format!(
            "database: {{ driver: {driver}, url: \"{url}\", max_connections: 20 }}
server: {{ port: {port}, allow_private_urls: true, max_inbound: 1000 }}
worker: {{ max_concurrency: 64, batch_size: 500 }}
delivery: {{ default_retry: {{ max: 5, interval: 1s }} }}
sources: {{ app: {{ type: event }} }}
handlers:\n"
        );
        for Handler { name, event, path } in handlers {
            text += &format!("  {name}: {{ source: app, events: [{event}], url: \"http://{sink}{path}\", timeout: 30s }}\n");
        }
        let config = dir.path().join("config.yaml");
        std::fs::write(&config, text).unwrap();
        let binary = match kind {
            Kind::Tidehook => PathBuf::from(env!("CARGO_BIN_EXE_tidehook")),
            Kind::Qhook(binary) => binary.clone(),
        };
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(binary);
        command.arg("start").arg("--config").arg(&config).current_dir(dir.path()).env_remove("DATABASE_URL");
        command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let engine = Self {
            process: command.spawn().expect("the engine starts"),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            database,
            _dir: dir,
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
