//! One suite, every way to run: the same requests against the container on SQLite and on Postgres, against the functions on
//! the runtime API, and, where `TIDEHOOK_TEST_GATEWAY` names one, against a deployed stack. What receivers get must be the same but
//! for ids and times.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::lambda::install::{Install, answer, http};
use crate::lambda::runtime::Function;
use crate::support::endpoint::{Endpoint, Got, PATIENCE};
use crate::support::stores::Kind;
use crate::support::world::{World, client};

/// The configuration that a stack is deployed with, too.
const TEXT: &str = include_str!("parity.yaml");
/// Where receivers listen: a deployed stack has to know it beforehand.
const RECEIVER: &str = "{receiver}";
/// Headers that are made anew each time, by their ends.
const MADE: [&str; 8] = ["host", "content-length", "-key", "-id", "-token", "-signature", "-timestamp", "traceparent"];

/// A way to run.
enum Way {
    Container(Box<World>),
    Functions { install: Box<Install>, ingress: Function },
    Stack { gateway: String, http: reqwest::Client, receiver: Endpoint },
}

impl Way {
    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> (u64, Value) {
        match self {
            Self::Container(world) => {
                let said = world.post(path, headers, body.to_owned()).await;
                (said.status.into(), said.json())
            }
            Self::Functions { ingress, .. } => answer(&ingress.invoke(http("POST", path, headers, body)).await.unwrap()),
            Self::Stack { gateway, http, .. } => {
                let mut request = http.post(format!("{gateway}{path}")).body(body.to_owned());
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let said = request.send().await.unwrap();
                (said.status().as_u16().into(), said.json().await.unwrap())
            }
        }
    }

    fn receiver(&self) -> &Endpoint {
        match self {
            Self::Container(world) => &world.receiver,
            Self::Functions { install, .. } => &install.receiver,
            Self::Stack { receiver, .. } => receiver,
        }
    }

    /// Waits until receivers have got so many requests.
    async fn until(&self, count: usize) {
        let waiting = async {
            while self.receiver().got().len() < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("{count} requests never came: {:#?}", shown(&self.receiver().got()));
        }
    }

    fn token(&self) -> String {
        let got = self.receiver().got();
        let found = got.iter().rev().find_map(|got| got.header("x-tidehook-callback-token"));
        found.expect("a token was told").to_owned()
    }
}

/// What stays when ids and times are left out, in an order that does not depend on who was faster.
fn shown(got: &[Got]) -> Vec<Value> {
    let mut all: Vec<Value> = got.iter().map(one).collect();
    all.sort_by_key(Value::to_string);
    all
}

fn one(got: &Got) -> Value {
    let headers: BTreeMap<String, String> = got
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| !MADE.iter().any(|end| name.ends_with(end)))
        .collect();
    let body: Value = serde_json::from_slice(&got.body).unwrap_or_else(|_| json!(got.text()));
    json!({ "method": got.method, "path": got.path, "headers": headers, "body": without_ids(body) })
}

fn without_ids(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let made = |name: &str| name.ends_with("_id") || name.ends_with("_at") || name.starts_with("callback_");
            fields
                .into_iter()
                .map(|(name, value)| if made(&name) { (name, json!("…")) } else { (name, without_ids(value)) })
                .collect()
        }
        Value::Array(items) => items.into_iter().map(without_ids).collect(),
        other => other,
    }
}

/// The suite: what comes in, and what receivers have got at the end of it.
async fn play(way: &Way) -> Vec<Value> {
    let send = async |kind: &str, body: &str| {
        let (status, said) =
            way.post(&format!("/events/app/{kind}"), &[("authorization", "Bearer plainly-fictional")], body).await;
        assert_eq!(status, 202, "{said}");
    };
    // The signature of GitHub's own example.
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let headers =
        |signature| [("x-hub-signature-256", signature), ("x-github-event", "push"), ("content-type", "application/json")];
    assert_eq!(way.post("/webhooks/github", &headers(signature), "Hello, World!").await.0, 200);
    assert_eq!(way.post("/webhooks/github", &headers("sha256=00"), "Hello, World!").await.0, 401);
    let (status, said) = way.post("/events/app/go", &[], "{}").await;
    assert_eq!((status, &said["code"]), (401, &json!("unauthorized")));
    // A fan-out, one of whose receivers fails at first; bytes as they came.
    send("order.paid", "{ \"id\" : 7,\n \"name\": \"Zoë 🌊\" }").await;
    send("order.void", "{\"id\":8}").await;
    way.until(4).await;
    // A workflow with a wait, a map, a choice and a callback.
    send("trip", "{\"legs\":[\"a\",\"b\",\"c\"],\"price\":12}").await;
    way.until(9).await;
    let path = format!("/callback/{}", way.token());
    assert_eq!(way.post(&path, &[("content-type", "application/json")], "{\"by\":\"ada\"}").await.0, 200);
    assert_eq!(way.post(&path, &[("content-type", "application/json")], "{\"by\":\"ada\"}").await.1["duplicate"], true);
    assert_eq!(way.post(&path, &[("content-type", "application/json")], "{\"by\":\"bob\"}").await.0, 409);
    way.until(10).await;
    // One that fails and is undone.
    send("doomed", "{\"n\":1}").await;
    way.until(14).await;
    shown(&way.receiver().got())
}

async fn container(kind: Kind) -> Option<Vec<Value>> {
    let text = TEXT.replace("database: { driver: postgres }\n", "");
    let way = Way::Container(Box::new(World::start_on(kind, &text).await?));
    Some(play(&way).await)
}

async fn functions() -> Option<Vec<Value>> {
    let install = Box::new(Install::new(TEXT).await?);
    let (ingress, worker) = (install.function("ingress").await, install.function("worker").await);
    let way = Way::Functions { install, ingress };
    let Way::Functions { install, .. } = &way else { return None };
    tokio::select! {
        shown = play(&way) => Some(shown),
        () = install.poll(&worker, || false) => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_get_the_same_however_it_runs() {
    let sqlite = container(Kind::Sqlite).await.unwrap();
    assert_eq!(sqlite.len(), 14);
    let Some(postgres) = container(Kind::Postgres).await else { return };
    pretty_eq(&sqlite, &postgres, "Postgres");
    pretty_eq(&sqlite, &functions().await.unwrap(), "functions");
}

/// The stack is deployed by `scripts/test-lambda.sh`, with a receiver at the address that it names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_get_the_same_from_a_deployed_stack() {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(gateway) = variable("TIDEHOOK_TEST_GATEWAY") else { return };
    let receiver = Endpoint::start_at(&variable("TIDEHOOK_TEST_RECEIVER").unwrap()).await;
    let way = Way::Stack { gateway, http: client(), receiver };
    let deployed = play(&way).await;
    pretty_eq(&container(Kind::Sqlite).await.unwrap(), &deployed, "the deployed stack");
}

fn pretty_eq(one: &[Value], other: &[Value], who: &str) {
    for (one, other) in one.iter().zip(other) {
        assert_eq!(one, other, "{who} differs");
    }
    assert_eq!(one.len(), other.len(), "{who} differs");
    assert!(!TEXT.is_empty() && TEXT.contains(RECEIVER));
}
