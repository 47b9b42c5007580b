//! Alerts and notices: what happens reaches people and programs, once, and never goes in circles.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::endpoint::Endpoint;
use crate::support::process::{Home, binary};
use crate::support::stores::Kind;
use crate::support::world::{Runtime, World};

const TOKEN: (&str, &str) = ("authorization", "Bearer plainly-fictional");

fn text(more: &str) -> String {
    format!(
        r#"
server: {{ allow_private_urls: true }}
api: {{ auth_token: plainly-fictional }}
sources:
  app: {{ type: event }}
  github: {{ type: webhook, verify: github, secret: "It's a Secret to Everybody" }}
handlers:
  fails: {{ source: app, events: [fails], url: "http://{{receiver}}/status/500", retry: {{ max: 1 }}, breaker: {{ failures: 1000 }} }}
queues:
  jobs: {{ source: app, events: [job], max_attempts: 1 }}
workflows:
  breaks:
    source: app
    events: [run]
    steps: [{{ name: one, url: "http://{{receiver}}/status/400", retry: {{ max: 1 }} }}]
{more}"#
    )
}

async fn publish(world: &World, kind: &str) -> String {
    let answer = world.post(&format!("/events/app/{kind}"), &[TOKEN], "{}").await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.event()
}

async fn alerts(world: &World, count: usize) -> Vec<Value> {
    let got = world
        .receiver
        .until(&format!("{count} alerts"), |got| {
            got.iter().filter(|got| got.path.starts_with("/ok/alerts")).count() >= count
        })
        .await;
    let alerts = got.iter().filter(|got| got.path.starts_with("/ok/alerts"));
    alerts.map(|got| serde_json::from_slice(&got.body).unwrap()).collect()
}

const ALL: &str = r#"alerts: { url: "http://{receiver}/ok/alerts", on: [dlq, verification_failure, circuit_opened, workflow_failed, event_ttl_expired, db_unhealthy] }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_and_what_fails_is_reported_with_its_ids() {
    for kind in [Kind::Sqlite, Kind::Postgres, Kind::Mariadb] {
        let Some(world) = World::start_as(Runtime::Container(kind), &text(ALL)).await else {
            return;
        };
        let event = publish(&world, "fails").await;
        let dead = alerts(&world, 1).await.remove(0);
        assert_eq!(
            (&dead["alert"], &dead["handler"], &dead["attempts"], &dead["event_id"]),
            (&json!("dlq"), &json!("fails"), &json!(1), &json!(event))
        );
        let job = dead["job_id"].as_str().unwrap();
        assert_eq!(
            dead["message"],
            format!("Job {job} moved to DLQ after 1 attempts (handler: fails)")
        );
        publish(&world, "run").await;
        let failed = alerts(&world, 3).await;
        let kinds: Vec<&Value> = failed[1..].iter().map(|alert| &alert["alert"]).collect();
        assert!(
            kinds.contains(&&json!("workflow_failed")) && kinds.contains(&&json!("dlq")),
            "{kinds:?}"
        );
        publish(&world, "job").await;
        let message =
            world.get("/api/queues/jobs/messages?wait=10s").await.json()["messages"][0].clone();
        let nack = json!({ "receipts": [message["receipt"]] }).to_string();
        assert_eq!(world.post("/api/queues/jobs/nack", &[], nack).await.json()["dead"], 1);
        assert_eq!(alerts(&world, 4).await[3]["handler"], "jobs");
        let forged = [("x-hub-signature-256", "sha256=00"), ("x-github-event", "push")];
        for _ in 0..20 {
            assert_eq!(world.post("/webhooks/github", &forged, "{}").await.status, 401);
        }
        let refused = alerts(&world, 5).await;
        assert_eq!(
            (refused.len(), &refused[4]["source"]),
            (5, &json!("github")),
            "one for all of them"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_notices_keeps_them_for_its_consumers() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let listening = text("").replace("queues:", "queues:\n  notices: { source: __tidehook }");
        let Some(world) = World::start_as(Runtime::Container(kind), &listening).await else {
            return;
        };
        for _ in 0..3 {
            publish(&world, "fails").await;
        }
        world.receiver.until_count(3).await;
        for _ in 0..3 {
            let got = world.get("/api/queues/notices/messages?wait=10s").await.json();
            assert_eq!(got["messages"][0]["event_type"], "__delivery.dead", "{got}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_fails_calls_for_somebody() {
    let file = r#"
server: { allow_private_urls: true }
api: { auth_token: plainly-fictional }
sources: { app: { type: event } }
alerts: { url: "http://{receiver}/ok/alerts", on: [compensation_failed] }
workflows:
  trip:
    source: app
    on_failure: compensate
    steps:
      - { name: book, url: "http://{receiver}/ok/book", compensate: { url: "http://{receiver}/status/500", retry: { max: 1 } } }
      - { name: pay, url: "http://{receiver}/status/402", retry: { max: 1 } }
"#;
    let world = World::container(file).await;
    let event = publish(&world, "go").await;
    let alert = alerts(&world, 1).await.remove(0);
    assert_eq!(
        (&alert["alert"], &alert["workflow"], &alert["event_id"]),
        (&json!("compensation_failed"), &json!("trip"), &json!(event))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_dead_deliveries_is_a_few_alerts() {
    let world = World::container(&text(ALL)).await;
    for _ in 0..30 {
        publish(&world, "fails").await;
    }
    let alert = json!("dlq");
    let got = alerts(&world, 5).await;
    assert!(got.iter().all(|got| got["alert"] == alert));
    let dead = async {
        loop {
            let jobs = world
                .send(
                    world
                        .http
                        .get(world.url("/api/jobs?status=dead&limit=100"))
                        .header(TOKEN.0, TOKEN.1),
                )
                .await
                .json();
            if jobs["jobs"].as_array().unwrap().len() == 30 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), dead).await.unwrap();
    assert_eq!(alerts(&world, 5).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_and_workflows_listen_to_notices_and_their_own_failures_are_no_news() {
    let more = r#"alerts: { url: "http://{receiver}/status/500" }
"#;
    let listening = text(more).replace(
        "queues:",
        "  hears: { source: __tidehook, events: [\"__delivery.*\"], url: \"http://{receiver}/ok/heard\" }\n  \
         deaf: { source: __tidehook, url: \"http://{receiver}/status/500\", retry: { max: 1 } }\nqueues:",
    );
    let world = World::container(&listening).await;
    let event = publish(&world, "fails").await;
    let got = world
        .receiver
        .until("the notice", |got| got.iter().any(|got| got.path == "/ok/heard"))
        .await;
    let heard = got.iter().find(|got| got.path == "/ok/heard").unwrap();
    assert_eq!(heard.header("x-tidehook-event-type"), Some("__delivery.dead"));
    assert_eq!(serde_json::from_slice::<Value>(&heard.body).unwrap()["event_id"], json!(event));
    // `deaf` died of it, and so might the alert: neither makes another notice.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.receiver.got_at("/ok/heard").len(), 1);
    let notices = world
        .send(world.http.get(world.url("/api/events?source=__tidehook")).header(TOKEN.0, TOKEN.1))
        .await
        .json();
    assert_eq!(notices["events"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_stored_that_nobody_listens_to_and_nobody_publishes_a_notice() {
    let world = World::container(&text("")).await;
    let event = publish(&world, "fails").await;
    world.receiver.until_count(1).await;
    let path = format!("/api/events/{event}/jobs");
    let dead = async {
        while world.send(world.http.get(world.url(&path)).header(TOKEN.0, TOKEN.1)).await.json()["jobs"]
            [0]["status"]
            != "dead"
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), dead).await.unwrap();
    let notices = world
        .send(world.http.get(world.url("/api/events?source=__tidehook")).header(TOKEN.0, TOKEN.1))
        .await
        .json();
    assert_eq!(notices["events"], json!([]));
    let forged = [TOKEN, ("ce-type", "__delivery.dead")];
    assert_eq!(world.post("/events/app/x", &forged, "{}").await.status, 422);
    let counted = world.get("/metrics").await.text;
    assert!(counted.contains("source=\"app\",reason=\"reserved_type\"} 1"), "{counted}");
    let structured = [TOKEN, ("content-type", "application/cloudevents+json")];
    let body = r#"{"specversion":"1.0","id":"1","source":"/x","type":"__y","data":{}}"#;
    let answer = world.post("/events/app/x", &structured, body).await;
    assert!(answer.status == 422 || !answer.text.contains("__y"), "{}", answer.text);
    for path in ["/events/app/__delivery.dead", "/events/__tidehook/__delivery.dead"] {
        let refused = world.post(path, &[TOKEN], "{}").await;
        assert!([422, 404].contains(&refused.status), "{path}: {}", refused.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_tries_the_channel_out() {
    let receiver = Endpoint::start().await;
    for (path, code, told) in
        [("/ok/alerts", Some(0), "was delivered"), ("/status/500", Some(1), "HTTP 500")]
    {
        let home = Home::new(&format!(
            "server: {{ port: {{port}}, bind: 127.0.0.1, allow_private_urls: true }}\ndatabase: {{ url: \"sqlite:{{dir}}/t.db\" }}\n\
             sources: {{ app: {{ type: event }} }}\nalerts: {{ type: slack, url: \"{}\" }}\n",
            receiver.url(path)
        ));
        let server = home.start().await;
        let mut command = Command::new(binary());
        command.args(["alerts", "test", "--config"]).arg(home.path());
        let output = command.env_remove("DATABASE_URL").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), code, "{said}");
        assert!(said.contains(told), "{said}");
        server.stop().await;
    }
    let got = receiver.got_at("/ok/alerts").remove(0);
    let slack: Value = serde_json::from_slice(&got.body).unwrap();
    assert!(slack["text"].as_str().unwrap().starts_with(":gear: *tidehook*\n"), "{slack}");
}
