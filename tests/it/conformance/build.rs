//! Short ways to say what a test needs.

use std::sync::LazyLock;
use std::time::Duration;

use tidehook::decide::fair::Slots;
use tidehook::decide::plan::Plan;
use tidehook::decide::settle::{JobOutcome, LaneFact, NextState};
use tidehook::model::Body;
use tidehook::model::FailureCode;
use tidehook::model::job::NewJob;
use tidehook::model::{
    Attempt, AttemptResult, EventId, Inbound, Job, JobId, LaneId, LaneSpec, SystemIds, Target,
    Timestamp,
};
use tidehook::store::{Accepted, ClaimRequest, Claimed, NewEvent, Store};

pub static IDS: LazyLock<SystemIds> = LazyLock::new(SystemIds::default);
pub const LEASE: Duration = Duration::from_secs(30);

pub fn new_event(handlers: &[&str]) -> NewEvent {
    new_event_of("{}", handlers)
}

pub fn new_event_of(body: &str, handlers: &[&str]) -> NewEvent {
    let job = |name: &&str| NewJob {
        id: JobId::next(&*IDS),
        target: Target::Handler((*name).to_owned()),
        key: None,
        due: None,
        start: false,
    };
    NewEvent {
        id: EventId::next(&*IDS),
        inbound: Inbound {
            source: "shop".into(),
            kind: "order.paid".into(),
            type_aliases: Vec::new(),
            headers: vec![("content-type".into(), "application/json".into())],
            body: Body::new(body.as_bytes().to_vec()),
            dedupe_key: None,
            idempotency_key: None,
        },
        plan: Plan { jobs: handlers.iter().map(job).collect(), misses: Vec::new() },
        key_ttl: Duration::from_secs(3600),
        event_ttl: None,
        lease: LEASE,
    }
}

pub fn spec(name: &str) -> LaneSpec {
    LaneSpec::new(LaneId::handler(name), "shop")
}

pub fn claim_request(jobs: u32) -> ClaimRequest {
    ClaimRequest {
        slots: Slots::free(jobs),
        lease: LEASE,
        skip: Vec::new(),
        unserved: Vec::new(),
        only: Vec::new(),
    }
}

pub async fn accept(store: &dyn Store, new_event: NewEvent) -> Accepted {
    store.accept(&[new_event]).await.unwrap().pop().unwrap().unwrap()
}

/// Lanes for the handlers, and one event for each.
pub async fn seed(store: &dyn Store, handlers: &[&str], events: usize) {
    let specs: Vec<_> = handlers.iter().map(|h| spec(h)).collect();
    store.upsert_lanes(&specs).await.unwrap();
    let new_events: Vec<_> = (0..events).map(|_| new_event(handlers)).collect();
    for answer in store.accept(&new_events).await.unwrap() {
        assert!(matches!(answer.unwrap(), Accepted::New { .. }));
    }
}

pub async fn claim_one(store: &dyn Store) -> Claimed {
    let mut claimed = store.claim(&claim_request(1)).await.unwrap();
    assert_eq!(claimed.len(), 1, "one job is due");
    claimed.pop().unwrap()
}

pub fn attempt(job: &Job, ending: AttemptResult) -> Attempt {
    Attempt {
        number: job.attempt + 1,
        claim: job.claim,
        ending,
        code: (ending == AttemptResult::Failed).then_some(FailureCode::Status),
        status: Some(if ending == AttemptResult::Failed { 500 } else { 200 }),
        error: (ending == AttemptResult::Failed).then(|| "HTTP 500".to_owned()),
        duration: Duration::from_millis(12),
        response: b"a\0b\xff".to_vec(),
        at: Timestamp(0),
    }
}

pub fn outcome(job: &Job, next_state: NextState) -> JobOutcome {
    let (ending, fact) = match &next_state {
        NextState::Done => (Some(AttemptResult::Delivered), Some(LaneFact::Succeeded)),
        NextState::Released => (None, None),
        NextState::Retry { .. } | NextState::Dead { .. } | NextState::FailedIntoRun { .. } => {
            (Some(AttemptResult::Failed), Some(LaneFact::Failed))
        }
    };
    JobOutcome {
        change: None,
        reports: Vec::new(),
        lease: job.lease(),
        lane: job.target.lane(),
        next_state,
        sent: job.attempt + u32::from(ending.is_some()),
        attempt: ending.map(|e| attempt(job, e)),
        lane_fact: fact,
    }
}

pub fn retry_in(seconds: u64) -> NextState {
    NextState::Retry { after: Duration::from_secs(seconds), error: "HTTP 500".into() }
}

pub fn dead() -> NextState {
    NextState::Dead { error: "HTTP 500".into() }
}
