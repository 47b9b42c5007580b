//! What outsiders found, one sentence for each kind: odd bodies, hostile receivers and strangers
//! who hold on.

mod people;
mod providers;
mod receivers;
mod settings;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use tidehook::decide::address::Author;
use tidehook::decide::plan::explain;
use tidehook::deliver::{Client, Deliver};
use tidehook::ingress::{self, Admitted, Raw, Scheme, provider};
use tidehook::model::{Body, Inbound, Method, Outcome, Request, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::world::{World, config};

const NOW: Timestamp = Timestamp(1_770_000_000_000);

fn file(handlers: &str) -> String {
    format!(
        "server: {{ allow_private_urls: true }}\nsources:\n  app: {{ type: event }}\n  open: \
         {{ type: webhook, verify: none, headers: [X-Event-Key] }}\n{handlers}"
    )
}

/// A request that a provider has signed.
fn signed(source: &str, body: &str) -> (tidehook::config::Config, Raw) {
    let config = config(&format!(
        "sources: {{ s: {{ type: webhook, verify: {source}, secret: plainly-fictional }} }}"
    ));
    let mut raw = Raw::new(
        "/".parse().unwrap(),
        "http://x",
        http::HeaderMap::new(),
        body.as_bytes().to_vec(),
    );
    let source = &config.sources[0];
    let scheme =
        Scheme { secrets: &source.secrets, tolerance: None, options: &source.signature, now: NOW };
    provider(source.verify.as_deref().unwrap()).unwrap().sign(&mut raw, &scheme);
    (config, raw)
}

fn admitted(config: &tidehook::config::Config, raw: &Raw) -> Vec<Inbound> {
    match ingress::admit(&config.sources[0], raw, IpAddr::from([127, 0, 0, 1]), NOW).unwrap() {
        Admitted::Event(event) => vec![*event],
        Admitted::Batch(events) => events,
        Admitted::Challenge(_) => panic!("a handshake"),
    }
}

#[test]
fn a_webhook_that_is_odd_json_keeps_its_type_and_its_key() {
    let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    for odd in [r#""cut \ud83d""#, "1e999", "123456789012345678901234567890", deep.as_str()] {
        let (config, raw) =
            signed("stripe", &format!(r#"{{"id":"evt_1","type":"invoice.paid","note":{odd}}}"#));
        let event = admitted(&config, &raw).remove(0);
        assert_eq!(
            (event.kind.as_str(), event.dedupe_key.as_deref()),
            ("invoice.paid", Some("evt_1")),
            "{odd}"
        );
    }
}

#[tokio::test]
async fn a_template_yields_its_own_shape_whatever_the_body_is() {
    let handlers = "handlers:\n  h: { source: app, url: \"http://{receiver}/ok\", transform: \
        { admin: false, id: \"{{ $.id | default('none') }}\" }, retry: { max: 1 } }\n  fixed: \
        { source: app, url: \"http://{receiver}/fixed\", transform: { role: guest }, retry: \
        { max: 1 } }\n";
    let world = World::start(&file(handlers)).await;
    let json = [("content-type", "application/json")];
    for body in [
        r#"{"id":7,"admin":true,"z":1e999}"#,
        "\u{feff}{\"id\":7,\"admin\":true}",
        r#"{"id":7,"x":"\ud800"}"#,
    ] {
        world.post("/events/app/x", &json, body.to_owned()).await;
    }
    world.post("/events/app/x", &[("content-type", "text/plain")], "just text".to_owned()).await;
    let got = world.receiver.until_count(8).await;
    let bodies: Vec<Value> = got
        .iter()
        .filter(|g| g.path == "/ok")
        .map(|g| serde_json::from_slice(&g.body).unwrap())
        .collect();
    assert_eq!(
        bodies.iter().filter(|body| **body == json!({"admin": false, "id": 7})).count(),
        3,
        "{bodies:?}"
    );
    assert_eq!(
        bodies.iter().filter(|body| **body == json!({"admin": false, "id": "none"})).count(),
        1,
        "{bodies:?}"
    );
    // What cannot be read at all is a failure where the template reads it, and none where it does
    // not.
    let event =
        world.post("/events/app/x", &json, r#"{"id":7,"admin":true"#.to_owned()).await.event();
    let got = world.receiver.until_count(9).await;
    let shown = || async {
        world.send(world.http.get(world.url(&format!("/api/events/{event}")))).await.json()
    };
    let dead = loop {
        let jobs = shown().await["jobs"].as_array().unwrap().clone();
        if let Some(dead) =
            jobs.into_iter().find(|job| job["handler"] == "h" && job["status"] == "dead")
        {
            break dead;
        }
    };
    assert_eq!(world.attempts(&dead).await[0]["code"], "template");
    assert_eq!(
        got.iter().filter(|g| g.path == "/fixed" && g.text() == r#"{"role":"guest"}"#).count(),
        5
    );
    assert!(got.iter().all(|g| !g.text().contains("true")), "nothing of the sender's came through");
    let shown = shown().await;
    assert!(shown["unreadable"].as_str().unwrap().contains("line 1, column 21"), "{shown}");
}

#[tokio::test]
async fn numbers_that_no_double_holds_are_two_keys_and_are_delivered_as_they_are() {
    let handlers = "handlers:\n  h: { source: app, url: \"http://{receiver}/ok\", idempotency_key: \
        $.id, filter: $.id != 100000000000000000003, transform: '{\"id\": {{ $.id }}}' }\n";
    let world = World::start(&file(handlers)).await;
    for n in 1..=3 {
        world.post("/events/app/x", &[], format!("{{\"id\":10000000000000000000{n}}}")).await;
    }
    let got = world.receiver.until_count(2).await;
    let bodies: std::collections::BTreeSet<String> = got.iter().map(|g| g.text()).collect();
    assert_eq!(
        bodies,
        [r#"{"id": 100000000000000000001}"#, r#"{"id": 100000000000000000002}"#]
            .map(str::to_owned)
            .into()
    );
}

#[tokio::test]
async fn what_passes_through_keeps_its_type_and_the_headers_that_name_it() {
    let world =
        World::start(&file("handlers:\n  h: { source: open, url: \"http://{receiver}/ok\" }\n"))
            .await;
    for (kind, body) in [
        ("application/cloudevents+json", r#"{"type":"a.b","source":"s","id":"1"}"#),
        ("application/vnd.api+json", "{}"),
        ("application/x-ndjson", "{}\n{}"),
        ("text/plain; charset=iso-8859-1", "42"),
    ] {
        world
            .post(
                "/webhooks/open",
                &[("content-type", kind), ("x-event-key", "repo:push")],
                body.to_owned(),
            )
            .await;
    }
    let got = world.receiver.until_count(4).await;
    let kinds: std::collections::BTreeSet<&str> =
        got.iter().filter_map(|g| g.header("content-type")).collect();
    assert_eq!(kinds.len(), 4, "{kinds:?}");
    assert!(got.iter().all(|g| g.header("x-event-key") == Some("repo:push")));
}

#[tokio::test]
async fn final_answers_are_no_failures_of_a_receiver_and_lists_say_why_nothing_happens() {
    let handlers = "handlers:\n  h: { source: app, url: \"http://{receiver}/status/422\", retry: \
        { errors: [5xx, network, timeout, 429] } }\n  slow: \
        { source: app, events: [never], url: \"http://{receiver}/ok\" }\n";
    let world = World::start(&file(handlers)).await;
    for _ in 0..7 {
        let event = world.post("/events/app/x", &[], "{}".to_owned()).await.event();
        world.until_jobs(&event, "dead").await;
    }
    let lanes = world.send(world.http.get(world.url("/api/lanes"))).await.json();
    assert!(
        lanes["lanes"].as_array().unwrap().iter().all(|lane| lane["state"] == "open"),
        "{lanes}"
    );
    world.post("/api/lanes/handler%3Ah/pause", &[], String::new()).await;
    let event = world.post("/events/app/x", &[], "{}".to_owned()).await.event();
    let shown = world.send(world.http.get(world.url(&format!("/api/events/{event}")))).await.json();
    assert!(shown["jobs"][0]["waits"].as_str().unwrap().contains("paused"), "{shown}");
}

#[tokio::test]
async fn a_batch_of_cloudevents_is_its_events_and_the_same_identity_is_one_event() {
    let world =
        World::start(&file("handlers:\n  h: { source: open, url: \"http://{receiver}/ok\" }\n"))
            .await;
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let body = r#"[{"specversion":"1.0","type":"a","source":"s","id":"1"},{"specversion":"1.0","type":"b","source":"s","id":"2"}]"#;
    let first = world.post("/webhooks/open", &batch, body.to_owned()).await.json();
    let again = world.post("/webhooks/open", &batch, body.to_owned()).await.json();
    assert_eq!(first["events"].as_array().unwrap().len(), 2, "{first}");
    for at in 0..2 {
        assert_eq!(
            (&first["events"][at]["duplicate"], &again["events"][at]["duplicate"]),
            (&json!(false), &json!(true))
        );
        assert_eq!(first["events"][at]["event_id"], again["events"][at]["event_id"]);
    }
    let kinds: std::collections::BTreeSet<String> = world
        .receiver
        .until_count(2)
        .await
        .iter()
        .map(|g| g.header("X-Tidehook-Event-Type").unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["a".to_owned(), "b".to_owned()].into());
    assert_eq!(world.post("/webhooks/open", &batch, "{}".to_owned()).await.status, 422);
    let binary = [("ce-type", "c"), ("ce-source", "s"), ("ce-id", "3")];
    let first = world.post("/webhooks/open", &binary, "{}".to_owned()).await;
    assert_eq!(world.post("/webhooks/open", &binary, "{}".to_owned()).await.event(), first.event());
}

#[test]
fn two_hooks_of_gitlab_under_one_event_id_are_two_events() {
    let (config, mut raw) = signed("gitlab", r#"{"object_kind":"push"}"#);
    raw.headers.insert("x-gitlab-event-uuid", http::HeaderValue::from_static("one"));
    assert_eq!(admitted(&config, &raw)[0].dedupe_key, None);
}

#[test]
fn a_stale_request_costs_no_hash_and_many_signatures_cost_one() {
    let (config, mut raw) = signed("stripe", &"x".repeat(1 << 20));
    let source = &config.sources[0];
    let late = NOW.plus(Duration::from_secs(3600));
    let judge = |raw: &Raw, now| {
        let scheme =
            Scheme { secrets: &source.secrets, tolerance: None, options: &source.signature, now };
        provider("stripe").unwrap().verify(raw, &scheme)
    };
    assert_eq!(judge(&raw, late), Err(ingress::Reason::Stale));
    let header = raw.header("stripe-signature").unwrap().to_owned();
    let many = format!("{}{header}", format!("v1={},", "ab".repeat(32)).repeat(30));
    raw.headers.insert("stripe-signature", many.parse().unwrap());
    assert_eq!(judge(&raw, NOW), Ok(()));
}

async fn raw_answer(world: &World, request: &[u8]) -> String {
    let address: SocketAddr =
        world.url("").trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(5), reading).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_request_has_one_host_and_a_body_over_the_limit_gets_its_answer() {
    let world = World::container(&file("handlers: {}\n")).await;
    for request in
        ["GET /livez HTTP/1.1\r\n\r\n", "GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"]
    {
        let answer = raw_answer(&world, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let body = vec![b'x'; 3 << 20];
    let head = format!(
        "POST /webhooks/open HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = raw_answer(&world, &[head.as_bytes(), &body].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn strangers_who_hold_on_keep_nobody_out() {
    let world = World::container(&file(
        "handlers:\n  h: { source: open, url: \"http://{receiver}/ok\" }\n",
    ))
    .await;
    let address: SocketAddr =
        world.url("").trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    let token = "A".repeat(52);
    let mut held = Vec::new();
    for n in 0..220 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let path = if n % 2 == 0 { "/callback/x".to_owned() } else { format!("/approve/{token}") };
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx");
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    for _ in 0..5 {
        assert_eq!(world.post("/webhooks/open", &[], "{}".to_owned()).await.status, 200);
        assert_eq!(world.send(world.http.get(world.url("/api/events"))).await.status, 200);
    }
}

#[tokio::test]
async fn without_a_token_the_management_routes_answer_this_machine_only() {
    let world = World::container(&file("handlers: {}\n")).await;
    assert_eq!(world.send(world.http.get(world.url("/api/events"))).await.status, 200);
    let forwarded =
        world.http.get(world.url("/api/events")).header("x-forwarded-for", "203.0.113.9");
    assert_eq!(world.send(forwarded).await.status, 403);
    let open = World::container(&(file("handlers: {}\n") + "api: { open: true }\n")).await;
    let forwarded = open.http.get(open.url("/api/events")).header("x-forwarded-for", "203.0.113.9");
    assert_eq!(open.send(forwarded).await.status, 200);
}

/// A receiver that answers the first request of a connection and closes it at the second, without a
/// word.
async fn closes_at_the_second() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                if stream.read(&mut head).await.unwrap_or(0) > 0 {
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                        .await
                        .unwrap();
                    let _ = stream.read(&mut head).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_kept_connection_that_died_unanswered_costs_no_attempt_and_is_on_record() {
    let address = closes_at_the_second().await;
    let resolver = tidehook::deliver::resolve::system().unwrap();
    let policy = tidehook::decide::address::Policy { allow_private: true, ..Default::default() };
    let client = Client::new([("d".to_owned(), policy, Author::Operator)], &resolver).unwrap();
    let send = async |once| {
        let request = Request {
            url: format!("http://{address}/").parse().unwrap(),
            method: Method::Post,
            headers: Vec::new(),
            body: bytes::Bytes::from_static(b"{}"),
            timeout: Duration::from_secs(5),
            at_most_once: once,
            response_bytes_max: 1024,
            destination: "d".into(),
            progress: Default::default(),
        };
        client.send(request).await
    };
    let resent = async |once| match send(once).await {
        Outcome::Answered(response) => Some(response.resent),
        _ => None,
    };
    assert_eq!(resent(false).await, Some(false));
    assert_eq!(resent(false).await, Some(true));
    assert_eq!(resent(false).await, Some(false), "the fresh connection was not kept");
    assert_eq!(resent(true).await, None, "what is sent at most once is not sent again");
}

#[test]
fn filters_see_a_form_and_say_what_they_saw() {
    let config = config(&file(
        "handlers:\n  h: \
         { source: open, url: \"http://127.0.0.1:1/\", filter: $.action == opened }\n",
    ));
    let form = tidehook::model::body::Declared::Form;
    let inbound = |body: &'static str| Inbound {
        source: "open".into(),
        kind: "event".into(),
        type_aliases: Vec::new(),
        headers: Vec::new(),
        body: Body::declared(body, form),
        dedupe_key: None,
        idempotency_key: None,
    };
    let routes = config.routes();
    let misses = |body| {
        explain(&routes, &inbound(body)).into_iter().filter(|(_, why)| why.is_some()).count()
    };
    assert_eq!(misses("payload=%7B%22action%22%3A%22opened%22%7D"), 0);
    assert_eq!(misses("action=opened"), 0);
    assert_eq!(misses("action=closed"), 1);
}
