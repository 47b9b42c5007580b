//! Runs as wholes: callbacks, crashes, definitions, people.

use std::time::Duration;

use serde_json::json;
use tidehook::engine::callback::{Answer, NotAnswered};
use tidehook::engine::operate::RedriveOptions;
use tidehook::model::Body;
use tidehook::model::RunStatus;

use super::play::{Play, ok, status};
use crate::in_every_way;

const CALLBACK: &str = r#"
sources: { app: { type: event } }
server: { allow_private_urls: true, public_url: "https://hooks.example.com" }
workflows:
  w:
    source: app
    steps:
      - name: ask
        type: callback
        url: http://ask/
        callback_timeout: 600
        result_path: "$.answer"
        catch: [{ errors: [callback_timeout, callback_failed], goto: late }]
      - { name: then, url: http://then/, end: true }
      - { name: late, url: http://late/ }
"#;

fn done(body: &str) -> Answer {
    Answer::Done(Body::new(body.as_bytes().to_vec()))
}

#[tokio::test]
async fn a_callback_is_taken_once_and_repeats_of_it_are_harmless() {
    in_every_way!(CALLBACK, |play: Play| async move {
        play.send("app", "x", r#"{"id": 1}"#).await;
        let token = play.token();
        let notice = play.calls()[0].json();
        assert_eq!((token.len(), &notice["callback_token"]), (52, &json!(token)));
        assert_eq!(
            notice["callback_url"],
            json!(format!("https://hooks.example.com/callback/{token}"))
        );
        assert_eq!(
            (&notice["workflow"], &notice["step"], &notice["payload"]),
            (&json!("w"), &json!("ask"), &json!({"id": 1}))
        );

        for unknown in
            [token.to_lowercase(), token[..51].to_owned(), "A".repeat(52), "é".repeat(26)]
        {
            assert_eq!(
                play.engine.answer(&unknown, &done("1")).await,
                Err(NotAnswered::Unknown),
                "{unknown}"
            );
        }
        let answers = futures::future::join_all((0..8).map(|_| async {
            let answer = done(r#"{"ok": true}"#);
            play.engine.answer(&token, &answer).await
        }))
        .await;
        assert_eq!(
            answers.iter().filter(|a| a.as_ref().is_ok_and(|a| !a.duplicate)).count(),
            1,
            "{answers:?}"
        );
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(play.engine.answer(&token, &done("other")).await, Err(NotAnswered::Conflict));
        play.work().await;
        assert_eq!(play.calls()[1].json(), json!({"id": 1, "answer": {"ok": true}}));
        assert_eq!(play.the_run().await.status, RunStatus::Completed);
        assert!(play.engine.answer(&token, &done(r#"{"ok": true}"#)).await.unwrap().duplicate);
        assert_eq!(play.called().len(), 2);
        // The timeout went with the answer.
        assert_eq!(play.engine.store().totals().await.unwrap().open, 0);
    });
}

#[tokio::test]
async fn a_callback_that_does_not_come_or_says_it_failed_is_a_failure() {
    in_every_way!(CALLBACK, |play: Play| async move {
        play.send("app", "x", "{}").await;
        let first = play.token();
        play.advance(Duration::from_secs(601)).await;
        assert_eq!(play.calls().last().unwrap().json()["error_type"], "callback_timeout");
        assert_eq!(play.engine.answer(&first, &done("1")).await, Err(NotAnswered::Gone));
        play.send("app", "x", "{}").await;
        play.engine.answer(&play.token(), &Answer::Failed("no stock".to_owned())).await.unwrap();
        play.work().await;
        let last = play.calls().last().unwrap().json();
        assert_eq!(
            (&last["error_type"], &last["error"]),
            (&json!("callback_failed"), &json!("no stock"))
        );
    });
}

const THREE: &str = r#"
sources: { app: { type: event } }
server: { allow_private_urls: true }
workflows:
  w:
    source: app
    steps:
      - { name: a, url: http://a/, result_path: "$.a" }
      - { name: w, type: wait, seconds: 60 }
      - { name: b, url: http://b/, retry: { max: 1 } }
"#;

#[tokio::test]
async fn a_run_stays_on_the_definition_it_started_with() {
    in_every_way!(THREE, |play: Play| async move {
        play.send("app", "x", r#"{"id": 1}"#).await;
        let changed = THREE.replace("http://b/", "http://new/");
        let later = play.again(&changed).await;
        later.send("app", "x", r#"{"id": 2}"#).await;
        later.advance(Duration::from_secs(61)).await;
        let mut called = later.called();
        called.sort();
        assert_eq!(called, ["a/", "a/", "b/", "new/"]);
        // Even when the workflow is gone from the configuration.
        later.send("app", "x", r#"{"id": 3}"#).await;
        let without = later
            .again("sources: { app: { type: event } }\nserver: { allow_private_urls: true }\n")
            .await;
        without.advance(Duration::from_secs(61)).await;
        assert_eq!(without.called().last().map(String::as_str), Some("new/"));
        assert!(without.runs().await.iter().all(|run| run.status == RunStatus::Completed));
    });
}

#[tokio::test]
async fn a_worker_that_dies_between_answer_and_commit_costs_one_repeat_under_the_same_key() {
    in_every_way!(THREE, |play: Play| async move {
        play.send("app", "x", r#"{"id": 1}"#).await;
        play.fresh.clock.advance(Duration::from_secs(61));
        // The wait is over; a worker takes the next call and is never seen again.
        let slots = tidehook::decide::fair::Slots::free(1);
        let ask = tidehook::store::ClaimRequest {
            slots,
            lease: Duration::from_secs(30),
            skip: Vec::new(),
            unserved: Vec::new(),
            only: Vec::new(),
        };
        let timer = play.engine.store().claim(&ask).await.unwrap();
        assert_eq!(timer.len(), 1);
        play.work().await;
        assert_eq!(play.called(), ["a/"], "someone else has it");
        play.advance(Duration::from_secs(31)).await;
        assert_eq!(play.called(), ["a/", "b/"]);
        assert_eq!(play.the_run().await.status, RunStatus::Completed);
    });
}

#[tokio::test]
async fn a_cancelled_run_sends_nothing_more_and_can_be_taken_up_again() {
    in_every_way!(THREE, |play: Play| async move {
        play.send("app", "x", r#"{"id": 1}"#).await;
        let run = play.the_run().await;
        let cancelled = play.engine.cancel_run(run.id).await.unwrap();
        assert_eq!(cancelled.status, RunStatus::Cancelled);
        assert!(play.engine.cancel_run(run.id).await.is_err());
        play.advance(Duration::from_secs(100)).await;
        assert_eq!(play.called(), ["a/"]);
        assert_eq!(
            play.engine.redrive_run(run.id, &RedriveOptions::default()).await.unwrap().status,
            RunStatus::Running
        );
        play.work().await;
        play.advance(Duration::from_secs(61)).await;
        assert_eq!(play.called(), ["a/", "b/"]);
        assert_eq!(play.the_run().await.status, RunStatus::Completed);
        assert!(play.engine.redrive_run(run.id, &RedriveOptions::default()).await.is_err());
    });
}

#[tokio::test]
async fn a_failed_run_is_redriven_from_the_failed_step_with_a_fresh_budget() {
    in_every_way!(THREE, |play: Play| async move {
        play.script("a/", vec![ok("5")]).script("b/", vec![status(500), status(500), ok("{}")]);
        play.send("app", "x", r#"{"id": 1}"#).await;
        play.advance(Duration::from_secs(61)).await;
        let run = play.the_run().await;
        assert_eq!(
            (run.status, run.error.as_ref().unwrap().step.as_deref()),
            (RunStatus::Failed, Some("b"))
        );
        for expected in [RunStatus::Failed, RunStatus::Completed] {
            play.engine.redrive_run(run.id, &RedriveOptions::default()).await.unwrap();
            play.work().await;
            assert_eq!(play.the_run().await.status, expected);
        }
        assert_eq!(play.called(), ["a/", "b/", "b/", "b/"]);
        assert!(play.calls()[1..].iter().all(|call| call.json() == json!({"id": 1, "a": 5})));
        assert_eq!(play.the_run().await.state.redrives, 2);
    });
}

#[tokio::test]
async fn two_engines_on_one_store_move_a_run_together() {
    in_every_way!(THREE, |play: Play| async move {
        let other = play.again(THREE).await;
        for n in 0..20 {
            let engine = if n % 2 == 0 { &play } else { &other };
            engine.send("app", "x", &json!({ "id": n }).to_string()).await;
        }
        play.fresh.clock.advance(Duration::from_secs(61));
        for _ in 0..5 {
            futures::future::join(play.work(), other.work()).await;
        }
        assert!(play.runs().await.iter().all(|run| run.status == RunStatus::Completed));
        assert_eq!(play.called().iter().filter(|to| *to == "b/").count(), 20);
    });
}

#[tokio::test]
async fn a_redrive_repeats_the_operation_under_its_key_with_its_bytes() {
    let text = r#"
sources: { app: { type: event } }
server: { allow_private_urls: true }
workflows:
  w:
    source: app
    steps:
      - { name: pay, if: "$.order exists", input: { id: "{{ $.order }}", at: "{{ now() }}", u: "{{ uuid() }}" }, url: http://pay/, retry: { max: 1 } }
"#;
    in_every_way!(text, |play: Play| async move {
        play.script("pay/", vec![status(500), ok("{}")]);
        play.send("app", "x", r#"{"order": 7}"#).await;
        play.advance(Duration::from_secs(500)).await;
        let run = play.the_run().await;
        play.engine.redrive_run(run.id, &RedriveOptions::default()).await.unwrap();
        play.work().await;
        let calls = play.calls();
        assert_eq!((calls.len(), &calls[0].json()["id"]), (2, &json!(7)));
        assert_eq!(calls[0].body, calls[1].body);
        assert_eq!(calls[0].header("Idempotency-Key"), calls[1].header("Idempotency-Key"));
        assert_eq!(play.the_run().await.status, RunStatus::Completed);
    });
}

#[tokio::test]
async fn a_payload_of_any_depth_is_kept_and_read_again() {
    in_every_way!(THREE, |play: Play| async move {
        for depth in [60, 64, 65, 100, 124, 127, 128, 300, 500, 5_000] {
            play.send(
                "app",
                "x",
                &format!("{{\"id\":1,\"deep\":{}{}}}", "[".repeat(depth), "]".repeat(depth)),
            )
            .await;
        }
        play.advance(Duration::from_secs(61)).await;
        let ends: Vec<RunStatus> = play.runs().await.iter().map(|run| run.status).collect();
        assert_eq!(ends[..9], [RunStatus::Completed; 9]);
        assert!(
            ends[9].is_closed(),
            "what is too deep to be read ends one way or the other: {ends:?}"
        );
    });
}

#[tokio::test]
async fn runs_go_on_and_can_be_cancelled_when_their_source_is_gone() {
    in_every_way!(THREE, |play: Play| async move {
        play.send("app", "x", r#"{"id": 1}"#).await;
        play.send("app", "x", r#"{"id": 2}"#).await;
        let other = play
            .again("sources: { other: { type: event } }\nserver: { allow_private_urls: true }\n")
            .await;
        let runs = other.runs().await;
        other.engine.cancel_run(runs[0].id).await.unwrap();
        other.advance(Duration::from_secs(61)).await;
        let ends: Vec<RunStatus> = other.runs().await.iter().map(|run| run.status).collect();
        assert_eq!(ends, [RunStatus::Cancelled, RunStatus::Completed]);
    });
}

#[tokio::test]
async fn called_runs_end_when_the_step_that_called_them_is_over() {
    let text = r#"
sources: { app: { type: event } }
server: { allow_private_urls: true }
workflows:
  outer:
    source: app
    steps:
      - name: each
        type: map
        items_path: "$.items"
        steps:
          - { name: which, type: choice, choices: [{ when: "$.bad == true", goto: bad }], default: call }
          - { name: call, type: workflow, workflow: inner, end: true }
          - { name: bad, url: http://bad/, retry: { max: 1 } }
        catch: [{ errors: [all], goto: after }]
      - { name: never, url: http://never/, end: true }
      - { name: after, type: wait, seconds: 3600 }
  inner:
    callable: true
    steps: [{ name: w, type: wait, seconds: 60 }, { name: late, url: http://late/ }]
"#;
    in_every_way!(text, |play: Play| async move {
        play.script("bad/", vec![status(500)]);
        play.send("app", "x", r#"{"items": [{"bad": false}, {"bad": true}]}"#).await;
        play.work().await;
        let inner: Vec<RunStatus> = play
            .runs()
            .await
            .iter()
            .filter(|run| run.workflow == "inner")
            .map(|run| run.status)
            .collect();
        assert_eq!(inner, [RunStatus::Cancelled]);
        play.advance(Duration::from_secs(4_000)).await;
        assert_eq!(play.called(), ["bad/"]);
    });
}

#[tokio::test]
async fn a_callback_that_nobody_is_told_of_is_answered_with_the_token_of_the_run() {
    let text = r#"
sources: { app: { type: event } }
workflows: { w: { source: app, steps: [{ name: ask, type: callback }] } }
"#;
    in_every_way!(text, |play: Play| async move {
        play.send("app", "x", "{}").await;
        let run = play.the_run().await;
        let tidehook::model::run::VisitPhase::Token { token, .. } = &run.state.visits[&1].phase
        else {
            panic!("{run:?}")
        };
        play.engine.answer(token, &done("5")).await.unwrap();
        play.work().await;
        assert_eq!(play.the_run().await.state.output.unwrap().into_value(), json!(5));
    });
}

#[tokio::test]
async fn two_workflows_with_the_same_text_are_two() {
    let steps =
        "{ source: app, steps: [{ name: a, url: http://a/ }, { name: b, url: http://b/ }] }";
    let text = format!(
        "sources: {{ app: {{ type: event }} }}\nserver: {{ allow_private_urls: true }}\nworkflows: \
         {{ one: {steps}, two: {steps} }}\n"
    );
    in_every_way!(&text, |play: Play| async move {
        play.send("app", "x", "{}").await;
        let mut handlers: Vec<String> = play
            .calls()
            .iter()
            .map(|call| call.header("X-Tidehook-Handler").unwrap().to_owned())
            .collect();
        handlers.sort();
        assert_eq!(handlers, ["one/a", "one/b", "two/a", "two/b"]);
    });
}
