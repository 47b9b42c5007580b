//! Many lanes, and one hot lane for several processes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tidehook::decide::fair::Slots;
use tidehook::decide::plan::Plan;
use tidehook::decide::settle::{JobOutcome, NextState};
use tidehook::model::{
    Attempt, AttemptResult, Body, EventId, Ids, Inbound, JobId, LaneId, LaneSpec, NewJob, Secret,
    SystemIds, Target, Timestamp,
};
use tidehook::store::{self, Address, ClaimRequest, NewEvent, Store as Verbs};

use super::engine::{Engine, Kind, Place, Setup, Store};
use super::figures::cpu_seconds;
use super::generate::generate;
use super::scenarios::{TYPE, closed, handler, post};
use super::sink::Sink;

const LEASE: Duration = Duration::from_secs(600);
/// How many rows one call of the store gets.
const SLICE: usize = 1_000;

fn new_event(ids: &dyn Ids, handler: String) -> NewEvent {
    let job = NewJob {
        id: JobId::next(ids),
        target: Target::Handler(handler),
        key: None,
        due: None,
        start: false,
    };
    NewEvent {
        id: EventId::next(ids),
        inbound: Inbound {
            source: "app".into(),
            kind: TYPE.into(),
            type_aliases: Vec::new(),
            headers: Vec::new(),
            body: Body::new(vec![b'x'; 300]),
            dedupe_key: None,
            idempotency_key: None,
        },
        plan: Plan { jobs: vec![job], misses: Vec::new() },
        key_ttl: LEASE,
        event_ttl: None,
        lease: LEASE,
    }
}

/// Claims and records through the store's verbs, with so many lanes that have due work, and the
/// same with ten.
pub async fn many_lanes(store: &Store, lanes: usize, claims: usize) -> Value {
    let few = claims_of(store, 10, lanes, claims).await;
    let many = claims_of(store, lanes, lanes, claims).await;
    let ratio = many["ms_per_job"].as_f64().unwrap() / few["ms_per_job"].as_f64().unwrap();
    json!({
        "lanes": lanes,
        "ten_lanes": few,
        "many_lanes": many,
        "many_to_ten": (ratio * 100.0).round() / 100.0,
    })
}

async fn claims_of(store: &Store, lanes: usize, jobs: usize, claims: usize) -> Value {
    let place = Place::new(store).await;
    let (ids, address) = (SystemIds::default(), Address::new(Secret::new(&place.url), 4));
    let store: Arc<dyn Verbs> = store::connect(address).await.unwrap();
    store.migrate().await.unwrap();
    let name = |n: usize| format!("h{n}");
    let specs: Vec<LaneSpec> = (0..lanes)
        .map(|n| LaneSpec::new(LaneId::handler(&name(n)), format!("tenant{}", n % 1_000)))
        .collect();
    for specs in specs.chunks(SLICE) {
        store.upsert_lanes(specs).await.unwrap();
    }
    let numbers: Vec<usize> = (0..jobs).collect();
    for slice in numbers.chunks(SLICE) {
        let events: Vec<_> = slice.iter().map(|n| new_event(&ids, name(n % lanes))).collect();
        store.accept(&events).await.unwrap();
    }
    let (mut took, mut claimed) = (Histogram::<u64>::new(3).unwrap(), 0);
    let (began, cpu) = (Instant::now(), cpu_seconds(std::process::id()));
    for _ in 0..claims {
        let request = ClaimRequest {
            slots: Slots::free(10),
            lease: LEASE,
            skip: Vec::new(),
            unserved: Vec::new(),
            only: Vec::new(),
        };
        let start = Instant::now();
        let some = store.claim(&request).await.unwrap();
        took.record((start.elapsed().as_micros() as u64).max(1)).unwrap();
        claimed += some.len();
        let outcomes: Vec<JobOutcome> = some.iter().map(|c| delivered(&c.job)).collect();
        for recorded in store.record(&outcomes).await.unwrap() {
            recorded.unwrap();
        }
    }
    let per_job = |seconds: f64| (seconds * 1e6 / claimed.max(1) as f64).round() / 1e3;
    json!({
        "claimed": claimed,
        "claim_ms": super::standing::quantiles(&took),
        "ms_per_job": per_job(began.elapsed().as_secs_f64()),
        "cpu_ms_per_job_without_server": per_job(cpu_seconds(std::process::id()) - cpu),
    })
}

fn delivered(job: &tidehook::model::Job) -> JobOutcome {
    JobOutcome {
        lease: job.lease(),
        lane: job.target.lane(),
        next_state: NextState::Done,
        sent: job.attempt + 1,
        attempt: Some(Attempt {
            number: job.attempt + 1,
            claim: job.claim,
            ending: AttemptResult::Delivered,
            code: None,
            status: Some(200),
            error: None,
            duration: Duration::from_millis(1),
            response: Vec::new(),
            at: Timestamp(0),
        }),
        reports: Vec::new(),
        lane_fact: None,
        change: None,
    }
}

/// A backlog of one lane, with four deliveries at a time per process and a receiver that takes 20
/// ms: one process, then four.
pub async fn hot_lane(store: &Store, sink: &Sink, events: u64) -> Value {
    let mut line = json!({});
    for processes in [1_u64, 4] {
        let place = Place::new(store).await;
        let setup = Setup {
            handlers: vec![handler("h", TYPE, "/slow")],
            worker: "max_concurrency: 4, batch_size: 4".to_owned(),
            ..Setup::default()
        };
        let mut engines = Vec::new();
        for _ in 0..processes {
            engines.push(Engine::start(&Kind::Tidehook, &place, sink.address, &setup).await);
        }
        sink.reset(20);
        post(&engines[0], "/api/lanes/handler%3Ah/pause").await;
        // As long a run for one as for four.
        let sent = generate(engines[0].address, &closed(events * processes)).await;
        let began = Instant::now();
        post(&engines[0], "/api/lanes/handler%3Ah/resume").await;
        sink.wait_for(sent.accepted, Duration::from_secs(60)).await;
        line[if processes == 1 { "one" } else { "four" }] = json!({
            "delivered": sink.unique(),
            "delivered_per_s":
                (sent.accepted as f64 / began.elapsed().as_secs_f64()).round(),
        });
    }
    let rate = |of: &str| line[of]["delivered_per_s"].as_f64().unwrap_or(f64::NAN);
    let ratio = (rate("four") / rate("one") * 100.0).round() / 100.0;
    line["four_to_one"] = json!(ratio);
    line
}
