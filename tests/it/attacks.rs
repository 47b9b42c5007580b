//! Hostile requests, byte by byte: exact status, nothing lost, process alive.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::endpoint::PATIENCE;
use crate::support::world::World;

const CONFIG: &str = r#"
server: { allow_private_urls: true, max_body_size: 10000 }
sources:
  open: { type: webhook, verify: none }
  github: { type: webhook, verify: github, secret: fictional }
  app: { type: event }
handlers:
  every: { source: open, url: "http://{receiver}/ok" }
"#;

/// Sends bytes as they are and reads until the other side closes, or for a moment.
async fn raw(address: SocketAddr, bytes: &[u8], patience: Duration) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(Ok(n)) = tokio::time::timeout(patience, stream.read(&mut chunk)).await {
        if n == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn statuses(answer: &str) -> Vec<u16> {
    answer.split("HTTP/1.1 ").skip(1).map(|rest| rest[..3].parse().unwrap()).collect()
}

/// A following request that must never be seen as one of its own.
const SMUGGLED: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn ambiguous_requests_are_refused_and_the_connection_ends() {
    let world = World::container(CONFIG).await;
    let post = |headers: &str, body: &str| {
        format!("POST /webhooks/open HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n{body}")
    };
    let cases = [
        ("two lengths", post("Content-Length: 2\r\nContent-Length: 3", &format!("{{}}{SMUGGLED}"))),
        ("a list of lengths", post("Content-Length: 2, 3", &format!("{{}}{SMUGGLED}"))),
        ("an alien coding", post("Transfer-Encoding: xchunked", &format!("0\r\n\r\n{SMUGGLED}"))),
        (
            "chunked not last",
            post("Transfer-Encoding: chunked, identity", &format!("0\r\n\r\n{SMUGGLED}")),
        ),
        ("a folded header", post("X-A: b\r\n c\r\nContent-Length: 2", &format!("{{}}{SMUGGLED}"))),
        ("a space before the colon", post("Content-Length : 2", &format!("{{}}{SMUGGLED}"))),
        ("a NUL in a header", post("X-A: b\0c\r\nContent-Length: 2", &format!("{{}}{SMUGGLED}"))),
        ("a header without a name", post(": b\r\nContent-Length: 2", &format!("{{}}{SMUGGLED}"))),
        ("a negative length", post("Content-Length: -2", &format!("{{}}{SMUGGLED}"))),
    ];
    for (what, bytes) in cases {
        let answer = raw(world.address(), bytes.as_bytes(), Duration::from_secs(3)).await;
        assert_eq!(statuses(&answer), [400], "{what}: {answer}");
    }
    assert_eq!(
        world.get("/api/events").await.json()["events"],
        json!([]),
        "none of them became an event"
    );
    // RFC 9112, 6.3: chunks win over a length, and the connection ends, so that nothing follows.
    for headers in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
    ] {
        let bytes = post(headers, &format!("2\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}"));
        let answer = raw(world.address(), bytes.as_bytes(), Duration::from_secs(3)).await;
        assert_eq!(statuses(&answer), [200], "{headers}: {answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn heads_and_bodies_have_limits() {
    let world = World::container(CONFIG).await;
    let address = world.address();
    let moment = Duration::from_secs(3);
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    for (what, bytes, status) in [
        ("200 headers", format!("GET /livez HTTP/1.1\r\nHost: x\r\n{many}\r\n"), 431),
        (
            "a header of 1 MB",
            format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n", "a".repeat(1 << 20)),
            431,
        ),
        ("a URL of 66 kB", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(66_000)), 414),
        (
            "a length of 10 GB and silence",
            "POST /webhooks/open HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n".into(),
            413,
        ),
        ("TRACE", "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n".into(), 405),
        ("CONNECT", "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n".into(), 405),
        ("an unknown method", "BREW /webhooks/open HTTP/1.1\r\nHost: x\r\n\r\n".into(), 405),
        (
            "dots in the path",
            "POST /webhooks/x/../../api/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
                .into(),
            404,
        ),
        ("a parameter in the path", "GET /api/jobs;x HTTP/1.1\r\nHost: x\r\n\r\n".into(), 404),
        (
            "a path that is no text",
            "POST /webhooks/%ff HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".into(),
            400,
        ),
    ] {
        let answer = raw(address, bytes.as_bytes(), moment).await;
        assert_eq!(statuses(&answer), [status], "{what}: {}", &answer[..answer.len().min(300)]);
    }
    for path in ["/webhooks/%ff", "/events/app/%ff"] {
        let answer = raw(
            address,
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").as_bytes(),
            moment,
        )
        .await;
        assert!(answer.contains("\"code\":\"bad_request\""), "{answer}");
    }
    for (method, path, status) in [
        ("GET", "/api/events?source=%00", 422),
        ("GET", "/api/jobs?handler=%00", 422),
        ("POST", "/api/lanes/%00/pause", 404),
    ] {
        let bytes = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(statuses(&raw(address, bytes.as_bytes(), moment).await), [status], "{path}");
    }
    let chunked = |size: usize| {
        let head = "POST /webhooks/open HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}{size:x}\r\n{}\r\n0\r\n\r\n", "a".repeat(size))
    };
    assert_eq!(statuses(&raw(address, chunked(10_000).as_bytes(), moment).await), [200]);
    assert_eq!(statuses(&raw(address, chunked(10_001).as_bytes(), moment).await), [413]);
    assert_eq!(world.post("/webhooks/open", &[], vec![b'a'; 10_000]).await.status, 200);
    assert_eq!(world.post("/webhooks/open", &[], vec![b'a'; 10_001]).await.status, 413);
    assert_eq!(world.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn slow_heads_and_bodies_are_given_up_while_others_are_served() {
    let world = World::container(CONFIG).await;
    let address = world.address();
    let start = Instant::now();
    let head = tokio::spawn(async move {
        raw(address, b"POST /webhooks/open HTTP/1.1\r\nHost: x\r\nX-", PATIENCE).await
    });
    let body = tokio::spawn(async move {
        raw(
            address,
            b"POST /webhooks/open HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab",
            PATIENCE,
        )
        .await
    });
    let dribblers: Vec<_> = (0..300)
        .map(|_| {
            tokio::spawn(async move {
                raw(address, b"POST /webhooks/open HTTP/1.1\r\nHost:", PATIENCE).await
            })
        })
        .collect();
    for _ in 0..50 {
        assert_eq!(world.post("/webhooks/open", &[], "{}").await.status, 200);
    }
    head.await.unwrap();
    assert_eq!(statuses(&body.await.unwrap()), [408]);
    for dribbler in dribblers {
        dribbler.await.unwrap();
    }
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "they were given up by the server, not by the test"
    );
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_no_half_event_and_no_poisoned_connection() {
    let world = World::container(CONFIG).await;
    let address = world.address();
    for cut in [0, 10, 60, 95, 100, 105] {
        let whole = "POST /webhooks/open HTTP/1.1\r\nHost: x\r\nContent-Length: \
            20\r\nContent-Type: text/plain\r\n\r\n01234567890123456789";
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&whole.as_bytes()[..cut.min(whole.len())]).await.unwrap();
        drop(stream);
    }
    for n in 0..20 {
        assert_eq!(world.post("/webhooks/open", &[], format!("{n}")).await.status, 200);
    }
    for event in world.get("/api/events").await.json()["events"].as_array().unwrap() {
        let id = event["id"].as_str().unwrap();
        let payload = world.get(&format!("/api/events/{id}")).await.json()["payload"].to_string();
        assert!(payload.len() <= 4 || payload == "\"01234567890123456789\"", "{payload}");
    }
}

#[tokio::test]
async fn foreign_text_never_breaks_a_line_or_a_query() {
    let world = World::container(CONFIG).await;
    for text in [
        "'; DROP TABLE events; --",
        "%",
        "_",
        "a\nb",
        "\u{1b}[31mred",
        "<img src=x onerror=alert(1)>",
        "\u{202e}evil",
    ] {
        let encoded =
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                .to_string();
        let sent = world.post(&format!("/events/app/{encoded}"), &[], "{}").await;
        let controls = text.contains(char::is_control);
        assert_eq!(sent.status, if controls { 422 } else { 202 }, "{text:?}");
        let found = world.get(&format!("/api/events?event_type={encoded}")).await;
        match controls {
            true => assert_eq!(found.status, 422, "{text:?}"),
            false => assert_eq!(found.json()["events"].as_array().unwrap().len(), 1, "{text:?}"),
        }
    }
    let answer = world.post("/webhooks/open", &[], "x").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(world.get("/api/jobs?handler='%20OR%201=1").await.json()["jobs"], json!([]));
}

#[tokio::test]
async fn many_bad_signatures_are_counted_in_one_row() {
    let world = World::container(CONFIG).await;
    for n in 0..300 {
        let forged = format!("sha256={n:064x}");
        let answer =
            world.post("/webhooks/github", &[("x-hub-signature-256", &forged)], "{}").await;
        assert_eq!(answer.status, 401);
    }
    let rejections = world.get("/api/rejections").await.json();
    assert_eq!(rejections["rejections"].as_array().unwrap().len(), 1);
    assert_eq!(rejections["rejections"][0]["count"], 300);
    assert_eq!(world.get("/api/events").await.json()["events"], json!([]));
}
