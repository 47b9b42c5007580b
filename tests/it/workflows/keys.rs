//! The keys of calls and of data flow: what each of them does.

use std::time::Duration;

use serde_json::{Value, json};
use tidehook::model::{Payload, Run, RunStatus};

use super::play::{Play, Reply, ok, status};
use crate::in_every_way;

const SOURCE: &str = "sources: { app: { type: event }, other: { type: event, schema: '{\"properties\":{\"id\":{\"type\":\"integer\"}}}' } }\n\
    server: { allow_private_urls: true, public_url: \"https://hooks.example.com\" }\n\
    delivery: { default_retry: { max: 2, interval: 10s, jitter: 0 } }\n";

fn text(steps: &str) -> String {
    format!("{SOURCE}workflows:\n  w:\n    source: app\n    events: [x]\n{steps}")
}

fn output(run: &Run) -> Value {
    run.state.output.clone().map_or(Value::Null, Payload::into_value)
}

fn answer(code: u16, body: &str) -> Reply {
    Reply::Status(code, body.to_owned())
}

#[tokio::test]
async fn placeholders_stand_in_urls_queries_and_headers() {
    let text = text(
        r#"    steps:
      - name: a
        method: GET
        url: "http://a/repos/{{ $.name }}/builds"
        query: { dry: "false", who: "{{ $.who }}" }
        headers: { X-Who: "{{ $.who }}" }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.send("app", "x", r#"{"name": "a/b c", "who": "ada & co"}"#).await;
        assert_eq!(play.called(), ["a/repos/a%2Fb%20c/builds?dry=false&who=ada+%26+co"]);
        assert_eq!(play.calls()[0].header("X-Who"), Some("ada & co"));
        // What has no value, and what would change what is called, fails the step with its class.
        for (body, what) in [
            (r#"{"who": "x"}"#, "`$.name` has no value"),
            (r#"{"name": "..", "who": "x"}"#, "`..` is not allowed in a URL"),
            (r#"{"name": "", "who": "x"}"#, "a placeholder in the URL is empty"),
            (r#"{"name": "n", "who": "a\r\nX-Other: b"}"#, "line breaks"),
        ] {
            play.send("app", "x", body).await;
            let error = play.runs().await.into_iter().next_back().unwrap().error.unwrap();
            assert_eq!(error.class, "template", "{body}");
            assert!(error.message.contains(what), "{}", error.message);
        }
        assert_eq!(play.called().len(), 1, "none of them was sent");
    });
}

#[tokio::test]
async fn a_payload_with_a_key_of_the_stores_own_numbers_does_no_harm() {
    let text = text("    steps: [{ name: a, url: \"http://a/\" }]\n");
    in_every_way!(&text, |play: Play| async move {
        let hostile = [
            r#"{"k": {"$serde_json::private::Number": "hello"}}"#,
            r#"{"$serde_json::private::Number": "17"}"#,
            r#"{"k": [{"$serde_json::private::RawValue": "{"}]}"#,
            r#"{"k": {"\u0024serde_json::private::Number": "17"}}"#,
        ];
        for body in hostile {
            play.send("app", "x", body).await;
        }
        // An answer of a step is stored as well.
        play.script("a/", hostile.map(ok).into());
        play.send("app", "x", r#"{"n": 1}"#).await;
        let runs = play.runs().await;
        assert_eq!(runs.len(), hostile.len() + 1);
        for (run, body) in runs.iter().zip(hostile) {
            assert!(run.finished_at.is_some(), "{body}");
            let Payload::Unreadable { text, why } = &run.state.input else {
                panic!("{body}: {:?}", run.state.input)
            };
            assert_eq!(text, body, "it is kept as it came");
            assert!(why.contains("$serde_json::private::"), "{why}");
        }
        assert_eq!(runs[hostile.len()].state.input.clone().into_value(), json!({ "n": 1 }));
        assert!(runs[hostile.len()].finished_at.is_some());
    });
}

#[tokio::test]
async fn a_whole_url_from_the_payload_is_judged_when_it_is_called() {
    let text = text("    steps: [{ name: a, url: \"{{ $.url }}\" }]\n")
        .replace("allow_private_urls: true, ", "");
    in_every_way!(&text, |play: Play| async move {
        play.send("app", "x", r#"{"url": "https://shop.example.com/hook"}"#).await;
        assert_eq!(play.called(), ["shop.example.com/hook"]);
        for url in [
            "http://127.0.0.1/",
            "http://169.254.169.254/latest",
            "ftp://a.example.com/",
            "https://u:p@a.example.com/",
        ] {
            play.send("app", "x", &json!({ "url": url }).to_string()).await;
            let error = play.runs().await.into_iter().next_back().unwrap().error.unwrap();
            assert_eq!(error.class, "ssrf_blocked", "{url}: {}", error.message);
        }
        assert_eq!(play.called().len(), 1);
    });
}

#[tokio::test]
async fn variables_are_set_and_read_and_a_run_comes_to_its_output() {
    let text = text(
        r#"    output: { image: "{{ $$.vars.image }}", first: "{{ $$.input.id }}" }
    steps:
      - { name: build, url: http://ci/, assign: { image: "{{ $$.response.body.image }}", status: "{{ $$.response.status }}" } }
      - { name: note, type: set, assign: { twice: "{{ $$.vars.status }}" } }
      - { name: tell, url: http://tell/, body: { image: "{{ $$.vars.image }}", status: "{{ $$.vars.twice }}" } }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("ci/", vec![answer(201, r#"{"image": "i:1"}"#)]);
        play.send("app", "x", r#"{"id": 7}"#).await;
        assert_eq!(play.calls()[1].json(), json!({ "image": "i:1", "status": 201 }));
        assert_eq!(output(&play.the_run().await), json!({ "image": "i:1", "first": 7 }));
    });
}

#[tokio::test]
async fn the_context_tells_of_the_event_and_of_steps() {
    let text = text(
        r#"    steps:
      - { name: a, url: http://a/, result_path: "$.a", result: { n: "{{ $.n }}" } }
      - { name: b, url: http://b/, body: { type: "{{ $$.event.type }}", source: "{{ $$.event.source }}", n: "{{ $$.steps.a.output.n }}",
          status: "{{ $$.steps.a.response.status }}", visits: "{{ $$.steps.a.visits }}", run: "{{ $$.run.workflow }}" } }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![ok(r#"{"n": 3, "more": true}"#)]);
        play.send("app", "x", "{}").await;
        let told =
            json!({ "type": "x", "source": "app", "n": 3, "status": 200, "visits": 1, "run": "w" });
        assert_eq!(play.calls()[1].json(), told);
    });
}

#[tokio::test]
async fn a_list_of_retry_policies_counts_each_kind_of_failure_by_itself() {
    let text = text(
        r#"    steps:
      - name: a
        url: http://a/
        retry:
          - { errors: [429], max: 3, interval: 1s, jitter: none }
          - { errors: [5xx, timeout], max: 2, interval: 20s, backoff: fixed, jitter: none }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![status(429), status(503), status(429), status(429)]);
        play.send("app", "x", "{}").await;
        for seconds in [1, 20, 1, 60] {
            play.advance(Duration::from_secs(seconds)).await;
        }
        assert_eq!(play.called().len(), 4, "three of the first kind, one of the second");
        assert_eq!(play.the_run().await.error.unwrap().status, Some(429));
        // A failure that no policy lists is not tried again.
        play.script("a/", vec![status(404)]);
        play.send("app", "x", "{}").await;
        play.advance(Duration::from_secs(600)).await;
        assert_eq!(play.called().len(), 5);
    });
}

#[tokio::test]
async fn a_workflow_has_a_retry_policy_for_its_steps_and_a_policy_a_deadline() {
    let text = text(
        r#"    retry: { max: 5, interval: 10s, rate: 1, jitter: none, deadline: 25s }
    steps: [{ name: a, url: http://a/ }]
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![status(500)]);
        play.send("app", "x", "{}").await;
        for _ in 0..6 {
            play.advance(Duration::from_secs(10)).await;
        }
        assert_eq!(play.called().len(), 3, "at 0, 10 and 20 seconds; 30 would be too late");
        assert_eq!(play.the_run().await.status, RunStatus::Failed);
    });
}

#[tokio::test]
async fn the_receivers_own_name_of_a_failure_is_caught() {
    let text = text(
        r#"    steps:
      - name: a
        url: http://a/
        retry: { max: 2, interval: 1s, jitter: none, errors: ["app:busy"] }
        catch: [{ errors: ["app:no_money"], goto: poor }]
      - { name: rich, url: http://rich/, end: true }
      - { name: poor, url: http://poor/ }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script(
            "a/",
            vec![
                answer(409, r#"{"error": {"code": "busy"}}"#),
                answer(402, r#"{"error": {"code": "no_money"}}"#),
            ],
        );
        play.send("app", "x", "{}").await;
        play.advance(Duration::from_secs(1)).await;
        assert_eq!(play.called(), ["a/", "a/", "poor/"]);
        assert_eq!(play.calls()[2].json()["error_name"], "no_money");
    });
}

#[tokio::test]
async fn an_answer_that_is_not_as_expected_is_a_failure() {
    let text = text(
        r#"    steps:
      - name: a
        url: http://a/
        expect: { status: [200-299, 409], when: "$.ok == true" }
        retry: { max: 1 }
        catch: [{ errors: [expectation], goto: odd, result_path: "$.failure" }]
      - { name: fine, url: http://fine/, end: true }
      - { name: odd, url: http://odd/ }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![answer(409, r#"{"ok": true}"#)]);
        play.send("app", "x", "{}").await;
        play.script("a/", vec![answer(200, r#"{"ok": false}"#)]);
        play.send("app", "x", r#"{"k": 1}"#).await;
        assert_eq!(play.called(), ["a/", "fine/", "a/", "odd/"]);
        let told = play.calls()[3].json();
        assert_eq!(
            (&told["k"], &told["failure"]["error_type"], &told["failure"]["status"]),
            (&json!(1), &json!("expectation"), &json!(200))
        );
    });
}

#[tokio::test]
async fn a_response_is_read_as_the_step_says() {
    let text = text(
        r#"    steps:
      - { name: a, url: http://a/, response: text, result_path: "$.a" }
      - { name: b, url: http://b/, response: json, retry: { max: 1 } }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![ok("17 \n")]).script("b/", vec![ok("no json")]);
        play.send("app", "x", "{}").await;
        let run = play.the_run().await;
        assert_eq!(run.error.unwrap().class, "invalid_response");
        assert_eq!(run.state.steps["a"].output, json!("17 \n"));
    });
}

#[tokio::test]
async fn a_step_that_polls_asks_again_until_the_answer_is_there() {
    let text = text(
        r#"    steps:
      - name: a
        method: GET
        url: "http://a/build/{{ $.id }}"
        poll: { until: "$.status in [done, failed]", every: 10s, max: 4 }
        catch: [{ errors: [timeout], goto: late }]
      - { name: b, url: http://b/, end: true }
      - { name: late, url: http://late/ }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script(
            "a/build/7",
            vec![
                ok(r#"{"status": "new"}"#),
                ok(r#"{"status": "busy"}"#),
                ok(r#"{"status": "done"}"#),
            ],
        );
        play.send("app", "x", r#"{"id": 7}"#).await;
        assert_eq!(play.called().len(), 1);
        play.advance(Duration::from_secs(9)).await;
        assert_eq!(play.called().len(), 1, "not before its time");
        play.advance(Duration::from_secs(1)).await;
        play.advance(Duration::from_secs(10)).await;
        assert_eq!(play.called(), ["a/build/7", "a/build/7", "a/build/7", "b/"]);
        let keys: std::collections::BTreeSet<String> = play.calls()[..3]
            .iter()
            .map(|call| call.header("Idempotency-Key").unwrap().to_owned())
            .collect();
        assert_eq!(keys.len(), 3, "each question has a key of its own");
        play.script("a/build/8", vec![ok(r#"{"status": "busy"}"#)]);
        play.send("app", "x", r#"{"id": 8}"#).await;
        for _ in 0..5 {
            play.advance(Duration::from_secs(10)).await;
        }
        assert_eq!(play.called().iter().filter(|to| *to == "a/build/8").count(), 4);
        assert_eq!(play.called().last().map(String::as_str), Some("late/"));
    });
}

#[tokio::test]
async fn the_key_of_a_call_is_what_the_step_says() {
    let text = text(
        r#"    steps:
      - { name: visit, url: http://visit/, retry: { max: 2, interval: 1s } }
      - { name: attempt, url: http://attempt/, idempotency: attempt, retry: { max: 2, interval: 1s } }
      - { name: none, url: http://none/, idempotency: none }
      - { name: own, url: http://own/, idempotency: "order-{{ $$.input.id }}" }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        for to in ["visit/", "attempt/"] {
            play.script(to, vec![status(500), ok("{}")]);
        }
        play.send("app", "x", r#"{"id": 7}"#).await;
        play.advance(Duration::from_secs(5)).await;
        play.advance(Duration::from_secs(5)).await;
        let calls = play.calls();
        let key = |n: usize| calls[n].header("Idempotency-Key");
        assert_eq!(key(0), key(1));
        assert_ne!(key(2), key(3));
        assert_eq!((key(4), key(5)), (None, Some("order-7")));
    });
}

#[tokio::test]
async fn what_may_have_arrived_is_not_sent_twice_where_the_step_says_so() {
    let text = text(
        r#"    steps:
      - { name: pay, url: http://pay/, delivery: at_most_once, catch: [{ errors: [timeout], goto: ask }] }
      - { name: done, url: http://done/, end: true }
      - { name: ask, url: http://ask/ }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("pay/", vec![Reply::TimesOut]);
        play.send("app", "x", "{}").await;
        play.advance(Duration::from_secs(600)).await;
        assert_eq!(play.called(), ["pay/", "ask/"]);
    });
}

#[tokio::test]
async fn what_is_kept_of_a_call_is_what_the_step_says() {
    let text = text(
        r#"    steps:
      - { name: a, url: http://a/, redact: ["$.card.number"] }
      - { name: b, url: http://b/, log: metadata }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("a/", vec![ok(r#"{"card": {"number": "4242", "name": "ada"}}"#)])
            .script("b/", vec![ok(r#"{"secret": 1}"#)]);
        play.send("app", "x", "{}").await;
        let filter = tidehook::store::JobFilter::default();
        let jobs = play
            .engine
            .store()
            .jobs(&filter, tidehook::store::Page { limit: 100, newest_first: false })
            .await
            .unwrap();
        let mut kept = Vec::new();
        for job in jobs {
            let attempts = play.engine.store().attempts(job.id).await.unwrap();
            kept.extend(
                attempts.into_iter().map(|a| {
                    (job.target.name().to_owned(), String::from_utf8(a.response).unwrap())
                }),
            );
        }
        kept.sort();
        assert_eq!(
            kept,
            [
                ("w/a".to_owned(), r#"{"card":{"number":"***","name":"ada"}}"#.to_owned()),
                ("w/b".to_owned(), String::new()),
            ]
        );
    });
}

#[tokio::test]
async fn an_emitted_event_starts_what_listens_to_it_once() {
    let text = text(
        r#"    steps:
      - { name: tell, type: emit, source: other, event: done, body: { id: "{{ $.id }}", at: "{{ $$.run.workflow }}" } }
      - { name: after, url: http://after/ }
handlers:
  h: { source: other, events: [done], url: http://h/ }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.send("app", "x", r#"{"id": 7}"#).await;
        let mut calls: Vec<(String, Value)> =
            play.calls().into_iter().map(|call| (call.to.clone(), call.json())).collect();
        calls.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(
            calls,
            [
                ("after/".to_owned(), json!({ "id": 7 })),
                ("h/".to_owned(), json!({ "id": 7, "at": "w" })),
            ]
        );
        // What the other source would refuse from outside is refused from here too.
        play.send("app", "x", "[]").await;
        let run = play.runs().await.into_iter().next_back().unwrap();
        let error = run.error.unwrap();
        assert!(
            error.class == "template" && error.message.contains("the schema of source `other`"),
            "{error:?}"
        );
    });
}

#[tokio::test]
async fn a_map_tolerates_a_share_of_its_items_and_calls_workflows() {
    let text = format!(
        "{SOURCE}workflows:\n{}",
        r#"  w:
    source: app
    events: [x]
    steps:
      - { name: m, type: map, items: "{{ $.items }}", tolerated_failure_percent: 50, workflow: one }
  one:
    callable: true
    steps: [{ name: call, url: http://one/, retry: { max: 1 } }]
"#
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("one/", vec![ok("1"), status(500), ok("3"), status(500)]);
        play.send("app", "x", r#"{"items": [1, 2, 3, 4]}"#).await;
        let runs = play.runs().await;
        let top = runs.iter().find(|run| run.parent.is_none()).unwrap();
        assert_eq!(top.status, RunStatus::Completed, "{:?}", top.error);
        let results = output(top);
        let failed = results
            .as_array()
            .unwrap()
            .iter()
            .filter(|item| item["error_type"] == "workflow_failed")
            .count();
        assert_eq!(failed, 2, "{results}");
    });
}

#[tokio::test]
async fn a_run_that_failed_is_run_again_where_its_step_says_so() {
    let text = format!(
        "{SOURCE}workflows:\n{}",
        r#"  w:
    source: app
    events: [x]
    steps: [{ name: sub, type: workflow, workflow: one, retry: { max: 3, interval: 30s, jitter: none } }]
  one:
    callable: true
    steps: [{ name: call, url: http://one/, retry: { max: 1 } }]
"#
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("one/", vec![status(500), ok(r#"{"n": 2}"#)]);
        play.send("app", "x", "{}").await;
        assert_eq!(play.called().len(), 1);
        play.advance(Duration::from_secs(30)).await;
        let runs = play.runs().await;
        let top = runs.iter().find(|run| run.parent.is_none()).unwrap();
        assert_eq!((top.status, output(top)), (RunStatus::Completed, json!({ "n": 2 })));
        assert_eq!(runs.len(), 3, "the workflow, and two runs of the other one");
    });
}

#[tokio::test]
async fn each_attempt_sends_the_same_bytes_although_other_items_set_variables_meanwhile() {
    let text = text(
        r#"    steps:
      - name: fan
        type: map
        items: "{{ $.items }}"
        max_concurrency: 2
        steps:
          - { name: a, url: http://a/, assign: { v: "{{ $$.item.value }}" } }
          - { name: b, url: http://b/, body: { v: "{{ $$.vars.v }}", item: "{{ $$.item.value }}" }, retry: { max: 2, interval: 10s, jitter: none } }
"#,
    );
    in_every_way!(&text, |play: Play| async move {
        play.script("b/", vec![status(500), status(500), ok("{}")]);
        play.send("app", "x", r#"{"items": ["x", "y"]}"#).await;
        play.advance(Duration::from_secs(10)).await;
        let mut sent: std::collections::BTreeMap<String, Vec<String>> =
            std::collections::BTreeMap::new();
        for call in play.calls().into_iter().filter(|call| call.to == "b/") {
            sent.entry(call.header("Idempotency-Key").unwrap().to_owned())
                .or_default()
                .push(call.body.clone());
        }
        assert_eq!(sent.values().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
        assert!(sent.values().all(|bodies| bodies[0] == bodies[1]), "{sent:#?}");
        assert_eq!(play.the_run().await.status, RunStatus::Completed);
    });
}
