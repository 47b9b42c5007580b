//! The routes as their callers see them: statuses, bodies, headers.

use serde_json::json;

use crate::support::stores::Kind;
use crate::support::world::{Runtime, World};

const CONFIG: &str = r#"
server: { allow_private_urls: true, max_body_size: 1000 }
api: { auth_token: plainly-fictional }
sources:
  github: { type: webhook, verify: github, secret: "It's a Secret to Everybody" }
  open: { type: webhook, verify: none }
  app: { type: event }
  strict: { type: event, schema: '{"type":"object","required":["id"]}' }
  walled: { type: webhook, verify: none, allowed_ips: [192.0.2.0/24] }
  inner: { type: event, allowed_ips: [192.0.2.0/24] }
handlers:
  hello: { source: github, url: "http://{receiver}/ok" }
  orders: { source: app, events: ["order.*"], url: "http://{receiver}/ok", idempotency_key: $.id }
  every: { source: open, url: "http://{receiver}/ok" }
"#;
const TOKEN: (&str, &str) = ("authorization", "Bearer plainly-fictional");

#[tokio::test]
async fn a_signed_webhook_is_accepted_and_a_forged_one_is_not() {
    let world = World::start(CONFIG).await;
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let signed = [
        ("x-hub-signature-256", signature),
        ("x-github-event", "push"),
        ("x-github-delivery", "d-1"),
    ];
    let good = world.post("/webhooks/github", &signed, "Hello, World!").await;
    assert_eq!((good.status, good.json()["jobs_created"].clone()), (200, json!(1)));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("x-api-version", "1"),
    ] {
        assert_eq!(good.headers[name], value);
    }
    let again = world.post("/webhooks/github", &signed, "Hello, World!").await;
    assert_eq!(
        again.json(),
        json!({ "event_id": good.event(), "duplicate": true, "jobs_created": 0, "runs_started": 0 })
    );
    let forged = world.post("/webhooks/github", &signed, "Hello, World?").await;
    let expected = json!({
        "code": "signature_invalid",
        "message": "Invalid signature",
        "error": "Invalid signature",
    });
    assert_eq!((forged.status, forged.json()), (401, expected));
    let unsigned = world.post("/webhooks/github", &[], "Hello, World!").await;
    assert_eq!(unsigned.text, forged.text, "the cause is not told");
    let got = world.receiver.until_count(1).await;
    assert_eq!(got[0].text(), "Hello, World!");
    let rejections = world
        .send(world.http.get(world.url("/api/rejections")).header(TOKEN.0, TOKEN.1))
        .await
        .json();
    let reasons: Vec<_> =
        rejections["rejections"].as_array().unwrap().iter().map(|r| r["reason"].clone()).collect();
    assert_eq!(reasons, [json!("signature_missing"), json!("signature_wrong")]);
}

#[tokio::test]
async fn refusals_have_one_shape_and_the_right_status() {
    let world = World::start(CONFIG).await;
    let long = "x".repeat(1001);
    for (path, headers, body, status, code) in [
        ("/webhooks/nobody", vec![], "{}", 404, "not_found"),
        ("/webhooks/app", vec![], "{}", 404, "not_found"),
        ("/webhooks/walled", vec![], "{}", 403, "forbidden"),
        ("/events/inner/order.created", vec![TOKEN], "{}", 403, "forbidden"),
        ("/webhooks/open", vec![], long.as_str(), 413, "payload_too_large"),
        ("/webhooks/open", vec![("content-encoding", "gzip")], "{}", 415, "unsupported_media_type"),
        ("/events/app/order.created", vec![], "{}", 401, "unauthorized"),
        ("/events/nobody/order.created", vec![], "{}", 401, "unauthorized"),
        (
            "/events/app/order.created",
            vec![("authorization", "Basic plainly-fictional")],
            "{}",
            401,
            "unauthorized",
        ),
        (
            "/events/app/order.created",
            vec![("authorization", "Bearer plainly-fictional ")],
            "{}",
            202,
            "",
        ),
        (
            "/events/app/order.created",
            vec![("authorization", "bearer plainly-fictional")],
            "{}",
            202,
            "",
        ),
        ("/events/app/order.created", vec![TOKEN], long.as_str(), 413, "payload_too_large"),
        ("/events/nobody/order.created", vec![TOKEN], "{}", 404, "not_found"),
        ("/events/open/order.created", vec![TOKEN], "{}", 404, "not_found"),
        ("/events/strict/x", vec![TOKEN], "{}", 422, "validation_error"),
        ("/events/strict/x", vec![TOKEN], "not json", 422, "validation_error"),
        ("/events/strict/x", vec![TOKEN], "{\"id\":1}", 202, ""),
        ("/events/app/a%00b", vec![TOKEN], "{}", 422, "validation_error"),
        ("/nowhere", vec![], "{}", 404, "not_found"),
        ("/webhooks/%2e%2e%2fapi%2fjobs", vec![], "{}", 404, "not_found"),
        ("//api/jobs", vec![], "{}", 404, "not_found"),
        ("/API/jobs", vec![], "{}", 404, "not_found"),
        ("/livez", vec![], "{}", 405, "method_not_allowed"),
        ("/api/jobs/retry", vec![], "", 401, "unauthorized"),
        ("/api/jobs/retry", vec![TOKEN], "", 400, "bad_request"),
        ("/api/jobs/retry?status=happy", vec![TOKEN], "", 400, "bad_request"),
        ("/api/jobs/nonsense/retry", vec![TOKEN], "", 404, "not_found"),
        ("/api/lanes/handler%3Anobody/pause", vec![TOKEN], "", 404, "not_found"),
    ] {
        let answer = world.post(path, &headers, body.to_owned()).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        if !code.is_empty() {
            assert_eq!(answer.code(), code, "{path}");
            assert_eq!(answer.json()["error"], answer.json()["message"], "{path}");
        }
        assert!(answer.headers.contains_key("x-request-id"), "{path}");
    }
    // The server is as well as before.
    assert_eq!(world.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn lists_refuse_what_makes_no_sense() {
    let world = World::start(CONFIG).await;
    for query in [
        "limit=-2",
        "limit=0",
        "limit=1e3",
        "limit=1&limit=2",
        "after=nonsense",
        "since=abc",
        "order=%3Bdrop",
        "tenant_id=x",
        "status=happy",
    ] {
        for route in ["events", "jobs"] {
            let answer = world
                .send(
                    world
                        .http
                        .get(world.url(&format!("/api/{route}?{query}")))
                        .header(TOKEN.0, TOKEN.1),
                )
                .await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (422, "validation_error"),
                "{route}?{query}"
            );
            assert!(answer.json()["details"][0]["field"].is_string());
        }
    }
    let answer = world
        .send(world.http.get(world.url("/api/events?limit=999999999999")).header(TOKEN.0, TOKEN.1))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(world.get("/api/events").await.status, 401);
}

#[tokio::test]
async fn events_and_jobs_are_listed_page_by_page() {
    let world = World::start(CONFIG).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(
            world
                .post("/events/app/order.created", &[TOKEN], format!("{{\"id\":{n}}}"))
                .await
                .event(),
        );
    }
    let get = |path: String| world.send(world.http.get(world.url(&path)).header(TOKEN.0, TOKEN.1));
    let first = get("/api/events?limit=3".into()).await.json();
    assert_eq!(first["has_more"], true);
    let page: Vec<&str> =
        first["events"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap()).collect();
    assert_eq!(page, ids[..3]);
    let rest = get(format!("/api/events?limit=3&after=evt_{}", ids[2])).await.json();
    assert_eq!(
        (rest["has_more"].clone(), rest["events"].as_array().unwrap().len()),
        (json!(false), 2)
    );
    let newest = get("/api/events?limit=1&order=desc".into()).await.json();
    assert_eq!(newest["events"][0]["id"], ids[4].as_str());
    world.receiver.until_count(5).await;
    let done = async {
        while get("/api/jobs?status=completed".into()).await.json()["jobs"]
            .as_array()
            .unwrap()
            .len()
            < 5
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::support::endpoint::PATIENCE, done).await.unwrap();
    let shown = get(format!("/api/events/{}", ids[0])).await.json();
    assert_eq!(shown["payload"], json!({ "id": 0 }));
    assert_eq!(shown["jobs"][0]["handler"], "orders");
    assert_eq!(shown["jobs"][0]["status"], "completed");
    let job = shown["jobs"][0]["id"].as_str().unwrap().to_owned();
    let with = get(format!("/api/jobs/dlv_{job}?include_attempts=true")).await.json();
    assert_eq!(with["attempts"][0]["status_code"], 200);
    assert_eq!(
        get(format!("/api/events/{}/jobs", "0".repeat(26))).await.json(),
        json!({ "jobs": [] })
    );
    assert_eq!(get("/api/events/nonsense".into()).await.status, 404);
    assert_eq!(world.post(&format!("/api/jobs/{job}/cancel"), &[TOKEN], "").await.status, 409);
    assert_eq!(world.post(&format!("/api/jobs/{job}/retry"), &[TOKEN], "").await.status, 409);
}

#[tokio::test]
async fn an_idempotency_key_answers_with_the_first_event_and_refuses_another_body() {
    let world = World::start(CONFIG).await;
    let key = [TOKEN, ("idempotency-key", "k-1")];
    let first = world.post("/events/app/order.created", &key, "{\"id\":1}").await;
    assert_eq!(first.status, 202);
    let again = world.post("/events/app/order.created", &key, "{\"id\":1}").await;
    assert_eq!(
        (again.status, again.event(), again.json()["duplicate"].clone()),
        (202, first.event(), json!(true))
    );
    let other = world.post("/events/app/order.created", &key, "{\"id\":2}").await;
    assert_eq!((other.status, other.code().as_str()), (409, "idempotency_conflict"));
    // A consumer's key counts per event type, whatever the header says.
    let same_id = world.post("/events/app/order.created", &[TOKEN], "{\"id\":1}").await;
    assert_eq!(
        (same_id.event(), same_id.json()["duplicate"].clone()),
        (first.event(), json!(true))
    );
    let other_type = world.post("/events/app/order.paid", &[TOKEN], "{\"id\":1}").await;
    assert_eq!(other_type.json()["jobs_created"], 1);
}

#[tokio::test]
async fn an_event_nobody_wants_is_kept() {
    let world = World::start(CONFIG).await;
    let answer = world.post("/events/app/refund.created", &[TOKEN], "{\"id\":1}").await;
    assert_eq!((answer.status, answer.json()["jobs_created"].clone()), (202, json!(0)));
    let shown = world
        .send(
            world
                .http
                .get(world.url(&format!("/api/events/{}", answer.event())))
                .header(TOKEN.0, TOKEN.1),
        )
        .await;
    assert_eq!(shown.json()["event_type"], "refund.created");
}

#[tokio::test]
async fn cloudevents_name_their_type_in_both_modes() {
    let world = World::start(CONFIG).await;
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-type", "com.example.made"),
        ("ce-id", "7"),
        ("ce-source", "/x"),
    ];
    let event = world.post("/webhooks/open", &binary, "{}").await.event();
    let get = |id: &str| {
        world.send(world.http.get(world.url(&format!("/api/events/{id}"))).header(TOKEN.0, TOKEN.1))
    };
    let shown = get(&event).await.json();
    assert_eq!(
        (shown["event_type"].as_str(), shown["headers"]["ce-id"].as_str()),
        (Some("com.example.made"), Some("7"))
    );
    let structured =
        r#"{"specversion":"1.0","type":"com.example.built","source":"/x","id":"8","data":{"a":1}}"#;
    let headers = [("content-type", "application/cloudevents+json; charset=utf-8")];
    let shown = get(&world.post("/webhooks/open", &headers, structured).await.event()).await.json();
    assert_eq!(
        (shown["event_type"].as_str(), shown["payload"]["data"]["a"].as_i64()),
        (Some("com.example.built"), Some(1))
    );
    // What is signed decides: the header of a verified source does not.
    let got = world.receiver.until_count(2).await;
    assert!(
        got.iter().any(|got| got.header("ce-type") == Some("com.example.made")),
        "in whichever order they came: {got:?}"
    );
}

#[tokio::test]
async fn payloads_are_kept_to_the_byte() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let Some(world) = World::start_as(Runtime::Container(kind), CONFIG).await else {
            continue;
        };
        let bodies: [&[u8]; 12] = [
            b"",
            b"null",
            b"{\"id\":1,\"id\":2,\"big\":9007199254740993,\"e\":1e999,\"z\":-0,\"t\":1.10}",
            b"\xff\xfe\x00{\x00",
            b"{\"a\":\"\\u0000\"}",
            b"a\0b",
            b"\xc0\x80",
            b"{\"a\":1} trailing",
            b"[]",
            b"\"x\"",
            b"   ",
            b"{\"nested\":[[[[[[[[[[[[[[1]]]]]]]]]]]]]]}",
        ];
        for (at, body) in bodies.iter().enumerate() {
            let answer = world.post("/webhooks/open", &[], body.to_vec()).await;
            assert_eq!(answer.status, 200, "{kind:?} {at}: {}", answer.text);
        }
        let got = world.receiver.until_count(bodies.len()).await;
        for body in bodies {
            assert!(
                got.iter().any(|g| g.body == body),
                "{kind:?} {:?}",
                String::from_utf8_lossy(body)
            );
        }
    }
}

#[tokio::test]
async fn deep_nesting_is_delivered_and_never_overflows() {
    let world =
        World::start(&CONFIG.replace("max_body_size: 1000", "max_body_size: 4000000")).await;
    for depth in [127, 128, 10_000, 1_000_000] {
        let body = "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(world.post("/webhooks/open", &[], body.clone()).await.status, 200, "{depth}");
        world
            .receiver
            .until("the nested body", |got| got.iter().any(|g| g.body.len() == body.len()))
            .await;
    }
}

#[tokio::test]
async fn per_address_limits_count_the_address_that_can_be_believed() {
    let text = r#"
server: { ip_rate_limit: 2, trust_proxy: true, echo: true }
sources: { open: { type: webhook, verify: none } }
"#;
    let world = World::start(text).await;
    let from = async |address: &str| {
        world.post("/webhooks/open", &[("x-forwarded-for", address)], "{}").await
    };
    // The left part is the client's invention; the right-most entry is the proxy's.
    let statuses = [
        from("203.0.113.1").await.status,
        from("6.6.6.6, 203.0.113.1").await.status,
        from("7.7.7.7, 203.0.113.1").await.status,
        from("203.0.113.1, 203.0.113.2").await.status,
    ];
    assert_eq!(statuses, [200, 200, 429, 200]);
    let limited = from("203.0.113.1").await;
    assert_eq!(
        (limited.code().as_str(), limited.headers["retry-after"].to_str().unwrap()),
        ("rate_limited", "1")
    );
    assert_eq!(world.get("/livez").await.status, 200, "probes are not counted");
    let echo = world
        .post("/_echo", &[("x-forwarded-for", "203.0.113.9"), ("x-mine", "yes")], "{\"a\":1}")
        .await
        .json();
    assert_eq!(
        (echo["headers"]["x-mine"].as_str(), echo["body"]["a"].as_i64()),
        (Some("yes"), Some(1))
    );
}

#[tokio::test]
async fn health_tells_how_the_work_stands() {
    let text = r#"
server: { allow_private_urls: true }
sources: { app: { type: event } }
handlers: { h: { source: app, url: "http://{receiver}/status/500", retry: { max: 1 } } }
"#;
    let world = World::start(text).await;
    let ok = world.get("/health").await.json();
    assert_eq!(ok, json!({ "status": "ok", "db_healthy": true, "queue_depth": 0, "dead_jobs": 0 }));
    let event = world.post("/events/app/x", &[], "{}").await.event();
    let jobs = world.until_jobs(&event, "dead").await;
    assert_eq!(world.get("/health").await.json()["status"], "degraded");
    let retried = world.post("/api/jobs/retry?status=dead&handler=h", &[], "").await.json();
    assert_eq!(retried, json!({ "retried": 1, "status": "dead", "handler": "h" }));
    world.receiver.until_count(2).await;
    let dead = world.until_jobs(&event, "dead").await;
    assert_eq!(world.attempts(&dead[0]).await.len(), 2, "the history is kept");
    assert_eq!(jobs[0]["last_error"], "HTTP 500");
    assert_eq!(world.get("/livez").await.status, 200);
}

#[tokio::test]
async fn explanations_name_the_first_clause_that_failed_and_what_it_saw() {
    let text = r#"
server: { allow_private_urls: true }
sources:
  github: { type: webhook, verify: github, secret: x }
  app: { type: event }
  strict: { type: event, schema: '{"type":"object","required":["id"]}' }
workflows:
  deploy: { source: strict, params: [{ name: service, required: true }], steps: [{ name: only, type: set, body: 1 }] }
handlers:
  big: { source: app, events: ["order.*"], filter: $.total > 100 && $.paid, url: "http://{receiver}/ok" }
  other: { source: app, events: [refund.created], url: "http://{receiver}/ok" }
  prs: { source: github, events: [opened], url: "http://{receiver}/ok" }
"#;
    let world = World::start(text).await;
    let ask = async |question: serde_json::Value| {
        world.post("/api/explain", &[], question.to_string()).await
    };
    let answer =
        ask(json!({ "source": "app", "event_type": "order.paid", "payload": { "total": 150 } }))
            .await
            .json();
    assert_eq!(
        answer["handlers"][0],
        json!({
            "handler": "big",
            "kind": "handler",
            "matches": false,
            "fails": null,
            "why_not": "`$.paid` is not true: the value is missing",
        })
    );
    assert_eq!(
        answer["handlers"][1]["why_not"],
        "none of its patterns `refund.created` matches `order.paid`"
    );
    assert_eq!((&answer["refused"], &answer["is_json"]), (&json!(null), &json!(true)));
    // What a source refuses, and a run that starts and fails at once.
    let answer = ask(json!({ "source": "strict", "event_type": "x", "payload": {} })).await.json();
    assert!(
        answer["refused"].as_str().unwrap().contains("\"id\" is a required property"),
        "{answer}"
    );
    let answer =
        ask(json!({ "source": "strict", "event_type": "x", "payload": { "id": 1 } })).await.json();
    assert_eq!(
        (&answer["refused"], &answer["handlers"][0]["matches"]),
        (&json!(null), &json!(true))
    );
    assert_eq!(
        answer["handlers"][0]["fails"],
        "workflow 'deploy' missing required param 'service'"
    );
    // A stored event, with the names its provider gives it.
    let event = world.post("/events/app/order.paid", &[], "{\"total\":7}").await.event();
    let stored = ask(json!({ "event_id": event })).await.json();
    assert_eq!(stored["handlers"][0]["why_not"], "`$.total > 100` is not true: the value is 7");
    for (question, status) in [
        (json!({ "event_id": "nonsense" }), 422),
        (json!({ "event_id": "01K00000000000000000000000" }), 404),
        (json!({ "source": "app", "event_type": " " }), 422),
        (json!([]), 422),
        (json!({ "source": "nobody", "event_type": "x" }), 404),
        (json!({ "event_type": "x" }), 422),
        (json!({ "sauce": "app" }), 422),
    ] {
        assert_eq!(ask(question.clone()).await.status, status, "{question}");
    }
    let unread = ask(json!([])).await.json();
    assert!(
        unread["details"][0]["message"].as_str().unwrap().starts_with("expected an object"),
        "{unread}"
    );
    // What was missed at run time is counted by handler and clause.
    let near = world.get("/api/near-misses").await.json();
    assert_eq!(
        near["counts"][0],
        json!({ "handler": "big", "clause": "$.total > 100", "count": 1 })
    );
    assert_eq!(
        (near["last"][1]["saw"].as_str(), near["last"][1]["event_id"].as_str()),
        (Some("7"), Some(event.as_str()))
    );
}

/// A function has nobody who scrapes it: there metrics go to its log, as tests/it/lambda says.
#[tokio::test]
async fn metrics_follow_the_work_and_stay_bounded() {
    let text = r#"
server: { allow_private_urls: true }
api: { metrics_auth_token: plainly-fictional }
sources: { metered: { type: event }, hub: { type: webhook, verify: github, secret: x } }
handlers:
  metered_ok: { source: metered, url: "http://{receiver}/ok" }
  metered_bad: { source: metered, url: "http://{receiver}/status/500", retry: { max: 1 } }
workflows:
  metered_flow: { callable: true, steps: [{ name: call, url: "http://{receiver}/ok" }] }
"#;
    let world = World::container(text).await;
    assert_eq!(world.get("/metrics").await.text, "Invalid token");
    // What is configured is counted from 0, or its first increment would be no increase to a query.
    let first = world
        .send(
            world
                .http
                .get(world.url("/metrics"))
                .header("authorization", "Bearer plainly-fictional"),
        )
        .await
        .text;
    for line in [
        "tidehook_dlq_total{handler=\"metered_bad\"} 0",
        "tidehook_deliveries_by_handler_total{handler=\"metered_ok\",result=\"failure\"} 0",
        "tidehook_events_by_source_total{source=\"metered\"} 0",
        "tidehook_verification_failures_total{source=\"hub\"} 0",
        "tidehook_workflow_runs_total{workflow=\"metered_flow\",status=\"failed\"} 0",
        "tidehook_dlq_total{handler=\"metered_flow/call\"} 0",
    ] {
        assert!(first.contains(line), "{line} is missing in\n{first}");
    }
    let event = world.post("/events/metered/x", &[], "{}").await.event();
    world.receiver.until_count(2).await;
    for n in 0..200 {
        // Neither paths nor signatures nor types become labels.
        world.post(&format!("/webhooks/none-{n}"), &[], "{}").await;
        world
            .post("/webhooks/hub", &[("x-hub-signature-256", &format!("sha256={n:064x}"))], "{}")
            .await;
    }
    let metrics = async || {
        world
            .send(
                world
                    .http
                    .get(world.url("/metrics"))
                    .header("authorization", "Bearer plainly-fictional"),
            )
            .await
    };
    let settled = async {
        while !metrics().await.text.contains("tidehook_dlq_total{handler=\"metered_bad\"} 1") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::support::endpoint::PATIENCE, settled).await.unwrap();
    world.get(&format!("/api/events/{event}")).await;
    let answer = metrics().await;
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text;
    for line in [
        "tidehook_events_by_source_total{source=\"metered\"} 1",
        "tidehook_deliveries_by_handler_total{handler=\"metered_ok\",result=\"success\"} 1",
        "tidehook_deliveries_by_handler_total{handler=\"metered_bad\",result=\"failure\"} 1",
        "tidehook_requests_rejected_total{source=\"hub\",reason=\"signature_wrong\"} 200",
        "qhook_deliveries_by_handler_total{handler=\"metered_ok\",result=\"success\"} 1",
        "tidehook_dead_jobs 1",
        "tidehook_lane_open{lane=\"handler:metered_ok\"} 1",
        "tidehook_lane_failures{lane=\"handler:metered_ok\"} 0",
        "# TYPE tidehook_delivery_duration_seconds_max gauge",
        "# TYPE tidehook_ingest_seconds histogram",
        "tidehook_queue_wait_seconds_bucket",
        "tidehook_delivery_duration_seconds_sum",
        "tidehook_commit_items_count{verb=\"accept\"}",
        "tidehook_pool_connections{state=\"idle\"}",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("none-7"), "a foreign path became a label");
    let documented = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md"),
    )
    .unwrap();
    for (name, _, about) in tidehook::observe::metrics::METRICS {
        assert!(
            documented.contains(&format!("`{name}`")) && documented.contains(about),
            "docs/metrics.md lacks {name}"
        );
    }
}

/// A function cannot hold a request open: there it is refused, as tests/it/lambda says.
#[tokio::test]
async fn a_tail_shows_what_happens_line_by_line() {
    let text = r#"
server: { allow_private_urls: true }
sources: { app: { type: event } }
handlers: { h: { source: app, url: "http://{receiver}/ok" } }
workflows:
  flow: { source: app, events: [go], steps: [{ name: bad, url: "http://{receiver}/status/400", retry: { max: 1 } }] }
"#;
    let world = World::container(text).await;
    let mut tail = world.http.get(world.url("/api/tail")).send().await.unwrap();
    assert_eq!(tail.headers()["content-type"], "application/x-ndjson");
    let event = world.post("/events/app/x", &[], "{}").await.event();
    let mut lines = String::new();
    while lines.matches('\n').count() < 2 {
        lines += std::str::from_utf8(&tail.chunk().await.unwrap().unwrap()).unwrap();
    }
    let moments: Vec<serde_json::Value> =
        lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let kinds: std::collections::BTreeSet<&str> =
        moments.iter().map(|m| m["moment"].as_str().unwrap()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["accepted", "tried"]);
    assert!(moments.iter().all(|m| m["event"] == event.as_str()), "{lines}");
    // A workflow: its steps, its start and its end.
    let mut tail = world.http.get(world.url("/api/tail?handler=flow")).send().await.unwrap();
    world.post("/events/app/x", &[], "{}").await;
    world.post("/events/app/go", &[], "{}").await;
    let mut lines = String::new();
    while !lines.contains("\"failed\"") {
        lines += std::str::from_utf8(&tail.chunk().await.unwrap().unwrap()).unwrap();
    }
    let moments: Vec<serde_json::Value> =
        lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let told = |m: &serde_json::Value| {
        m["status"].as_str().map_or_else(|| m["handler"].to_string(), str::to_owned)
    };
    assert_eq!(
        moments.iter().filter(|m| m["moment"] == "run").map(told).collect::<Vec<_>>(),
        ["started", "failed"],
        "{lines}"
    );
    assert!(moments.iter().any(|m| m["handler"] == "flow/bad" && m["next"] == "dead"), "{lines}");
    assert!(moments.iter().all(|m| m["handler"] != "h"), "{lines}");
    // A name that nothing can be heard of is refused, and the known ones are told.
    for (query, field) in [
        ("handler=flaw", "handler"),
        ("source=ap", "source"),
        ("status=done", "status"),
        ("what=1", "what"),
    ] {
        let answer = world.get(&format!("/api/tail?{query}")).await;
        assert_eq!(
            (answer.status, answer.json()["details"][0]["field"].as_str()),
            (422, Some(field)),
            "{query}"
        );
    }
}
