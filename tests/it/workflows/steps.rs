//! Each type of step, with what it does when things go wrong.

use std::time::Duration;

use serde_json::json;
use tidehook::model::run::StepStatus;
use tidehook::model::{Payload, RunStatus};

use super::play::{Play, Reply, ok, status};
use crate::in_every_way;

const SOURCE: &str = "sources: { app: { type: event } }\nserver: { allow_private_urls: true }\n";

fn text(workflows: &str) -> String {
    format!(
        "{SOURCE}delivery: {{ default_retry: {{ max: 2, interval: 10s, jitter: 0 }} \
         }}\nworkflows:\n{workflows}"
    )
}

fn output(run: &tidehook::model::Run) -> serde_json::Value {
    run.state.output.clone().map_or(serde_json::Value::Null, Payload::into_value)
}

#[tokio::test]
async fn calls_follow_each_other_and_hand_on_what_they_were_answered() {
    let text = text(
        r#"  w:
    source: app
    steps:
      - { name: a, url: http://a/, result_path: "$.a" }
      - { name: b, url: http://b/, input: '{"from": {{$.a.n}}}', result_path: "$.b" }
      - { name: c, url: http://c/, body: { all: "{{ $.b }}", first: "{{ $$.steps.a.output.n }}" }, result: { x: "{{ $.y }}" } }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![ok(r#"{"n": 1}"#)])
            .script("b/", vec![ok("[2]")])
            .script("c/", vec![ok(r#"{"y": 3}"#)]);
        play.send("app", "x", r#"{"id": 7}"#).await;
        let bodies: Vec<_> = play.calls().iter().map(|c| c.json()).collect();
        assert_eq!(bodies, [json!({"id": 7}), json!({"from": 1}), json!({"all": [2], "first": 1})]);
        let run = play.the_run().await;
        assert_eq!((run.status, output(&run)), (RunStatus::Completed, json!({"x": 3})));
        let kinds: Vec<String> =
            play.history(run.id).await.into_iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds.first().map(String::as_str), Some("RunStarted"));
        assert_eq!(kinds.iter().filter(|k| *k == "StepCompleted").count(), 3);
        assert_eq!(kinds.last().map(String::as_str), Some("RunCompleted"));
    });
}

#[tokio::test]
async fn a_step_is_retried_with_the_same_bytes_and_key_and_its_failure_is_caught() {
    let text = text(
        r#"  w:
    source: app
    steps:
      - name: pay
        url: http://pay/
        body: { id: "{{ uuid() }}", at: "{{ now() }}" }
        retry: { max: 3, interval: 10s, jitter: 0 }
        catch: [{ errors: [4xx], goto: never }, { errors: [5xx], goto: sorry }]
      - { name: never, url: http://never/, end: true }
      - { name: sorry, url: http://sorry/ }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("pay/", vec![status(500), status(503), status(502)]);
        play.send("app", "x", r#"{"order": 1}"#).await;
        for _ in 0..3 {
            play.advance(Duration::from_secs(60)).await;
        }
        assert_eq!(play.called(), ["pay/", "pay/", "pay/", "sorry/"]);
        let calls = play.calls();
        assert!(
            calls[..3].iter().all(|call| call.body == calls[0].body),
            "each attempt sends the same bytes"
        );
        let keys: Vec<_> =
            calls[..3].iter().map(|call| call.header("Idempotency-Key").unwrap()).collect();
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
        let attempts: Vec<_> =
            calls[..3].iter().map(|call| call.header("X-Tidehook-Attempt").unwrap()).collect();
        assert_eq!(attempts, ["1", "2", "3"]);
        let sorry = calls[3].json();
        assert_eq!(
            (&sorry["order"], &sorry["error"], &sorry["failed_step"]),
            (&json!(1), &json!("HTTP 502"), &json!("pay"))
        );
        assert_eq!(
            (&sorry["error_type"], &sorry["status"], &sorry["attempts"]),
            (&json!("5xx"), &json!(502), &json!(3))
        );
        assert_eq!(play.the_run().await.status, RunStatus::Completed);
    });
}

#[tokio::test]
async fn a_failure_that_nobody_catches_ends_the_run_or_is_passed_over() {
    let text = text(
        r#"  stops:
    source: app
    events: [stop]
    steps: [{ name: a, url: http://bad/, retry: { max: 1 } }, { name: b, url: http://b/ }]
  goes-on:
    source: app
    events: [go]
    steps:
      - { name: a, url: http://bad/, retry: { max: 1 }, on_failure: continue, result_path: "$.a" }
      - { name: b, url: http://b/ }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("bad/", vec![status(400)]);
        play.send("app", "stop", "{}").await;
        let run = play.the_run().await;
        assert_eq!((run.status, play.called().len()), (RunStatus::Failed, 1));
        let error = run.error.unwrap();
        assert_eq!(
            (error.class.as_str(), error.step.as_deref(), error.status),
            ("4xx", Some("a"), Some(400))
        );
        play.send("app", "go", r#"{"k": 1}"#).await;
        assert_eq!(
            play.calls()[2].json(),
            json!({"k": 1, "a": {"error": "HTTP 400", "failed_step": "a"}})
        );
    });
}

#[tokio::test]
async fn a_choice_goes_where_its_first_true_condition_says() {
    let text = text(
        r#"  w:
    source: app
    steps:
      - name: which
        type: choice
        choices: [{ when: "$.n > 10", goto: big }, { condition: "$.n > 5", goto: middle }]
      - { name: big, url: http://big/, end: true }
      - { name: middle, if: "$.skip != true", url: http://middle/, end: true }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.send("app", "x", r#"{"n": 11}"#).await;
        play.send("app", "x", r#"{"n": 6}"#).await;
        play.send("app", "x", r#"{"n": 6, "skip": true}"#).await;
        play.send("app", "x", r#"{"n": 1}"#).await;
        assert_eq!(play.called(), ["big/", "middle/"]);
        let runs = play.runs().await;
        let ends: Vec<_> = runs.iter().map(|run| run.status).collect();
        assert_eq!(
            ends,
            [RunStatus::Completed, RunStatus::Completed, RunStatus::Completed, RunStatus::Failed]
        );
        assert_eq!(runs[3].error.as_ref().unwrap().class, "no_choice_matched");
        assert_eq!(runs[2].state.steps["middle"].status, StepStatus::Skipped);
    });
}

#[tokio::test]
async fn parallel_calls_join_once_and_fail_together() {
    let text = text(
        r#"  w:
    source: app
    steps:
      - name: checks
        type: parallel
        retry: { max: 1 }
        branches: [{ name: a, url: http://a/ }, { name: b, url: http://b/ }, { name: c, url: http://c/ }]
        result_path: "$.checks"
        catch: [{ errors: [all], goto: undo }]
      - { name: next, url: http://next/, end: true }
      - { name: undo, url: http://undo/ }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![ok("1")])
            .script("b/", vec![ok("no json"), status(500)])
            .script("c/", vec![ok(r#"{"c": 3}"#)]);
        play.send("app", "x", r#"{"id": 1}"#).await;
        assert_eq!(
            play.calls().last().unwrap().json(),
            json!({"id": 1, "checks": {"a": 1, "b": "no json", "c": {"c": 3}}})
        );
        play.send("app", "x", r#"{"id": 2}"#).await;
        let last = play.calls().last().unwrap().clone();
        assert_eq!(
            (last.to.as_str(), &last.json()["failed_step"]),
            ("undo/", &json!("checks")),
            "{last:?}"
        );
        assert_eq!(play.called().iter().filter(|to| *to == "next/").count(), 1);
        assert!(play.runs().await.iter().all(|run| run.status == RunStatus::Completed));
    });
}

#[tokio::test]
async fn a_map_keeps_the_order_of_its_items_and_its_bound() {
    let text = text(
        r#"  w:
    source: app
    steps:
      - name: each
        type: map
        items_path: "$.items"
        max_concurrency: 2
        on_item_failure: collect
        steps:
          - { name: one, url: http://one/, retry: { max: 1 }, result_path: "$.r" }
          - { name: two, if: "$.n > 1", type: set, body: { n: "{{ $.n }}", r: "{{ $.r }}", i: "{{ $$.item.index }}" } }
        result_path: "$.done"
      - { name: end, url: http://end/ }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("one/", vec![ok("\"a\""), ok("\"b\""), status(500), ok("\"d\"")]);
        play.send("app", "x", r#"{"items": [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}]}"#).await;
        let end = play.calls().last().unwrap().json();
        let done = end["done"].as_array().unwrap();
        // Two items run at once, so the replies may fall to either of a pair.
        assert_eq!(done.len(), 4);
        for (at, item) in done.iter().enumerate() {
            assert!(item["n"] == json!(at + 1) || item["error"] == json!("HTTP 500"), "{done:?}");
        }
        assert_eq!(
            done.iter().filter(|item| item["error"] == json!("HTTP 500")).count(),
            1,
            "{done:?}"
        );
        play.send("app", "x", r#"{"items": []}"#).await;
        assert_eq!(play.calls().last().unwrap().json()["done"], json!([]));
        play.send("app", "x", r#"{"items": 5}"#).await;
        let many: Vec<u32> = (0..1001).collect();
        play.send("app", "x", &json!({ "items": many }).to_string()).await;
        let classes: Vec<_> =
            play.runs().await.into_iter().filter_map(|run| run.error).map(|e| e.class).collect();
        assert_eq!(classes, ["bad_items", "map_too_large"]);
    });
}

#[tokio::test]
async fn a_wait_takes_its_time_and_an_unusable_timestamp_is_never_now() {
    let text = text(
        r#"  for:
    source: app
    events: [for]
    steps: [{ name: w, type: wait, seconds: 259200 }, { name: n, url: http://after/ }]
  until:
    source: app
    events: [until]
    steps: [{ name: w, type: wait, timestamp_path: "$.at" }, { name: n, url: http://after/ }]
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.send("app", "for", r#"{"k": 1}"#).await;
        play.advance(Duration::from_secs(259_199)).await;
        assert!(play.called().is_empty());
        play.advance(Duration::from_secs(1)).await;
        assert_eq!(play.calls()[0].json(), json!({"k": 1}));
        let soon = tidehook::model::Clock::now(&play.fresh.clock).plus(Duration::from_secs(60));
        play.send("app", "until", &json!({ "at": soon.rfc3339() }).to_string()).await;
        assert_eq!(play.called().len(), 1);
        play.advance(Duration::from_secs(61)).await;
        assert_eq!(play.called().len(), 2);
        for bad in [
            json!(""),
            json!("year 99999"),
            json!("99999-01-01T00:00:00Z"),
            json!(1e18),
            json!(-5),
            json!(null),
            json!([1]),
        ] {
            play.send("app", "until", &json!({ "at": bad }).to_string()).await;
            let last = play.runs().await.pop().unwrap();
            assert_eq!(last.error.map(|e| e.class).as_deref(), Some("bad_timestamp"), "{bad}");
        }
        assert_eq!(play.called().len(), 2);
    });
}

#[tokio::test]
async fn another_workflow_is_a_step_and_its_failure_is_the_steps() {
    let text = text(
        r#"  outer:
    source: app
    steps:
      - { name: inner, type: workflow, workflow: inner, result_path: "$.inner", catch: [{ errors: [workflow_failed], goto: sorry }] }
      - { name: next, url: http://next/, end: true }
      - { name: sorry, url: http://sorry/ }
  inner:
    callable: true
    params: [{ name: id, type: number }]
    steps: [{ name: a, url: http://a/, retry: { max: 1 } }]
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![ok("\"inner says\""), status(500)]);
        play.send("app", "x", r#"{"id": 1}"#).await;
        assert_eq!(play.calls()[1].json(), json!({"id": 1, "inner": "inner says"}));
        play.send("app", "x", r#"{"id": 2}"#).await;
        let sorry = play.calls().last().unwrap().json();
        assert_eq!(
            (&sorry["error"], &sorry["error_type"]),
            (&json!("HTTP 500"), &json!("workflow_failed"))
        );
        // A child that cannot even start.
        play.send("app", "x", r#"{"id": "text"}"#).await;
        let sorry = play.calls().last().unwrap().json();
        assert!(
            sorry["error"].as_str().unwrap().contains("expected type 'number', got string"),
            "{sorry}"
        );
        assert_eq!(play.runs().await.len(), 6);
        assert!(play.runs().await.iter().all(|run| run.status.is_closed()));
    });
}

#[tokio::test]
async fn a_run_ends_at_its_deadline_with_all_that_is_open_in_it() {
    let text = text(
        r#"  outer:
    source: app
    timeout: 60
    steps: [{ name: inner, type: workflow, workflow: inner }]
  inner:
    callable: true
    steps: [{ name: w, type: wait, seconds: 3600 }, { name: a, url: http://a/ }]
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.send("app", "x", "{}").await;
        play.advance(Duration::from_secs(61)).await;
        play.work().await;
        let runs = play.runs().await;
        let outer = runs.iter().find(|run| run.workflow == "outer").unwrap();
        let inner = runs.iter().find(|run| run.workflow == "inner").unwrap();
        assert_eq!(
            (outer.status, outer.error.as_ref().unwrap().class.as_str()),
            (RunStatus::Failed, "workflow_timeout")
        );
        assert_eq!(inner.status, RunStatus::Cancelled);
        play.advance(Duration::from_secs(4000)).await;
        assert!(play.called().is_empty());
        assert_eq!(play.engine.store().totals().await.unwrap().open, 0);
    });
}

#[tokio::test]
async fn a_circle_ends_at_its_limit() {
    let text = text(
        r#"  w:
    source: app
    max_steps: 20
    steps: [{ name: a, url: http://a/ }, { name: b, type: wait, seconds: 1, goto: a }]
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.send("app", "x", "{}").await;
        for _ in 0..30 {
            play.advance(Duration::from_secs(2)).await;
        }
        let run = play.the_run().await;
        assert_eq!(
            (run.status, run.error.unwrap().class.as_str(), play.called().len()),
            (RunStatus::Failed, "step_limit", 10)
        );
    });
}

#[tokio::test]
async fn what_a_success_is_can_be_said() {
    let text = text(
        r#"  w:
    source: app
    steps:
      - { name: a, url: http://a/, retry: { max: 1 }, expect: { status: [201, 400-409] }, catch: [{ errors: [expectation], goto: odd }] }
      - { name: b, url: http://b/, end: true }
      - { name: odd, url: http://odd/ }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![status(409), status(200)]);
        play.send("app", "x", "{}").await;
        play.send("app", "x", "{}").await;
        assert_eq!(play.called(), ["a/", "b/", "a/", "odd/"]);
    });
}

#[tokio::test]
async fn a_call_that_times_out_has_its_class() {
    let text = text(
        "  w: { source: app, steps: [{ name: a, url: http://a/, retry: { max: 1 }, catch: \
         [{ errors: [timeout], goto: b }], end: true }, { name: b, url: http://b/ }] }\n",
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![Reply::TimesOut]);
        play.send("app", "x", "{}").await;
        assert_eq!(play.calls()[1].json()["error_type"], "timeout");
    });
}

#[tokio::test]
async fn templates_read_arrays_although_something_was_kept_and_a_map_may_be_large() {
    let text = text(
        r#"  w:
    source: app
    steps:
      - { name: a, url: http://a/, result_path: "$.kept" }
      - { name: b, url: http://b/ }
      - { name: c, url: http://c/, body: { first: "{{ $.0.id }}" } }
  large:
    source: app
    events: [large]
    steps: [{ name: m, type: map, items_path: "$.items", steps: [{ name: s, type: set, body: 1 }, { name: t, type: set, body: 2 }] }]
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("b/", vec![ok(r#"[{"id": 9}]"#)]);
        play.send("app", "x", "{}").await;
        assert_eq!(play.calls()[2].json(), json!({"first": 9}));
        let items: Vec<u32> = (0..1000).collect();
        play.send("app", "large", &json!({ "items": items }).to_string()).await;
        let large = play.runs().await.into_iter().find(|run| run.workflow == "large").unwrap();
        assert_eq!(
            (large.status, output(&large).as_array().unwrap().len()),
            (RunStatus::Completed, 1000)
        );
    });
}
