//! A server over a store of its own, with a receiver to deliver to.
//!
//! `TIDEHOOK_TEST_WORLD` says how it runs: in this process on `sqlite` (the default) or on
//! `postgres`, or as `functions`, which are processes behind a gateway. A test that needs one of
//! them names it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tidehook::config::layers::Variables;
use tidehook::config::load::from_texts;
use tidehook::config::problem::Text;
use tidehook::config::{Config, Problems};
use tidehook::ingress;
use tidehook::model::Roles;
use tidehook::server::Server;
use tokio::net::TcpListener;

use super::endpoint::{Endpoint, PATIENCE};
use super::functions::gateway::Gateway;
use super::functions::install::Install;
use super::stores::{self, Kind};

/// Reads a configuration that must be right.
pub fn config(text: &str) -> Config {
    let mut problems = Problems::default();
    let texts = vec![Text { name: "test.yaml".into(), content: text.into() }];
    let config = from_texts(texts, &Variables::new(), false, &ingress::known(), &mut problems);
    config.unwrap_or_else(|| panic!("{}", problems.render(false)))
}

/// How a server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// The container, in this process.
    Container(Kind),
    /// Functions over Postgres.
    Functions,
}

impl Runtime {
    /// The way that the environment asks for.
    fn asked() -> Self {
        match std::env::var("TIDEHOOK_TEST_WORLD").as_deref().unwrap_or("") {
            "" | "sqlite" => Self::Container(Kind::Sqlite),
            "postgres" => Self::Container(Kind::Postgres),
            "mariadb" => Self::Container(Kind::Mariadb),
            "functions" => Self::Functions,
            other => panic!(
                "TIDEHOOK_TEST_WORLD is `{other}`; there are sqlite, postgres, mariadb and functions"
            ),
        }
    }
}

/// What runs, until it is dropped.
enum Running {
    Container(Server),
    Functions(Gateway),
    Elsewhere { ticker: String },
}

/// A server with its receiver.
pub struct World {
    running: Running,
    pub receiver: Endpoint,
    pub http: reqwest::Client,
    base: String,
    /// The database.
    pub database: String,
    _dir: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or("").to_owned()
    }

    pub fn event(&self) -> String {
        self.json()["event_id"]
            .as_str()
            .unwrap_or_else(|| panic!("no event: {}", self.text))
            .to_owned()
    }
}

#[expect(clippy::disallowed_methods, reason = "a client of tests, for the server under test")]
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

impl World {
    /// A server that runs as the environment asks. `{receiver}` in the text is the receiver's
    /// address.
    pub async fn start(text: &str) -> Self {
        Self::start_as(Runtime::asked(), text).await.expect("TIDEHOOK_TEST_POSTGRES names a server")
    }

    /// A server on SQLite in this process, however others run: for what only a server with a socket
    /// of its own shows.
    pub async fn container(text: &str) -> Self {
        Self::start_as(Runtime::Container(Kind::Sqlite), text).await.unwrap()
    }

    /// A server that runs in one way; `None` where there is no Postgres for it.
    pub async fn start_as(way: Runtime, text: &str) -> Option<Self> {
        Self::start_with(way, text, Endpoint::start().await).await
    }

    /// The same with a receiver that is there.
    pub async fn start_with(way: Runtime, text: &str, receiver: Endpoint) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (running, database, address) = match way {
            Runtime::Functions => {
                let install = Install::with_receiver(text, receiver.clone()).await?;
                let (database, gateway) = (install.url.clone(), Gateway::start(install).await);
                let address = gateway.address;
                (Running::Functions(gateway), database, address)
            }
            Runtime::Container(kind) => {
                let url = stores::url(kind, &dir).await?;
                let driver = url.split(':').next().unwrap();
                let text = text.replace("{receiver}", &receiver.address.to_string());
                let config =
                    config(&format!("{text}\ndatabase: {{ driver: {driver}, url: \"{url}\" }}\n"));
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let server = Server::start_on(listener, config, Roles::ALL).await.unwrap();
                let address = server.address();
                (Running::Container(server), url, address)
            }
        };
        Some(Self {
            running,
            receiver,
            http: client(),
            base: format!("http://{address}"),
            database,
            _dir: dir,
        })
    }

    /// One that was deployed, at a base URL.
    /// Its ticker is invoked by requests to a URL.
    pub fn deployed(base: &str, database: &str, ticker: &str, receiver: Endpoint) -> Self {
        let (base, database) = (base.to_owned(), database.to_owned());
        Self {
            running: Running::Elsewhere { ticker: ticker.to_owned() },
            receiver,
            http: client(),
            base,
            database,
            _dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Has a container take nothing in any more, as in the last moment of its shutdown.
    pub fn close(&self) {
        match &self.running {
            Running::Container(server) => server.engine().close(),
            Running::Functions(_) | Running::Elsewhere { .. } => {
                panic!("functions do not shut down")
            }
        }
    }

    /// The socket of a container.
    pub fn address(&self) -> SocketAddr {
        match &self.running {
            Running::Container(server) => server.address(),
            Running::Functions(_) | Running::Elsewhere { .. } => panic!("functions have no socket"),
        }
    }

    /// Has it look for work that nobody told it of. A container does so by itself.
    pub async fn look(&self) {
        match &self.running {
            Running::Container(server) => server.engine().wake().await,
            Running::Functions(gateway) => gateway.tick().await,
            Running::Elsewhere { ticker } => {
                let invoked =
                    self.send(self.http.post(ticker).body("{\"tidehook\":\"tick\"}")).await;
                assert!(invoked.text.contains("announced"), "{}: {}", invoked.status, invoked.text);
            }
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.http.get(self.url(path))).await
    }

    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let mut request = self.http.post(self.url(path)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request).await
    }

    /// Waits until the jobs of an event all have a status.
    pub async fn until_jobs(&self, event: &str, status: &str) -> Vec<Value> {
        let waiting = async {
            loop {
                let jobs = self.get(&format!("/api/events/{event}/jobs")).await.json()["jobs"]
                    .as_array()
                    .unwrap()
                    .clone();
                if !jobs.is_empty() && jobs.iter().all(|j| j["status"] == status) {
                    return jobs;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(jobs) => jobs,
            Err(_) => panic!("{}", self.get(&format!("/api/events/{event}/jobs")).await.text),
        }
    }

    /// Waits until the run of an event waits for an answer: its id and the token.
    pub async fn until_waiting(&self, event: &str) -> (String, String) {
        let waiting = async {
            loop {
                let runs = self.get(&format!("/api/runs?event={event}")).await.json();
                if let Some(id) = runs["runs"][0]["id"].as_str() {
                    let run = self.get(&format!("/api/runs/{id}")).await.json();
                    if let Some(token) = run["open"][0]["callback_token"].as_str() {
                        return (id.to_owned(), token.to_owned());
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the run waits")
    }

    /// The attempts of a job.
    pub async fn attempts(&self, job: &Value) -> Vec<Value> {
        let id = job["id"].as_str().unwrap();
        self.get(&format!("/api/jobs/{id}/attempts")).await.json()["attempts"]
            .as_array()
            .unwrap()
            .clone()
    }
}
