//! How runs end: rollback, last steps, pauses, turns, decisions, and taking them up again.

use std::time::Duration;

use serde_json::{Value, json};
use tidehook::engine::approval::Decision;
use tidehook::engine::callback::{Answer, NotAnswered};
use tidehook::engine::operate::{OperateError, RedriveOptions};
use tidehook::model::Body;
use tidehook::model::{JobState, OldestKept, Payload, Retention, Run, RunStatus};
use tidehook::store::{JobFilter, Page};

use super::play::{Play, Reply, ok, status};
use crate::in_every_way;

const PAGE: Page = Page { limit: 100, newest_first: false };
const SOURCE: &str = "sources: { app: { type: event } }\nserver: { allow_private_urls: true, public_url: \"https://hooks.example.com\" }\n\
    delivery: { default_retry: { max: 1, interval: 10s, jitter: 0 } }\n";

fn text(workflow: &str) -> String {
    format!("{SOURCE}workflows:\n  w:\n    source: app\n    events: [x]\n{workflow}")
}

async fn last(play: &Play) -> Run {
    play.runs().await.into_iter().rfind(|run| run.parent.is_none()).unwrap()
}

const ROLLBACK: &str = r#"    on_failure: compensate
    finally:
      - { name: report, url: http://report/, body: { how: "{{ $$.run.outcome }}", why: "{{ $.error }}" } }
    steps:
      - { name: reserve, url: http://reserve/, result_path: "$.reservation",
          compensate: { url: "http://release/{{ $$.step.output.id }}", method: DELETE, headers: { X-Order: "{{ $$.step.input.order }}" } } }
      - { name: pay, url: http://pay/, result_path: "$.payment",
          compensate: { url: http://refund/, body: { payment: "{{ $$.step.output.id }}", because: "{{ $$.error.error }}" }, retry: { max: 2, interval: 10s, jitter: none } } }
      - { name: note, url: http://note/, result_path: null }
      - { name: ship, url: http://ship/ }
"#;

#[tokio::test]
async fn a_run_that_fails_undoes_what_its_steps_did_in_reverse_and_then_its_last_steps_run() {
    in_every_way!(&text(ROLLBACK), |play: Play| async move {
        play.script("reserve/", vec![ok(r#"{"id": "r1"}"#)])
            .script("pay/", vec![ok(r#"{"id": "p1"}"#)]);
        play.script("ship/", vec![status(422)]).script("refund/", vec![status(503), ok("{}")]);
        play.send("app", "x", r#"{"order": 7}"#).await;
        assert_eq!(play.the_run().await.status, RunStatus::Compensating);
        play.advance(Duration::from_secs(10)).await;
        assert_eq!(
            play.called(),
            ["reserve/", "pay/", "note/", "ship/", "refund/", "refund/", "release/r1", "report/"]
        );
        let calls = play.calls();
        assert_eq!(calls[4].json(), json!({ "payment": "p1", "because": "HTTP 422" }));
        assert_eq!(calls[6].header("X-Order"), Some("7"));
        assert_eq!(calls[7].json(), json!({ "how": "failed", "why": "HTTP 422" }));
        // What undoes has the key of what it undoes, with a mark.
        let key = |n: usize| calls[n].header("Idempotency-Key").unwrap().to_owned();
        assert_eq!((key(4), key(6)), (format!("{}-c", key(1)), format!("{}-c", key(0))));
        assert_eq!(key(4), key(5));
        let run = play.the_run().await;
        assert_eq!((run.status, run.state.compensated), (RunStatus::Failed, true));
        assert_eq!(run.error.unwrap().step.as_deref(), Some("ship"));
        let refused =
            play.engine.redrive_run(run.id, &RedriveOptions::default()).await.unwrap_err();
        assert!(matches!(refused, OperateError::Refused(why) if why.contains("was rolled back")));
    });
}

#[tokio::test]
async fn a_run_that_completes_undoes_nothing_and_its_last_steps_run() {
    in_every_way!(&text(ROLLBACK), |play: Play| async move {
        play.script("report/", vec![status(500)]);
        play.send("app", "x", r#"{"order": 7}"#).await;
        assert_eq!(play.called(), ["reserve/", "pay/", "note/", "ship/", "report/"]);
        assert_eq!(play.calls()[4].json()["how"], "completed");
        assert_eq!(
            play.the_run().await.status,
            RunStatus::Completed,
            "the last steps cannot change how a run ends"
        );
    });
}

#[tokio::test]
async fn a_run_that_is_cancelled_is_undone_and_one_that_is_killed_is_not() {
    let text = text(&ROLLBACK.replace("url: http://ship/", "type: wait, seconds: 600"));
    in_every_way!(&text, |play: Play| async move {
        play.script("reserve/", vec![ok(r#"{"id": "r1"}"#)]);
        play.send("app", "x", r#"{"order": 7}"#).await;
        play.engine.cancel_run(play.the_run().await.id).await.unwrap();
        play.work().await;
        assert_eq!(play.called()[3..], ["refund/", "release/r1", "report/"]);
        assert_eq!(play.the_run().await.status, RunStatus::Cancelled);
        play.send("app", "x", r#"{"order": 8}"#).await;
        let run = last(&play).await;
        let killed = play.engine.kill_run(run.id).await.unwrap();
        play.work().await;
        assert_eq!(
            (killed.status, play.called().len()),
            (RunStatus::Cancelled, 9),
            "three calls, and nothing after them"
        );
        assert!(matches!(play.engine.kill_run(run.id).await, Err(OperateError::Refused(_))));
    });
}

#[tokio::test]
async fn what_cannot_be_undone_pauses_the_run_until_somebody_mends_it() {
    in_every_way!(&text(ROLLBACK), |play: Play| async move {
        play.script("reserve/", vec![ok(r#"{"id": "r1"}"#)]);
        play.script("ship/", vec![status(422)]).script("refund/", vec![status(500)]);
        play.send("app", "x", r#"{"order": 7}"#).await;
        play.advance(Duration::from_secs(10)).await;
        let run = play.the_run().await;
        assert_eq!(
            (run.status, run.error.unwrap().class.as_str()),
            (RunStatus::Paused, "compensation_failed")
        );
        play.advance(Duration::from_secs(86_400)).await;
        assert_eq!(play.called().iter().filter(|to| *to == "refund/").count(), 2);
        play.script("refund/", vec![ok("{}")]);
        play.engine.resume_run(run.id).await.unwrap();
        play.work().await;
        assert_eq!(
            play.called().iter().rev().take(3).collect::<Vec<_>>(),
            ["report/", "release/r1", "refund/"]
        );
        let run = play.the_run().await;
        assert_eq!((run.status, run.error.unwrap().class.as_str()), (RunStatus::Failed, "4xx"));
    });
}

#[tokio::test]
async fn items_of_a_map_and_branches_are_undone_each_by_itself() {
    let text = text(
        r#"    on_failure: compensate
    steps:
      - { name: fan, type: map, items: "{{ $.hosts }}", max_concurrency: 1, result_path: "$.fan",
          steps: [{ name: up, url: http://up/, compensate: { url: http://down/, body: { host: "{{ $$.step.input }}", place: "{{ $$.item.index }}" } } }] }
      - { name: both, type: parallel, branches: [{ name: a, url: http://a/, compensate: { url: http://not-a/ } }, { name: b, url: http://b/ }] }
      - { name: stop, type: fail, error: no }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.send("app", "x", r#"{"hosts": ["h1", "h2"]}"#).await;
        let called = play.called();
        assert_eq!(called[called.len() - 3..], ["not-a/", "down/", "down/"]);
        let undone: Vec<Value> =
            play.calls().iter().filter(|call| call.to == "down/").map(|call| call.json()).collect();
        assert_eq!(
            undone,
            [json!({ "host": "h2", "place": 1 }), json!({ "host": "h1", "place": 0 })]
        );
        assert_eq!(play.the_run().await.error.unwrap().class, "app:no");
    });
}

#[tokio::test]
async fn a_catch_may_undo_and_a_workflow_may_catch_for_its_steps_once() {
    let text = text(
        r#"    catch: [{ errors: [4xx], goto: sorry }, { errors: [5xx], compensate: true }]
    steps:
      - { name: a, url: http://a/, result_path: null, compensate: { url: http://not-a/ } }
      - { name: b, url: http://b/, end: true }
      - { name: sorry, url: http://sorry/ }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("b/", vec![status(404), status(503)]).script("sorry/", vec![status(404)]);
        play.send("app", "x", "{}").await;
        assert_eq!(play.called(), ["a/", "b/", "sorry/"], "the second failure is not caught again");
        assert_eq!(play.the_run().await.status, RunStatus::Failed);
        play.send("app", "x", "{}").await;
        assert_eq!(play.called()[3..], ["a/", "b/", "not-a/"]);
        let run = last(&play).await;
        assert_eq!((run.status, run.state.compensated), (RunStatus::Failed, true));
    });
}

#[tokio::test]
async fn a_paused_run_sends_nothing_and_keeps_its_due_times() {
    let text = text(
        r#"    timeout: 1h
    steps:
      - { name: a, url: http://a/ }
      - { name: w, type: wait, seconds: 60 }
      - { name: b, url: http://b/ }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.send("app", "x", "{}").await;
        let id = play.the_run().await.id;
        assert_eq!(play.engine.pause_run(id).await.unwrap().status, RunStatus::Paused);
        assert!(matches!(play.engine.pause_run(id).await, Err(OperateError::Refused(_))));
        play.advance(Duration::from_secs(7200)).await;
        assert_eq!(play.called(), ["a/"], "neither the wait nor the deadline");
        assert_eq!(play.engine.fsck().await.unwrap().faults, Vec::new());
        assert_eq!(play.engine.resume_run(id).await.unwrap().status, RunStatus::Running);
        play.work().await;
        let run = play.the_run().await;
        assert!(run.status.is_closed(), "what was due meanwhile is due now: {}", run.status);
    });
}

#[tokio::test]
async fn a_step_whose_attempts_are_used_up_pauses_its_run_where_it_says_so() {
    let text = text(
        "    steps: [{ name: a, url: http://a/, on_exhausted: pause }, \
         { name: b, url: http://b/ }]\n",
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![status(500), ok(r#"{"n": 1}"#)]);
        play.send("app", "x", r#"{"k": 1}"#).await;
        let run = play.the_run().await;
        assert_eq!((run.status, run.error.unwrap().class.as_str()), (RunStatus::Paused, "5xx"));
        play.engine.resume_run(run.id).await.unwrap();
        play.work().await;
        assert_eq!(play.called(), ["a/", "a/", "b/"]);
        let calls = play.calls();
        assert_eq!(
            (calls[0].header("Idempotency-Key"), &calls[0].body),
            (calls[1].header("Idempotency-Key"), &calls[1].body)
        );
        assert_eq!(play.the_run().await.status, RunStatus::Completed);
    });
}

const ONE_AT_A_TIME: &str = r#"    concurrency: { key: "{{ $.repo }}", limit: 1 }
    steps: [{ name: a, url: http://a/ }, { name: w, type: wait, seconds: 60 }, { name: b, url: "http://b/{{ $$.input.n }}" }]
"#;

#[tokio::test]
async fn runs_with_the_same_key_take_turns() {
    in_every_way!(&text(ONE_AT_A_TIME), |play: Play| async move {
        for (repo, n) in [("x", 1), ("x", 2), ("y", 3), ("x", 4)] {
            play.send("app", "x", &json!({ "repo": repo, "n": n }).to_string()).await;
        }
        let statuses: Vec<RunStatus> =
            play.runs().await.into_iter().map(|run| run.status).collect();
        let queued = statuses.iter().filter(|status| **status == RunStatus::Queued).count();
        assert_eq!((queued, play.called().len()), (2, 2), "{statuses:?}");
        assert_eq!(play.engine.fsck().await.unwrap().faults, Vec::new());
        for _ in 0..3 {
            play.advance(Duration::from_secs(60)).await;
        }
        let last: Vec<String> =
            play.called().into_iter().filter(|to| to.starts_with("b/")).collect();
        assert_eq!(last, ["b/1", "b/3", "b/2", "b/4"], "in the order in which they came");
        assert!(play.runs().await.iter().all(|run| run.status == RunStatus::Completed));
    });
}

#[tokio::test]
async fn one_run_too_many_is_refused_or_takes_the_place_of_another() {
    for (on_limit, expected) in [
        ("skip", [RunStatus::Running, RunStatus::Cancelled, RunStatus::Cancelled]),
        ("cancel_running", [RunStatus::Cancelled, RunStatus::Cancelled, RunStatus::Running]),
        ("replace_queued", [RunStatus::Running, RunStatus::Cancelled, RunStatus::Queued]),
    ] {
        let text =
            text(&ONE_AT_A_TIME.replace("limit: 1", &format!("limit: 1, on_limit: {on_limit}")));
        in_every_way!(&text, |play: Play| async move {
            for n in 1..=3 {
                play.send("app", "x", &json!({ "repo": "x", "n": n }).to_string()).await;
            }
            let statuses: Vec<RunStatus> =
                play.runs().await.into_iter().map(|run| run.status).collect();
            assert_eq!(statuses, expected, "{on_limit}");
            for _ in 0..3 {
                play.advance(Duration::from_secs(60)).await;
            }
            assert!(play.runs().await.iter().all(|run| run.status.is_closed()), "{on_limit}");
        });
    }
}

#[tokio::test]
async fn a_run_that_waits_for_its_turn_can_be_called_off_and_redriven() {
    in_every_way!(&text(ONE_AT_A_TIME), |play: Play| async move {
        for n in 1..=3 {
            play.send("app", "x", &json!({ "repo": "x", "n": n }).to_string()).await;
        }
        let second = play.runs().await[1].id;
        play.engine.cancel_run(second).await.unwrap();
        play.work().await;
        for _ in 0..2 {
            play.advance(Duration::from_secs(60)).await;
        }
        let last: Vec<String> =
            play.called().into_iter().filter(|to| to.starts_with("b/")).collect();
        assert_eq!(last, ["b/1", "b/3"]);
        assert!(matches!(
            play.engine.redrive_run(second, &RedriveOptions::default()).await,
            Err(OperateError::Refused(_))
        ));
    });
}

#[tokio::test]
async fn a_redrive_goes_on_from_a_step_with_a_payload() {
    let text = text(
        r#"    steps:
      - { name: a, url: http://a/, result_path: "$.a" }
      - { name: b, url: http://b/, result_path: "$.b" }
      - { name: c, url: http://c/ }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("c/", vec![status(500), status(500), ok("{}")]);
        play.send("app", "x", r#"{"k": 1}"#).await;
        let id = play.the_run().await.id;
        let from_b = RedriveOptions { from: Some("b".to_owned()), ..RedriveOptions::default() };
        play.engine.redrive_run(id, &from_b).await.unwrap();
        play.work().await;
        assert_eq!(play.called(), ["a/", "b/", "c/", "b/", "c/"]);
        let calls = play.calls();
        assert_eq!(calls[3].json(), calls[1].json(), "with the payload that it had");
        assert_ne!(
            calls[3].header("Idempotency-Key"),
            calls[1].header("Idempotency-Key"),
            "it is another operation"
        );
        let with = RedriveOptions {
            payload: Some(r#"{"mended": true}"#.into()),
            ..RedriveOptions::default()
        };
        play.engine.redrive_run(id, &with).await.unwrap();
        play.work().await;
        assert_eq!(play.calls()[5].json(), json!({ "mended": true }));
        assert_eq!(play.the_run().await.status, RunStatus::Completed);
        let unknown = RedriveOptions { from: Some("z".to_owned()), ..RedriveOptions::default() };
        assert!(play.engine.redrive_run(id, &unknown).await.is_err());
    });
}

#[tokio::test]
async fn a_redrive_on_the_latest_definition_needs_everything_that_was_done() {
    let first = text(
        "    steps: [{ name: a, url: http://a/, result_path: \"$.a\" }, \
         { name: b, url: http://b/ }]\n",
    );
    in_every_way!(&first, |play: Play| async move {
        play.script("b/", vec![status(500), ok("{}")]);
        play.send("app", "x", "{}").await;
        let id = play.the_run().await.id;
        let latest = RedriveOptions { latest: true, ..RedriveOptions::default() };
        let other = play
            .again(&text("    steps: [{ name: z, url: http://z/ }, { name: b, url: http://b/ }]\n"))
            .await;
        let refused = other.engine.redrive_run(id, &latest).await.unwrap_err();
        assert!(
            matches!(&refused, OperateError::Refused(why) if why.contains("no longer has the step 'a'")),
            "{refused:?}"
        );
        let mended = "    steps: [{ name: a, url: http://a/ }, \
            { name: b, url: http://b/, headers: { X-New: yes } }, { name: c, url: http://c/ }]\n";
        let other = play.again(&text(mended)).await;
        other.engine.redrive_run(id, &latest).await.unwrap();
        other.work().await;
        assert_eq!(other.called(), ["a/", "b/", "b/", "c/"]);
        assert_eq!(other.calls()[2].header("X-New"), Some("yes"));
        assert_eq!(other.the_run().await.status, RunStatus::Completed);
    });
}

const APPROVAL: &str = r#"    steps:
      - name: ask
        type: approval
        approvers: [ada, grace]
        timeout: 1h
        notify: { url: http://chat/ }
        result_path: "$.decision"
        catch: [{ errors: [rejected], goto: no }, { errors: [approval_timeout], goto: late }]
      - { name: yes, url: http://yes/, end: true }
      - { name: no, url: http://no/, end: true }
      - { name: late, url: http://late/ }
"#;

fn decision(approved: bool, by: Option<&str>) -> Decision {
    Decision { approved, by: by.map(str::to_owned), comment: Some("because".to_owned()) }
}

#[tokio::test]
async fn a_decision_is_taken_from_whoever_may_by_token_or_by_name() {
    in_every_way!(&text(APPROVAL), |play: Play| async move {
        play.send("app", "x", r#"{"k": 1}"#).await;
        let told = play.calls()[0].json();
        let link = told["approve_url"].as_str().unwrap();
        assert!(link.starts_with("https://hooks.example.com/approve/"), "{told}");
        let token = play.token();
        let asked = play.engine.pending_approval(&token).await.unwrap();
        assert_eq!(
            (asked.workflow.as_str(), asked.step.as_str(), asked.approvers.len()),
            ("w", "ask", 2)
        );
        let answer = |text: &str| Answer::Done(Body::new(text.as_bytes().to_vec()));
        let stranger =
            play.engine.answer(&token, &answer(r#"{"approved": true, "by": "mallory"}"#)).await;
        assert!(
            matches!(stranger, Err(NotAnswered::OperateError(OperateError::Refused(_)))),
            "{stranger:?}"
        );
        play.engine
            .answer(&token, &answer(r#"{"approved": true, "by": "ada", "comment": "go"}"#))
            .await
            .unwrap();
        play.work().await;
        let decided = play.calls()[1].json();
        assert_eq!(
            (&decided["k"], &decided["decision"]["approved"], &decided["decision"]["by"]),
            (&json!(1), &json!(true), &json!("ada"))
        );
        assert!(matches!(
            play.engine.pending_approval(&token).await,
            Err(OperateError::Refused(_))
        ));

        play.send("app", "x", "{}").await;
        let run = last(&play).await;
        assert!(play.engine.decide_step(run.id, "ask", &decision(true, None)).await.is_err());
        play.engine.decide_step(run.id, "ask", &decision(false, Some("grace"))).await.unwrap();
        play.work().await;
        assert_eq!(play.called().last().map(String::as_str), Some("no/"));
        let why = play.calls().last().unwrap().json()["error"].clone();
        assert_eq!(why, "rejected by grace: because");

        play.send("app", "x", "{}").await;
        play.advance(Duration::from_secs(3600)).await;
        assert_eq!(play.called().last().map(String::as_str), Some("late/"));
    });
}

#[tokio::test]
async fn a_heartbeat_puts_off_the_end_of_patience_and_silence_ends_it() {
    let text = text(
        r#"    steps:
      - { name: job, type: callback, url: http://job/, callback_timeout: 1d, heartbeat: 60, catch: [{ errors: [heartbeat_timeout], goto: dead }] }
      - { name: alive, url: http://alive/, end: true }
      - { name: dead, url: http://dead/ }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.send("app", "x", "{}").await;
        let token = play.token();
        for _ in 0..5 {
            play.advance(Duration::from_secs(50)).await;
            play.engine.answer(&token, &Answer::Heartbeat).await.unwrap();
        }
        assert_eq!(play.called(), ["job/"]);
        play.advance(Duration::from_secs(60)).await;
        assert_eq!(play.called(), ["job/", "dead/"]);
        assert!(matches!(
            play.engine.answer(&token, &Answer::Heartbeat).await,
            Err(NotAnswered::Gone)
        ));
    });
}

#[tokio::test]
async fn a_heartbeat_that_nobody_asked_for_is_welcome_while_the_step_waits() {
    let text = text("    steps: [{ name: job, type: callback, url: http://job/ }]\n");
    in_every_way!(&text, |play: Play| async move {
        play.send("app", "x", "{}").await;
        let token = play.token();
        assert!(!play.engine.answer(&token, &Answer::Heartbeat).await.unwrap().duplicate);
        play.engine.answer(&token, &Answer::Done(Body::new(b"1".to_vec()))).await.unwrap();
        assert!(matches!(
            play.engine.answer(&token, &Answer::Heartbeat).await,
            Err(NotAnswered::Gone)
        ));
    });
}

#[tokio::test]
async fn a_call_that_is_given_up_with_its_run_is_told_of() {
    let text = text("    steps: [{ name: a, url: http://a/, retry: { max: 3, interval: 1h } }]\n");
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![status(500)]);
        play.send("app", "x", "{}").await;
        let run = play.the_run().await;
        play.engine.cancel_run(run.id).await.unwrap();
        let kinds: Vec<String> =
            play.history(run.id).await.into_iter().map(|entry| entry.kind).collect();
        assert!(kinds.contains(&"CallAbandoned".to_owned()), "{kinds:?}");
    });
}

#[tokio::test]
async fn runs_are_kept_as_long_as_their_workflow_says() {
    let text = text("    retention: { failed: 30d }\n    steps: [{ name: a, url: http://a/ }]\n");
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![ok("{}"), status(400)]);
        play.send("app", "x", "{}").await;
        play.send("app", "x", "{}").await;
        assert_eq!(play.runs().await.len(), 2);
        let store = play.engine.store();
        let retention = Retention::of(Duration::from_secs(72 * 3600));
        play.fresh.clock.advance(Duration::from_secs(73 * 3600));
        store.prune(&retention, &OldestKept::default(), None, 100).await.unwrap();
        let left = play.runs().await;
        assert_eq!(left.iter().map(|run| run.status).collect::<Vec<_>>(), [RunStatus::Failed]);
        play.fresh.clock.advance(Duration::from_secs(30 * 86_400));
        store.prune(&retention, &OldestKept::default(), None, 100).await.unwrap();
        assert!(play.runs().await.is_empty());
    });
}

#[tokio::test]
async fn a_payload_is_what_the_last_step_left() {
    let text = text("    steps: [{ name: a, url: http://a/, result_path: \"$.a\" }]\n");
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![ok("1")]);
        play.send("app", "x", r#"{"k": 1}"#).await;
        let output = play.the_run().await.state.output.map(Payload::into_value);
        assert_eq!(output, Some(json!({ "k": 1, "a": 1 })));
    });
}

#[tokio::test]
async fn a_redriven_callback_tells_its_new_token_under_a_new_key() {
    let text = text(
        "    steps: [{ name: job, type: callback, url: http://job/ }, \
         { name: after, url: http://after/ }]\n",
    );
    in_every_way!(&text, |play: Play| async move {
        play.send("app", "x", "{}").await;
        play.engine.answer(&play.token(), &Answer::Failed("no".to_owned())).await.unwrap();
        let id = play.the_run().await.id;
        play.engine.redrive_run(id, &RedriveOptions::default()).await.unwrap();
        play.work().await;
        let calls = play.calls();
        assert_ne!(
            calls[0].header("X-Tidehook-Callback-Token"),
            calls[1].header("X-Tidehook-Callback-Token")
        );
        assert_ne!(
            calls[0].header("Idempotency-Key"),
            calls[1].header("Idempotency-Key"),
            "other bytes are another operation"
        );
        play.engine.answer(&play.token(), &Answer::Done(Body::new(b"{}".to_vec()))).await.unwrap();
        play.work().await;
        assert_eq!(play.the_run().await.status, RunStatus::Completed);
    });
}

#[tokio::test]
async fn a_redrive_does_not_jump_ahead_of_what_was_done_without_a_payload() {
    let text = text(
        "    steps: [{ name: build, url: http://build/ }, { name: test, url: http://test/ }, \
         { name: ship, url: http://ship/ }]\n",
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("test/", vec![status(500)]);
        play.send("app", "x", "{}").await;
        let id = play.the_run().await.id;
        let ship = RedriveOptions { from: Some("ship".to_owned()), ..RedriveOptions::default() };
        let refused = play.engine.redrive_run(id, &ship).await.unwrap_err();
        assert!(
            matches!(&refused, OperateError::Refused(why) if why.contains("'ship' was never entered")),
            "{refused:?}"
        );
        play.engine
            .redrive_run(id, &RedriveOptions { payload: Some("{}".into()), ..ship })
            .await
            .unwrap();
        play.work().await;
        assert_eq!(play.called(), ["build/", "test/", "ship/"]);
    });
}

#[tokio::test]
async fn a_failure_without_a_name_does_not_have_that_of_an_earlier_one() {
    let text = text(
        r#"    steps:
      - { name: a, url: http://a/, error_path: "$.code", catch: [{ errors: [all], goto: b }] }
      - { name: b, url: http://b/, catch: [{ errors: [all], goto: c }] }
      - { name: c, url: http://c/ }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![Reply::Status(500, r#"{"code": "nope"}"#.to_owned())])
            .script("b/", vec![status(503)]);
        play.send("app", "x", "{}").await;
        let calls = play.calls();
        assert_eq!(calls[1].json()["error_name"], "nope");
        assert_eq!(
            (&calls[2].json()["failed_step"], calls[2].json().get("error_name")),
            (&json!("b"), None)
        );
    });
}

#[tokio::test]
async fn a_run_that_is_late_says_where_it_stood() {
    let text = text(
        "    timeout: 60\n    steps: \
         [{ name: job, type: callback, url: http://job/, callback_timeout: 50 }, \
         { name: rest, type: wait, seconds: 3600 }]\n",
    );
    in_every_way!(&text, |play: Play| async move {
        play.send("app", "x", "{}").await;
        play.engine.answer(&play.token(), &Answer::Done(Body::new(b"{}".to_vec()))).await.unwrap();
        play.advance(Duration::from_secs(61)).await;
        let error = play.the_run().await.error.unwrap();
        assert_eq!(
            (error.class.as_str(), error.step.as_deref()),
            ("workflow_timeout", Some("rest"))
        );
    });
}

#[tokio::test]
async fn an_instant_that_nobody_waits_for_any_more_is_no_dead_job() {
    let text = text("    timeout: 60\n    steps: [{ name: a, url: http://a/ }]\n");
    in_every_way!(&text, |play: Play| async move {
        play.send("app", "x", "{}").await;
        let jobs = play.engine.store().jobs(&JobFilter::default(), PAGE).await.unwrap();
        assert!(jobs.len() == 3 && jobs.iter().all(|job| job.state == JobState::Done), "{jobs:?}");
    });
}
