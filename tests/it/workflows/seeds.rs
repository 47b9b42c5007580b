//! The use cases that the project started from, as their files stand. They lie beside the
//! repository; without them there is nothing to run.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tidehook::config::layers::Variables;
use tidehook::engine::callback::Answer;
use tidehook::model::Body;
use tidehook::model::RunStatus;

use super::play::{Play, WAYS, ok, status};

/// Plays one file on every store; its secrets are fictional.
async fn in_every_way(file: &str, test: impl AsyncFn(Play)) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/seed-configs").join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: ../shared is not here");
        return;
    };
    let mut text = text;
    let names = [
        "TF_API_TOKEN",
        "GITHUB_WEBHOOK_SECRET",
        "PAGERDUTY_WEBHOOK_SECRET",
        "PAGERDUTY_API_KEY",
        "TF_NOTIFICATION_SECRET",
    ];
    let variables: Variables =
        names.iter().map(|name| ((*name).to_owned(), "fictional".to_owned())).collect();
    for (name, value) in &variables {
        text = text.replace(&format!("${{{name}}}"), value);
    }
    for way in WAYS {
        if let Some(play) = Play::new(way, &text).await {
            test(play).await;
        }
    }
}

#[tokio::test]
async fn tenant_provision_waits_for_its_callback_and_rolls_back_in_reverse() {
    in_every_way("02-tenant-provision.yaml", async |play: Play| {
        let payload = r#"{"tenant_id": "t1", "region": "moon"}"#;
        play.script("api.terraform.io/v2/runs", vec![ok(r#"{"run": 1}"#)]);
        play.send("platform", "tenant.create", payload).await;
        assert_eq!(
            play.called(),
            ["api.terraform.io/v2/runs", "api.terraform.io/v2/notification-configs"]
        );
        assert_eq!(play.calls()[0].header("Authorization"), Some("Bearer fictional"));
        play.engine
            .answer(&play.token(), &Answer::Done(Body::new(br#"{"ready": true}"#.to_vec())))
            .await
            .unwrap();
        play.work().await;
        assert_eq!(play.called().last().map(String::as_str), Some("platform:3000/tenant/activate"));
        assert_eq!(play.the_run().await.status, RunStatus::Completed);

        // A step late in the order fails: what was made is taken back in reverse, and everyone sees
        // why.
        let before = play.calls().len();
        play.script("integration:3000/setup", vec![status(422)]);
        play.script("db-service:3000/tenant/delete", vec![status(500)]);
        play.send("platform", "tenant.create", payload).await;
        play.engine
            .answer(&play.token(), &Answer::Done(Body::new(br#"{"ready": true}"#.to_vec())))
            .await
            .unwrap();
        play.work().await;
        for _ in 0..40 {
            play.advance(Duration::from_secs(10)).await;
        }
        let calls = play.calls()[before..].to_vec();
        let called: Vec<&str> = calls.iter().map(|call| call.to.as_str()).collect();
        let undone = ["integration:3000/setup", "db-service:3000/tenant/delete"];
        assert!(called.windows(2).any(|pair| pair == undone), "{called:?}");
        let undo =
            calls.iter().find(|call| call.to == "db-service:3000/tenant/delete").unwrap().json();
        assert_eq!(
            (&undo["error"], &undo["failed_step"]),
            (&json!("HTTP 422"), &json!("configure-services"))
        );

        // A missing parameter is a failed run without a call.
        let before = play.calls().len();
        play.send("platform", "tenant.create", r#"{"tenant_id": "t2"}"#).await;
        let last = play.runs().await.pop().unwrap();
        assert_eq!((last.status, play.calls().len()), (RunStatus::Failed, before));
        assert_eq!(
            last.error.unwrap().message,
            "workflow 'tenant-provision' missing required param 'region'"
        );
    })
    .await;
}

#[tokio::test]
async fn deploy_hands_the_image_of_the_build_to_production_and_to_the_rollback() {
    in_every_way("03-deploy.templates.yaml", async |play: Play| {
        play.script("ci:3000/build", vec![ok(r#"{"image": "app:42"}"#)]);
        play.script("deployer:3000/deploy", vec![ok(r#"{"deployed": true}"#)]);
        play.script("tester:3000/smoke", vec![ok(r#"{"passed": true}"#)]);
        play.send("github", "push", r#"{"ref": "refs/heads/main"}"#).await;
        let deploys: Vec<_> = play
            .calls()
            .iter()
            .filter(|c| c.to == "deployer:3000/deploy")
            .map(|c| c.json())
            .collect();
        assert_eq!(
            deploys,
            [
                json!({"env": "staging", "image": "app:42"}),
                json!({"env": "production", "image": "app:42"})
            ]
        );
        assert_eq!(play.the_run().await.status, RunStatus::Completed);

        play.script("tester:3000/smoke", vec![status(400)]);
        play.send("github", "push", r#"{"ref": "refs/heads/main"}"#).await;
        for _ in 0..40 {
            play.advance(Duration::from_secs(15)).await;
        }
        let rollback = play.calls().last().unwrap().clone();
        assert_eq!(rollback.to, "deployer:3000/rollback");
        assert_eq!(
            (&rollback.json()["failed_step"], &rollback.json()["error"]),
            (&json!("smoke-test"), &json!("HTTP 400"))
        );
    })
    .await;
}

#[tokio::test]
async fn remediation_chooses_by_severity_waits_and_looks_again() {
    in_every_way("04-alert-remediation.yaml", async |play: Play| {
        play.send("pagerduty", "incident.triggered", r#"{"severity": "critical"}"#).await;
        assert_eq!(play.called(), ["orchestrator:3000/restart"]);
        play.advance(Duration::from_secs(29)).await;
        assert_eq!(play.called().len(), 1);
        play.advance(Duration::from_secs(1)).await;
        assert_eq!(play.called()[1..], ["orchestrator:3000/health"]);
        play.send("pagerduty", "incident.triggered", r#"{"severity": "info"}"#).await;
        assert_eq!(play.called()[2..], ["slack:3000/notify"]);
        assert!(play.runs().await.iter().all(|run| run.status == RunStatus::Completed));
    })
    .await;
}

#[tokio::test]
async fn post_apply_rolls_back_and_tells_although_the_rollback_fails() {
    in_every_way("05-terraform-post-apply.yaml", async |play: Play| {
        play.script("health-service:3000/check", vec![status(404)]);
        play.script("config-service:3000/rollback", vec![status(410)]);
        play.send("terraform", "run:completed", r#"{"run_id": "r"}"#).await;
        for _ in 0..30 {
            play.advance(Duration::from_secs(15)).await;
        }
        let mut called = play.called();
        called.dedup();
        let expected = [
            "config-service:3000/apply",
            "health-service:3000/check",
            "config-service:3000/rollback",
            "slack:3000/notify",
        ];
        assert_eq!(called, expected);
        let told = play.calls().last().unwrap().json();
        assert!(told["text"].as_str().unwrap().contains("failed"), "{told}");
        assert_eq!(play.the_run().await.status, RunStatus::Completed);
    })
    .await;
}
