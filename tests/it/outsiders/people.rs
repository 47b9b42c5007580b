//! What people post where a decision is asked for: nothing decides that is not said once and
//! plainly.

use serde_json::Value;
use tidehook::engine::approval::Decision;
use tidehook::model::Body;

use crate::support::world::World;

const TEXT: &str = "server: { allow_private_urls: true }
sources: { app: { type: event } }
workflows: { ask: { source: app, steps: [{ name: decide, type: approval }, { name: after, url: \"http://{receiver}/ok\" }] } }
";

#[test]
fn only_a_boolean_that_stands_there_once_decides() {
    for (body, approved) in [
        ("{\"approved\": true}", true),
        ("{\"approved\": false, \"by\": \"ada\", \"comment\": null}", false),
    ] {
        assert_eq!(Decision::read(&Body::new(body)).unwrap().approved, approved, "{body}");
    }
    for body in [
        "",
        "null",
        "true",
        "[]",
        "\"approve\"",
        "{}",
        "{\"approved\": null}",
        "{\"approved\": \"true\"}",
        "{\"approved\": 1}",
        "{\"approved\": []}",
        "{\"approve\": true}",
        "{\"decision\": \"approve\"}",
        "{\"decision\": \"reject\"}",
        "{\"approve\": false}",
        "{\"Approved\": true}",
        "{\"approved\": true, \"decision\": \"reject\"}",
        "{\"approved\": false, \"approved\": true}",
        "{\"approved\": true, \"by\": \"ada\", \"by\": \"bob\"}",
        "{\"approved\": true, \"\\u0061pproved\": false}",
        "{\"approved\": true, \"by\": 1}",
        "approved=true",
        "{\"approved\": true",
    ] {
        assert!(Decision::read(&Body::new(body)).is_err(), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_decides_by_one_field_and_knows_no_others() {
    let world = World::start(TEXT).await;
    let event = world.post("/events/app/x", &[], "{}").await.event();
    let look = async {
        loop {
            let runs: Value = world.get(&format!("/api/runs?event={event}")).await.json();
            let Some(id) = runs["runs"][0]["id"].as_str() else { continue };
            let run = world.get(&format!("/api/runs/{id}")).await.json();
            if let Some(token) = run["open"][0]["callback_token"].as_str() {
                return token.to_owned();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let token = tokio::time::timeout(crate::support::endpoint::PATIENCE, look).await.unwrap();
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for body in [
        "",
        "by=ada",
        "decision=",
        "decision=yes",
        "decision=Approve",
        "decision=approve&decision=reject",
        "decision=reject&decision=approve",
        "decision=approve&by=ada&by=bob",
        "decision=approve&extra=1",
        "approved=true",
        "decision=approve&approved=false",
    ] {
        let answer = world.post(&format!("/approve/{token}"), &form, body).await;
        assert_eq!(answer.status, 422, "{body}: {}", answer.text);
    }
    let json = [("content-type", "application/json")];
    for body in [
        "",
        "{\"decision\":\"reject\"}",
        "{\"approve\":false}",
        "{\"approved\":false,\"approved\":true}",
    ] {
        let answer = world.post(&format!("/approve/{token}"), &json, body).await;
        assert_eq!(answer.status, 422, "{body}: {}", answer.text);
    }
    assert_eq!(
        world.post(&format!("/approve/{token}"), &form, "decision=approve&by=ada").await.status,
        200
    );
    assert_eq!(world.receiver.until_count(1).await.len(), 1);
}
