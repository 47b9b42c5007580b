use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidehook::decide::settle::NextState;
use tidehook::model::{AttemptResult, JobState, LaneId};
use tidehook::store::{Error, JobFilter, Page, Retry};

use super::build::*;
use super::on_every_store;
use crate::support::stores::{Fresh, START};

on_every_store!(
    a_record_can_be_repeated,
    two_claims_never_share_a_job,
    two_claimers_share_the_due_jobs,
    a_job_is_due_again_when_its_lease_runs_out,
    an_extended_lease_is_kept,
    recording_with_an_old_token_changes_nothing,
    a_late_failure_after_a_success_changes_nothing,
    a_retry_is_due_after_its_delay_and_not_before,
    a_job_that_is_done_is_never_claimed_again,
    a_released_job_keeps_its_attempt_number,
    a_claim_takes_no_more_than_was_asked_for,
    the_oldest_due_job_comes_first,
    a_dead_job_can_be_tried_again_with_a_fresh_budget,
    a_cancelled_job_cannot_be_recorded,
    all_open_deliveries_to_a_handler_are_called_off,
    what_waits_too_long_expires,
    a_slice_of_records_is_fenced_item_by_item,
    two_outcomes_of_one_job_in_a_slice_are_told_apart,
    reclaiming_makes_every_lease_end_now,
    an_instant_survives_the_round_trip_to_the_millisecond,
    totals_follow_the_work,
);

const PAGE: Page = Page { limit: 1000, newest_first: false };

async fn two_claims_never_share_a_job(f: Fresh) {
    seed(&*f.store, &["a", "b"], 50).await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&f.store);
            tokio::spawn(async move {
                let mut ids = Vec::new();
                loop {
                    let claimed = store.claim(&claim_request(7)).await.unwrap();
                    if claimed.is_empty() {
                        return ids;
                    }
                    ids.extend(claimed.into_iter().map(|c| c.job.id));
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    let unique: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), unique.len()), (100, 100));
}

async fn two_claimers_share_the_due_jobs(f: Fresh) {
    seed(&*f.store, &["a"], 100).await;
    let (x, y) = (Arc::clone(&f.store), Arc::clone(&f.store));
    let (x, y) = tokio::join!(async move { x.claim(&claim_request(50)).await }, async move {
        y.claim(&claim_request(50)).await
    });
    assert_eq!((x.unwrap().len(), y.unwrap().len()), (50, 50));
}

async fn a_job_is_due_again_when_its_lease_runs_out(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    let first = claim_one(&*f.store).await;
    f.clock.advance(LEASE - Duration::from_millis(1));
    assert!(f.store.claim(&claim_request(1)).await.unwrap().is_empty());
    f.clock.advance(Duration::from_millis(1));
    let second = claim_one(&*f.store).await;
    assert_eq!(second.job.id, first.job.id);
    assert_eq!((second.job.attempt, second.job.interrupted, second.job.counted()), (1, 1, 0));
    assert!(second.job.claim > first.job.claim);
    let attempts = f.store.attempts(first.job.id).await.unwrap();
    assert_eq!(
        attempts.iter().map(|a| (a.number, a.ending)).collect::<Vec<_>>(),
        [(1, AttemptResult::Interrupted)]
    );
}

async fn an_extended_lease_is_kept(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    let claimed = claim_one(&*f.store).await;
    f.clock.advance(LEASE / 2);
    assert_eq!(f.store.extend(&[claimed.job.lease()], LEASE).await.unwrap(), [Ok(())]);
    f.clock.advance(LEASE - Duration::from_millis(1));
    assert!(f.store.claim(&claim_request(1)).await.unwrap().is_empty());
    f.clock.advance(Duration::from_millis(1));
    claim_one(&*f.store).await;
    assert_eq!(
        f.store.extend(&[claimed.job.lease()], LEASE).await.unwrap(),
        [Err(Error::LeaseLost)]
    );
}

async fn recording_with_an_old_token_changes_nothing(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    let zombie = claim_one(&*f.store).await;
    f.clock.advance(LEASE);
    let alive = claim_one(&*f.store).await;
    assert_eq!(
        f.store.record(&[outcome(&zombie.job, NextState::Done)]).await.unwrap(),
        [Err(Error::LeaseLost)]
    );
    let job = f.store.job(alive.job.id).await.unwrap().unwrap();
    assert_eq!((job.state, job.claim), (JobState::Leased, alive.job.claim));
    assert_eq!(f.store.record(&[outcome(&alive.job, NextState::Done)]).await.unwrap(), [Ok(())]);
    let endings: Vec<_> =
        f.store.attempts(job.id).await.unwrap().into_iter().map(|a| (a.number, a.ending)).collect();
    assert_eq!(endings, [(1, AttemptResult::Stale), (2, AttemptResult::Delivered)]);
}

async fn a_late_failure_after_a_success_changes_nothing(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    let zombie = claim_one(&*f.store).await;
    f.clock.advance(LEASE);
    let alive = claim_one(&*f.store).await;
    f.store.record(&[outcome(&alive.job, NextState::Done)]).await.unwrap();
    for late in [retry_in(0), dead(), NextState::Released] {
        assert_eq!(
            f.store.record(&[outcome(&zombie.job, late)]).await.unwrap(),
            [Err(Error::LeaseLost)]
        );
    }
    assert_eq!(f.store.job(alive.job.id).await.unwrap().unwrap().state, JobState::Done);
    assert!(f.store.claim(&claim_request(1)).await.unwrap().is_empty());
}

async fn a_retry_is_due_after_its_delay_and_not_before(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    let claimed = claim_one(&*f.store).await;
    f.store.record(&[outcome(&claimed.job, retry_in(30))]).await.unwrap();
    f.clock.advance(Duration::from_millis(29_999));
    assert!(f.store.claim(&claim_request(1)).await.unwrap().is_empty());
    f.clock.advance(Duration::from_millis(1));
    let again = claim_one(&*f.store).await;
    assert_eq!((again.job.attempt, again.job.interrupted), (1, 0));
    let attempts = f.store.attempts(again.job.id).await.unwrap();
    assert_eq!(attempts[0].response, b"a\0b\xff");
    assert_eq!(attempts[0].duration, Duration::from_millis(12));
    assert_eq!(attempts[0].at, START);
}

async fn a_job_that_is_done_is_never_claimed_again(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    let claimed = claim_one(&*f.store).await;
    f.store.record(&[outcome(&claimed.job, NextState::Done)]).await.unwrap();
    f.clock.advance(Duration::from_secs(86_400));
    assert!(f.store.claim(&claim_request(10)).await.unwrap().is_empty());
}

async fn a_released_job_keeps_its_attempt_number(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    let claimed = claim_one(&*f.store).await;
    f.store.record(&[outcome(&claimed.job, NextState::Released)]).await.unwrap();
    let again = claim_one(&*f.store).await;
    assert_eq!((again.job.attempt, again.job.interrupted), (0, 0));
    assert!(f.store.attempts(again.job.id).await.unwrap().is_empty());
}

async fn a_claim_takes_no_more_than_was_asked_for(f: Fresh) {
    seed(&*f.store, &["a", "b", "c"], 10).await;
    assert_eq!(
        f.store.claim(&claim_request(7)).await.unwrap().len(),
        6,
        "two of each of three lanes"
    );
    assert_eq!(f.store.claim(&claim_request(1)).await.unwrap().len(), 1);
}

async fn the_oldest_due_job_comes_first(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    let oldest = f.store.jobs(&JobFilter::default(), PAGE).await.unwrap()[0].id;
    f.clock.advance(Duration::from_secs(1));
    seed(&*f.store, &["a"], 5).await;
    assert_eq!(claim_one(&*f.store).await.job.id, oldest);
}

async fn a_dead_job_can_be_tried_again_with_a_fresh_budget(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    let claimed = claim_one(&*f.store).await;
    f.store.record(&[outcome(&claimed.job, dead())]).await.unwrap();
    assert_eq!(f.store.totals().await.unwrap().dead, 1);
    assert_eq!(
        f.store
            .retry(&Retry::All { state: JobState::Dead, handler: Some("other".into()) })
            .await
            .unwrap(),
        0
    );
    assert_eq!(f.store.retry(&Retry::One(claimed.job.id)).await.unwrap(), 1);
    assert_eq!(f.store.retry(&Retry::One(claimed.job.id)).await.unwrap(), 0);
    let again = claim_one(&*f.store).await;
    assert_eq!(again.job.attempt, 0);
    f.store.record(&[outcome(&again.job, dead())]).await.unwrap();
    assert_eq!(f.store.attempts(again.job.id).await.unwrap().len(), 2, "the history is kept");
    assert_eq!(
        f.store.retry(&Retry::All { state: JobState::Dead, handler: None }).await.unwrap(),
        1
    );
    assert_eq!(f.store.totals().await.unwrap().dead, 0);
}

async fn a_cancelled_job_cannot_be_recorded(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    let claimed = claim_one(&*f.store).await;
    assert!(f.store.cancel(claimed.job.id).await.unwrap());
    assert!(!f.store.cancel(claimed.job.id).await.unwrap());
    assert_eq!(
        f.store.record(&[outcome(&claimed.job, NextState::Done)]).await.unwrap(),
        [Err(Error::LeaseLost)]
    );
    assert_eq!(f.store.job(claimed.job.id).await.unwrap().unwrap().state, JobState::Cancelled);
}

async fn all_open_deliveries_to_a_handler_are_called_off(f: Fresh) {
    seed(&*f.store, &["a", "b"], 4).await;
    f.store.pause(&LaneId::handler("b"), true).await.unwrap();
    let claimed = f.store.claim(&claim_request(2)).await.unwrap();
    f.store.record(&[outcome(&claimed[0].job, NextState::Done)]).await.unwrap();
    assert_eq!(f.store.cancel_handler_jobs("a", 2).await.unwrap(), 2);
    assert_eq!(
        f.store.cancel_handler_jobs("a", 2).await.unwrap(),
        1,
        "the one that was under lease is among the three"
    );
    assert_eq!(f.store.cancel_handler_jobs("a", 2).await.unwrap(), 0);
    assert_eq!(
        f.store.record(&[outcome(&claimed[1].job, NextState::Done)]).await.unwrap(),
        [Err(Error::LeaseLost)]
    );
    assert_eq!(f.store.totals().await.unwrap().open, 4);
}

async fn what_waits_too_long_expires(f: Fresh) {
    f.store.upsert_lanes(&[spec("a")]).await.unwrap();
    let mut new_event = new_event(&["a"]);
    new_event.event_ttl = Some(Duration::from_secs(60));
    let job = new_event.plan.jobs[0].id;
    accept(&*f.store, new_event).await;
    f.clock.advance(Duration::from_secs(59));
    assert_eq!(f.store.expire(10).await.unwrap().len(), 0);
    f.clock.advance(Duration::from_secs(1));
    assert_eq!(f.store.expire(10).await.unwrap().len(), 1);
    let job = f.store.job(job).await.unwrap().unwrap();
    assert_eq!((job.state, job.last_error.as_deref()), (JobState::Dead, Some("event TTL expired")));
    assert_eq!(f.store.totals().await.unwrap(), tidehook::store::Totals { open: 0, dead: 1 });
}

async fn a_slice_of_records_is_fenced_item_by_item(f: Fresh) {
    seed(&*f.store, &["a"], 3).await;
    let claimed = f.store.claim(&claim_request(3)).await.unwrap();
    assert!(f.store.cancel(claimed[1].job.id).await.unwrap());
    let outcomes: Vec<_> = claimed.iter().map(|c| outcome(&c.job, NextState::Done)).collect();
    assert_eq!(f.store.record(&outcomes).await.unwrap(), [Ok(()), Err(Error::LeaseLost), Ok(())]);
}

async fn reclaiming_makes_every_lease_end_now(f: Fresh) {
    seed(&*f.store, &["a"], 2).await;
    assert_eq!(f.store.claim(&claim_request(2)).await.unwrap().len(), 2);
    assert_eq!(f.store.reclaim().await.unwrap(), 2);
    assert_eq!(f.store.claim(&claim_request(2)).await.unwrap().len(), 2);
}

async fn an_instant_survives_the_round_trip_to_the_millisecond(f: Fresh) {
    f.clock.advance(Duration::from_millis(123));
    seed(&*f.store, &["a"], 1).await;
    let job = &f.store.jobs(&JobFilter::default(), PAGE).await.unwrap()[0];
    assert_eq!(
        (job.created_at, job.due_at),
        (START.plus(Duration::from_millis(123)), START.plus(Duration::from_millis(123)))
    );
    assert_eq!(f.store.now().await.unwrap(), START.plus(Duration::from_millis(123)));
}

async fn totals_follow_the_work(f: Fresh) {
    seed(&*f.store, &["a"], 4).await;
    let claimed = f.store.claim(&claim_request(4)).await.unwrap();
    let finishes = [NextState::Done, dead(), retry_in(5), NextState::Released];
    let outcomes: Vec<_> = claimed.iter().zip(finishes).map(|(c, f)| outcome(&c.job, f)).collect();
    f.store.record(&outcomes).await.unwrap();
    assert_eq!(f.store.totals().await.unwrap(), tidehook::store::Totals { open: 2, dead: 1 });
    f.store.cancel(claimed[2].job.id).await.unwrap();
    assert_eq!(f.store.totals().await.unwrap().open, 1);
}

async fn a_record_can_be_repeated(f: Fresh) {
    seed(&*f.store, &["a"], 2).await;
    let (done, later) = (claim_one(&*f.store).await, claim_one(&*f.store).await);
    for _ in 0..2 {
        // The answer of the first may have been lost with its connection.
        let outcomes = [outcome(&done.job, NextState::Done), outcome(&later.job, retry_in(60))];
        let answers = f.store.record(&outcomes).await.unwrap();
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }
    for (job, ending, state) in [
        (done.job.id, AttemptResult::Delivered, JobState::Done),
        (later.job.id, AttemptResult::Failed, JobState::Pending),
    ] {
        let attempts = f.store.attempts(job).await.unwrap();
        assert_eq!(attempts.iter().map(|a| a.ending).collect::<Vec<_>>(), [ending]);
        assert_eq!(f.store.job(job).await.unwrap().unwrap().state, state);
    }
    assert_eq!(f.store.totals().await.unwrap().open, 1);
    // Once somebody else has claimed it, a repeat changes nothing and rewrites no history.
    f.clock.advance(Duration::from_secs(60));
    claim_one(&*f.store).await;
    let answers = f.store.record(&[outcome(&later.job, retry_in(60))]).await.unwrap();
    assert_eq!(answers, [Err(Error::LeaseLost)]);
    assert_eq!(f.store.attempts(later.job.id).await.unwrap()[0].ending, AttemptResult::Failed);
}

async fn two_outcomes_of_one_job_in_a_slice_are_told_apart(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    let first = claim_one(&*f.store).await.job;
    f.clock.advance(LEASE);
    let second = claim_one(&*f.store).await.job;
    let plain = |job| {
        let mut outcome = outcome(job, NextState::Done);
        outcome.lane_fact = None;
        outcome
    };
    let both = [plain(&first), plain(&second), plain(&second)];
    let answers = f.store.record(&both).await.unwrap();
    assert!(matches!(answers[0], Err(Error::LeaseLost)));
    assert!(answers[1].is_ok() && answers[2].is_ok());
}
