//! From a request to a delivery, by a queue and by ticks.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::functions::install::{Install, answer, http};
use crate::support::functions::runtime::Function;
use tidehook::wake::sqs::Hint;

const TEXT: &str = "server: { allow_private_urls: true, public_url: \"https://hooks.example.com\" }
database: { driver: postgres }
sources: { app: { type: event } }
handlers:
  h: { source: app, url: \"http://{receiver}/ok\" }
";

fn hints(install: &Install) -> Vec<(u64, usize)> {
    install
        .queue
        .sent()
        .iter()
        .map(|m| (m.delay.as_secs(), Hint::read(&m.body).unwrap().jobs.len()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_goes_through_ingress_queue_and_worker() {
    let Some(install) = Install::new(TEXT).await else { return };
    let (ingress, worker) = (install.function("ingress").await, install.function("worker").await);
    let (status, body) =
        answer(&ingress.invoke(http("POST", "/events/app/go", &[], "{\"k\":1}")).await.unwrap());
    assert_eq!((status, &body["jobs_created"]), (202, &json!(1)));
    assert_eq!(hints(&install), [(0, 1)]);
    install.drain(&worker).await;
    let got = install.receiver.got();
    assert_eq!((got.len(), got[0].text()), (1, "{\"k\":1}".to_owned()));
    assert_eq!(hints(&install).len(), 1, "nothing is left to tell of");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_queue_the_ticker_works() {
    let Some(install) = Install::new(TEXT).await else { return };
    let (ingress, ticker) =
        (install.without_queue("ingress").await, install.without_queue("ticker").await);
    for n in 0..20 {
        assert_eq!(
            answer(
                &ingress.invoke(http("POST", "/events/app/go", &[], &n.to_string())).await.unwrap()
            )
            .0,
            202
        );
    }
    let ticked = ticker.invoke(json!({ "source": "aws.scheduler", "detail": {} })).await.unwrap();
    assert_eq!(ticked["worked"]["done"], 20, "{ticked}");
    assert_eq!(install.receiver.got().len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_comes_on_the_second() {
    let text =
        TEXT.replace("/ok\" }", "/seq/503,200\", retry: { max: 2, interval: 2s, jitter: none } }");
    let Some(install) = Install::new(&text).await else { return };
    let (ingress, worker) = (install.function("ingress").await, install.function("worker").await);
    ingress.invoke(http("POST", "/events/app/go", &[], "{}")).await.unwrap();
    install.drain(&worker).await;
    assert_eq!(hints(&install), [(0, 1), (2, 1)]);
    let log = std::fs::read_to_string(install.log()).unwrap();
    let failed = log.lines().find(|line| line.contains("will be retried")).unwrap();
    assert!(
        failed.contains("\"request_id\":\"00000000-"),
        "a line of a worker's log names its invocation: {failed}"
    );
    let got = install.receiver.got();
    let after = got[1].at - got[0].at;
    assert!(after >= Duration::from_secs(2), "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_runs_with_waits_and_callbacks() {
    let text = TEXT.replace(
        "handlers:\n  h: { source: app, url: \"http://{receiver}/ok\" }\n",
        r#"api: { auth_token: plainly-fictional }
workflows:
  w:
    source: app
    steps:
      - { name: a, url: "http://{receiver}/ok" }
      - { name: pause, type: wait, seconds: 1 }
      - { name: ask, type: callback, url: "http://{receiver}/ok" }
      - name: each
        type: map
        items: "{{ $$.input.n }}"
        url: "http://{receiver}/ok"
      - { name: z, url: "http://{receiver}/ok" }
"#,
    );
    let Some(install) = Install::new(&text).await else { return };
    let (ingress, worker) = (install.function("ingress").await, install.function("worker").await);
    let bearer = [("authorization", "Bearer plainly-fictional")];
    ingress.invoke(http("POST", "/events/app/go", &bearer, "{\"n\": [1, 2, 3]}")).await.unwrap();
    let token = || {
        install
            .receiver
            .got()
            .iter()
            .find_map(|got| got.header("X-Tidehook-Callback-Token").map(str::to_owned))
    };
    install.poll(&worker, || token().is_some()).await;
    let path = format!("/callback/{}", token().unwrap());
    assert_eq!(answer(&ingress.invoke(http("POST", &path, &[], "{}")).await.unwrap()).0, 200);
    install.drain(&worker).await;
    let (_, runs) = answer(
        &ingress.invoke(http("GET", "/api/runs?status=completed", &bearer, "")).await.unwrap(),
    );
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1, "{runs}");
    assert_eq!(install.receiver.got().len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_steps_costs_no_message_each() {
    let text = TEXT.replace(
        "handlers:\n  h: { source: app, url: \"http://{receiver}/ok\" }\n",
        "workflows:\n  w:\n    source: app\n    steps:\n      - \
         { name: a, url: \"http://{receiver}/ok\" }\n      - \
         { name: b, url: \"http://{receiver}/ok\" }\n      - \
         { name: c, url: \"http://{receiver}/ok\" }\n",
    );
    let Some(install) = Install::new(&text).await else { return };
    let (ingress, worker) = (install.function("ingress").await, install.function("worker").await);
    ingress.invoke(http("POST", "/events/app/go", &[], "{}")).await.unwrap();
    install.drain(&worker).await;
    assert_eq!((install.receiver.got().len(), hints(&install).len()), (3, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_no_hint_harms_no_other() {
    let Some(install) = Install::new(TEXT).await else { return };
    let (ingress, worker) = (install.function("ingress").await, install.function("worker").await);
    for body in ["", "not json", "{\"tidehook\":99,\"jobs\":[]}", "[1]", &"x".repeat(300_000)] {
        install.queue.put(body);
    }
    ingress.invoke(http("POST", "/events/app/go", &[], "{}")).await.unwrap();
    let (batch, event) = install.queue.receive(Duration::from_secs(60)).unwrap();
    assert_eq!(batch.len(), 6);
    assert_eq!(worker.invoke(event).await.unwrap(), json!({ "batchItemFailures": [] }));
    assert_eq!(install.receiver.got().len(), 1);
    let log = std::fs::read_to_string(install.log()).unwrap();
    assert!(log.contains("\"tidehook_hints_refused_total\":5.0"), "{log}");
    assert!(log.contains("\"tidehook_hints_sent_total\":1.0"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_there_is_no_time_for_is_named_and_told_of_again() {
    let text = TEXT
        .replace("/ok\" }", "/slow/1500\", timeout: 2s }")
        .replace("sources:", "worker: { max_concurrency: 2 }\nsources:");
    let Some(install) = Install::new(&text).await else { return };
    let (ingress, worker) = (install.function("ingress").await, install.function("worker").await);
    for _ in 0..6 {
        ingress.invoke(http("POST", "/events/app/go", &[], "{}")).await.unwrap();
    }
    let (batch, event) = install.queue.receive(Duration::from_secs(60)).unwrap();
    assert_eq!(batch.len(), 6);
    let began = Instant::now();
    // Calls of up to 2 s and 5 s to spare: a second of the eight is for claiming.
    let answer = worker.invoke_within(event, Duration::from_secs(8)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(8));
    let left = answer["batchItemFailures"].as_array().unwrap().len();
    let done = install.receiver.got().len();
    assert!(left > 0 && left + done == 6, "{left} are left, {done} are done");
    install.queue.delete(&batch, &answer);
    // New messages name what is left; the old ones stay invisible meanwhile.
    install.poll(&worker, || install.receiver.got().len() == 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absurd_deadline_means_the_configured_budget() {
    let Some(install) = Install::new(TEXT).await else { return };
    let (ingress, worker) = (install.function("ingress").await, install.function("worker").await);
    ingress.invoke_until(http("POST", "/events/app/go", &[], "{}"), 600_000).await.unwrap();
    let (_, event) = install.queue.receive(Duration::from_secs(60)).unwrap();
    assert_eq!(
        worker.invoke_until(event, 600_000).await.unwrap(),
        json!({ "batchItemFailures": [] })
    );
    assert_eq!(install.receiver.got().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_gives_no_more_for_now_is_looked_at_again() {
    let text = TEXT.replace("/ok\" }", "/ok\", rate_limit: 2 }");
    let Some(install) = Install::new(&text).await else { return };
    let (ingress, worker) = (install.function("ingress").await, install.function("worker").await);
    for _ in 0..5 {
        ingress.invoke(http("POST", "/events/app/go", &[], "{}")).await.unwrap();
    }
    install.poll(&worker, || install.receiver.got().len() == 5).await;
    install.drain(&worker).await;
    assert!(hints(&install).contains(&(1, 0)), "{:?}", hints(&install));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tick_by_hand_migrates_and_says_what_it_cannot_do() {
    let Some(install) = Install::new(TEXT).await else { return };
    let ticker = install.function("ticker").await;
    assert_eq!(
        ticker.invoke(json!({ "tidehook": "migrate" })).await.unwrap(),
        json!({ "migrated": true })
    );
    let refused = ticker.invoke(json!({ "tidehook": "dance" })).await.unwrap_err();
    assert!(
        refused["errorMessage"].as_str().unwrap().contains("must be `tick`, `migrate` or `doctor`"),
        "{refused}"
    );
    assert!(std::fs::read_to_string(install.log()).unwrap().contains("The invocation failed."));
    for odd in [json!(null), json!([1]), json!("x"), json!({ "tidehook": 7 })] {
        let ticked: Value = ticker.invoke(odd).await.unwrap();
        assert_eq!(ticked["announced"], 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ticker_says_what_does_not_fit() {
    let Some(install) = Install::new(TEXT).await else { return };
    let mut variables = install.variables(true);
    let more = [
        ("WORKER_TIMEOUT_SECONDS", "20"),
        ("WORKER_CONCURRENCY", "5"),
        ("INGRESS_CONCURRENCY", "500"),
    ];
    variables.extend(more.map(|(name, value)| (format!("TIDEHOOK_{name}"), value.to_owned())));
    let ticker = Function::start("ticker", &variables, &install.log()).await;
    let said = ticker.invoke(json!({ "tidehook": "doctor" })).await.unwrap();
    let checks = said["checks"].as_array().unwrap();
    let why = |what: &str| {
        checks.iter().find(|check| check["what"].as_str().unwrap().starts_with(what)).unwrap()["why"].clone()
    };
    for well in [
        "database: responds in",
        "clocks",
        "database schema",
        "queue: visibility timeout 300 s",
        "queue: dead letters",
        "queue: a hint",
    ] {
        assert_eq!(why(well), Value::Null, "{said}");
    }
    assert_eq!(
        why("worker: 20 s"),
        "a call may take 30 s; set the timeout of the worker to at least 37 s"
    );
    assert!(why("connections").as_str().unwrap().contains("may open 521 connections"), "{said}");
    assert!(
        why("api.auth_token").as_str().unwrap().contains("everyone who can reach /events"),
        "{said}"
    );
    install.queue.refuse(true);
    let said = ticker.invoke(json!({ "tidehook": "doctor" })).await.unwrap();
    assert_eq!(
        said["checks"].as_array().unwrap().iter().filter(|check| check["why"].is_string()).count(),
        5,
        "{said}"
    );
}

/// `docs/serverless.md` in ten minutes: its variables, the sample configuration, an event for each
/// function.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recorded_events_do_what_the_guide_says() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let Some(install) = Install::new(&read("config/tidehook.yaml")).await else { return };
    let guide = read("docs/serverless.md");
    let told = guide.split("<<'EOF'\n").nth(1).unwrap().split("EOF").next().unwrap();
    let mut variables = install.variables(false);
    for (name, value) in told.lines().filter_map(|line| line.split_once('=')) {
        let value =
            if name == "GREET_URL" { install.receiver.url("/ok") } else { value.to_owned() };
        if !variables.iter().any(|(known, _)| known == name) {
            variables.push((name.to_owned(), value));
        }
    }
    let invoke = async |handler: &str, event: &str| {
        let function = Function::start(handler, &variables, &install.log()).await;
        function.invoke(serde_json::from_str(&read(event)).unwrap()).await.unwrap()
    };
    let (status, said) = answer(&invoke("ingress", "tests/events/http.json").await);
    assert_eq!((status, &said["jobs_created"]), (202, &json!(1)), "{said}");
    assert_eq!(invoke("ticker", "tests/events/schedule.json").await["worked"]["done"], 1);
    assert_eq!(invoke("worker", "tests/events/sqs.json").await, json!({ "batchItemFailures": [] }));
    assert_eq!(install.receiver.got().len(), 1);
}
