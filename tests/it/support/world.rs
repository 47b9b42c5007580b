//! A server of this process, over a store of its own, with a receiver to deliver to.

use std::time::Duration;

use serde_json::Value;
use tidehook::config::layers::Variables;
use tidehook::config::load::from_texts;
use tidehook::config::problem::Text;
use tidehook::config::{Config, Problems};
use tidehook::ingress;
use tidehook::server::Server;
use tokio::net::TcpListener;

use super::endpoint::{Endpoint, PATIENCE};
use super::stores::{self, Kind};

/// Reads a configuration that must be right.
pub fn config(text: &str) -> Config {
    let mut problems = Problems::default();
    let texts = vec![Text { name: "test.yaml".into(), content: text.into() }];
    let config = from_texts(texts, &Variables::new(), false, &ingress::known(), &mut problems);
    config.unwrap_or_else(|| panic!("{}", problems.render(false)))
}

/// A server with its receiver.
pub struct World {
    pub server: Server,
    pub receiver: Endpoint,
    pub http: reqwest::Client,
    base: String,
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
        self.json()["event_id"].as_str().unwrap_or_else(|| panic!("no event: {}", self.text)).to_owned()
    }
}

#[expect(clippy::disallowed_methods, reason = "a client of tests, for the server under test")]
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

impl World {
    /// A server on SQLite. `{receiver}` in the text is the receiver's address.
    pub async fn start(text: &str) -> Self {
        Self::start_on(Kind::Sqlite, text).await.unwrap()
    }

    /// A server on a kind of store; `None` where there is no server for it.
    pub async fn start_on(kind: Kind, text: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let url = stores::url(kind, &dir).await?;
        let receiver = Endpoint::start().await;
        let driver = if kind == Kind::Postgres { "postgres" } else { "sqlite" };
        let text = text.replace("{receiver}", &receiver.address.to_string());
        let config = config(&format!("{text}\ndatabase: {{ driver: {driver}, url: \"{url}\" }}\n"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start_on(listener, config).await.unwrap();
        let base = format!("http://{}", server.address());
        Some(Self { server, receiver, http: client(), base, _dir: dir })
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

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answer {
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
                let jobs = self.get(&format!("/api/events/{event}/jobs")).await.json()["jobs"].as_array().unwrap().clone();
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

    /// The attempts of a job.
    pub async fn attempts(&self, job: &Value) -> Vec<Value> {
        let id = job["id"].as_str().unwrap();
        self.get(&format!("/api/jobs/{id}/attempts")).await.json()["attempts"].as_array().unwrap().clone()
    }
}
