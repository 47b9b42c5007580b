//! Work whose handler the configuration no longer names: it waits, people see why wherever they
//! look, and it has two ways out.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::endpoint::Endpoint;
use crate::support::process::{Home, binary};
use crate::support::world::{World, client};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn file(handlers: &str) -> String {
    format!(
        "server: {{ port: {{port}}, bind: 127.0.0.1, allow_private_urls: true }}\ndatabase: \
         {{ url: \"sqlite:{{dir}}/t.db\" }}\nsources: {{ app: {{ type: event }} \
         }}\nhandlers:\n{handlers}"
    )
}

fn handler(name: &str, receiver: &Endpoint, more: &str) -> String {
    format!(
        "  {name}: {{ source: app, idempotency_key: $.id, url: \"{}\"{more} }}\n",
        receiver.url("/ok")
    )
}

async fn get(home: &Home, path: &str) -> Value {
    client().get(home.url(path)).send().await.unwrap().json().await.unwrap()
}

async fn post(home: &Home, path: &str, body: &str) -> Value {
    let request = client()
        .post(home.url(path))
        .header("content-type", "application/json")
        .body(body.to_owned());
    request.send().await.unwrap().json().await.unwrap()
}

fn verb(home: &Home, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    let output = command
        .args(arguments)
        .arg("--config")
        .arg(home.path())
        .env_remove("DATABASE_URL")
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.code(), said)
}

/// A server that has stopped with three deliveries for a handler `old` waiting, whose lane is
/// paused.
async fn left_behind(receiver: &Endpoint) -> Home {
    let home = Home::new(&file(&handler("old", receiver, "")));
    let server = home.start().await;
    post(&home, "/api/lanes/handler:old/pause", "").await;
    for id in 0..3 {
        post(&home, "/events/app/x", &format!("{{\"id\":{id}}}")).await;
    }
    server.stop().await;
    home
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_of_a_removed_handler_are_parked_wherever_people_look() {
    let receiver = Endpoint::start().await;
    let home = left_behind(&receiver).await;
    home.write(&file(&handler("other", &receiver, "")));
    let (_, said) = verb(&home, &["doctor"]);
    assert!(
        said.contains("open jobs: 3, parked: the configuration has no handler `old`"),
        "doctor of the database: {said}"
    );
    let server = home.start().await;
    let jobs = get(&home, "/api/jobs?status=parked").await;
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 3, "{jobs}");
    let job = &jobs["jobs"][0];
    assert_eq!((&job["status"], &job["handler"]), (&json!("parked"), &json!("old")));
    assert!(
        job["waits"]
            .as_str()
            .unwrap()
            .starts_with("parked: the configuration has no handler `old`"),
        "{job}"
    );
    for status in ["available", "retryable"] {
        assert_eq!(
            get(&home, &format!("/api/jobs?status={status}")).await["jobs"],
            json!([]),
            "{status}"
        );
    }
    let event = job["event_id"].as_str().unwrap();
    assert_eq!(
        get(&home, &format!("/api/events/{event}/jobs")).await["jobs"][0]["status"],
        "parked"
    );
    let lanes = get(&home, "/api/lanes").await;
    let lane =
        lanes["lanes"].as_array().unwrap().iter().find(|lane| lane["id"] == "handler:old").unwrap();
    assert_eq!(
        (&lane["state"], &lane["parked_jobs"], &lane["waits"]),
        (&json!("parked"), &json!(3), &json!("parked"))
    );
    let fsck = get(&home, "/api/fsck").await;
    assert_eq!((&fsck["faults"], &fsck["parked"][0]["jobs"]), (&json!([]), &json!(3)), "{fsck}");
    let metrics = client().get(home.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("tidehook_parked_jobs 3\n"), "{metrics}");
    assert!(
        home.log().contains("WARN") && home.log().contains("has no handler `old`"),
        "{}",
        home.log()
    );
    for (arguments, word) in [
        (&["doctor"][..], "open jobs: 3, parked"),
        (&["jobs", "list"], "parked: the configuration has no handler `old`"),
        (&["lanes", "list"], "parked"),
        (&["fsck"], "handler:old: 3 open"),
    ] {
        let (_, said) = verb(&home, arguments);
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    let (code, said) = verb(&home, &["jobs", "cancel", "--handler", "old"]);
    assert!(code == Some(0) && said.contains("3 open delivery(s) cancelled"), "{said}");
    assert_eq!(get(&home, "/api/jobs?status=cancelled").await["jobs"].as_array().unwrap().len(), 3);
    let lanes = get(&home, "/api/lanes").await;
    assert!(
        !lanes.to_string().contains("handler:old"),
        "a lane that nobody serves and nothing waits for is not shown: {lanes}"
    );
    assert_eq!(verb(&home, &["jobs", "cancel"]).0, Some(2), "one, or a handler");
    server.stop().await;
    assert!(receiver.got().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_handler_takes_what_waits_under_its_earlier_names() {
    let receiver = Endpoint::start().await;
    let home = left_behind(&receiver).await;
    // Two renames at once: the version in between never ran.
    home.write(&file(&handler("newest", &receiver, ", was: [old, newer]")));
    let server = home.start().await;
    let jobs = get(&home, "/api/jobs?handler=newest").await;
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 3, "{jobs}");
    let lanes = get(&home, "/api/lanes").await;
    assert_eq!(lanes["lanes"][0]["state"], "paused", "a pause moves along: {lanes}");
    assert!(receiver.got().is_empty());
    post(&home, "/api/lanes/handler:newest/resume", "").await;
    receiver.until_count(3).await;
    let again = post(&home, "/events/app/x", "{\"id\":1}").await;
    assert_eq!(
        again["duplicate"], true,
        "it remembers what it has seen under its first name: {again}"
    );
    server.stop().await;
    let server = home.start().await;
    let lanes = get(&home, "/api/lanes").await;
    assert_eq!(lanes["lanes"][0]["state"], "open", "and a resume stays: {lanes}");
    server.stop().await;
    assert_eq!(receiver.got().len(), 3);
}

#[test]
fn an_earlier_name_belongs_to_one_handler() {
    let url = "url: \"https://a.example.com/\"";
    for (handlers, says) in [
        (format!("  a: {{ source: app, {url}, was: a }}\n"), "`a` is also a handler in this file"),
        (
            format!("  a: {{ source: app, {url}, was: b }}\n  b: {{ source: app, {url} }}\n"),
            "`b` is also a handler in this file",
        ),
        (
            format!(
                "  a: {{ source: app, {url}, was: [x, y] }}\n  b: {{ source: app, {url}, was: y \
                 }}\n"
            ),
            "the waiting deliveries of `y` can move to one handler only",
        ),
        (format!("  a: {{ source: app, {url}, was: {{ x: 1 }} }}\n"), "list"),
    ] {
        let home = Home::new(&file(&handlers));
        let (code, said) = verb(&home, &["validate"]);
        assert!(code == Some(2) && said.contains(says), "{handlers}: {said}");
    }
    let home = Home::new(&file(&format!("  c: {{ source: app, {url}, was: a }}\n")));
    assert_eq!(verb(&home, &["validate"]).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_deliveries_are_called_off_at_once_and_nothing_else() {
    let text = "server: { allow_private_urls: true }\nsources: { app: { type: event } \
        }\nhandlers:\n  a: { source: app, url: \"http://{receiver}/ok\" }\n  b: \
        { source: app, url: \"http://{receiver}/ok\" }\n";
    let world = World::start(text).await;
    for lane in ["a", "b"] {
        world.post(&format!("/api/lanes/handler:{lane}/pause"), &[], "").await;
    }
    for _ in 0..100 {
        world.post("/events/app/x", JSON, "{}").await.event();
    }
    assert_eq!(world.post("/api/jobs/cancel", &[], "").await.status, 400);
    assert_eq!(world.post("/api/jobs/cancel?handler=a", &[], "").await.json()["cancelled"], 100);
    assert_eq!(world.post("/api/jobs/cancel?handler=a", &[], "").await.json()["cancelled"], 0);
    assert_eq!(world.get("/health").await.json()["queue_depth"], 100);
    assert_eq!(
        world.get("/api/jobs?status=available&handler=b&limit=1").await.json()["has_more"],
        true
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_holds_back_is_told_by_the_doctor() {
    let receiver = Endpoint::start().await;
    let text = file(&format!(
        "{}{}",
        handler("held", &receiver, ""),
        handler("broken", &receiver, ", breaker: { failures: 1, open_for: 1h }")
            .replace("/ok", "/status/500")
    ));
    let home = Home::new(&text);
    let server = home.start().await;
    post(&home, "/api/lanes/handler:held/pause", "").await;
    post(&home, "/events/app/x", "{\"id\":1}").await;
    receiver.until_count(1).await;
    let says = |said: &str| {
        said.contains("issue  lane handler:broken") && said.contains("note   lane handler:held")
    };
    let start = std::time::Instant::now();
    loop {
        let (_, said) = verb(&home, &["doctor"]);
        if says(&said) {
            break;
        }
        assert!(start.elapsed() < crate::support::endpoint::PATIENCE, "{said}");
    }
    server.stop().await;
    let (_, said) = verb(&home, &["doctor"]);
    assert!(says(&said), "and of the database itself: {said}");
}
