//! What people do to runs over HTTP: decide, hold, let go on, end, take up again.

use serde_json::{Value, json};

use crate::support::world::World;

const TEXT: &str = r#"
server: { allow_private_urls: true, public_url: "https://hooks.example.com" }
sources: { app: { type: event } }
workflows:
  ask:
    source: app
    events: [ask]
    steps:
      - { name: decide, type: approval, approvers: [ada], result_path: "$.decision" }
      - { name: after, url: "http://{receiver}/ok/after" }
  long:
    source: app
    events: [long]
    steps:
      - { name: wait, type: wait, seconds: 3600 }
      - { name: after, url: "http://{receiver}/ok/late" }
  fails:
    source: app
    events: [fail]
    steps: [{ name: call, url: "http://{receiver}/status/500", retry: { max: 1 } }]
"#;

/// The run of an event, once it is in a status.
async fn run(world: &World, event: &str, status: &str) -> Value {
    let look = async {
        loop {
            let runs = world.get(&format!("/api/runs?event={event}")).await.json();
            if runs["runs"][0]["status"] == status {
                return world
                    .get(&format!("/api/runs/{}", runs["runs"][0]["id"].as_str().unwrap()))
                    .await
                    .json();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::support::endpoint::PATIENCE, look).await.expect(status)
}

async fn token(world: &World, event: &str) -> (String, String) {
    let look = async {
        loop {
            let shown = run(world, event, "running").await;
            if let Some(token) = shown["open"][0]["callback_token"].as_str() {
                return (shown["id"].as_str().unwrap().to_owned(), token.to_owned());
            }
        }
    };
    tokio::time::timeout(crate::support::endpoint::PATIENCE, look).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_asked_for_and_made_on_a_page() {
    let world = World::start(TEXT).await;
    let event = world.post("/events/app/ask", &[], r#"{"what": "<b>this</b>"}"#).await.event();
    let (_, token) = token(&world, &event).await;
    let page = world.get(&format!("/approve/{token}")).await;
    assert_eq!(
        (page.status, page.headers["content-type"].to_str().unwrap()),
        (200, "text/html; charset=utf-8")
    );
    assert!(
        page.headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'")
    );
    assert!(
        page.text.contains("&lt;b&gt;this&lt;/b&gt;") && page.text.contains("<option>ada</option>"),
        "{}",
        page.text
    );
    let shown = world
        .send(
            world
                .http
                .get(world.url(&format!("/approve/{token}")))
                .header("accept", "application/json"),
        )
        .await
        .json();
    assert_eq!(
        (&shown["workflow"], &shown["approvers"], &shown["payload"]["what"]),
        (&json!("ask"), &json!(["ada"]), &json!("<b>this</b>"))
    );
    // Looking decides nothing, and neither does a form that says nothing.
    const FORM: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded")];
    let post =
        async |body: &'static str| world.post(&format!("/approve/{token}"), FORM, body).await;
    assert_eq!(post("by=ada").await.status, 422);
    assert_eq!(post("decision=approve&by=mallory").await.status, 409);
    let fail = world.post(&format!("/callback/{token}/fail"), &[], "{}").await;
    assert!(
        fail.status == 422 && fail.text.contains("waits for a decision"),
        "nobody decides past the names: {}",
        fail.text
    );
    let done = post("decision=approve&by=ada&comment=go+on").await;
    assert!(done.status == 200 && done.text.contains("Approved"), "{}", done.text);
    let got = world.receiver.until_count(1).await;
    let decision = &serde_json::from_slice::<Value>(&got[0].body).unwrap()["decision"];
    assert_eq!(
        (&decision["approved"], &decision["by"], &decision["comment"]),
        (&json!(true), &json!("ada"), &json!("go on"))
    );
    assert_eq!(world.get(&format!("/approve/{token}")).await.status, 409, "it was decided");
    assert_eq!(post("decision=reject&by=ada").await.status, 409);
    assert_eq!(world.get(&format!("/approve/{}", "A".repeat(52))).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_made_by_the_name_of_the_step() {
    let world = World::start(TEXT).await;
    let event = world.post("/events/app/ask", &[], "{}").await.event();
    let (run_id, _) = token(&world, &event).await;
    let decide = async |step: &str, word: &str, body: &'static str| {
        world.post(&format!("/api/runs/{run_id}/steps/{step}/{word}"), &[], body).await
    };
    assert_eq!(decide("decide", "reject", "[]").await.status, 422);
    assert_eq!(decide("decide", "reject", "{}").await.status, 409, "nobody may who is not named");
    assert_eq!(decide("other", "reject", r#"{"by": "ada"}"#).await.status, 409);
    assert_eq!(decide("decide", "reject", r#"{"by": "ada", "comment": "no"}"#).await.status, 200);
    let shown = run(&world, &event, "failed").await;
    assert_eq!(
        (&shown["error"]["class"], &shown["error"]["message"]),
        (&json!("rejected"), &json!("rejected by ada: no"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_held_let_go_ended_and_taken_up_again() {
    let world = World::start(TEXT).await;
    let event = world.post("/events/app/long", &[], "{}").await.event();
    let id = run(&world, &event, "running").await["id"].as_str().unwrap().to_owned();
    let does = async |verb: &str| world.post(&format!("/api/runs/{id}/{verb}"), &[], "").await;
    assert_eq!(does("resume").await.status, 409);
    assert_eq!(does("pause").await.json()["status"], "paused");
    assert_eq!(does("pause").await.status, 409);
    assert_eq!(
        world.get("/api/runs?status=paused").await.json()["runs"].as_array().unwrap().len(),
        1
    );
    assert_eq!(does("resume").await.json()["status"], "running");
    assert_eq!(does("kill").await.json()["status"], "cancelled");
    assert_eq!(does("kill").await.status, 409);
    assert_eq!(does("redrive?from=nowhere").await.status, 409);
    assert_eq!(does("redrive?form=after").await.status, 422);
    assert_eq!(
        does("redrive?from=after").await.status,
        409,
        "it was never entered, so it had no payload"
    );
    let redriven = world.post(&format!("/api/runs/{id}/redrive?from=after"), &[], "{}").await;
    assert_eq!(redriven.json()["status"], "running");
    assert!(world.receiver.until_count(1).await[0].path.ends_with("/ok/late"));
    assert_eq!(world.get("/api/fsck").await.json()["faults"], json!([]));
    for verb in ["pause", "resume", "kill", "redrive"] {
        assert_eq!(
            world
                .post(&format!("/api/runs/01K00000000000000000000000/{verb}"), &[], "")
                .await
                .status,
            404,
            "{verb}"
        );
    }
}
