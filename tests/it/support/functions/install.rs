//! An installation: a database, a queue, receivers, and the functions on them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::queue::Queue;
use super::runtime::Function;
use crate::support::endpoint::{Endpoint, PATIENCE};
use crate::support::stores::{self, Kind};

/// Longer than any test takes.
const VISIBILITY: Duration = Duration::from_secs(600);

pub struct Install {
    pub receiver: Endpoint,
    pub queue: Queue,
    pub url: String,
    pub dir: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Install {
    /// Over a fresh database with a schema. `{receiver}` in the text is the receiver's address.
    /// `None` where there is no server.
    pub async fn new(text: &str) -> Option<Self> {
        Self::with_receiver(text, Endpoint::start().await).await
    }

    /// The same with a receiver that is there.
    pub async fn with_receiver(text: &str, receiver: Endpoint) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let url = stores::url(Kind::Postgres, &dir).await?;
        stores::open(&url, None).await.migrate().await.unwrap();
        let queue = Queue::start().await;
        let text = text.replace("{receiver}", &receiver.address.to_string());
        std::fs::write(dir.path().join("tidehook.yaml"), text).unwrap();
        let config = dir.path().join("tidehook.yaml").display().to_string();
        let variables =
            vec![("TIDEHOOK_CONFIG".to_owned(), config), ("DATABASE_URL".to_owned(), url.clone())];
        Some(Self { receiver, queue, url, dir, variables })
    }

    pub fn log(&self) -> PathBuf {
        self.dir.path().join("functions.log")
    }

    /// The variables of its functions, with a queue or without.
    pub fn variables(&self, with_queue: bool) -> Vec<(String, String)> {
        let queue = if with_queue { self.queue.variables() } else { Vec::new() };
        self.variables.iter().cloned().chain(queue).collect()
    }

    pub async fn function(&self, handler: &str) -> Function {
        Function::start(handler, &self.variables(true), &self.log()).await
    }

    pub async fn without_queue(&self, handler: &str) -> Function {
        Function::start(handler, &self.variables(false), &self.log()).await
    }

    /// The store, for looking.
    pub async fn store(&self) -> Arc<dyn tidehook::store::Store> {
        stores::open(&self.url, None).await
    }

    /// Gives visible messages to a worker, batch by batch, until the queue has no message left.
    pub async fn drain(&self, worker: &Function) {
        self.poll(worker, || self.queue.len() == 0).await;
    }

    /// The same until something holds.
    pub async fn poll(&self, worker: &Function, done: impl Fn() -> bool) {
        let polling = async {
            while !done() {
                match self.queue.receive(VISIBILITY) {
                    Some((batch, event)) => {
                        let answer = worker.invoke(event).await.unwrap();
                        self.queue.delete(&batch, &answer);
                    }
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        if tokio::time::timeout(PATIENCE, polling).await.is_err() {
            panic!("it never came:\n{}", std::fs::read_to_string(self.log()).unwrap());
        }
    }
}

/// An event of an HTTP API, payload 2.0, or of a function URL, with a body of text.
pub fn http(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Value {
    let headers: Map<String, Value> = headers
        .iter()
        .chain(&[("host", "hooks.example.com")])
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    Value::Object(request(method, (path, query), headers, "192.0.2.7", body))
}

/// The same for a path and a query as they are, from an address.
pub fn request(
    method: &str,
    (path, query): (&str, &str),
    headers: Map<String, Value>,
    from: &str,
    body: &str,
) -> Map<String, Value> {
    let event = json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "000000000000", "apiId": "a", "domainName": "hooks.example.com",
            "stage": "$default", "requestId": "r",
            "http": {
                "method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": from,
                "userAgent": "test",
            },
            "time": "01/Jan/2026:00:00:00 +0000", "timeEpoch": 1_767_225_600_000_i64,
            "routeKey": "$default",
        },
        "body": body, "isBase64Encoded": false,
    });
    event.as_object().unwrap().clone()
}

/// Status and body of an answer.
pub fn answer(answer: &Value) -> (u64, Value) {
    let body = answer["body"].as_str().unwrap_or("");
    (
        answer["statusCode"].as_u64().unwrap(),
        serde_json::from_str(body).unwrap_or_else(|_| json!(body)),
    )
}
