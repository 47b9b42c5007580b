use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidehook::decide::settle::{JobOutcome, LaneFact, NextState};
use tidehook::model::{Clock, JobId, LaneId, Retention};
use tidehook::store::{Chores, ClaimRequest, Error, JobFilter, OVERDUE, Page};

use super::build::*;
use super::on_every_store;
use crate::support::stores::Fresh;

on_every_store!(
    what_is_due_is_told_of_once_and_again_when_nobody_came,
    a_retry_is_told_of_ahead_with_what_is_left_of_its_delay,
    a_job_that_is_due_again_is_told_of_again,
    what_is_worked_on_or_paused_is_not_told_of,
    a_lane_whose_breaker_is_open_is_told_of_for_when_it_opens,
    a_lane_that_was_asked_to_wait_is_told_of_for_when_that_ends,
    one_lane_hides_no_other_from_a_tick,
    two_ticks_tell_of_nothing_twice,
    a_claim_of_named_jobs_takes_no_others,
    named_jobs_of_a_paused_lane_stay,
    a_look_says_whether_anything_is_due,
    chores_are_named_when_they_have_something_to_do,
);

const MINUTE: Duration = Duration::from_secs(60);
const PAGE: Page = Page { limit: 1000, newest_first: false };

async fn told(f: &Fresh, horizon: Duration) -> Vec<(JobId, Duration)> {
    f.store
        .hints(horizon, 100)
        .await
        .unwrap()
        .into_iter()
        .map(|told| (told.job, told.after))
        .collect()
}

async fn ids(f: &Fresh) -> Vec<JobId> {
    f.store.jobs(&JobFilter::default(), PAGE).await.unwrap().into_iter().map(|job| job.id).collect()
}

async fn what_is_due_is_told_of_once_and_again_when_nobody_came(f: Fresh) {
    seed(&*f.store, &["a"], 3).await;
    assert!(told(&f, MINUTE).await.is_empty(), "who accepted them has told of them");
    f.clock.advance(OVERDUE);
    let all: Vec<(JobId, Duration)> =
        ids(&f).await.into_iter().map(|id| (id, Duration::ZERO)).collect();
    assert_eq!(told(&f, MINUTE).await, all);
    assert!(told(&f, MINUTE).await.is_empty());
    f.clock.advance(OVERDUE);
    assert_eq!(told(&f, MINUTE).await, all);
}

async fn a_retry_is_told_of_ahead_with_what_is_left_of_its_delay(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    let job = claim_one(&*f.store).await.job;
    f.store
        .record(&[outcome(
            &job,
            NextState::Retry { after: Duration::from_millis(90_500), error: "HTTP 500".into() },
        )])
        .await
        .unwrap();
    assert!(told(&f, MINUTE).await.is_empty(), "beyond the horizon");
    f.clock.advance(MINUTE);
    assert_eq!(told(&f, MINUTE).await, [(job.id, Duration::from_millis(30_500))]);
    f.clock.advance(Duration::from_secs(20));
    assert!(told(&f, MINUTE).await.is_empty(), "told of for its time");
}

async fn a_job_that_is_due_again_is_told_of_again(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    for _ in 0..2 {
        let job = claim_one(&*f.store).await.job;
        f.store.record(&[outcome(&job, retry_in(30))]).await.unwrap();
        assert_eq!(told(&f, MINUTE).await.len(), 1);
        f.clock.advance(Duration::from_secs(30));
    }
}

async fn what_is_worked_on_or_paused_is_not_told_of(f: Fresh) {
    seed(&*f.store, &["a", "b"], 1).await;
    f.clock.advance(OVERDUE);
    let job = f
        .store
        .claim(&ClaimRequest { skip: vec![LaneId::handler("b")], ..claim_request(1) })
        .await
        .unwrap()
        .remove(0)
        .job;
    f.store.pause(&LaneId::handler("b"), true).await.unwrap();
    assert!(told(&f, MINUTE).await.is_empty());
    // A worker that went away leaves a lease that runs out.
    f.clock.advance(LEASE + OVERDUE);
    assert_eq!(told(&f, MINUTE).await, [(job.id, Duration::ZERO)]);
    f.store.pause(&LaneId::handler("b"), false).await.unwrap();
    assert_eq!(told(&f, MINUTE).await.len(), 1);
}

async fn a_lane_whose_breaker_is_open_is_told_of_for_when_it_opens(f: Fresh) {
    seed(&*f.store, &["a"], 6).await;
    for job in f.store.claim(&claim_request(6)).await.unwrap() {
        f.store.record(&[outcome(&job.job, retry_in(0))]).await.unwrap();
    }
    let open = f
        .store
        .lanes()
        .await
        .unwrap()
        .remove(0)
        .breaker
        .open_until
        .expect("failures in a row open it");
    let told = told(&f, Duration::from_secs(3600)).await;
    assert_eq!(told.len(), 6);
    assert!(told.iter().all(|(_, after)| *after == open.since(f.clock.now())), "{told:?}");
}

async fn a_lane_that_was_asked_to_wait_is_told_of_for_when_that_ends(f: Fresh) {
    seed(&*f.store, &["a"], 3).await;
    let job = claim_one(&*f.store).await.job;
    let limited = JobOutcome {
        lane_fact: Some(LaneFact::Limited(Duration::from_secs(40))),
        ..outcome(&job, retry_in(40))
    };
    f.store.record(&[limited]).await.unwrap();
    let told = told(&f, MINUTE).await;
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|(_, after)| *after == Duration::from_secs(40)), "{told:?}");
}

async fn one_lane_hides_no_other_from_a_tick(f: Fresh) {
    seed(&*f.store, &["a"], 10).await;
    f.clock.advance(Duration::from_secs(1));
    seed(&*f.store, &["b"], 2).await;
    f.clock.advance(OVERDUE);
    let first = f.store.hints(MINUTE, 6).await.unwrap();
    assert_eq!(first.len(), 6);
    assert_eq!(
        f.store.hints(MINUTE, 6).await.unwrap().len(),
        6,
        "those of b, and what is left of a"
    );
    assert!(f.store.hints(MINUTE, 6).await.unwrap().is_empty());
}

async fn two_ticks_tell_of_nothing_twice(f: Fresh) {
    seed(&*f.store, &["a", "b"], 50).await;
    f.clock.advance(OVERDUE);
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let store = Arc::clone(&f.store);
            tokio::spawn(async move { store.hints(MINUTE, 1000).await.unwrap() })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap().into_iter().map(|told| told.job));
    }
    let unique: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), unique.len()), (100, 100));
}

async fn a_claim_of_named_jobs_takes_no_others(f: Fresh) {
    seed(&*f.store, &["a", "b"], 5).await;
    let all = ids(&f).await;
    let of: Vec<JobId> = all.iter().skip(3).take(4).copied().collect();
    let claim = async |most| {
        let claimed =
            f.store.claim(&ClaimRequest { only: of.clone(), ..claim_request(most) }).await.unwrap();
        claimed.into_iter().map(|claimed| claimed.job.id).collect::<BTreeSet<_>>()
    };
    let some = claim(2).await;
    assert_eq!(some.len(), 2);
    let rest = claim(10).await;
    let both: BTreeSet<JobId> = some.union(&rest).copied().collect();
    assert_eq!(both, of.iter().copied().collect());
    assert!(claim(10).await.is_empty(), "somebody has them");
    f.clock.advance(LEASE);
    assert_eq!(claim(10).await.len(), 4, "the leases have run out");
}

async fn named_jobs_of_a_paused_lane_stay(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    f.store.pause(&LaneId::handler("a"), true).await.unwrap();
    let of = ids(&f).await;
    assert!(
        f.store.claim(&ClaimRequest { only: of, ..claim_request(10) }).await.unwrap().is_empty()
    );
}

async fn a_look_says_whether_anything_is_due(f: Fresh) {
    assert!(!f.store.has_due_work().await.unwrap());
    seed(&*f.store, &["a"], 1).await;
    assert!(f.store.has_due_work().await.unwrap());
    f.store.pause(&LaneId::handler("a"), true).await.unwrap();
    assert!(!f.store.has_due_work().await.unwrap());
    f.store.pause(&LaneId::handler("a"), false).await.unwrap();
    let job = claim_one(&*f.store).await.job;
    assert!(!f.store.has_due_work().await.unwrap());
    f.store.record(&[outcome(&job, NextState::Done)]).await.unwrap();
    assert!(!matches!(
        f.store.record(&[outcome(&job, NextState::Done)]).await,
        Err(Error::Down(_))
    ));
    assert!(!f.store.has_due_work().await.unwrap());
}

async fn chores_are_named_when_they_have_something_to_do(f: Fresh) {
    let (age, none) = (MINUTE * 60, Chores::default());
    let retention = &Retention::of(age);
    assert_eq!(f.store.chores(retention).await.unwrap(), none);
    let mut short = new_event(&["a"]);
    short.event_ttl = Some(MINUTE);
    short.inbound.idempotency_key = Some("once".to_owned());
    short.key_ttl = MINUTE * 2;
    f.store.upsert_lanes(&[spec("a")]).await.unwrap();
    accept(&*f.store, short).await;
    assert_eq!(f.store.chores(retention).await.unwrap(), none);
    f.clock.advance(MINUTE);
    assert_eq!(f.store.chores(retention).await.unwrap(), Chores { expire: true, ..none });
    assert_eq!(f.store.expire(10).await.unwrap().len(), 1);
    f.clock.advance(MINUTE);
    assert_eq!(f.store.chores(retention).await.unwrap(), Chores { forget: true, ..none });
    f.store.forget_keys(10).await.unwrap();
    f.clock.advance(age);
    assert_eq!(f.store.chores(retention).await.unwrap(), Chores { prune: true, ..none });
}
