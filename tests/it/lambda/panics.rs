//! A panic costs what panicked and nothing else: not its batch, not its environment. The real
//! binary has none to provoke, so these functions are this test program again, with parts that
//! panic once.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tidehook::deliver::Deliver;
use tidehook::engine::{Chance, Engine, Parts};
use tidehook::lambda::{Function as Lambda, Role};
use tidehook::model::{JobState, Outcome, Request, Response, SystemClock, SystemIds};
use tidehook::observe::feed::Feed;
use tidehook::store::{JobFilter, Page};
use tidehook::wake::local::Local;
use tidehook::wake::{Wake, Wakeup};

use crate::support::functions::install::{Install, answer, http};
use crate::support::functions::runtime::Function;
use crate::support::stores;
use crate::support::world::config;

const TEXT: &str = "server: { allow_private_urls: true }
worker: { stale_threshold_secs: 5 }
sources: { app: { type: event } }
handlers:
  h: { source: app, url: \"http://{receiver}/ok\" }
";
/// Names the URL of the database, for a function of this program.
const DATABASE: &str = "TIDEHOOK_TEST_PANICS";
const PAGE: Page = Page { limit: 100, newest_first: false };

/// Panics the first time.
struct Once(AtomicBool);

impl Once {
    fn panic(&self) {
        assert!(self.0.swap(true, Ordering::SeqCst), "this is the panic of a test");
    }
}

struct Receivers(Once);

#[async_trait]
impl Deliver for Receivers {
    async fn send(&self, request: Request) -> Outcome {
        if request.body.as_ref() == b"\"panic\"" {
            self.0.panic();
        }
        Outcome::Answered(Response::of(200, ""))
    }
}

struct Wakes(Local, Once);

#[async_trait]
impl Wake for Wakes {
    async fn wake(&self, due: &[Wakeup]) {
        self.1.panic();
        self.0.wake(due).await;
    }

    async fn woken(&self, at_most: Duration) {
        self.0.woken(at_most).await;
    }

    fn horizon(&self) -> Option<Duration> {
        self.1.panic();
        Some(Duration::ZERO)
    }
}

/// Not a test but a function, where another test starts this program as one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_program_is_a_function_too() {
    let Ok(url) = std::env::var(DATABASE) else { return };
    let handler = std::env::var("_HANDLER").unwrap();
    let engine = Engine::new(Parts {
        store: stores::open(&url, None).await,
        deliver: Arc::new(Receivers(Once(AtomicBool::new(false)))),
        // Workers panic in a delivery, others in what they tell.
        wake: Arc::new(Wakes(Local::default(), Once(AtomicBool::new(handler == "worker")))),
        clock: Arc::new(SystemClock),
        ids: Arc::new(SystemIds::default()),
        chance: Chance::seeded(1),
        config: Arc::new(config(&TEXT.replace("{receiver}", "127.0.0.1:1"))),
        feed: Feed::default(),
    });
    let function =
        Lambda::new(engine, Role::of_handler(&handler).unwrap(), None, Duration::from_secs(25));
    function.serve().await.unwrap();
}

async fn function(install: &Install, handler: &str) -> Function {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "lambda::panics::this_program_is_a_function_too", "--nocapture"]);
    let variables = [(DATABASE.to_owned(), install.url.clone())];
    Function::start_program(command, handler, &variables, &install.log()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_panics_costs_no_other_of_its_batch_and_comes_again() {
    let Some(install) = Install::new(TEXT).await else { return };
    let ingress = install.function("ingress").await;
    for body in ["\"one\"", "\"panic\"", "\"three\""] {
        assert_eq!(
            answer(&ingress.invoke(http("POST", "/events/app/go", &[], body)).await.unwrap()).0,
            202
        );
    }
    let worker = function(&install, "worker").await;
    let (batch, event) = install.queue.receive(Duration::from_secs(600)).unwrap();
    assert_eq!(batch.len(), 3);
    assert_eq!(worker.invoke(event.clone()).await.unwrap(), json!({ "batchItemFailures": [] }));
    let store = install.store().await;
    let states = async || {
        store
            .jobs(&JobFilter::default(), PAGE)
            .await
            .unwrap()
            .iter()
            .map(|job| job.state)
            .collect::<Vec<_>>()
    };
    assert_eq!(states().await.iter().filter(|state| **state == JobState::Done).count(), 2);
    // The same environment goes on, and does it when the lease has run out.
    while states().await.iter().any(|state| *state != JobState::Done) {
        assert_eq!(worker.invoke(event.clone()).await.unwrap(), json!({ "batchItemFailures": [] }));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(
        std::fs::read_to_string(install.log()).unwrap().contains("this is the panic of a test")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invocation_that_panics_is_an_error_and_the_next_one_is_served() {
    let Some(install) = Install::new(TEXT).await else { return };
    let ticker = function(&install, "ticker").await;
    let error = ticker.invoke(json!({})).await.unwrap_err();
    assert!(
        error["errorMessage"].as_str().unwrap().contains("this is the panic of a test"),
        "{error}"
    );
    assert_eq!(ticker.invoke(json!({})).await.unwrap()["announced"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_panics_after_its_commit_loses_nothing() {
    let Some(install) = Install::new(TEXT).await else { return };
    let ingress = function(&install, "ingress").await;
    let send = async |body: &str| {
        answer(&ingress.invoke(http("POST", "/events/app/go", &[], body)).await.unwrap())
    };
    let (status, said) = send("1").await;
    assert_eq!((status, &said["code"]), (500, &json!("internal_error")), "{said}");
    assert_eq!(send("2").await.0, 202);
    let jobs = install.store().await.jobs(&JobFilter::default(), PAGE).await.unwrap();
    assert_eq!(jobs.len(), 2, "what is committed is worked, whatever was answered");
}
