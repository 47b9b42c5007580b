//! One suite, every way to run: the same requests against the container on SQLite and on Postgres,
//! against the functions on the runtime API, and, where `TIDEHOOK_TEST_GATEWAY` names one, against
//! a deployed stack. What receivers get must be the same but for ids and times.

mod machine;
mod played;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::endpoint::{Endpoint, ReceivedRequest};
use crate::support::stores::Kind;
use crate::support::world::{Runtime, World};
use machine::Machine;

/// The configuration that a stack is deployed with, too.
const TEXT: &str = include_str!("suite.yaml");
/// Headers that are made anew each time, by their ends.
const MADE: [&str; 8] =
    ["host", "content-length", "-key", "-id", "-token", "-signature", "-timestamp", "traceparent"];

fn token(got: &[ReceivedRequest]) -> String {
    let found = got.iter().rev().find_map(|got| got.header("x-tidehook-callback-token"));
    found.expect("a token was told").to_owned()
}

/// What stays when ids and times are left out, in an order that does not depend on who was faster.
fn shown(got: &[ReceivedRequest]) -> Vec<Value> {
    let mut all: Vec<Value> = got.iter().map(one).collect();
    all.sort_by_key(Value::to_string);
    all
}

fn one(got: &ReceivedRequest) -> Value {
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
            let made = |name: &str| {
                let ends = ["_id", "_at", "_url"].iter().any(|end| name.ends_with(end));
                ends || name == "at" || name.starts_with("callback_")
            };
            fields
                .into_iter()
                .map(
                    |(name, value)| {
                        if made(&name) { (name, json!("…")) } else { (name, without_ids(value)) }
                    },
                )
                .collect()
        }
        Value::Array(items) => items.into_iter().map(without_ids).collect(),
        other => other,
    }
}

/// A consumer of a pull queue: receives, gives back, receives again, acknowledges.
async fn consume(world: &World, send: &impl AsyncFn(&str, &str)) {
    const CONSUMER: (&str, &str) = ("authorization", "Bearer consumers-only");
    send("job.new", "{ \"n\" : 1.0 }").await;
    let receive = async || {
        let path = world.url("/api/queues/jobs/messages?wait=5s");
        let request = world.http.get(path).header(CONSUMER.0, CONSUMER.1);
        world.send(request).await
    };
    let say = async |verb: &str, receipt: &Value| {
        let body = json!({ "receipts": [receipt] }).to_string();
        world.post(&format!("/api/queues/jobs/{verb}"), &[CONSUMER], body).await
    };
    let first = receive().await;
    assert!(first.text.contains("{ \"n\" : 1.0 }"), "byte for byte: {}", first.text);
    let first = first.json()["messages"][0].clone();
    assert_eq!(first["attempt"], 0);
    assert_eq!(say("nack", &first["receipt"]).await.json()["retried"], 1);
    let second = receive().await.json()["messages"][0].clone();
    assert_eq!((&second["attempt"], &second["id"]), (&json!(1), &first["id"]));
    assert_eq!(say("ack", &first["receipt"]).await.status, 409);
    assert_eq!(say("ack", &second["receipt"]).await.json()["acked"], 1);
}

/// The suite: what comes in, and what receivers have got at the end of it.
async fn play(world: &World) -> Vec<Value> {
    let post = async |path: &str, headers: &[(&str, &str)], body: &str| {
        let said = world.post(path, headers, body.to_owned()).await;
        (said.status, said.json())
    };
    let send = async |kind: &str, body: &str| {
        let (status, said) = post(
            &format!("/events/app/{kind}"),
            &[("authorization", "Bearer plainly-fictional")],
            body,
        )
        .await;
        assert_eq!(status, 202, "{said}");
    };
    // The signature of GitHub's own example.
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let headers = |signature| {
        [
            ("x-hub-signature-256", signature),
            ("x-github-event", "push"),
            ("content-type", "application/json"),
        ]
    };
    assert_eq!(post("/webhooks/github", &headers(signature), "Hello, World!").await.0, 200);
    assert_eq!(post("/webhooks/github", &headers("sha256=00"), "Hello, World!").await.0, 401);
    let (status, said) = post("/events/app/go", &[], "{}").await;
    assert_eq!((status, &said["code"]), (401, &json!("unauthorized")));
    // A fan-out, one of whose receivers fails at first; bytes as they came.
    send("order.paid", "{ \"id\" : 7,\n \"name\": \"Zoë 🌊\" }").await;
    send("order.void", "{\"id\":8}").await;
    world.receiver.until_count(4).await;
    consume(world, &send).await;
    // A workflow with a wait, a map, a choice and a callback.
    send("trip", "{\"legs\":[\"a\",\"b\",\"c\"],\"price\":12}").await;
    let path = format!("/callback/{}", token(&world.receiver.until_count(9).await));
    let json = [("content-type", "application/json")];
    assert_eq!(post(&path, &json, "{\"by\":\"ada\"}").await.0, 200);
    assert_eq!(post(&path, &json, "{\"by\":\"ada\"}").await.1["duplicate"], true);
    assert_eq!(post(&path, &json, "{\"by\":\"bob\"}").await.0, 409);
    world.receiver.until_count(10).await;
    // One that fails and is undone.
    send("doomed", "{\"n\":1}").await;
    shown(&world.receiver.until_count(14).await)
}

/// What receivers have got of the suite and of every scenario, by its name.
async fn play_all(world: &World) -> Vec<(String, Vec<Value>)> {
    let mut all = vec![("the suite".to_owned(), play(world).await)];
    let machine = Machine::over(&world.database).await;
    for file in played::files() {
        let got = played::play(world, &machine, &file).await;
        all.push((file.file_name().unwrap().display().to_string(), got));
    }
    all
}

async fn seen(way: Runtime) -> Option<Vec<(String, Vec<Value>)>> {
    let world = World::start_as(way, &played::with_examples(TEXT)).await?;
    let all = play_all(&world).await;
    let fsck =
        world.send(world.http.get(world.url("/api/fsck")).bearer_auth("plainly-fictional")).await;
    assert_eq!(fsck.json()["faults"], json!([]), "{way:?}");
    Some(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_get_the_same_however_it_runs() {
    let sqlite = seen(Runtime::Container(Kind::Sqlite)).await.unwrap();
    let sizes: Vec<usize> = sqlite.iter().map(|(_, got)| got.len()).collect();
    assert_eq!(sizes[0], 14);
    assert!(sizes.len() > 6 && sizes.iter().all(|size| *size > 3), "{sizes:?}");
    let Some(postgres) = seen(Runtime::Container(Kind::Postgres)).await else { return };
    same(&sqlite, &postgres, "Postgres");
    let mariadb = seen(Runtime::Container(Kind::Mariadb)).await.unwrap();
    same(&sqlite, &mariadb, "MariaDB");
    same(&sqlite, &seen(Runtime::Functions).await.unwrap(), "functions");
}

/// The stack is deployed by `scripts/test-lambda.sh`, with a receiver at the address that it names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_get_the_same_from_a_deployed_stack() {
    let Some(stack) = Stack::named() else { return };
    let receiver = Endpoint::start_at(&stack.receiver).await;
    let deployed =
        play_all(&World::deployed(&stack.gateway, &stack.database, &stack.ticker, receiver)).await;
    same(&seen(Runtime::Container(Kind::Sqlite)).await.unwrap(), &deployed, "the deployed stack");
}

/// What `scripts/test-lambda.sh` deployed.
struct Stack {
    gateway: String,
    receiver: String,
    database: String,
    /// Where its ticker is invoked.
    ticker: String,
}

impl Stack {
    fn named() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let gateway = variable("TIDEHOOK_TEST_GATEWAY")?;
        let needed = |name: &str| {
            variable(name).unwrap_or_else(|| panic!("with TIDEHOOK_TEST_GATEWAY, {name} is needed"))
        };
        Some(Self {
            gateway,
            receiver: needed("TIDEHOOK_TEST_RECEIVER"),
            database: needed("TIDEHOOK_TEST_STACK"),
            ticker: needed("TIDEHOOK_TEST_TICKER"),
        })
    }
}

/// The configuration that a stack is deployed with for these tests, written where
/// `scripts/test-lambda.sh` wants it.
#[test]
fn the_configuration_of_a_stack_is_the_one_of_every_way() {
    let text = played::with_examples(TEXT);
    assert!(text.contains("{receiver}/held/"));
    if let Some(path) = std::env::var_os("TIDEHOOK_TEST_WRITE") {
        let receiver = std::env::var("TIDEHOOK_TEST_RECEIVER")
            .expect("TIDEHOOK_TEST_RECEIVER names where receivers listen");
        std::fs::write(path, text.replace("{receiver}", &receiver)).unwrap();
    }
}

fn same(one: &[(String, Vec<Value>)], other: &[(String, Vec<Value>)], who: &str) {
    assert_eq!(one.len(), other.len());
    for ((name, one), (_, other)) in one.iter().zip(other) {
        for (one, other) in one.iter().zip(other) {
            assert_eq!(one, other, "{name}: {who} differs");
        }
        assert_eq!(one.len(), other.len(), "{name}: {who} differs");
    }
}
