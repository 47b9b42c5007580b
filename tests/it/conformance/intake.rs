use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidehook::decide::settle::NextState;
use tidehook::model::{JobState, LaneId};
use tidehook::store::{Accepted, Error, EventFilter, JobFilter, NewEvent, Page};

use super::build::*;
use super::on_every_store;
use crate::support::stores::{Fresh, START};

on_every_store!(
    a_job_that_can_start_at_once_is_leased_by_the_commit_that_creates_it,
    a_job_of_a_lane_that_is_not_free_waits_for_a_claim,
    an_accepted_event_and_its_jobs_appear_together,
    an_event_that_nobody_wants_is_stored_too,
    a_duplicate_key_returns_the_first_events_id,
    the_same_key_with_another_body_is_a_conflict,
    consumer_keys_suppress_only_their_consumer,
    an_event_every_consumer_has_seen_is_a_duplicate,
    duplicates_inside_one_slice_name_the_first,
    a_key_is_free_again_after_its_time,
    of_concurrent_first_requests_one_wins,
    a_batch_of_zero_is_fine,
    a_slice_answers_in_its_own_order,
    one_bad_item_of_a_slice_leaves_its_neighbours_alone,
    bodies_come_back_byte_for_byte,
    an_accept_can_be_repeated,
    a_caller_that_hangs_up_cancels_nothing,
);

const PAGE: Page = Page { limit: 1000, newest_first: false };

async fn an_accepted_event_and_its_jobs_appear_together(f: Fresh) {
    let new_event = new_event(&["a", "b"]);
    let wanted: Vec<_> = new_event.plan.jobs.iter().map(|j| j.id).collect();
    let id = new_event.id;
    let Accepted::New { event, jobs, started, .. } = accept(&*f.store, new_event).await else {
        panic!("it is new");
    };
    assert_eq!((event, &jobs, started.len()), (id, &wanted, 0));
    let jobs =
        f.store.jobs(&JobFilter { event: Some(id), ..JobFilter::default() }, PAGE).await.unwrap();
    assert_eq!(jobs.iter().map(|j| j.id).collect::<Vec<_>>(), wanted);
    assert_eq!(f.store.totals().await.unwrap().open, 2);
}

async fn an_event_that_nobody_wants_is_stored_too(f: Fresh) {
    let new_event = new_event(&[]);
    let id = new_event.id;
    accept(&*f.store, new_event).await;
    assert_eq!(f.store.events(&EventFilter::default(), PAGE).await.unwrap()[0].id, id);
}

fn keyed(key: &str) -> NewEvent {
    let mut new_event = new_event(&["a"]);
    new_event.inbound.dedupe_key = Some(key.to_owned());
    new_event
}

async fn a_duplicate_key_returns_the_first_events_id(f: Fresh) {
    for key in ["k1", &"long".repeat(500), "a\0b"] {
        let first = keyed(key);
        let id = first.id;
        accept(&*f.store, first).await;
        assert_eq!(accept(&*f.store, keyed(key)).await, Accepted::Duplicate(id));
    }
    let mut other_type = keyed("k1");
    other_type.inbound.kind = "order.refunded".into();
    assert!(matches!(accept(&*f.store, other_type).await, Accepted::New { .. }));
    assert_eq!(f.store.events(&EventFilter::default(), PAGE).await.unwrap().len(), 4);
}

async fn the_same_key_with_another_body_is_a_conflict(f: Fresh) {
    let called = |body: &str| {
        let mut new_event = new_event_of(body, &["a"]);
        new_event.inbound.idempotency_key = Some("k".into());
        new_event
    };
    let first = called("{\"n\":1}");
    let id = first.id;
    accept(&*f.store, first).await;
    assert_eq!(accept(&*f.store, called("{\"n\":1}")).await, Accepted::Duplicate(id));
    assert_eq!(accept(&*f.store, called("{\"n\":2}")).await, Accepted::Conflict(id));
}

fn with_consumer_keys(keys: &[(&str, Option<&str>)]) -> NewEvent {
    let handlers: Vec<&str> = keys.iter().map(|(h, _)| *h).collect();
    let mut new_event = new_event(&handlers);
    for (job, (handler, key)) in new_event.plan.jobs.iter_mut().zip(keys) {
        job.key = key.map(|k| (format!("handler:{handler}"), k.to_owned()));
    }
    new_event
}

async fn consumer_keys_suppress_only_their_consumer(f: Fresh) {
    accept(&*f.store, with_consumer_keys(&[("a", Some("1")), ("b", None)])).await;
    let again = with_consumer_keys(&[("a", Some("1")), ("b", None)]);
    let b = again.plan.jobs[1].id;
    assert!(matches!(accept(&*f.store, again).await, Accepted::New { jobs, .. } if jobs == [b]));
}

async fn an_event_every_consumer_has_seen_is_a_duplicate(f: Fresh) {
    let first = with_consumer_keys(&[("a", Some("1"))]);
    let id = first.id;
    accept(&*f.store, first).await;
    let mut again = with_consumer_keys(&[("a", Some("1"))]);
    again.inbound.dedupe_key = Some("fresh".into());
    assert_eq!(accept(&*f.store, again).await, Accepted::Duplicate(id));
    // It left no key of its own behind: no id is ever handed out that is not stored.
    let mut third = with_consumer_keys(&[("a", Some("2"))]);
    third.inbound.dedupe_key = Some("fresh".into());
    assert!(matches!(accept(&*f.store, third).await, Accepted::New { .. }));
}

async fn duplicates_inside_one_slice_name_the_first(f: Fresh) {
    let new_events = [keyed("x"), keyed("x"), keyed("y"), keyed("x")];
    let answers: Vec<_> =
        f.store.accept(&new_events).await.unwrap().into_iter().map(Result::unwrap).collect();
    assert!(matches!(answers[0], Accepted::New { .. }));
    assert_eq!(answers[1], Accepted::Duplicate(new_events[0].id));
    assert!(matches!(answers[2], Accepted::New { .. }));
    assert_eq!(answers[3], Accepted::Duplicate(new_events[0].id));
}

async fn a_key_is_free_again_after_its_time(f: Fresh) {
    accept(&*f.store, keyed("k")).await;
    f.clock.advance(Duration::from_secs(3599));
    assert!(matches!(accept(&*f.store, keyed("k")).await, Accepted::Duplicate(_)));
    f.clock.advance(Duration::from_secs(2));
    let again = keyed("k");
    let id = again.id;
    assert!(matches!(accept(&*f.store, again).await, Accepted::New { .. }));
    assert_eq!(accept(&*f.store, keyed("k")).await, Accepted::Duplicate(id));
}

async fn of_concurrent_first_requests_one_wins(f: Fresh) {
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store = Arc::clone(&f.store);
            tokio::spawn(async move { accept(&*store, keyed("race")).await })
        })
        .collect();
    let mut won = BTreeSet::new();
    let mut named = BTreeSet::new();
    for task in tasks {
        match task.await.unwrap() {
            Accepted::New { event, .. } => won.insert(event),
            Accepted::Duplicate(event) => named.insert(event),
            Accepted::Conflict(_) => panic!("no bodies differ"),
        };
    }
    assert_eq!(won.len(), 1);
    assert_eq!(named, won);
}

async fn a_batch_of_zero_is_fine(f: Fresh) {
    assert!(f.store.accept(&[]).await.unwrap().is_empty());
    assert!(f.store.record(&[]).await.unwrap().is_empty());
    assert!(f.store.extend(&[], LEASE).await.unwrap().is_empty());
    assert!(f.store.claim(&claim_request(0)).await.unwrap().is_empty());
    f.store.upsert_lanes(&[]).await.unwrap();
    f.store.reject(&[]).await.unwrap();
}

async fn a_slice_answers_in_its_own_order(f: Fresh) {
    let new_events: Vec<_> = (0..50).map(|_| new_event(&["a"])).collect();
    let answers = f.store.accept(&new_events).await.unwrap();
    for (new_event, answer) in new_events.iter().zip(answers) {
        assert!(matches!(answer.unwrap(), Accepted::New { event, .. } if event == new_event.id));
    }
}

async fn one_bad_item_of_a_slice_leaves_its_neighbours_alone(f: Fresh) {
    // A NUL in a text column is what Postgres cannot store; the other stores take it.
    let mut bad = new_event(&["a"]);
    bad.inbound.kind = "nul\0".into();
    let new_events = [new_event(&["a"]), bad, new_event(&["a"])];
    let answers = f.store.accept(&new_events).await.unwrap();
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert!(matches!(answers[1], Ok(Accepted::New { .. }) | Err(Error::Permanent(_))));
}

async fn bodies_come_back_byte_for_byte(f: Fresh) {
    let bodies: [&[u8]; 6] = [
        b"",
        b"\0\xff\xfe not utf-8",
        b"{\"id\":1,\"id\":2}",
        b"\"\\u0000\"",
        b"9007199254740993",
        &[7; 300_000],
    ];
    for body in bodies {
        let mut new_event = new_event(&[]);
        new_event.inbound.body = tidehook::model::Body::new(body.to_vec());
        let id = new_event.id;
        accept(&*f.store, new_event).await;
        let events = f.store.events_by_id(&[id]).await.unwrap();
        assert_eq!(&events[&id].body.bytes()[..], body);
    }
}

async fn an_accept_can_be_repeated(f: Fresh) {
    let new_event = keyed("k");
    let Accepted::New { event, jobs, .. } = accept(&*f.store, new_event.clone()).await else {
        panic!("it is new")
    };
    // A repeat starts nothing: whoever made the first one may have.
    let again = accept(&*f.store, new_event).await;
    assert!(matches!(
        &again,
        Accepted::New { event: e, jobs: j, started, .. } if (e, j) == (&event, &jobs) && started.is_empty(),
    ));
    assert_eq!(f.store.totals().await.unwrap().open, 1);
}

async fn a_caller_that_hangs_up_cancels_nothing(f: Fresh) {
    for round in 0..20 {
        let store = Arc::clone(&f.store);
        let call = tokio::spawn(async move { store.accept(&[keyed("hangup")]).await });
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        call.abort();
        // Whatever became of it, the next caller's transaction is its own.
        let new_event = new_event(&["a"]);
        let id = new_event.id;
        assert!(
            matches!(accept(&*f.store, new_event).await, Accepted::New { event, .. } if event == id)
        );
        assert_eq!(f.store.events_by_id(&[id]).await.unwrap().len(), 1);
    }
}

fn starting(handlers: &[&str]) -> tidehook::store::NewEvent {
    let mut new_event = new_event(handlers);
    new_event.plan.jobs.iter_mut().for_each(|job| job.start = true);
    new_event
}

async fn a_job_that_can_start_at_once_is_leased_by_the_commit_that_creates_it(f: Fresh) {
    seed(&*f.store, &["a"], 0).await;
    let new_event = starting(&["a"]);
    let Accepted::New { jobs, started, at, .. } = accept(&*f.store, new_event).await else {
        panic!("it is new")
    };
    assert_eq!((&started, at), (&jobs, START));
    assert!(f.store.claim(&claim_request(10)).await.unwrap().is_empty(), "it is leased");
    let job = f.store.job(jobs[0]).await.unwrap().unwrap();
    assert_eq!(
        (job.state, job.attempt, job.claim, job.due_at),
        (JobState::Leased, 0, 1, START.plus(LEASE))
    );
    // It is recorded like any other.
    f.store.record(&[outcome(&job, NextState::Done)]).await.unwrap().pop().unwrap().unwrap();
    assert_eq!(f.store.job(jobs[0]).await.unwrap().unwrap().state, JobState::Done);
    // And whoever held it and died is succeeded when the lease runs out.
    let Accepted::New { jobs, .. } = accept(&*f.store, starting(&["a"])).await else {
        panic!("it is new")
    };
    f.clock.advance(LEASE);
    let second = claim_one(&*f.store).await;
    assert_eq!((second.job.id, second.job.claim, second.job.interrupted), (jobs[0], 2, 1));
}

async fn a_job_of_a_lane_that_is_not_free_waits_for_a_claim(f: Fresh) {
    let limited = tidehook::model::LaneSpec { rate: Some(10), ..spec("limited") };
    f.store.upsert_lanes(&[spec("free"), spec("paused"), spec("failing"), limited]).await.unwrap();
    f.store.pause(&LaneId::handler("paused"), true).await.unwrap();
    accept(&*f.store, new_event(&["failing"])).await;
    let failed = claim_one(&*f.store).await;
    f.store.record(&[outcome(&failed.job, retry_in(60))]).await.unwrap();
    let new_event = starting(&["free", "paused", "failing", "limited", "unknown"]);
    let free = new_event.plan.jobs[0].id;
    let Accepted::New { jobs, started, .. } = accept(&*f.store, new_event).await else {
        panic!("it is new")
    };
    assert_eq!((jobs.len(), started), (5, vec![free]));
}
