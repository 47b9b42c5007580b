//! The simulation: one seed is one world. Two engines on one store, deliveries and workflows,
//! receivers that answer well, badly or too late, a store that refuses or whose answers are lost,
//! workers that die in the middle, people who pause, resume and call off, a clock that jumps.
//!
//! At the end of time: every acknowledged event reached its handler or is dead with a reason, and
//! ran its workflows; every run has ended and is as it must be; no job is open; no operation was
//! called more often than it has attempts on record; runs that take turns never ran side by side;
//! what a failed run did was undone once each, the last first; its last step ran once; and what it
//! published is there once.
//!
//! A seed that fails is printed and replays. `TIDEHOOK_SEEDS` says how many are tried,
//! `TIDEHOOK_SEED` which one.
//!
//! Each guard was taken out once, and this cried. Without the fence of the lease: within a hundred
//! seeds, a call that is not on record. Without the version of the run: within ten seeds, runs that
//! never end, because a branch's answer is lost. With the job finished although its run had moved
//! on: within ten seeds, the same, because the successor is missing. Without the version of a gate:
//! within ten seeds, two runs of one key side by side. With each undone step counted twice: within
//! a hundred seeds, steps that nobody undid.

pub mod shaky;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tidehook::config::Config;
use tidehook::deliver::Deliver;
use tidehook::engine::callback::Answer;
use tidehook::engine::{Budget, Chance, Engine, Parts};
use tidehook::model::Body;
use tidehook::model::history::HistoryEntry;
use tidehook::model::{
    CallPhase, Failure, Inbound, JobState, ManualClock, Outcome, Request, Response, RunStatus,
};
use tidehook::store::{JobFilter, Page, RunFilter, Store};

use crate::support::engines;
use crate::support::stores::START;
use crate::support::world::config;
use shaky::Shaky;

const ALL: Page = Page { limit: 10_000, newest_first: false };
const EVENTS: u64 = 4;
const ROUNDS: u32 = 120;
/// A lease of the configuration below.
const LEASE: Duration = Duration::from_secs(30);

const TEXT: &str = r#"
sources: { app: { type: event }, other: { type: event } }
server: { allow_private_urls: true }
delivery: { default_retry: { max: 4, interval: 5s } }
handlers:
  plain: { source: app, url: http://plain/, retry: { max: 20, interval: 5s, backoff: fixed } }
workflows:
  w:
    source: app
    steps:
      - { name: first, url: http://first/, result_path: "null", retry: { max: 20, interval: 5s, backoff: fixed } }
      - name: each
        type: map
        items_path: "$.items"
        max_concurrency: 2
        steps: [{ name: one, url: http://one/, result_path: "null", retry: { max: 20, interval: 5s, backoff: fixed } }]
        result_path: "$.each"
      - name: three
        type: parallel
        retry: { max: 20, interval: 5s, backoff: fixed }
        branches: [{ name: a, url: http://a/ }, { name: b, url: http://b/ }, { name: c, url: http://c/ }]
        result_path: "$.three"
      - { name: pause, type: wait, seconds: 60 }
      - { name: ask, type: callback, url: http://ask/, callback_timeout: 7200, result_path: "$.answer", retry: { max: 20, interval: 5s, backoff: fixed }, catch: [{ errors: [all], goto: undo }] }
      - { name: last, url: http://last/, retry: { max: 1 }, catch: [{ errors: [all], goto: undo }], end: true }
      - { name: undo, url: http://undo/, on_failure: continue }
  turns:
    source: app
    concurrency: { limit: 1 }
    on_failure: compensate
    retry: { max: 20, interval: 5s, backoff: fixed }
    finally: [{ name: report, url: http://report/ }]
    steps:
      - { name: one, url: http://book/, result_path: "null", compensate: { url: http://unbook/, retry: { max: 3, interval: 5s } } }
      - name: two
        type: parallel
        result_path: "null"
        branches:
          - { name: a, url: http://left/, compensate: { url: http://unleft/ } }
          - { name: b, url: http://right/, compensate: { url: http://unright/ } }
      - { name: tell, type: emit, source: other, event: told }
      - { name: rest, type: wait, seconds: 20 }
      - { name: last, url: http://may-fail/, retry: { max: 1 } }
"#;

/// Receivers that answer by the dice, and remember every call.
struct Receivers {
    dice: Mutex<StdRng>,
    clock: ManualClock,
    calm: Mutex<bool>,
    calls: Mutex<Vec<(String, String)>>,
    tokens: Mutex<Vec<String>>,
}

#[async_trait]
impl Deliver for Receivers {
    async fn send(&self, request: Request) -> Outcome {
        let header = |name: &str| {
            request
                .headers
                .iter()
                .find(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, v)| v.clone())
        };
        let operation =
            header("Idempotency-Key").or_else(|| header("X-Tidehook-Delivery-ID")).unwrap();
        self.calls.lock().unwrap().push((operation, header("X-Tidehook-Job-ID").unwrap()));
        self.tokens.lock().unwrap().extend(header("X-Tidehook-Callback-Token"));
        let roll = if *self.calm.lock().unwrap() {
            9
        } else {
            self.dice.lock().unwrap().random_range(0..10)
        };
        let answered = |status| Outcome::Answered(Response::of(status, "{}"));
        match roll {
            0 => answered(500),
            1 => Outcome::Failed(Failure::Timeout(CallPhase::Headers)),
            2 => {
                // Slower than its lease: someone else may have the job by the time it answers.
                self.clock.advance(LEASE + Duration::from_secs(1));
                tokio::task::yield_now().await;
                answered(200)
            }
            _ => {
                tokio::task::yield_now().await;
                answered(200)
            }
        }
    }
}

struct World {
    seed: u64,
    config: Arc<Config>,
    clock: ManualClock,
    shaky: Arc<Shaky>,
    receivers: Arc<Receivers>,
    engines: Vec<Engine>,
    born: u64,
}

const EVERYTHING: Budget = Budget::endless(10);

impl World {
    async fn new(seed: u64, config: &Arc<Config>) -> Self {
        let clock = ManualClock::at(START);
        let memory: Arc<dyn Store> =
            Arc::new(tidehook::store::memory::Memory::new(Some(clock.clone())));
        let shaky = Arc::new(Shaky::new(memory, seed, 0));
        let receivers = Arc::new(Receivers {
            dice: Mutex::new(StdRng::seed_from_u64(seed ^ 0xA5A5)),
            clock: clock.clone(),
            calm: Mutex::new(false),
            calls: Mutex::default(),
            tokens: Mutex::default(),
        });
        let config = Arc::clone(config);
        let mut world =
            Self { seed, config, clock, shaky, receivers, engines: Vec::new(), born: 0 };
        for _ in 0..2 {
            let engine = world.engine().await;
            world.engines.push(engine);
        }
        *world.shaky.one_in.lock().unwrap() = 6;
        world
    }

    /// A fresh engine on the same store: a process that starts.
    async fn engine(&mut self) -> Engine {
        self.born += 1;
        let parts = engines::parts(
            Arc::clone(&self.shaky) as Arc<dyn Store>,
            Arc::clone(&self.receivers) as Arc<dyn Deliver>,
            &self.clock,
            Arc::clone(&self.config),
            self.seed * 1_000 + self.born,
        );
        let engine = Engine::new(Parts { chance: Chance::seeded(self.seed + self.born), ..parts });
        while engine.prepare(false).await.is_err() {}
        engine
    }

    /// Sends an event until it is acknowledged; the key makes repeats harmless.
    async fn send(&self, at: usize, n: u64) {
        let inbound = || Inbound {
            source: "app".into(),
            kind: "x".into(),
            type_aliases: Vec::new(),
            headers: Vec::new(),
            body: Body::new(json!({ "n": n, "items": [1, 2, 3] }).to_string()),
            dedupe_key: None,
            idempotency_key: Some(format!("event-{n}")),
        };
        while self.engines[at].accept(inbound()).await.is_err() {
            let _ = self.engines[at].write_check().await;
        }
    }

    async fn answer_callbacks(&self, at: usize) {
        let tokens: Vec<String> = std::mem::take(&mut *self.receivers.tokens.lock().unwrap());
        for token in tokens {
            let answer = Answer::Done(Body::new(b"{}".to_vec()));
            // What fails for the store is said again later; anything else is an answer.
            if let Err(tidehook::engine::callback::NotAnswered::OperateError(_)) =
                self.engines[at].answer(&token, &answer).await
            {
                self.receivers.tokens.lock().unwrap().push(token);
            }
        }
    }

    async fn work(&self, at: usize) {
        let _ = self.engines[at].write_check().await;
        let _ = self.engines[at].work(EVERYTHING).await;
    }

    /// A person does something to some run. Not every run is in the state for it, and the store may
    /// refuse.
    async fn meddle(&self, at: usize, dice: &mut StdRng) {
        let runs = self.shaky.inner.runs(&RunFilter::default(), ALL).await.unwrap();
        if runs.is_empty() {
            return;
        }
        let (id, engine) = (runs[dice.random_range(0..runs.len())].id, &self.engines[at]);
        match dice.random_range(0..8) {
            0..3 => drop(engine.pause_run(id).await),
            3..7 => drop(engine.resume_run(id).await),
            _ => drop(engine.cancel_run(id).await),
        }
    }

    /// Runs that take turns are never on their way side by side.
    async fn take_turns(&self) {
        let of = RunFilter { workflow: Some("turns".to_owned()), ..RunFilter::default() };
        let runs = self.shaky.inner.runs(&of, ALL).await.unwrap();
        let inside: Vec<_> =
            runs.iter().filter(|run| !run.status.is_closed() && run.state.visited > 0).collect();
        assert!(inside.len() <= 1, "seed {}: {inside:#?}", self.seed);
    }

    async fn play(&mut self) {
        let mut dice = StdRng::seed_from_u64(self.seed);
        let mut sent = 0;
        for _ in 0..ROUNDS {
            let at = dice.random_range(0..2_usize);
            match dice.random_range(0..14) {
                0 if sent < EVENTS => {
                    self.send(at, sent).await;
                    sent += 1;
                }
                1 => self.clock.advance(Duration::from_secs(dice.random_range(1..90))),
                2 => self.answer_callbacks(at).await,
                3 => drop(self.engines[at].tick(EVERYTHING).await),
                4 | 5 => {
                    // Dies in the middle: whatever was under way is never heard of again.
                    let turns = dice.random_range(0..40);
                    let work = self.engines[at].work(EVERYTHING);
                    tokio::select! {
                        biased;
                        _ = work => {}
                        () = yields(turns) => {}
                    }
                    self.engines[at] = self.engine().await;
                }
                6 | 7 => {
                    tokio::join!(self.work(0), self.work(1));
                }
                8 => self.meddle(at, &mut dice).await,
                _ => self.work(at).await,
            }
            self.take_turns().await;
        }
        for n in sent..EVENTS {
            self.send(0, n).await;
        }
    }

    /// Everything heals, and time passes until nothing is open.
    async fn settle(&self) {
        *self.shaky.one_in.lock().unwrap() = 0;
        *self.receivers.calm.lock().unwrap() = true;
        for _ in 0..400 {
            self.work(0).await;
            self.answer_callbacks(0).await;
            self.take_turns().await;
            // Whoever paused a run, or found it paused because something could not be undone, lets
            // it go on.
            let paused = RunFilter { status: Some(RunStatus::Paused), ..RunFilter::default() };
            for run in self.shaky.inner.runs(&paused, ALL).await.unwrap() {
                self.engines[0].resume_run(run.id).await.unwrap();
            }
            let states = vec![JobState::Pending, JobState::Leased];
            let open = self
                .shaky
                .inner
                .jobs(&JobFilter { states, ..JobFilter::default() }, ALL)
                .await
                .unwrap();
            let runs = self.shaky.inner.runs(&RunFilter::default(), ALL).await.unwrap();
            if open.is_empty() && runs.iter().all(|run| run.status.is_closed()) {
                return;
            }
            self.clock.advance(Duration::from_secs(61));
        }
    }

    async fn check(&self) {
        let (seed, store) = (self.seed, &self.shaky.inner);
        let jobs = store.jobs(&JobFilter::default(), ALL).await.unwrap();
        let open: Vec<_> = jobs.iter().filter(|job| job.finished_at.is_none()).collect();
        assert!(open.is_empty(), "seed {seed}: open jobs {open:#?}");
        let events = store.events(&Default::default(), ALL).await.unwrap();
        let (told, sent): (Vec<_>, Vec<_>) =
            events.iter().partition(|event| event.source == "other");
        assert_eq!(sent.len() as u64, EVENTS, "seed {seed}: events");
        let plain = jobs.iter().filter(|job| job.target.name() == "plain");
        assert_eq!(plain.clone().count() as u64, EVENTS, "seed {seed}: deliveries");
        for job in plain {
            assert!(
                job.state == JobState::Done || job.last_error.is_some(),
                "seed {seed}: {job:?}"
            );
        }
        let runs = store.runs(&RunFilter::default(), ALL).await.unwrap();
        assert_eq!(
            runs.len() as u64,
            2 * EVENTS,
            "seed {seed}: one run of each workflow for each event"
        );
        let (mut published, mut publishing) = (0, 0);
        for run in &runs {
            assert!(run.status.is_closed(), "seed {seed}: {run:#?}");
            let history = store.history(run.id).await.unwrap();
            let of = |kind: &str| history.iter().filter(|entry| entry.kind == kind).count();
            let (entered, ended) =
                (of("StepEntered"), of("RunCompleted") + of("RunFailed") + of("RunCancelled"));
            assert_eq!(
                (entered, ended),
                (run.state.visited as usize, 1),
                "seed {seed}: {history:#?}"
            );
            for visit in 1..=run.state.visited {
                let left = history.iter().filter(|e| {
                    e.visit == Some(visit)
                        && ["StepCompleted", "StepFailed"].contains(&e.kind.as_str())
                });
                assert!(left.count() <= 1, "seed {seed}: visit {visit} ended twice: {history:#?}");
            }
            let done = |step: &str| {
                let step = format!("turns/{step}");
                let of_step = move |e: &&HistoryEntry| {
                    e.kind == "StepCompleted" && e.step.as_deref() == Some(step.as_str())
                };
                history.iter().filter(of_step).map(|e| e.seq).collect::<Vec<_>>()
            };
            published += done("tell").len();
            let entered = |e: &&HistoryEntry| {
                e.kind == "StepEntered" && e.step.as_deref() == Some("turns/tell")
            };
            publishing += history.iter().filter(entered).count();
            if run.workflow == "turns" && run.state.visited > 0 {
                assert_eq!(done("report").len(), 1, "seed {seed}: the last step: {history:#?}");
                let undoes = run.status != RunStatus::Completed;
                let steps = [
                    ("one", "one.compensate"),
                    ("two:a", "two:a.compensate"),
                    ("two:b", "two:b.compensate"),
                ];
                let mut pairs = Vec::new();
                for (step, undo) in steps {
                    let (did, undid) = (done(step), done(undo));
                    assert_eq!(
                        undid.len(),
                        if undoes { did.len() } else { 0 },
                        "seed {seed}: {step}: {history:#?}"
                    );
                    pairs.extend(did.into_iter().zip(undid));
                }
                pairs.sort_unstable();
                assert!(
                    pairs.is_sorted_by(|a, b| a.1 > b.1),
                    "seed {seed}: undone in reverse: {history:#?}"
                );
            }
        }
        // A run that is called off between the event and its record has published it all the same.
        assert!(
            (published..=publishing).contains(&told.len()),
            "seed {seed}: one event for each step that publishes one"
        );
        let fsck = self.engines[0].fsck().await.unwrap();
        assert_eq!(fsck.faults, Vec::new(), "seed {seed}");
        let mut calls: BTreeMap<(String, String), usize> = BTreeMap::new();
        for call in self.receivers.calls.lock().unwrap().iter() {
            *calls.entry(call.clone()).or_default() += 1;
        }
        for ((operation, job), count) in calls {
            let attempts = store.attempts(job.parse().unwrap()).await.unwrap();
            // A notice whose answer overtook it is not needed any more: when its worker dies as
            // well, nobody is left to record it.
            let job = store.job(job.parse().unwrap()).await.unwrap().unwrap();
            let cancel_jobs = usize::from(job.state == JobState::Cancelled);
            assert!(
                count <= attempts.len() + cancel_jobs,
                "seed {seed}: {operation} called {count} times: {attempts:#?}"
            );
        }
    }
}

async fn yields(turns: u32) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

/// Time stands still but for what the world does to it; a wait of the engine costs nothing.
fn simulate(seed: u64, config: &Arc<Config>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed, config).await;
        world.play().await;
        world.settle().await;
        world.check().await;
    });
}

#[test]
fn every_seed_ends_with_everything_done_once() {
    let config = Arc::new(config(TEXT));
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    if let Some(seed) = number("TIDEHOOK_SEED") {
        return simulate(seed, &config);
    }
    let seeds = number("TIDEHOOK_SEEDS").unwrap_or(2_000);
    let failed: Mutex<Vec<u64>> = Mutex::default();
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
        for thread in 0..threads {
            let (config, failed) = (&config, &failed);
            scope.spawn(move || {
                for seed in (thread..seeds).step_by(threads as usize) {
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        simulate(seed, config)
                    }))
                    .is_err()
                    {
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_unstable();
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds fail, first {:?}: TIDEHOOK_SEED={}",
        failed.len(),
        failed.first(),
        failed[0]
    );
}
