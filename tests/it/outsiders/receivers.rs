//! What receivers do and get: certificates of nobody, bodies without a type, the reasons why
//! deliveries wait.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::support::world::World;

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// A receiver on TLS whose certificate nobody has signed; its port.
async fn of_nobody() -> u16 {
    let made =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])
            .unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config =
        config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_nobody_is_a_failure_of_tls_and_is_caught_as_one() {
    let port = of_nobody().await;
    let text = format!(
        "server: {{ allow_private_urls: true }}
sources: {{ app: {{ type: event }} }}
handlers: {{ h: {{ source: app, events: [plain], url: \"https://127.0.0.1:{port}/x\", retry: {{ max: 1 }} }} }}
workflows:
  w:
    source: app
    events: [run]
    steps:
      - {{ name: a, url: \"https://localhost:{port}/x\", retry: {{ max: 1 }}, catch: [{{ errors: [tls], goto: caught }}] }}
      - {{ name: b, url: \"http://{{receiver}}/ok/b\", end: true }}
      - {{ name: caught, url: \"http://{{receiver}}/ok/caught\" }}
"
    );
    let world = World::start(&text).await;
    let event = world.post("/events/app/plain", JSON, "{}").await.event();
    let jobs = world.until_jobs(&event, "dead").await;
    let attempts = world.attempts(&jobs[0]).await;
    assert_eq!(attempts[0]["code"], "tls", "{attempts:?}");
    world.post("/events/app/run", JSON, "{}").await;
    assert_eq!(world.receiver.until_count(1).await[0].path, "/ok/caught");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_went_out_twice_is_on_record_as_such() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut answers = true;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The first connection answers once and is kept; everything after it is read and hung
            // up on.
            let mut buffer = [0; 8192];
            if std::mem::take(&mut answers) {
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await;
        }
    });
    let text = format!(
        "server: {{ allow_private_urls: true }}\nsources: {{ app: {{ type: event }} }}\nhandlers: \
         {{ h: {{ source: app, url: \"http://127.0.0.1:{port}/x\", retry: {{ max: 1 }} }} }}\n"
    );
    let world = World::start(&text).await;
    let event = world.post("/events/app/x", JSON, "{}").await.event();
    world.until_jobs(&event, "completed").await;
    let event = world.post("/events/app/x", JSON, "{}").await.event();
    let jobs = world.until_jobs(&event, "dead").await;
    let attempts = world.attempts(&jobs[0]).await;
    assert!(attempts[0]["error"].as_str().unwrap().contains("sent twice, because"), "{attempts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_is_cut_off_is_a_failure_of_tls() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The greeting is read, so that the end is no reset.
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]).await;
        }
    });
    let text = format!(
        "server: {{ allow_private_urls: true }}\nsources: {{ app: {{ type: event }} }}\nhandlers: \
         {{ h: {{ source: app, url: \"https://127.0.0.1:{port}/x\", retry: {{ max: 1 }} }} }}\n"
    );
    let world = World::start(&text).await;
    let event = world.post("/events/app/x", JSON, "{}").await.event();
    let jobs = world.until_jobs(&event, "dead").await;
    let attempts = world.attempts(&jobs[0]).await;
    assert_eq!(attempts[0]["code"], "tls", "{attempts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_fails_in_a_step_is_caught_as_one_and_is_no_failure_of_the_network() {
    let step = |errors: &str| {
        format!(
            "steps: [{{ name: a, url: \"http://{{receiver}}/ok/a\", body: {{ id: \
             \"{{{{ $.a | parse }}}}\" }}, catch: [{{ errors: [{errors}], goto: caught }}] }}, \
             {{ name: caught, url: \"http://{{receiver}}/ok/{errors}\" }}]"
        )
    };
    let text = format!(
        "server: {{ allow_private_urls: true }}
sources: {{ app: {{ type: event }} }}
workflows:
  network: {{ source: app, events: [network], {} }}
  template: {{ source: app, events: [template], {} }}
",
        step("network"),
        step("template")
    );
    let world = World::start(&text).await;
    let event = world.post("/events/app/network", JSON, r#"{"a": "{"}"#).await.event();
    world.post("/events/app/template", JSON, r#"{"a": "{"}"#).await;
    assert_eq!(world.receiver.until_count(1).await[0].path, "/ok/template");
    let runs = world.get(&format!("/api/runs?event={event}")).await.json();
    assert_eq!(runs["runs"][0]["status"], "failed", "{runs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_payload_of_text_would_lose_under_a_result_path_is_a_failure() {
    let text = "server: { allow_private_urls: true }
sources: { app: { type: event } }
workflows: { w: { source: app, steps: [{ name: a, url: \"http://{receiver}/ok/a\", result_path: $.r }, { name: b, url: \"http://{receiver}/ok/b\" }] } }\n";
    let world = World::start(text).await;
    for body in ["just text", "{\"broken\": "] {
        let event =
            world.post("/events/app/x", &[("content-type", "text/plain")], body).await.event();
        let look = async {
            loop {
                let runs = world.get(&format!("/api/runs?event={event}")).await.json();
                if runs["runs"][0]["status"] == "failed" {
                    return world
                        .get(&format!("/api/runs/{}", runs["runs"][0]["id"].as_str().unwrap()))
                        .await
                        .json();
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let run = tokio::time::timeout(crate::support::endpoint::PATIENCE, look).await.unwrap();
        assert_eq!(run["error"]["class"], "template", "{body}: {run}");
        assert!(run["error"]["message"].as_str().unwrap().contains("result_path"), "{run}");
    }
    // An empty body has nothing to lose.
    world.post("/events/app/x", &[], "").await;
    assert!(world.receiver.until_count(4).await.iter().any(|got| got.path == "/ok/b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_there_has_no_type() {
    let text = "server: { allow_private_urls: true }\nsources: { app: { type: event } }\nhandlers: \
        { h: { source: app, url: \"http://{receiver}/ok\" } }\n";
    let world = World::start(text).await;
    world.post("/events/app/x", &[], "").await;
    world.post("/events/app/x", &[], "{}").await;
    let mut types: Vec<_> = world
        .receiver
        .until_count(2)
        .await
        .iter()
        .map(|got| got.header("content-type").map(str::to_owned))
        .collect();
    types.sort();
    assert_eq!(types, [None, Some("application/json".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_that_wait_for_room_say_so() {
    let text = "server: { allow_private_urls: true }\nworker: { max_concurrency: 8 }\nsources: { app: { type: event } }
handlers:
  hangs: { source: app, events: [hang], url: \"http://{receiver}/held/x\", timeout: 60 }
  other: { source: app, events: [other], url: \"http://{receiver}/ok\" }\n";
    let world = World::container(text).await;
    for _ in 0..12 {
        world.post("/events/app/hang", JSON, "{}").await;
    }
    let look = async {
        loop {
            let jobs = world.get("/api/jobs?handler=hangs").await.json();
            let waits: Vec<&str> = jobs["jobs"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|job| job["waits"].as_str())
                .collect();
            if waits.iter().any(|why| why.contains("in flight")) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::support::endpoint::PATIENCE, look).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn json_under_the_type_that_is_a_clients_default_is_json() {
    let text = "server: { allow_private_urls: true }
sources: { app: { type: event, schema: '{\"type\":\"object\",\"required\":[\"id\"]}' } }
handlers: { h: { source: app, filter: \"$.id == 7\", url: \"http://{receiver}/ok\", transform: { id: \"{{ $.id }}\" } } }
workflows: { ask: { source: app, events: [ask], steps: [{ name: a, type: callback, result_path: $.r }, { name: b, url: \"http://{receiver}/ok/b\" }] } }\n";
    let world = World::start(text).await;
    const DEFAULT: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded")];
    let posted = world.post("/events/app/order.paid", DEFAULT, r#"{"id": 7, "total": 120}"#).await;
    assert_eq!(
        (posted.status, &posted.json()["jobs_created"]),
        (202, &serde_json::json!(1)),
        "{}",
        posted.text
    );
    assert_eq!(world.receiver.until_count(1).await[0].text(), r#"{"id":7}"#);
    for (answer, expected) in [("hello", "\"hello\""), (r#"{"ok":true}"#, r#"{"ok":true}"#)] {
        let before = world.receiver.got().len();
        let event = world.post("/events/app/ask", DEFAULT, r#"{"id": 1}"#).await.event();
        let (_, token) = world.until_waiting(&event).await;
        assert_eq!(world.post(&format!("/callback/{token}"), DEFAULT, answer).await.status, 200);
        let got = world.receiver.until_count(before + 1).await;
        assert_eq!(got[before].text(), format!("{{\"id\":1,\"r\":{expected}}}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_shows_no_more_of_its_target_than_the_host() {
    let world = World::start(
        "server: { allow_private_urls: true }\nsources: { app: \
        { type: event } }\nhandlers: { h: { source: app, url: \"http://{receiver}/redir/308/1\", \
        retry: { max: 1 } } }\n",
    )
    .await;
    let event = world.post("/events/app/x", JSON, "{}").await.event();
    let jobs = world.until_jobs(&event, "dead").await;
    let shown = world.attempts(&jobs[0]).await;
    let error = shown[0]["error"].as_str().unwrap();
    assert!(error.contains("redirect to http://") && error.contains("/…"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_and_a_request_id_that_are_well_formed_go_on_to_receivers() {
    let world = World::start(
        "server: { allow_private_urls: true }\nsources: { app: \
        { type: event } }\nhandlers: { h: { source: app, url: \"http://{receiver}/ok\" } }\n",
    )
    .await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-00");
    let answer = world
        .post("/events/app/x", &[("traceparent", &parent), ("x-request-id", "req-1")], "{}")
        .await;
    assert_eq!(answer.headers["x-request-id"], "req-1");
    world
        .post("/events/app/x", &[("traceparent", "nonsense"), ("x-request-id", "a b")], "{}")
        .await;
    let got = world.receiver.until_count(2).await;
    let with = got.iter().find(|got| got.header("x-request-id").is_some()).unwrap();
    let sent = with.header("traceparent").unwrap();
    assert!(
        sent.starts_with(&format!("00-{trace}-")) && sent.ends_with("-00") && sent != parent,
        "{sent}"
    );
    assert_eq!((with.header("x-request-id"), with.count("traceparent")), (Some("req-1"), 1));
    let without = got.iter().find(|got| got.header("x-request-id").is_none()).unwrap();
    assert!(!without.header("traceparent").unwrap().contains(trace));
}
