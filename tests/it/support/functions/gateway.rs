//! What stands before and behind functions: an HTTP API that makes an event of each request, the
//! poller of a queue, and a schedule. With it an installation of functions is a server like any
//! other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::install::{Install, request};
use super::runtime::Function;

/// As long as the messages of a queue stay invisible in `template.yaml`.
const VISIBILITY: Duration = Duration::from_secs(360);
/// The times of `template.yaml`.
const INGRESS_TIME: Duration = Duration::from_secs(10);
const TICKER_TIME: Duration = Duration::from_secs(50);
const WORKER_TIME: Duration = Duration::from_secs(60);
const TICK_EVERY: Duration = Duration::from_secs(60);
/// Environments of the worker: what one batch holds up does not hold up the next.
const WORKERS: usize = 2;
/// The most that an HTTP API hands on.
const BODY_MAX: usize = 10 * 1024 * 1024;

/// A running installation with an address. Everything ends with it.
pub struct Gateway {
    pub address: SocketAddr,
    install: Arc<Install>,
    ticker: Arc<Function>,
    running: Vec<JoinHandle<()>>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.install.log()).unwrap_or_default();
            eprintln!(
                "The functions said at last:\n{}",
                log.lines().rev().take(80).collect::<Vec<_>>().join("\n")
            );
        }
        for task in &self.running {
            task.abort();
        }
    }
}

impl Gateway {
    pub async fn start(install: Install) -> Self {
        let install = Arc::new(install);
        let ingress = Arc::new(install.function("ingress").await);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().fallback(pass).with_state(ingress);
        let mut running =
            vec![tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() })];
        for _ in 0..WORKERS {
            let worker = install.function("worker").await;
            running.push(tokio::spawn(poll(Arc::clone(&install), worker)));
        }
        let ticker = Arc::new(install.function("ticker").await);
        running.push(tokio::spawn(schedule(Arc::clone(&ticker))));
        Self { address, install, ticker, running }
    }

    /// A tick between those of the schedule.
    pub async fn tick(&self) {
        tick(&self.ticker).await;
    }
}

async fn tick(ticker: &Function) {
    ticker
        .invoke_within(json!({ "tidehook": "tick" }), TICKER_TIME)
        .await
        .expect("a tick is worked");
}

async fn schedule(ticker: Arc<Function>) {
    let mut times = tokio::time::interval(TICK_EVERY);
    loop {
        times.tick().await;
        tick(&ticker).await;
    }
}

async fn poll(install: Arc<Install>, worker: Function) {
    loop {
        match install.queue.receive(VISIBILITY) {
            // An invocation that fails leaves its messages where they are.
            Some((batch, event)) => match worker.invoke_within(event, WORKER_TIME).await {
                Ok(answer) => install.queue.delete(&batch, &answer),
                Err(why) => eprintln!("a worker failed: {why}"),
            },
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn pass(State(ingress): State<Arc<Function>>, got: Request<Body>) -> Response {
    let (head, body) = got.into_parts();
    let plain = |status: StatusCode, message: &str| {
        let body = json!({ "message": message }).to_string();
        Response::builder().status(status).body(Body::from(body)).unwrap()
    };
    let Ok(body) = axum::body::to_bytes(body, BODY_MAX).await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "Request Too Long");
    };
    let target = (head.uri.path(), head.uri.query().unwrap_or(""));
    let mut event = request(
        head.method.as_str(),
        target,
        joined(&head.headers),
        "127.0.0.1",
        &STANDARD.encode(&body),
    );
    event.insert("isBase64Encoded".to_owned(), json!(true));
    match ingress.invoke_within(event.into(), INGRESS_TIME).await {
        Ok(answer) => response(&answer),
        Err(why) => {
            eprintln!("ingress failed: {why}");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        }
    }
}

/// Headers as an HTTP API hands them on: names in small letters, several values of one with commas
/// between.
fn joined(headers: &HeaderMap) -> Map<String, Value> {
    let value = |name| {
        let all: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        json!(all.join(","))
    };
    headers.keys().map(|name| (name.as_str().to_owned(), value(name))).collect()
}

fn response(answer: &Value) -> Response {
    let mut response =
        Response::builder().status(u16::try_from(answer["statusCode"].as_u64().unwrap()).unwrap());
    for (name, value) in answer["headers"].as_object().into_iter().flatten() {
        response = response.header(name, value.as_str().unwrap());
    }
    let text = answer["body"].as_str().unwrap_or("");
    let body = if answer["isBase64Encoded"] == true {
        STANDARD.decode(text).unwrap()
    } else {
        text.as_bytes().to_vec()
    };
    response.body(Body::from(body)).unwrap()
}
