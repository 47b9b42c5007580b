//! The engine by hand: a scripted receiver, a clock that the test moves, one `work` at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidehook::deliver::Deliver;
use tidehook::engine::{Budget, Engine, Worked};
use tidehook::model::Body;
use tidehook::model::FailureCode;
use tidehook::model::{
    AttemptResult, CallPhase, Failure, Inbound, JobState, Outcome, Request, Response,
};
use tidehook::store::{JobFilter, Page};

use crate::simulation::shaky::Shaky;
use crate::support::engines;
use crate::support::stores::{Fresh, Kind, fresh};
use crate::support::world::config;

type Script = Box<dyn Fn(&Request, usize) -> Outcome + Send + Sync>;

/// Answers by a script, given the request and how often its delivery was sent before.
struct Scripted {
    script: Script,
    sent: Mutex<BTreeMap<String, usize>>,
}

#[async_trait]
impl Deliver for Scripted {
    async fn send(&self, request: Request) -> Outcome {
        let id =
            request.headers.iter().find(|(n, _)| n == "X-Tidehook-Delivery-ID").unwrap().1.clone();
        let before = {
            let mut sent = self.sent.lock().unwrap();
            let count = sent.entry(id).or_default();
            *count += 1;
            *count - 1
        };
        (self.script)(&request, before)
    }
}

fn status(status: u16) -> Outcome {
    Outcome::Answered(Response::of(status, ""))
}

struct Bench {
    engine: Engine,
    scripted: Arc<Scripted>,
    fresh: Fresh,
}

const EVERYTHING: Budget = Budget::endless(10);
const ALL: Page = Page { limit: 1000, newest_first: false };

async fn bench(kind: Kind, handlers: &str, script: Script) -> Bench {
    let fresh = fresh(kind).await.unwrap();
    let text = format!("sources: {{ app: {{ type: event }} }}\nhandlers:\n{handlers}");
    let scripted = Arc::new(Scripted { script, sent: Mutex::default() });
    let engine = engines::engine(
        &fresh.store,
        Arc::clone(&scripted) as Arc<dyn Deliver>,
        &fresh.clock,
        Arc::new(config(&text)),
        1,
    );
    engine.prepare(true).await.unwrap();
    Bench { engine, scripted, fresh }
}

impl Bench {
    async fn accept(&self, body: &str) {
        let inbound = Inbound {
            source: "app".into(),
            kind: "x".into(),
            type_aliases: Vec::new(),
            headers: Vec::new(),
            body: Body::new(body.to_owned()),
            dedupe_key: None,
            idempotency_key: None,
        };
        self.engine.accept(inbound).await.unwrap();
    }

    async fn work(&self) -> Worked {
        self.engine.work(EVERYTHING).await.unwrap()
    }

    fn sent(&self) -> Vec<usize> {
        self.scripted.sent.lock().unwrap().values().copied().collect()
    }

    async fn states(&self) -> Vec<(JobState, u32)> {
        let jobs = self.engine.store().jobs(&JobFilter::default(), ALL).await.unwrap();
        jobs.iter().map(|j| (j.state, j.attempt)).collect()
    }
}

#[tokio::test]
async fn one_call_works_off_what_is_due_and_nothing_else() {
    let handlers = "  h: { source: app, url: https://h.example.com, retry: \
        { max: 3, interval: 10s, jitter: 0 } }\n";
    let bench = bench(
        Kind::Sqlite,
        handlers,
        Box::new(|_, before| status(if before == 0 { 500 } else { 200 })),
    )
    .await;
    for n in 0..25 {
        bench.accept(&n.to_string()).await;
        // Successes in between keep the breaker closed.
        bench.work().await;
        bench.fresh.clock.advance(Duration::from_secs(10));
        assert_eq!(bench.work().await.done, 1);
    }
    assert_eq!(bench.work().await, Worked::default());
    assert_eq!(bench.sent(), vec![2; 25]);
    assert_eq!(bench.states().await, vec![(JobState::Done, 2); 25]);
}

#[tokio::test]
async fn a_budget_of_jobs_is_kept_and_says_that_there_is_more() {
    let handlers = "  h: { source: app, url: https://h.example.com }\n";
    let bench = bench(Kind::Memory, handlers, Box::new(|_, _| status(200))).await;
    for n in 0..5 {
        bench.accept(&n.to_string()).await;
    }
    let worked = bench.engine.work(Budget { jobs: 3, ..EVERYTHING }).await.unwrap();
    assert_eq!((worked.done, worked.more), (3, true));
    assert_eq!(bench.work().await.done, 2);
}

#[tokio::test]
async fn every_delivery_gets_all_its_attempts_through_a_long_outage() {
    // The receiver is down for good; the breaker lets one probe through a minute. An open breaker
    // costs no attempt, so every delivery still gets its real requests before it is given up.
    let handlers = "  h: { source: app, url: https://h.example.com, retry: \
        { max: 4, backoff: fixed, interval: 1s, jitter: 0 } }\n";
    fn down(_: &Request, _: usize) -> Outcome {
        Outcome::Failed(Failure::Connect("refused".into()))
    }
    for kind in [Kind::Memory, Kind::Sqlite] {
        let bench = bench(kind, handlers, Box::new(down)).await;
        for n in 0..100 {
            bench.accept(&n.to_string()).await;
        }
        let mut rounds = 0;
        while bench.states().await.iter().any(|(state, _)| *state != JobState::Dead) {
            bench.work().await;
            bench.fresh.clock.advance(Duration::from_secs(61));
            rounds += 1;
            assert!(rounds < 1_000, "it never ends");
        }
        assert_eq!(bench.sent(), vec![4; 100], "{kind:?}");
        assert_eq!(bench.states().await, vec![(JobState::Dead, 4); 100], "{kind:?}");
        assert_eq!(bench.engine.store().totals().await.unwrap().dead, 100);
    }
}

#[tokio::test]
async fn a_receiver_that_comes_back_is_not_flooded() {
    let handlers = "  h: { source: app, url: https://h.example.com, retry: \
        { max: 50, interval: 1s, backoff: fixed, jitter: 0 } }\n";
    let down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let switch = Arc::clone(&down);
    let script = move |_: &Request, _| match switch.load(std::sync::atomic::Ordering::SeqCst) {
        true => Outcome::Failed(Failure::Timeout(CallPhase::Headers)),
        false => status(200),
    };
    let bench = bench(Kind::Memory, handlers, Box::new(script)).await;
    for n in 0..30 {
        bench.accept(&n.to_string()).await;
    }
    bench.work().await;
    let before: usize = bench.sent().iter().sum();
    down.store(false, std::sync::atomic::Ordering::SeqCst);
    bench.fresh.clock.advance(Duration::from_secs(61));
    // One probe first: a worker with a budget of one claim sees one job only.
    let probe = bench.engine.work(Budget { jobs: 1, ..EVERYTHING }).await.unwrap();
    assert_eq!((probe.done, bench.sent().iter().sum::<usize>()), (1, before + 1));
    // Then 1, 2, 4, … in each second, however fast it answers.
    let mut seconds = Vec::new();
    while bench.states().await.iter().any(|(state, _)| *state != JobState::Done) {
        seconds.push(bench.work().await.done);
        bench.fresh.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(seconds[..4], [1, 2, 4, 8]);
}

#[tokio::test]
async fn a_claim_that_never_reached_a_sender_costs_nothing() {
    let handlers = "  h: { source: app, url: https://h.example.com }\n";
    for kind in [Kind::Memory, Kind::Sqlite] {
        let bench = bench(kind, handlers, Box::new(|_, _| status(200))).await;
        bench.accept("one").await;
        for _ in 0..8 {
            // The answer to the claim is lost, so nobody works on the job.
            assert_eq!(bench.engine.store().claim(&ask()).await.unwrap().len(), 1);
            bench.fresh.clock.advance(Duration::from_secs(6));
        }
        assert_eq!(bench.work().await.done, 1, "{kind:?}");
        assert_eq!(bench.sent(), [1], "{kind:?}");
    }
}

fn ask() -> tidehook::store::ClaimRequest {
    tidehook::store::ClaimRequest {
        slots: tidehook::decide::fair::Slots::free(1),
        lease: Duration::from_secs(5),
        skip: Vec::new(),
        unserved: Vec::new(),
        only: Vec::new(),
    }
}

#[tokio::test]
async fn a_job_that_kills_its_workers_is_given_up_untried() {
    let handlers = "  h: { source: app, url: https://h.example.com }\n";
    let bench = bench(Kind::Sqlite, handlers, Box::new(|_, _| status(200))).await;
    bench.accept("poison").await;
    for _ in 0..3 {
        // A worker that claims, begins to send and dies.
        let claimed = bench.engine.store().claim(&ask()).await.unwrap();
        assert!(bench.engine.store().begin_send(claimed[0].job.lease()).await.unwrap());
        bench.fresh.clock.advance(Duration::from_secs(6));
    }
    assert_eq!(bench.work().await.dead, 1);
    assert!(bench.sent().is_empty());
    let jobs = bench.engine.store().jobs(&JobFilter::default(), ALL).await.unwrap();
    assert!(jobs[0].last_error.as_deref().unwrap().starts_with("crash_suspect"), "{:?}", jobs[0]);
}

#[tokio::test]
async fn an_orphaned_lane_keeps_its_jobs_parked() {
    let handlers = "  h: { source: app, url: https://h.example.com }\n";
    let first = bench(Kind::Memory, handlers, Box::new(|_, _| status(200))).await;
    first.accept("one").await;
    // The next configuration has no such handler.
    let engine = engines::engine(
        first.engine.store(),
        Arc::clone(&first.scripted) as Arc<dyn Deliver>,
        &first.fresh.clock,
        Arc::new(config("sources: { app: { type: event } }\nhandlers: {}\n")),
        2,
    );
    engine.prepare(true).await.unwrap();
    assert_eq!(engine.work(EVERYTHING).await.unwrap(), Worked::default());
    assert_eq!(first.states().await, [(JobState::Pending, 0)]);
    assert_eq!(first.work().await.done, 1);
}

#[tokio::test]
async fn an_aborted_engine_puts_what_was_under_way_on_record_as_interrupted() {
    struct Never(Arc<tokio::sync::Notify>);
    #[async_trait]
    impl Deliver for Never {
        async fn send(&self, _: Request) -> Outcome {
            self.0.notify_one();
            std::future::pending().await
        }
    }
    let first = bench(
        Kind::Sqlite,
        "  h: { source: app, url: https://h.example.com }\n",
        Box::new(|_, _| status(200)),
    )
    .await;
    first.accept("one").await;
    let begun = Arc::new(tokio::sync::Notify::new());
    let engine = engines::engine(
        first.engine.store(),
        Arc::new(Never(Arc::clone(&begun))),
        &first.fresh.clock,
        Arc::clone(first.engine.config()),
        2,
    );
    let working = tokio::spawn({
        let engine = engine.clone();
        async move { engine.work(EVERYTHING).await.unwrap() }
    });
    begun.notified().await;
    engine.abort();
    let worked = working.await.unwrap();
    assert_eq!(worked.retried, 1);
    assert_eq!(first.states().await, [(JobState::Pending, 1)], "the attempt has its number");
    assert_eq!(first.work().await.done, 1, "due at once");
    let job = first
        .engine
        .store()
        .jobs(&JobFilter::default(), Page { limit: 1, newest_first: false })
        .await
        .unwrap()
        .remove(0);
    let attempts = first.engine.store().attempts(job.id).await.unwrap();
    let shown: Vec<_> = attempts.iter().map(|a| (a.number, a.ending, a.code)).collect();
    assert_eq!(
        shown,
        [
            (1, AttemptResult::Interrupted, Some(FailureCode::Interrupted)),
            (2, AttemptResult::Delivered, None)
        ]
    );
    assert_eq!((job.attempt, job.interrupted, job.crashes), (2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_work_does_not_take_an_outage_for_over() {
    let fresh = fresh(Kind::Memory).await.unwrap();
    let shaky = Arc::new(Shaky::new(Arc::clone(&fresh.store), 1, 0));
    let store = Arc::clone(&shaky) as Arc<dyn tidehook::store::Store>;
    let deliver =
        Arc::new(Scripted { script: Box::new(|_, _| status(200)), sent: Mutex::default() });
    let text = "sources: { app: { type: event } }\nhandlers: {}\n";
    let engine = engines::engine(&store, deliver, &fresh.clock, Arc::new(config(text)), 1);
    engine.prepare(true).await.unwrap();
    *shaky.one_in.lock().unwrap() = 1;
    let worker = tokio::spawn({
        let engine = engine.clone();
        async move { engine.work_until_drained(EVERYTHING).await }
    });
    while engine.health().is_up() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Several heartbeats, which come every ten seconds.
    for _ in 0..400 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!engine.health().is_up(), "no call has been answered");
    }
    engine.drain();
    worker.await.unwrap();
}
