//! The runtime API as Lambda offers it to one environment, and the real binary on it.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path as Segment, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tidehook::model::{Clock, SystemClock};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use crate::support::endpoint::PATIENCE;
use crate::support::process::binary;

/// What an invocation came to: the answer, or the error that the runtime was told.
pub type Ended = Result<Value, Value>;

struct Invocation {
    id: String,
    event: Value,
    deadline_ms: u64,
}

#[derive(Clone)]
struct Api {
    next: Arc<AsyncMutex<mpsc::UnboundedReceiver<Invocation>>>,
    open: Arc<Mutex<HashMap<String, oneshot::Sender<Ended>>>>,
    not_started: Arc<Mutex<Option<Value>>>,
}

/// One environment: a process of the real binary.
pub struct Function {
    child: Mutex<Child>,
    invocations: mpsc::UnboundedSender<Invocation>,
    open: Arc<Mutex<HashMap<String, oneshot::Sender<Ended>>>>,
    not_started: Arc<Mutex<Option<Value>>>,
    _serving: tokio::task::JoinHandle<()>,
}

impl Function {
    /// Starts an environment with a handler.
    pub async fn start(handler: &str, variables: &[(String, String)], log: &Path) -> Self {
        Self::start_program(Command::new(binary()), handler, variables, log).await
    }

    /// The same with a program that is not the binary.
    pub async fn start_program(
        mut command: Command,
        handler: &str,
        variables: &[(String, String)],
        log: &Path,
    ) -> Self {
        let (invocations, next) = mpsc::unbounded_channel();
        let open: Arc<Mutex<HashMap<String, oneshot::Sender<Ended>>>> = Arc::default();
        let not_started: Arc<Mutex<Option<Value>>> = Arc::default();
        let api = Api {
            next: Arc::new(AsyncMutex::new(next)),
            open: Arc::clone(&open),
            not_started: Arc::clone(&not_started),
        };
        let routes = Router::new()
            .route("/2018-06-01/runtime/init/error", post(not_begun))
            .route("/2018-06-01/runtime/invocation/next", get(give))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(answered))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(failed))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(api);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("AWS_LAMBDA_RUNTIME_API", address.to_string()).env("_HANDLER", handler);
        command
            .env("AWS_LAMBDA_FUNCTION_NAME", handler)
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256");
        command.env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST").env("RUST_LOG", "tidehook=debug");
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = Mutex::new(command.spawn().unwrap());
        Self { child, invocations, open, not_started, _serving: serving }
    }

    /// Invokes it, with half a minute to its deadline.
    pub async fn invoke(&self, event: Value) -> Ended {
        self.invoke_within(event, Duration::from_secs(30)).await
    }

    /// Invokes it with so much time left. An invocation that is never answered fails the test.
    pub async fn invoke_within(&self, event: Value, left: Duration) -> Ended {
        let at = u64::try_from(SystemClock.now().plus(left).0).unwrap();
        tokio::time::timeout(PATIENCE, self.invoke_until(event, at))
            .await
            .expect("an invocation ends")
    }

    /// Invokes it with this deadline, in milliseconds since 1970.
    pub async fn invoke_until(&self, event: Value, deadline_ms: u64) -> Ended {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = format!("00000000-0000-0000-0000-{:012}", NEXT.fetch_add(1, Ordering::Relaxed));
        let (tell, ended) = oneshot::channel();
        self.open.lock().unwrap().insert(id.clone(), tell);
        self.invocations.send(Invocation { id, event, deadline_ms }).unwrap();
        let gone = || Err(json!({ "errorType": "Runtime.ExitError" }));
        tokio::select! {
            ended = ended => ended.unwrap_or_else(|_| gone()),
            _ = self.ended() => gone(),
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.lock().unwrap()), signal).unwrap();
    }

    /// Ends the process at once; invocations that are open end without an answer.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        self.open.lock().unwrap().clear();
    }

    /// What it told the runtime of why it does not start.
    pub fn not_started(&self) -> Option<Value> {
        self.not_started.lock().unwrap().clone()
    }

    /// Waits until it ends by itself.
    pub async fn ended(&self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.lock().unwrap().try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        // A stopped process is woken so that it can end; one that has ended is no matter.
        let _ = kill_process(Pid::from_child(&child), Signal::CONT);
        let _ = child.kill();
        let _ = child.wait();
    }
}

async fn give(State(api): State<Api>) -> (HeaderMap, Json<Value>) {
    let Some(invocation) = api.next.lock().await.recv().await else {
        // The test is over.
        return std::future::pending().await;
    };
    let header = |name, value: String| {
        (HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap())
    };
    let headers = HeaderMap::from_iter([
        header("lambda-runtime-aws-request-id", invocation.id),
        header("lambda-runtime-deadline-ms", invocation.deadline_ms.to_string()),
        header(
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:eu-west-1:000000000000:function:tidehook".to_owned(),
        ),
        header("lambda-runtime-trace-id", "Root=1-00000000-000000000000000000000000".to_owned()),
    ]);
    (headers, Json(invocation.event))
}

async fn not_begun(State(api): State<Api>, body: Bytes) -> StatusCode {
    *api.not_started.lock().unwrap() = Some(serde_json::from_slice(&body).unwrap());
    StatusCode::ACCEPTED
}

async fn answered(State(api): State<Api>, Segment(id): Segment<String>, body: Bytes) -> StatusCode {
    end(&api, &id, Ok(serde_json::from_slice(&body).unwrap()))
}

async fn failed(State(api): State<Api>, Segment(id): Segment<String>, body: Bytes) -> StatusCode {
    end(&api, &id, Err(serde_json::from_slice(&body).unwrap()))
}

fn end(api: &Api, id: &str, ended: Ended) -> StatusCode {
    if let Some(tell) = api.open.lock().unwrap().remove(id) {
        // A test that no longer waits does not want to know.
        let _ = tell.send(ended);
    }
    StatusCode::ACCEPTED
}
