//! What receivers see, and what comes of what they answer.

use std::time::Duration;

use serde_json::{Value, json};
use tidehook::decide::address::Author;
use tidehook::deliver::{Client, Deliver};
use tidehook::model::{Failure, Method, Outcome, Request, Timestamp};

use crate::support::endpoint::Endpoint;
use crate::support::world::World;

fn with_handlers(handlers: &str) -> String {
    format!(
        "server: {{ allow_private_urls: true }}\nsources: {{ app: {{ type: event }}, open: \
         {{ type: webhook, verify: none }} }}\nhandlers:\n{handlers}"
    )
}

/// Delivers one event to a handler at a path and answers its job and attempts once the job has that
/// status.
async fn outcome(path: &str, extra: &str, status: &str) -> (World, Value, Vec<Value>) {
    let handler = format!(
        "  h: {{ source: app, url: \"http://{{receiver}}{path}\", retry: {{ max: 1 }}{extra} }}\n"
    );
    let world = World::start(&with_handlers(&handler)).await;
    let event = world.post("/events/app/order.created", &[], "{\"k\":\"v\"}").await.event();
    let jobs = world.until_jobs(&event, status).await;
    let attempts = world.attempts(&jobs[0]).await;
    (world, jobs[0].clone(), attempts)
}

#[tokio::test]
async fn a_delivery_carries_the_headers_of_both_spellings_and_a_standard_signature() {
    let text = with_handlers(
        "  billing: { source: open, url: \"http://{receiver}/seq/503,200\", retry: \
         { max: 3, interval: 10ms, jitter: 0 }, headers: \
         { Content-Type: application/vnd.x+json, X-Mine: \"1\", Authorization: Bearer y } \
         }\n  other: { source: open, url: \"http://{receiver}/ok\" }\n",
    ) + "delivery: { signing_secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw }\n";
    let world = World::start(&text).await;
    let event = world
        .post(
            "/webhooks/open",
            &[("ce-type", "a.b"), ("ce-id", "1"), ("x-secret", "no")],
            "{\"a\":1}",
        )
        .await
        .event();
    let got = world.receiver.until_count(3).await;
    let billing: Vec<_> = got.iter().filter(|g| g.path.starts_with("/seq")).collect();
    let other = got.iter().find(|g| g.path == "/ok").unwrap();
    assert_eq!(billing.len(), 2);
    for (at, g) in billing.iter().enumerate() {
        for prefix in ["X-Tidehook", "X-Qhook"] {
            assert_eq!(g.header(&format!("{prefix}-Event-ID")), Some(event.as_str()));
            assert_eq!(g.header(&format!("{prefix}-Handler")), Some("billing"));
            assert_eq!(g.header(&format!("{prefix}-Attempt")), Some((at + 1).to_string().as_str()));
            assert_eq!(
                g.header(&format!("{prefix}-Job-ID")),
                billing[0].header("X-Tidehook-Job-ID")
            );
            assert_eq!(
                g.header(&format!("{prefix}-Delivery-ID")),
                billing[0].header("X-Tidehook-Delivery-ID")
            );
        }
        assert_eq!(
            (g.header("X-Tidehook-Event-Type"), g.header("X-Tidehook-Source")),
            (Some("a.b"), Some("open"))
        );
        assert_eq!((g.header("ce-id"), g.header("x-secret")), (Some("1"), None));
        assert_eq!(
            (g.count("content-type"), g.header("content-type")),
            (1, Some("application/vnd.x+json"))
        );
        assert_eq!((g.header("X-Mine"), g.header("Authorization")), (Some("1"), Some("Bearer y")));
        assert!(g.header("traceparent").unwrap().starts_with("00-"));
        assert_eq!((g.method.as_str(), g.text().as_str()), ("POST", "{\"a\":1}"));
        // Verified by an independent implementation of the specification's recipe.
        let (id, at) = (g.header("webhook-id").unwrap(), g.header("webhook-timestamp").unwrap());
        assert_eq!(id, event);
        let source = "sources: { s: \
            { type: webhook, verify: standard-webhooks, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw } }";
        let config = crate::support::world::config(source);
        let mut headers = http::HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            headers.insert(
                http::HeaderName::from_static(name),
                g.header(name).unwrap().parse().unwrap(),
            );
        }
        let raw =
            tidehook::ingress::Raw::new("/".parse().unwrap(), "http://x", headers, g.body.clone());
        let now = Timestamp::from_seconds(at.parse().unwrap()).unwrap();
        tidehook::ingress::admit(&config.sources[0], &raw, [127, 0, 0, 1].into(), now).unwrap();
    }
    assert_ne!(
        billing[0].header("X-Tidehook-Attempt-ID"),
        billing[1].header("X-Tidehook-Attempt-ID")
    );
    assert_ne!(billing[0].header("X-Tidehook-Delivery-ID"), other.header("X-Tidehook-Delivery-ID"));
    assert_eq!(other.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn methods_and_transforms_do_what_the_file_says() {
    let mut handlers = String::new();
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        handlers += &format!(
            "  {method}: {{ source: app, method: {method}, url: \
             \"http://{{receiver}}/ok/{method}\" }}\n"
        );
    }
    handlers += "  t: { source: app, url: \"http://{receiver}/ok/t\", transform: '{\"id\": \
        \"{{ $.id }}\", \"name\": {{ $.name }}, \"all\": {{ $.all }}, \"no\": {{ $.no }} }' }\n";
    handlers += "  m: { source: app, url: \"http://{receiver}/ok/m\", transform: { id: \
        \"{{ $.id }}\", text: \"n={{ $.id }}\" } }\n";
    let world = World::start(&with_handlers(&handlers)).await;
    let body = json!({
        "id": 7,
        "name": "x\",\"admin\":true,\"y\":\"{{ $.id }}",
        "all": [1, { "a": null }],
    });
    world.post("/events/app/x", &[], body.to_string()).await;
    let got = world.receiver.until_count(6).await;
    let at = |path: &str| got.iter().find(|g| g.path == path).unwrap();
    assert_eq!((at("/ok/GET").method.as_str(), at("/ok/GET").body.len()), ("GET", 0));
    for method in ["PUT", "PATCH", "DELETE"] {
        let g = at(&format!("/ok/{method}"));
        assert_eq!((g.method.as_str(), g.text()), (method, body.to_string()));
    }
    let transformed: Value = serde_json::from_str(&at("/ok/t").text()).unwrap();
    assert_eq!(
        transformed,
        json!({ "id": "7", "name": body["name"], "all": body["all"], "no": null })
    );
    assert_eq!(
        serde_json::from_str::<Value>(&at("/ok/m").text()).unwrap(),
        json!({ "id": 7, "text": "n=7" })
    );
}

#[tokio::test]
async fn a_deadline_covers_the_whole_exchange_and_names_its_phase() {
    for (path, phase) in [
        ("/hang", "waiting for the response headers"),
        ("/driphead", "waiting for the response headers"),
        ("/drip", "reading the response body"),
    ] {
        let start = std::time::Instant::now();
        let (_world, job, attempts) = outcome(path, ", timeout: 700ms", "dead").await;
        assert_eq!(job["last_error"], format!("timed out while {phase}"), "{path}");
        assert_eq!(
            (attempts[0]["code"].as_str(), attempts[0]["status_code"].clone()),
            (Some("timeout"), Value::Null)
        );
        let took = attempts[0]["duration_ms"].as_u64().unwrap();
        assert!((700..1_200).contains(&took), "{path} took {took} ms");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn a_handshake_that_stalls_ends_at_the_deadline() {
    // The receiver waits for a request and never speaks TLS.
    let handlers =
        "  h: { source: app, url: \"https://{receiver}/ok\", timeout: 700ms, retry: { max: 1 } }\n";
    let world = World::start(&with_handlers(handlers)).await;
    let event = world.post("/events/app/x", &[], "{}").await.event();
    let jobs = world.until_jobs(&event, "dead").await;
    assert_eq!(jobs[0]["last_error"], "timed out while connecting");
}

#[tokio::test]
async fn a_broken_answer_is_one_typed_failure() {
    for (path, code) in [
        ("/rst", "protocol"),
        ("/garbage", "protocol"),
        ("/http09", "protocol"),
        ("/cl/-1", "protocol"),
        ("/dupcl", "protocol"),
        ("/bighdr", "protocol"),
        ("/manyhdr", "protocol"),
    ] {
        let (world, job, attempts) = outcome(path, ", timeout: 5s", "dead").await;
        assert_eq!(attempts.len(), 1, "{path}");
        assert_eq!(attempts[0]["code"], code, "{path}: {job}");
        assert_eq!(world.receiver.got().len(), 1, "{path} was sent once, without hidden retries");
    }
}

#[tokio::test]
async fn a_status_counts_whatever_comes_of_the_body() {
    for (path, error) in [
        ("/nul", None),
        ("/badutf8", None),
        ("/huge", Some("response_too_large: the response body was cut at the size limit")),
        ("/halfclose", Some("response_incomplete: the response body was cut off")),
        ("/continue", None),
        ("/tecl", None),
        ("/status/204", None),
    ] {
        let (_world, _, attempts) = outcome(path, ", timeout: 20s", "completed").await;
        assert_eq!(attempts[0]["error"].as_str(), error, "{path}");
        assert!(attempts[0]["response"].as_str().unwrap().len() <= 3 * 64 * 1024, "{path}");
    }
}

#[tokio::test]
async fn redirects_are_never_followed() {
    let canary = Endpoint::start().await;
    for code in [301, 302, 303, 307, 308] {
        let (_world, job, attempts) =
            outcome(&format!("/redir/{code}/{}", canary.address.port()), "", "dead").await;
        assert_eq!(attempts[0]["code"], "redirect_not_followed");
        // Where it points, without a path that may be a secret.
        let error = job["last_error"].as_str().unwrap();
        assert!(
            error.contains(&format!("http://{}/…", canary.address)) && !error.contains("canary"),
            "{job}"
        );
    }
    assert!(canary.got().is_empty());
}

#[tokio::test]
async fn retry_after_is_honoured_within_reason() {
    for (value, expected_s) in [
        // The later of the schedule, 100 s in these tests, and of what is asked for.
        ("7", 100),
        ("0", 100),
        ("300", 300),
        ("99999999999999999999", 86_400),
        ("Thu%2C%2001%20Jan%201970%2000%3A00%3A00%20GMT", 100),
        ("Thu%2C%2001%20Jan%202099%2000%3A00%3A00%20GMT", 86_400),
        // What is no wish leaves the schedule.
        ("inf", 100),
        ("1e300", 100),
        ("-1", 100),
        ("%28%28%28%28%28", 100),
    ] {
        let handler = format!(
            "  h: {{ source: app, url: \"http://{{receiver}}/ra/{value}\", retry: \
             {{ max: 2, interval: 100s, jitter: 0 }} }}\n"
        );
        let world = World::start(&with_handlers(&handler)).await;
        let event = world.post("/events/app/x", &[], "{}").await.event();
        let jobs = world.until_jobs(&event, "retryable").await;
        let attempts = world.attempts(&jobs[0]).await;
        let at = |v: &Value| Timestamp::parse(v.as_str().unwrap()).unwrap();
        let wait = at(&jobs[0]["scheduled_at"]).since(at(&attempts[0]["created_at"]));
        let off = wait.abs_diff(Duration::from_secs(expected_s));
        assert!(off < Duration::from_secs(3), "{value}: due after {wait:?}");
        assert_eq!(attempts[0]["status_code"], 503);
    }
}

#[tokio::test]
async fn the_schedule_is_the_configured_one() {
    let handlers = "  fixed: { source: app, url: \"http://{receiver}/status/500\", retry: \
        { max: 3, backoff: fixed, interval: 300ms, jitter: 0 } }\n  growing: \
        { source: app, url: \"http://{receiver}/status/404\", retry: \
        { max: 3, backoff: exponential, interval: 200ms, jitter: 0 } }\n  picky: \
        { source: app, url: \"http://{receiver}/status/400\", retry: \
        { max: 3, interval: 1ms, errors: [5xx] } }\n  zero: \
        { source: app, url: \"http://{receiver}/status/501\", retry: { max: 0 } }\n";
    let world = World::start(&with_handlers(handlers)).await;
    let event = world.post("/events/app/x", &[], "{}").await.event();
    world.until_jobs(&event, "dead").await;
    let gaps = |path: &str| {
        let got = world.receiver.got_at(path);
        got.windows(2).map(|w| w[1].at.duration_since(w[0].at)).collect::<Vec<_>>()
    };
    let (fixed, growing) = (gaps("/status/500"), gaps("/status/404"));
    assert_eq!(
        (fixed.len(), growing.len(), gaps("/status/400").len(), gaps("/status/501").len()),
        (2, 2, 0, 0)
    );
    // Never early; how late is the machine's affair.
    for (gap, least) in fixed.iter().zip([300, 300]).chain(growing.iter().zip([200, 400])) {
        assert!(*gap >= Duration::from_millis(least - 5), "{gap:?} for {least} ms");
    }
}

#[tokio::test]
async fn private_addresses_are_refused_at_the_moment_of_connecting() {
    // One handler is allowed to reach the address; its neighbour names the same address and is not.
    let handlers = "  listed: { source: app, url: \"http://{receiver}/ok\", allowed_private_hosts: \
        [127.0.0.0/8] }\n";
    let world =
        World::start(&with_handlers(handlers).replace("allow_private_urls: true", "")).await;
    let event = world.post("/events/app/x", &[], "{}").await.event();
    world.until_jobs(&event, "completed").await;
    // The judge at connect time, on the same client, with the rules of another destination.
    let resolver = tidehook::deliver::resolve::system().unwrap();
    let policy = tidehook::decide::address::Policy::default();
    for author in [Author::Operator, Author::Stranger] {
        let client = Client::new([("d".to_owned(), policy.clone(), author)], &resolver).unwrap();
        for url in [
            "/ok".to_owned(),
            "http://localhost:1/".into(),
            "http://0x7f.1:1/".into(),
            "http://[::1]:1/".into(),
        ] {
            let url = if url == "/ok" { world.receiver.url("/canary") } else { url };
            let request = Request {
                at_most_once: false,
                response_bytes_max: 1024,
                url: url.parse().unwrap(),
                method: Method::Post,
                headers: Vec::new(),
                body: bytes::Bytes::new(),
                timeout: Duration::from_secs(5),
                destination: "d".into(),
                progress: Default::default(),
            };
            let outcome = client.send(request).await;
            assert!(matches!(outcome, Outcome::Failed(Failure::Blocked(_))), "{url}: {outcome:?}");
        }
    }
    assert!(world.receiver.got_at("/canary").is_empty());
}

#[tokio::test]
async fn a_name_without_address_is_a_dns_failure() {
    let handlers =
        "  h: { source: app, url: \"http://nothing-here.invalid/\", retry: { max: 1 } }\n";
    let world = World::start(&with_handlers(handlers)).await;
    let event = world.post("/events/app/x", &[], "{}").await.event();
    let jobs = world.until_jobs(&event, "dead").await;
    assert_eq!(world.attempts(&jobs[0]).await[0]["code"], "dns");
}

#[tokio::test]
async fn a_closed_port_is_a_connect_failure() {
    let handlers = "  h: { source: app, url: \"http://127.0.0.1:9/\", retry: { max: 1 } }\n";
    let world = World::start(&with_handlers(handlers)).await;
    let event = world.post("/events/app/x", &[], "{}").await.event();
    let jobs = world.until_jobs(&event, "dead").await;
    assert_eq!(world.attempts(&jobs[0]).await[0]["code"], "connect");
}

#[tokio::test]
async fn an_open_breaker_and_a_pause_cost_no_attempt() {
    let handlers = "  h: { source: app, url: \"http://{receiver}/status/500\", retry: \
        { max: 2, interval: 1ms, jitter: 0 } }\n";
    let world = World::start(&with_handlers(handlers)).await;
    for _ in 0..60 {
        world.post("/events/app/x", &[], "{}").await;
    }
    // Five failures in a row open the breaker; deliveries that were under way then may still end,
    // ten at most for a worker.
    world.receiver.until_count(5).await;
    let tripped = async {
        while world.get("/api/lanes").await.json()["lanes"][0]["state"] != "tripped" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::support::endpoint::PATIENCE, tripped).await.unwrap();
    let sent = world.receiver.got().len();
    assert!(sent < 60, "{sent} were sent");
    let jobs = world.get("/api/jobs?limit=100").await.json()["jobs"].as_array().unwrap().clone();
    let attempts: u64 = jobs.iter().map(|j| j["attempt"].as_u64().unwrap()).sum();
    assert!(attempts <= sent as u64, "{attempts} attempts for {sent} requests");
    assert!(
        jobs.iter().any(|j| j["status"] == "available" && j["attempt"] == 0),
        "the rest waits untouched"
    );
}

#[tokio::test]
async fn a_paused_lane_keeps_its_work_and_goes_on_when_resumed() {
    let handlers = "  h: { source: app, url: \"http://{receiver}/ok\" }\n";
    let world = World::start(&with_handlers(handlers)).await;
    assert_eq!(world.post("/api/lanes/handler%3Ah/pause", &[], "").await.json()["paused"], true);
    let event = world.post("/events/app/x", &[], "{}").await.event();
    let jobs = world.until_jobs(&event, "available").await;
    assert_eq!(jobs[0]["attempt"], 0);
    assert_eq!(world.get("/api/lanes").await.json()["lanes"][0]["state"], "paused");
    assert!(world.receiver.got().is_empty());
    world.post("/api/lanes/handler%3Ah/resume", &[], "").await;
    world.until_jobs(&event, "completed").await;
}

#[tokio::test]
async fn a_rate_limit_holds_deliveries_back_without_attempts() {
    let handlers = "  h: { source: app, url: \"http://{receiver}/ok\", rate_limit: 5 }\n";
    let world = World::start(&with_handlers(handlers)).await;
    for _ in 0..12 {
        world.post("/events/app/x", &[], "{}").await;
    }
    let got = world.receiver.until_count(12).await;
    let span = got[11].at.duration_since(got[0].at);
    assert!(span >= Duration::from_millis(1_300), "12 deliveries at 5 a second took {span:?}");
    assert!(got.iter().all(|g| g.header("x-tidehook-attempt") == Some("1")));
}

#[tokio::test]
async fn a_handler_that_hangs_never_stops_its_neighbours() {
    let mut text =
        "server: { allow_private_urls: true }\nworker: { max_concurrency: 5 }\nsources: \
        { a: { type: event }, b: { type: event } }\nhandlers:\n"
            .to_owned();
    for n in 0..50 {
        text += &format!(
            "  hang{n}: {{ source: a, url: \"http://{{receiver}}/hang/{n}\", timeout: 30s }}\n"
        );
    }
    text += "  well: { source: b, url: \"http://{receiver}/ok\" }\n";
    let world = World::start(&text).await;
    world.post("/events/a/x", &[], "{}").await;
    world.receiver.until("the hanging ones", |got| got.len() >= 4).await;
    let mut delays = Vec::new();
    for n in 0..60 {
        let start = std::time::Instant::now();
        world.post("/events/b/x", &[], "{}").await;
        world
            .receiver
            .until("the healthy one", |got| got.iter().filter(|g| g.path == "/ok").count() > n)
            .await;
        delays.push(start.elapsed());
    }
    delays.sort();
    assert!(delays[58] < Duration::from_secs(2), "{:?}", delays[58]);
}

#[tokio::test]
async fn what_waits_longer_than_its_time_to_live_is_given_up() {
    let text = with_handlers(
        "  h: { source: app, url: \"http://{receiver}/status/500\", retry: \
         { max: 9, interval: 1h } }\n",
    ) + "delivery: { event_ttl: 1s }\n";
    let world = World::start(&text).await;
    let event = world.post("/events/app/x", &[], "{}").await.event();
    let jobs = world.until_jobs(&event, "dead").await;
    assert_eq!(jobs[0]["last_error"], "event TTL expired");
}
