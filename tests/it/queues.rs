//! Pull queues as their consumers see them.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::process::{Home, binary};
use crate::support::stores::Kind;
use crate::support::world::{Answer, Runtime, World, client};

const CONFIG: &str = r#"
server: { allow_private_urls: true }
api: { auth_token: plainly-fictional }
sources:
  app: { type: event }
handlers:
  push: { source: app, events: ["both"], url: "http://{receiver}/ok" }
queues:
  jobs: { source: app, events: ["job.*", both], filter: "$.skip != true", visibility_timeout: 30s, max_attempts: 2, api_key: consumers-only }
  open: { source: app, events: ["open"], visibility_timeout: 1s }
  "queue:odd": { source: app, events: ["odd"] }
  once: { source: app, events: ["once"], idempotency_key: "$.id" }
"#;
const OPERATOR: (&str, &str) = ("authorization", "Bearer plainly-fictional");
const CONSUMER: (&str, &str) = ("authorization", "Bearer consumers-only");

async fn publish(world: &World, kind: &str, body: &str) -> Value {
    let headers = [OPERATOR, ("content-type", "application/json")];
    let answer = world.post(&format!("/events/app/{kind}"), &headers, body.to_owned()).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.json()
}

async fn get(world: &World, path: &str, who: (&str, &str)) -> Answer {
    world.send(world.http.get(world.url(path)).header(who.0, who.1)).await
}

async fn receive(world: &World, query: &str) -> Vec<Value> {
    let answer = get(world, &format!("/api/queues/jobs/messages?{query}"), CONSUMER).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["messages"].as_array().unwrap().clone()
}

async fn say(world: &World, verb: &str, body: Value) -> Answer {
    world.post(&format!("/api/queues/jobs/{verb}"), &[CONSUMER], body.to_string()).await
}

async fn counts(world: &World) -> Value {
    get(world, "/api/queues/jobs", OPERATOR).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_received_and_acknowledged() {
    let world = World::start(CONFIG).await;
    let body = "{ \"n\": 1.50, \"big\": 12345678901234567890123,\t\"n\": 2 }";
    let published = publish(&world, "job.new", body).await;
    assert_eq!(published["jobs_created"], 1);
    let answer = get(&world, "/api/queues/jobs/messages?batch=10", CONSUMER).await;
    assert!(answer.text.contains(body), "byte for byte: {}", answer.text);
    let message = answer.json()["messages"][0].clone();
    assert_eq!(
        (&message["event_id"], &message["event_type"], &message["attempt"], &message["source"]),
        (&published["event_id"], &json!("job.new"), &json!(0), &json!("app"))
    );
    assert_eq!(message["headers"]["content-type"], "application/json");
    assert!(receive(&world, "batch=10").await.is_empty(), "it is hidden");
    assert_eq!(counts(&world).await["in_flight"], 1);
    let acked = say(&world, "ack", json!({ "receipts": [message["receipt"]] })).await;
    assert_eq!(acked.json(), json!({ "acked": 1, "refused": [] }));
    let again = say(&world, "ack", json!({ "receipts": [message["receipt"]] })).await;
    assert_eq!(again.status, 200, "an answer that was lost can be asked for again");
    let path = format!("/api/events/{}/jobs", message["event_id"].as_str().unwrap());
    let job = get(&world, &path, OPERATOR).await.json()["jobs"][0].clone();
    assert_eq!(
        (&job["kind"], &job["status"], &job["attempt"]),
        (&json!("message"), &json!("completed"), &json!(1))
    );
    assert_eq!(counts(&world).await["depth"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_and_bytes_come_as_they_were() {
    let world = World::start(CONFIG).await;
    let post = |body: Vec<u8>| {
        let request = world.http.post(world.url("/events/app/job.raw")).body(body);
        world.send(request.header(OPERATOR.0, OPERATOR.1))
    };
    assert_eq!(post(b"plain \"text\"".to_vec()).await.status, 202);
    assert_eq!(post(vec![0xff, 0x00, 0x61]).await.status, 202);
    let mut got = receive(&world, "batch=10").await;
    got.sort_by_key(|message| message["created_at"].as_str().unwrap().to_owned());
    assert_eq!(
        (&got[0]["payload"], &got[0]["payload_encoding"]),
        (&json!("plain \"text\""), &Value::Null)
    );
    assert_eq!(
        (&got[1]["payload"], &got[1]["payload_encoding"]),
        (&json!("/wBh"), &json!("base64"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_given_back_is_dead_after_its_last_attempt_and_can_be_retried() {
    let world = World::start(CONFIG).await;
    publish(&world, "job.new", "{}").await;
    let first = receive(&world, "").await.remove(0);
    let nacked = say(&world, "nack", json!({ "ids": [first["id"]] })).await;
    assert_eq!(nacked.json(), json!({ "retried": 1, "dead": 0, "refused": [] }));
    let second = receive(&world, "").await.remove(0);
    assert_eq!((&second["id"], &second["attempt"]), (&first["id"], &json!(1)));
    let reason = json!({ "receipts": [second["receipt"]], "reason": "no such customer" });
    assert_eq!(say(&world, "nack", reason).await.json()["dead"], 1);
    assert!(receive(&world, "").await.is_empty());
    let dead = get(&world, "/api/queues/jobs/dlq", OPERATOR).await.json();
    let error = dead["messages"][0]["last_error"].as_str().unwrap();
    assert!(error.contains("no such customer"), "{error}");
    let path = format!("/api/jobs/{}/attempts", first["id"].as_str().unwrap());
    let attempts = get(&world, &path, OPERATOR).await.json();
    let codes: Vec<&Value> =
        attempts["attempts"].as_array().unwrap().iter().map(|a| &a["code"]).collect();
    assert_eq!(codes, [&json!("given_back"), &json!("given_back")]);
    let retried = world.post("/api/queues/jobs/retry", &[OPERATOR], "").await;
    assert_eq!(retried.json(), json!({ "queue": "jobs", "retried": 1 }));
    assert_eq!(receive(&world, "").await[0]["attempt"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_receipt_changes_nothing_and_is_refused_by_itself() {
    let world = World::start(CONFIG).await;
    publish(&world, "job.a", "{}").await;
    publish(&world, "job.b", "{}").await;
    let first = receive(&world, "").await.remove(0);
    let delayed = json!({ "receipts": [first["receipt"]], "delay": "0s" });
    assert_eq!(say(&world, "nack", delayed).await.json()["retried"], 1);
    let both = receive(&world, "batch=10").await;
    assert_eq!(both.len(), 2);
    let stale = say(&world, "ack", json!({ "receipts": [first["receipt"]] })).await;
    assert_eq!((stale.status, stale.code()), (409, "stale_receipt".to_owned()));
    let stale =
        say(&world, "extend", json!({ "receipts": [first["receipt"]], "seconds": 60 })).await;
    assert_eq!(stale.status, 409);
    let mixed =
        json!({ "receipts": [first["receipt"], both[0]["receipt"], "junk", both[1]["receipt"]] });
    let mixed = say(&world, "ack", mixed).await.json();
    assert_eq!(mixed["acked"], 2);
    let codes: Vec<&Value> =
        mixed["refused"].as_array().unwrap().iter().map(|r| &r["code"]).collect();
    assert_eq!(codes, [&json!("stale_receipt"), &json!("stale_receipt")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_and_ids_of_another_queue_are_refused() {
    let world = World::start(CONFIG).await;
    publish(&world, "open", "{}").await;
    let other =
        get(&world, "/api/queues/open/messages", CONSUMER).await.json()["messages"][0].clone();
    let stolen = say(&world, "ack", json!({ "receipts": [other["receipt"]] })).await;
    assert_eq!((stolen.status, stolen.code()), (409, "stale_receipt".to_owned()));
    let stolen = say(&world, "ack", json!({ "ids": [other["id"]] })).await;
    assert_eq!(stolen.json()["acked"], 0);
    assert_eq!(stolen.json()["refused"][0]["code"], "not_found");
    let body = json!({ "ids": [other["id"]] }).to_string();
    assert_eq!(world.post("/api/queues/open/ack", &[], body).await.json()["acked"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_ids_with_junk_among_them_acknowledge_what_is_there() {
    let world = World::start(CONFIG).await;
    for n in 0..30 {
        publish(&world, "job.n", &json!({ "n": n }).to_string()).await;
    }
    let got = receive(&world, "batch=100").await;
    assert_eq!(got.len(), 30);
    let mut ids: Vec<Value> = got.iter().map(|message| message["id"].clone()).collect();
    let ulid = |n: u64| json!(format!("01ARZ3NDEKTSV4RRFFQ{n:07}"));
    ids.extend((0..960).map(ulid));
    ids.extend([json!(""), json!("' OR 1=1 --"), json!("x".repeat(10_000))]);
    let acked = say(&world, "ack", json!({ "ids": ids })).await.json();
    assert_eq!((&acked["acked"], acked["refused"].as_array().unwrap().len()), (&json!(30), 963));
    let many: Vec<Value> = (0..1001).map(ulid).collect();
    assert_eq!(say(&world, "ack", json!({ "ids": many })).await.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_values_are_named() {
    let world = World::start(CONFIG).await;
    for query in [
        "batch=0",
        "batch=101",
        "batch=10000",
        "batch=x",
        "wait=31s",
        "wait=-1",
        "wait=1y",
        "more=1",
    ] {
        let answer = get(&world, &format!("/api/queues/jobs/messages?{query}"), CONSUMER).await;
        assert_eq!((answer.status, answer.code()), (422, "validation_error".to_owned()), "{query}");
    }
    for (verb, body, status) in [
        ("ack", json!({}), 422),
        ("ack", json!({ "ids": ["a"], "receipts": ["b"] }), 422),
        ("ack", json!({ "ids": ["a"], "delay": "1s" }), 422),
        ("ack", json!([1]), 400),
        ("ack", json!({ "id": ["a"] }), 400),
        ("nack", json!({ "ids": ["a"], "delay": "365d" }), 422),
        ("nack", json!({ "ids": ["a"], "delay": "soon" }), 422),
        ("extend", json!({ "ids": ["a"] }), 422),
        ("extend", json!({ "ids": ["a"], "seconds": 0 }), 422),
        ("extend", json!({ "ids": ["a"], "seconds": 90_000 }), 422),
    ] {
        assert_eq!(say(&world, verb, body.clone()).await.status, status, "{verb} {body}");
    }
    assert_eq!(say(&world, "ack", json!({ "ids": [] })).await.json()["acked"], 0);
    let none = get(&world, "/api/queues/none/messages", CONSUMER).await;
    assert_eq!((none.status, none.json()["error"].as_str()), (404, Some("queue not found")));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_queue_has_a_key_of_its_own() {
    let world = World::start(CONFIG).await;
    let none = world.send(world.http.get(world.url("/api/queues/jobs/messages"))).await;
    assert_eq!((none.status, none.text.as_str()), (401, "Missing or invalid Authorization header"));
    let wrong = get(&world, "/api/queues/jobs/messages", ("authorization", "Bearer other")).await;
    assert_eq!((wrong.status, wrong.text.as_str()), (401, "Invalid token"));
    assert_eq!(get(&world, "/api/queues/jobs/messages", OPERATOR).await.status, 200);
    for path in ["/api/queues", "/api/queues/jobs", "/api/queues/jobs/peek", "/api/queues/jobs/dlq"]
    {
        assert_eq!(get(&world, path, CONSUMER).await.status, 401, "{path}");
    }
    assert_eq!(world.post("/api/queues/jobs/drain", &[CONSUMER], "").await.status, 401);
    assert_eq!(world.post("/api/queues/jobs/ack", &[], "{}").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn routing_applies_to_queues_as_to_handlers() {
    let world = World::start(CONFIG).await;
    assert_eq!(publish(&world, "job.new", "{\"skip\":true}").await["jobs_created"], 0);
    assert_eq!(publish(&world, "other", "{}").await["jobs_created"], 0);
    let both = publish(&world, "both", "{}").await;
    assert_eq!(both["jobs_created"], 2, "push and pull from one event");
    world.receiver.until_count(1).await;
    assert_eq!(receive(&world, "batch=10").await.len(), 1);
    assert_eq!(publish(&world, "once", "{\"id\":7}").await["jobs_created"], 1);
    assert_eq!(publish(&world, "once", "{\"id\":7}").await["duplicate"], true);
    let list = get(&world, "/api/queues", OPERATOR).await.json();
    let depths: Vec<&Value> =
        list["queues"].as_array().unwrap().iter().map(|q| &q["depth"]).collect();
    assert_eq!(depths, [&json!(1), &json!(0), &json!(0), &json!(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_peek_without_receiving_and_drain() {
    let world = World::start(CONFIG).await;
    for n in 0..3 {
        publish(&world, "job.n", &json!({ "n": n }).to_string()).await;
    }
    let peeked = get(&world, "/api/queues/jobs/peek?limit=2", OPERATOR).await.json();
    assert_eq!(peeked["messages"].as_array().unwrap().len(), 2);
    assert_eq!(peeked["messages"][0]["payload"], json!({ "n": 0 }));
    assert_eq!(counts(&world).await["visible"], 3);
    let held = receive(&world, "").await.remove(0);
    let drained = world.post("/api/queues/jobs/drain", &[OPERATOR], "").await.json();
    assert_eq!(drained, json!({ "queue": "jobs", "drained": 3 }));
    let late = say(&world, "ack", json!({ "receipts": [held["receipt"]] })).await;
    assert_eq!(late.status, 409);
    assert_eq!(counts(&world).await["depth"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_is_answered_by_the_next_message() {
    let world = Arc::new(World::container(CONFIG).await);
    let waiting = tokio::spawn({
        let world = Arc::clone(&world);
        async move { (receive(&world, "wait=20s").await, Instant::now()) }
    });
    // However late the poll arrives, it is answered.
    publish(&world, "job.new", "{}").await;
    let (got, _) = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert_eq!(got.len(), 1);
    let began = Instant::now();
    assert!(receive(&world, "wait=1s").await.is_empty());
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_sees_what_becomes_visible_again() {
    let world = World::container(CONFIG).await;
    publish(&world, "open", "{}").await;
    let first = get(&world, "/api/queues/open/messages", CONSUMER).await.json();
    assert_eq!(first["messages"][0]["attempt"], 0);
    let again = get(&world, "/api/queues/open/messages?wait=10s", CONSUMER).await.json();
    assert_eq!(again["messages"][0]["attempt"], 1, "after its visibility timeout of 1 s");
    let id = again["messages"][0]["id"].as_str().unwrap();
    let attempts = get(&world, &format!("/api/jobs/{id}/attempts"), OPERATOR).await.json();
    assert_eq!(attempts["attempts"][0]["code"], "not_acknowledged");
    let metrics = world.get("/metrics").await.text;
    let received = "tidehook_queue_messages_total{queue=\"open\",action=\"received\"}";
    assert!(metrics.contains(received), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_consumers_wait_and_each_message_goes_to_one_of_them() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let Some(world) = World::start_as(Runtime::Container(kind), CONFIG).await else { return };
        let world = Arc::new(world);
        let consumers: Vec<_> = (0..100)
            .map(|_| {
                let world = Arc::clone(&world);
                tokio::spawn(async move { receive(&world, "wait=20s").await })
            })
            .collect();
        for n in 0..100 {
            publish(&world, "job.n", &json!({ "n": n }).to_string()).await;
        }
        let mut seen = Vec::new();
        for consumer in consumers {
            let got =
                tokio::time::timeout(Duration::from_secs(30), consumer).await.unwrap().unwrap();
            assert_eq!(got.len(), 1);
            seen.push(got[0]["id"].as_str().unwrap().to_owned());
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 100);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_goes_away_leaves_its_message_to_the_next() {
    let world = Arc::new(World::container(CONFIG).await);
    for _ in 0..20 {
        // It hangs up while it waits.
        let impatient = world.http.get(world.url("/api/queues/jobs/messages?wait=20s"));
        let impatient = impatient.header(CONSUMER.0, CONSUMER.1).timeout(Duration::from_millis(20));
        assert!(impatient.send().await.is_err());
    }
    publish(&world, "job.new", "{}").await;
    let got = receive(&world, "wait=10s").await;
    assert_eq!((got.len(), &got[0]["attempt"]), (1, &json!(0)));
}

fn verb(home: &Home, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = Command::new(binary());
    command.args(arguments).args(["--json", "--config"]).arg(home.path());
    let output = command.env_remove("DATABASE_URL").output().unwrap();
    let out = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), out, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_what_consumers_and_operators_do() {
    let file = "server: { port: {port}, bind: 127.0.0.1 }\ndatabase: { url: \"sqlite:{dir}/t.db\" }\n\
        sources: { app: { type: event }, nightly: { type: cron, schedule: \"30 2 * * *\", timezone: Europe/Berlin } }\n\
        queues: { jobs: { source: app, api_key: plainly-fictional, max_attempts: 1 } }\n";
    let home = Home::new(file);
    let server = home.start().await;
    for n in 0..3 {
        let post = client().post(home.url("/events/app/job")).body(json!({ "n": n }).to_string());
        assert!(post.send().await.unwrap().status().is_success());
    }
    let key = ["--token", "plainly-fictional"];
    let peeked = verb(&home, &["queues", "peek", "jobs"]).1;
    assert_eq!(peeked["messages"].as_array().unwrap().len(), 3);
    let got = verb(&home, &[&["queues", "receive", "jobs", "--batch", "2"], &key[..]].concat()).1;
    let receipt = |at: usize| got["messages"][at]["receipt"].as_str().unwrap().to_owned();
    let acked = verb(&home, &[&["queues", "ack", "jobs", &receipt(0)], &key[..]].concat()).1;
    assert_eq!(acked["acked"], 1);
    let nack = ["queues", "nack", "jobs", &receipt(1), "--reason", "no use"];
    assert_eq!(verb(&home, &[&nack, &key[..]].concat()).1["dead"], 1);
    let dead = verb(&home, &["queues", "dlq", "jobs"]).1;
    assert!(dead["messages"][0]["last_error"].as_str().unwrap().contains("no use"));
    assert_eq!(verb(&home, &["queues", "retry", "jobs"]).1["retried"], 1);
    let (code, _, told) = verb(&home, &["queues", "drain", "jobs"]);
    assert!(code == Some(1) && told.contains("repeat it with --yes"), "{told}");
    assert_eq!(verb(&home, &["queues", "drain", "jobs", "--yes"]).1["drained"], 2);
    assert_eq!(verb(&home, &["queues", "list"]).1["queues"][0]["depth"], 0);
    let next = verb(&home, &["cron", "next", "nightly"]).1;
    assert_eq!(next["next"].as_array().unwrap().len(), 10);
    assert!(next["next"][0]["local"].as_str().unwrap().contains(" 02:30:00 CE"), "{next}");
    assert_eq!(verb(&home, &["cron", "list"]).1["schedules"][0]["source"], "nightly");
    let (code, _, told) = verb(&home, &["cron", "next", "nightli"]);
    assert!(code == Some(1) && told.contains("there are: nightly"), "{told}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_may_have_a_name_like_the_beginning_of_its_lane() {
    let world = World::start(CONFIG).await;
    publish(&world, "odd", "{}").await;
    let got = get(&world, "/api/queues/queue%3Aodd/messages", CONSUMER).await.json();
    assert_eq!(got["messages"].as_array().unwrap().len(), 1);
}
