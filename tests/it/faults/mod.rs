//! What must hold when things break: the real binary, real databases, real signals.

mod crashes;
mod database;
mod mariadb;
mod shutdown;
mod storm;
mod unreadable;
mod writes;
mod zombies;

use serde_json::Value;

use crate::support::endpoint::{Endpoint, PATIENCE};
use crate::support::process::Home;
use crate::support::world::client;

/// A configuration with one handler at a path of a receiver, over a database.
fn config(database: &str, receiver: &Endpoint, path: &str, more: &str) -> String {
    let driver = database.split(':').next().unwrap();
    format!(
        "database: {{ driver: {driver}, url: \"{database}\" }}
server: {{ bind: 127.0.0.1, port: {{port}}, allow_private_urls: true }}
delivery: {{ signing_secret: plainly-fictional }}
sources: {{ app: {{ type: event }} }}
handlers:
  h: {{ source: app, url: \"{}\", retry: {{ max: 5, interval: 200ms }} }}
{more}",
        receiver.url(path)
    )
}

const SQLITE: &str = "sqlite:{dir}/test.db";

async fn post(home: &Home, path: &str) -> Option<(u16, Value)> {
    let response = client().post(home.url(path)).body("{\"k\":\"one\"}").send().await.ok()?;
    let status = response.status().as_u16();
    Some((status, serde_json::from_str(&response.text().await.ok()?).unwrap_or(Value::Null)))
}

async fn get(home: &Home, path: &str) -> Value {
    let text = client().get(home.url(path)).send().await.unwrap().text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Waits until a job of an event has a status, and answers it with its attempts.
async fn until(home: &Home, event: &str, status: &str) -> (Value, Vec<Value>) {
    let waiting = async {
        loop {
            let jobs = get(home, &format!("/api/events/{event}/jobs")).await;
            let job = jobs["jobs"][0].clone();
            if job["status"] == status {
                let id = job["id"].as_str().unwrap();
                let attempts = get(home, &format!("/api/jobs/{id}/attempts")).await["attempts"]
                    .as_array()
                    .unwrap()
                    .clone();
                return (job, attempts);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(found) => found,
        Err(_) => panic!("{}", get(home, &format!("/api/events/{event}/jobs")).await),
    }
}
