use std::time::Duration;

use tidehook::decide::settle::NextState;
use tidehook::model::{JobState, LaneId};
use tidehook::store::{ClaimRequest, EventFilter, JobFilter, Page};

use super::build::*;
use super::on_every_store;
use crate::support::stores::{Fresh, START};

on_every_store!(
    lists_are_ordered_and_paged,
    events_are_filtered,
    jobs_are_filtered,
    parked_jobs_are_those_of_the_named_lanes_and_those_put_aside,
    what_is_not_there_is_not_an_error,
);

const PAGE: Page = Page { limit: 1000, newest_first: false };

async fn lists_are_ordered_and_paged(f: Fresh) {
    let new_events: Vec<_> = (0..5).map(|_| new_event(&["a"])).collect();
    let ids: Vec<_> = new_events.iter().map(|o| o.id).collect();
    f.store.accept(&new_events).await.unwrap();
    let page = Page { limit: 2, newest_first: false };
    let list = |after, page| {
        let store = f.store.clone();
        async move {
            let events =
                store.events(&EventFilter { after, ..EventFilter::default() }, page).await.unwrap();
            events.into_iter().map(|e| e.id).collect::<Vec<_>>()
        }
    };
    assert_eq!(list(None, page).await, ids[..2]);
    assert_eq!(list(Some(ids[1]), page).await, ids[2..4]);
    let newest = Page { newest_first: true, ..page };
    assert_eq!(list(None, newest).await, [ids[4], ids[3]]);
    assert_eq!(list(Some(ids[3]), newest).await, [ids[2], ids[1]]);
}

async fn events_are_filtered(f: Fresh) {
    let mut other = new_event(&[]);
    other.inbound.source = "bank".into();
    other.inbound.kind = "x' OR '1'='1".into();
    accept(&*f.store, other).await;
    f.clock.advance(Duration::from_secs(10));
    accept(&*f.store, new_event(&[])).await;
    let count = |filter| {
        let store = f.store.clone();
        async move { store.events(&filter, PAGE).await.unwrap().len() }
    };
    assert_eq!(
        count(EventFilter { source: Some("bank".into()), ..EventFilter::default() }).await,
        1
    );
    assert_eq!(
        count(EventFilter { kind: Some("x' OR '1'='1".into()), ..EventFilter::default() }).await,
        1
    );
    assert_eq!(
        count(EventFilter {
            since: Some(START.plus(Duration::from_secs(5))),
            ..EventFilter::default()
        })
        .await,
        1
    );
    assert_eq!(count(EventFilter { until: Some(START), ..EventFilter::default() }).await, 1);
}

async fn jobs_are_filtered(f: Fresh) {
    seed(&*f.store, &["a", "b"], 2).await;
    let claimed = claim_one(&*f.store).await;
    f.store.record(&[outcome(&claimed.job, NextState::Done)]).await.unwrap();
    let failed = claim_one(&*f.store).await;
    f.store.record(&[outcome(&failed.job, retry_in(60))]).await.unwrap();
    let ids = |filter| {
        let store = f.store.clone();
        async move {
            store.jobs(&filter, PAGE).await.unwrap().into_iter().map(|j| j.id).collect::<Vec<_>>()
        }
    };
    assert_eq!(
        ids(JobFilter { states: vec![JobState::Done], ..JobFilter::default() }).await,
        [claimed.job.id]
    );
    assert_eq!(
        ids(JobFilter { states: vec![JobState::Done, JobState::Pending], ..JobFilter::default() })
            .await
            .len(),
        4
    );
    let waiting = JobFilter {
        states: vec![JobState::Pending],
        attempted: Some(true),
        ..JobFilter::default()
    };
    assert_eq!(ids(waiting).await, [failed.job.id]);
    assert_eq!(ids(JobFilter { handler: Some("b".into()), ..JobFilter::default() }).await.len(), 2);
    assert_eq!(
        ids(JobFilter { event: Some(claimed.job.event), ..JobFilter::default() }).await.len(),
        2
    );
}

async fn parked_jobs_are_those_of_the_named_lanes_and_those_put_aside(f: Fresh) {
    seed(&*f.store, &["a", "b"], 2).await;
    let aside = f
        .store
        .claim(&ClaimRequest { skip: vec![LaneId::handler("a")], ..claim_request(1) })
        .await
        .unwrap()
        .remove(0);
    let error = format!("{}its definition is gone", tidehook::model::job::PARKED_PREFIX);
    f.store
        .record(&[outcome(&aside.job, NextState::Retry { after: Duration::from_secs(30), error })])
        .await
        .unwrap();
    let parked = |yes, lanes: &[&str]| {
        let lanes = lanes.iter().map(|name| LaneId::handler(name)).collect();
        let filter = JobFilter {
            states: vec![JobState::Pending],
            parked: Some((yes, lanes)),
            ..JobFilter::default()
        };
        let store = f.store.clone();
        async move { store.jobs(&filter, Page { limit: 10, newest_first: false }).await.unwrap().len() }
    };
    assert_eq!((parked(true, &[]).await, parked(false, &[]).await), (1, 3));
    assert_eq!((parked(true, &["a"]).await, parked(false, &["a"]).await), (3, 1));
    assert_eq!((parked(true, &["a", "b"]).await, parked(false, &["a", "b"]).await), (4, 0));
}

async fn what_is_not_there_is_not_an_error(f: Fresh) {
    let new_event = new_event(&["a"]);
    assert!(f.store.job(new_event.plan.jobs[0].id).await.unwrap().is_none());
    assert!(f.store.events_by_id(&[new_event.id]).await.unwrap().is_empty());
    assert!(f.store.attempts(new_event.plan.jobs[0].id).await.unwrap().is_empty());
    assert!(!f.store.cancel(new_event.plan.jobs[0].id).await.unwrap());
}
