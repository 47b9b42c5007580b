use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidehook::decide::settle::NextState;
use tidehook::model::{AttemptResult, FailureCode, Job, JobState, LaneId, LaneSpec, Target};
use tidehook::store::{QueueCounts, Receive, Retry, Store};

use super::build::*;
use super::on_every_store;
use crate::support::stores::Fresh;

on_every_store!(
    a_message_is_hidden_for_its_visibility_timeout_to_the_millisecond,
    an_acknowledged_message_never_comes_back,
    a_message_given_back_comes_back_after_its_delay,
    a_message_is_dead_when_its_attempts_are_used_up_by_time,
    a_queue_that_nobody_receives_from_loses_its_poison_too,
    workers_never_see_messages_and_consumers_never_see_deliveries,
    two_consumers_never_share_a_message,
    leases_of_consumers_outlive_a_restart,
    dead_messages_are_tried_again_and_a_queue_is_drained,
    a_late_acknowledgement_counts_until_the_message_is_received_again,
);

const VISIBILITY: Duration = Duration::from_secs(20);

fn ask(most: u32) -> Receive {
    Receive { lane: LaneId::queue("q"), most, visibility: VISIBILITY, attempts_max: 3 }
}

async fn fill(store: &dyn Store, messages: usize) {
    store.upsert_lanes(&[LaneSpec::new(LaneId::queue("q"), "shop"), spec("a")]).await.unwrap();
    for _ in 0..messages {
        let mut event = new_event(&["q"]);
        event.plan.jobs[0].target = Target::Queue("q".to_owned());
        accept(store, event).await;
    }
}

async fn receive(store: &dyn Store, most: u32) -> Vec<Job> {
    store.receive(&[ask(most)]).await.unwrap().pop().unwrap().messages
}

async fn record(store: &dyn Store, job: &Job, next: NextState) -> bool {
    let mut outcome = outcome(job, next);
    outcome.lane_fact = None;
    store.record(&[outcome]).await.unwrap().pop().unwrap().is_ok()
}

async fn counts(store: &dyn Store) -> QueueCounts {
    let lane = LaneId::queue("q");
    store.queue_counts(std::slice::from_ref(&lane)).await.unwrap()[&lane]
}

async fn a_message_is_hidden_for_its_visibility_timeout_to_the_millisecond(f: Fresh) {
    fill(&*f.store, 1).await;
    let first = receive(&*f.store, 10).await.pop().unwrap();
    assert_eq!((first.attempt, first.claim), (0, 1));
    f.clock.advance(VISIBILITY - Duration::from_millis(1));
    let nothing = f.store.receive(&[ask(10)]).await.unwrap().pop().unwrap();
    assert!(nothing.messages.is_empty());
    assert_eq!(nothing.next_in, Some(Duration::from_millis(1)));
    f.clock.advance(Duration::from_millis(1));
    let again = receive(&*f.store, 10).await.pop().unwrap();
    assert_eq!((again.id, again.attempt, again.claim), (first.id, 1, 2));
    let attempts = f.store.attempts(first.id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].code, Some(FailureCode::NotAcknowledged));
    assert_eq!(attempts[0].ending, AttemptResult::Interrupted);
}

async fn an_acknowledged_message_never_comes_back(f: Fresh) {
    fill(&*f.store, 2).await;
    let got = receive(&*f.store, 1).await.pop().unwrap();
    assert!(record(&*f.store, &got, NextState::Done).await);
    f.clock.advance(VISIBILITY * 2);
    let rest = receive(&*f.store, 10).await;
    assert_eq!(rest.len(), 1);
    assert_ne!(rest[0].id, got.id);
    assert_eq!(f.store.job(got.id).await.unwrap().unwrap().state, JobState::Done);
}

async fn a_message_given_back_comes_back_after_its_delay(f: Fresh) {
    fill(&*f.store, 1).await;
    let got = receive(&*f.store, 1).await.pop().unwrap();
    assert!(record(&*f.store, &got, retry_in(5)).await);
    assert_eq!(counts(&*f.store).await.delayed, 1);
    assert!(receive(&*f.store, 1).await.is_empty());
    f.clock.advance(Duration::from_secs(5));
    let again = receive(&*f.store, 1).await.pop().unwrap();
    assert_eq!((again.id, again.attempt), (got.id, 1));
    assert!(!record(&*f.store, &got, NextState::Done).await, "the first receive is over");
    assert!(record(&*f.store, &again, retry_in(5)).await);
    assert!(record(&*f.store, &again, retry_in(5)).await, "a repeat is answered like the first");
    assert!(!record(&*f.store, &again, NextState::Done).await, "and a change of mind is not one");
}

async fn a_message_is_dead_when_its_attempts_are_used_up_by_time(f: Fresh) {
    fill(&*f.store, 2).await;
    for attempt in 0..3 {
        let got = receive(&*f.store, 2).await;
        assert_eq!(got.iter().map(|job| job.attempt).collect::<Vec<_>>(), [attempt, attempt]);
        f.clock.advance(VISIBILITY);
    }
    fill(&*f.store, 1).await;
    // The two poisoned ones take no place of the one that waits.
    let received = f.store.receive(&[ask(2)]).await.unwrap().pop().unwrap();
    assert_eq!((received.messages.len(), received.dead.len()), (1, 2));
    assert!(received.dead.iter().all(|job| job.attempt == 3));
    let dead = f.store.job(received.dead[0].id).await.unwrap().unwrap();
    assert_eq!(dead.state, JobState::Dead);
    assert!(dead.last_error.unwrap().contains("not acknowledged"));
    assert_eq!(f.store.attempts(dead.id).await.unwrap().len(), 3);
    let totals = f.store.totals().await.unwrap();
    assert_eq!((totals.open, totals.dead), (1, 2));
    let peeked = f.store.peek(&LaneId::queue("q"), true, 10).await.unwrap();
    assert_eq!(peeked.len(), 2);
}

async fn a_queue_that_nobody_receives_from_loses_its_poison_too(f: Fresh) {
    fill(&*f.store, 2).await;
    let lane = LaneId::queue("q");
    for _ in 0..3 {
        assert_eq!(receive(&*f.store, 1).await.len(), 1);
        assert!(f.store.bury(&lane, 3, 10).await.unwrap().is_empty());
        f.clock.advance(VISIBILITY);
        // The order is by due time: the other message is next.
        assert_eq!(receive(&*f.store, 1).await.len(), 1);
        f.clock.advance(VISIBILITY);
    }
    let buried = f.store.bury(&lane, 3, 10).await.unwrap();
    assert_eq!(buried.len(), 2);
    assert!(buried.iter().all(|job| job.state == JobState::Dead && job.attempt == 3));
    assert_eq!(counts(&*f.store).await, QueueCounts { dead: 2, ..QueueCounts::default() });
    assert!(f.store.bury(&lane, 3, 10).await.unwrap().is_empty());
}

async fn workers_never_see_messages_and_consumers_never_see_deliveries(f: Fresh) {
    fill(&*f.store, 3).await;
    accept(&*f.store, new_event(&["a"])).await;
    f.clock.advance(Duration::from_secs(2));
    let claimed = f.store.claim(&claim_request(10)).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].job.target, Target::Handler("a".into()));
    let ids: Vec<_> = receive(&*f.store, 1).await.iter().map(|job| job.id).collect();
    let only = tidehook::store::ClaimRequest { only: ids, ..claim_request(10) };
    f.clock.advance(VISIBILITY);
    assert!(
        f.store.claim(&only).await.unwrap().iter().all(|c| c.job.target.name() == "a"),
        "not by name either"
    );
    assert!(receive(&*f.store, 10).await.iter().all(|job| job.target.name() == "q"));
    assert!(!f.store.pause(&LaneId::queue("q"), true).await.unwrap(), "a queue has no pause");
    let backlog = f.store.backlog().await.unwrap();
    assert!(!backlog.contains_key(&LaneId::queue("q")));
}

async fn two_consumers_never_share_a_message(f: Fresh) {
    fill(&*f.store, 60).await;
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let store = Arc::clone(&f.store);
            tokio::spawn(async move {
                let mut ids = Vec::new();
                loop {
                    let got = receive(&*store, 7).await;
                    if got.is_empty() {
                        return ids;
                    }
                    ids.extend(got.into_iter().map(|job| job.id));
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    let unique: BTreeSet<_> = all.iter().collect();
    assert_eq!(unique.len(), all.len());
    // A consumer that was late may have found the rows of others locked.
    all.extend(receive(&*f.store, 60).await.into_iter().map(|job| job.id));
    assert_eq!(all.len(), 60);
}

async fn leases_of_consumers_outlive_a_restart(f: Fresh) {
    fill(&*f.store, 1).await;
    let got = receive(&*f.store, 1).await.pop().unwrap();
    assert_eq!(f.store.reclaim().await.unwrap(), 0);
    assert!(receive(&*f.store, 1).await.is_empty());
    assert!(record(&*f.store, &got, NextState::Done).await);
}

async fn dead_messages_are_tried_again_and_a_queue_is_drained(f: Fresh) {
    fill(&*f.store, 3).await;
    for job in receive(&*f.store, 2).await {
        assert!(record(&*f.store, &job, dead()).await);
    }
    assert_eq!(f.store.retry(&Retry::Queue("other".into())).await.unwrap(), 0);
    assert_eq!(f.store.retry(&Retry::Queue("q".into())).await.unwrap(), 2);
    let got = receive(&*f.store, 10).await;
    assert_eq!(got.len(), 3);
    assert!(got.iter().all(|job| job.attempt == 0));
    let by_id = f.store.messages(&[got[0].id]).await.unwrap();
    assert_eq!(by_id[&got[0].id].claim, got[0].claim);
    assert_eq!(f.store.drain(&LaneId::queue("q"), 2).await.unwrap(), 2);
    assert_eq!(f.store.drain(&LaneId::queue("q"), 2).await.unwrap(), 1);
    assert!(!record(&*f.store, &got[0], NextState::Done).await);
    let totals = f.store.totals().await.unwrap();
    assert_eq!((totals.open, totals.dead), (0, 0));
}

async fn a_late_acknowledgement_counts_until_the_message_is_received_again(f: Fresh) {
    fill(&*f.store, 1).await;
    let first = receive(&*f.store, 1).await.pop().unwrap();
    f.clock.advance(VISIBILITY * 2);
    let extended = f.store.extend(&[first.lease()], VISIBILITY).await.unwrap();
    assert!(extended[0].is_ok());
    assert!(receive(&*f.store, 1).await.is_empty(), "hidden again");
    f.clock.advance(VISIBILITY);
    let second = receive(&*f.store, 1).await.pop().unwrap();
    assert!(!record(&*f.store, &first, NextState::Done).await);
    assert!(record(&*f.store, &second, NextState::Done).await);
}
