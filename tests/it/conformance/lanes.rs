use std::time::Duration;

use tidehook::decide::fair::Slots;
use tidehook::decide::settle::{JobOutcome, LaneFact, NextState};
use tidehook::model::lane::BreakerRules;
use tidehook::model::{LaneId, LaneSpec};
use tidehook::store::ClaimRequest;

const OPEN_FOR: Duration = Duration::from_secs(60);

use super::build::*;
use super::on_every_store;
use crate::support::stores::{Fresh, START};

on_every_store!(
    the_backlog_names_since_when_the_oldest_job_is_due,
    lanes_are_served_in_turn,
    a_lane_never_gives_more_than_its_share,
    a_paused_lane_gives_no_job_and_keeps_its_due_times,
    a_skipped_lane_gives_nothing,
    a_lane_nobody_announced_keeps_its_jobs,
    tenants_take_turns_however_many_lanes_each_has,
    a_lane_that_this_worker_does_not_serve_is_put_off_and_stays_for_others,
    whatever_makes_a_job_due_its_lane_is_looked_at,
    no_job_is_left_behind_when_events_come_in_while_lanes_run_empty,
    work_that_an_older_version_has_left_is_found_by_a_sweep,
    what_one_process_gives_back_another_one_finds,
    five_failures_in_a_row_open_the_breaker_for_a_minute,
    a_success_in_between_keeps_it_closed,
    an_open_breaker_costs_no_attempts,
    a_lane_that_is_resumed_probes_at_once_although_its_breaker_is_open,
    a_lane_that_is_resumed_probes_at_once_although_the_last_probe_was_put_off,
    a_half_open_breaker_lets_one_probe_through,
    a_breaker_that_closes_lets_the_backlog_out_under_a_ramp,
    a_receiver_that_asks_for_less_is_left_alone_and_does_not_trip,
    a_lane_has_the_breaker_that_is_configured,
    a_throttled_lane_gives_its_rate_each_second,
    tuning_a_lane_again_keeps_what_is_known_of_it,
    open_jobs_are_counted_by_lane,
    what_waits_for_one_handler_is_given_to_another_with_its_pause,
);

async fn lanes_are_served_in_turn(f: Fresh) {
    seed(&*f.store, &["a", "b", "c"], 4).await;
    let mut order = Vec::new();
    for _ in 0..6 {
        order.push(claim_one(&*f.store).await.job.target.name().to_owned());
        f.clock.advance(Duration::from_millis(1));
    }
    assert_eq!(order, ["a", "b", "c", "a", "b", "c"]);
}

async fn a_lane_never_gives_more_than_its_share(f: Fresh) {
    seed(&*f.store, &["a"], 10).await;
    let claimed = f
        .store
        .claim(&ClaimRequest {
            slots: Slots { lane_max: 3, ..Slots::free(10) },
            ..claim_request(10)
        })
        .await
        .unwrap();
    assert_eq!(claimed.len(), 3);
}

async fn a_paused_lane_gives_no_job_and_keeps_its_due_times(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    assert!(f.store.pause(&LaneId::handler("a"), true).await.unwrap());
    assert!(!f.store.pause(&LaneId::handler("nobody"), true).await.unwrap());
    f.clock.advance(Duration::from_secs(3600));
    assert!(f.store.claim(&claim_request(5)).await.unwrap().is_empty());
    f.store.pause(&LaneId::handler("a"), false).await.unwrap();
    assert_eq!(claim_one(&*f.store).await.job.attempt, 0);
}

async fn a_skipped_lane_gives_nothing(f: Fresh) {
    seed(&*f.store, &["a", "b"], 2).await;
    let claimed = f
        .store
        .claim(&ClaimRequest { skip: vec![LaneId::handler("a")], ..claim_request(4) })
        .await
        .unwrap();
    assert!(claimed.len() >= 2 && claimed.iter().all(|c| c.job.target.name() == "b"));
}

async fn tenants_take_turns_however_many_lanes_each_has(f: Fresh) {
    let many: Vec<String> = (0..30).map(|n| format!("many-{n:02}")).collect();
    let mut specs: Vec<LaneSpec> =
        many.iter().map(|name| LaneSpec::new(LaneId::handler(name), "crowd")).collect();
    specs.push(LaneSpec::new(LaneId::handler("alone"), "small"));
    f.store.upsert_lanes(&specs).await.unwrap();
    let names: Vec<&str> = many.iter().map(String::as_str).collect();
    let crowd: Vec<_> = (0..3).map(|_| new_event(&names)).collect();
    f.store.accept(&crowd).await.unwrap();
    f.clock.advance(Duration::from_secs(1));
    f.store.accept(&[new_event(&["alone"]), new_event(&["alone"])]).await.unwrap();
    let claimed = f.store.claim(&claim_request(4)).await.unwrap();
    let of_small = claimed.iter().filter(|c| c.job.target.name() == "alone").count();
    assert_eq!((claimed.len(), of_small), (4, 1), "its turn, and no more than that");
    // Every lane has its turn before one has a second.
    let mut served: Vec<String> = claimed.iter().map(|c| c.job.target.name().to_owned()).collect();
    while served.iter().filter(|name| name.starts_with("many")).count() < 30 {
        f.clock.advance(Duration::from_millis(1));
        let claimed = f.store.claim(&claim_request(4)).await.unwrap();
        assert!(!claimed.is_empty());
        served.extend(claimed.iter().map(|c| c.job.target.name().to_owned()));
    }
    let lanes: std::collections::BTreeSet<&String> =
        served.iter().filter(|name| name.starts_with("many")).collect();
    assert_eq!(lanes.len(), 30, "{served:?}");
}

async fn a_lane_that_this_worker_does_not_serve_is_put_off_and_stays_for_others(f: Fresh) {
    seed(&*f.store, &["a", "b"], 2).await;
    let request = ClaimRequest { unserved: vec![LaneId::handler("a")], ..claim_request(10) };
    let claimed = f.store.claim(&request).await.unwrap();
    assert_eq!(claimed.len(), 2);
    assert!(claimed.iter().all(|c| c.job.target.name() == "b"));
    f.clock.advance(Duration::from_secs(16));
    let claimed = f.store.claim(&claim_request(10)).await.unwrap();
    assert_eq!(claimed.len(), 2);
    assert!(claimed.iter().all(|c| c.job.target.name() == "a"));
}

/// Lets the looks at empty lanes pass, until nobody looks at them any more.
async fn forgotten(f: &Fresh) {
    for seconds in [0, 1, 1, 3, 13, 40, 3, 13] {
        f.clock.advance(Duration::from_secs(seconds));
        assert!(f.store.claim(&claim_request(10)).await.unwrap().is_empty());
    }
}

async fn whatever_makes_a_job_due_its_lane_is_looked_at(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    let first = claim_one(&*f.store).await.job;
    // A retry.
    f.store.record(&[outcome(&first, retry_in(600))]).await.unwrap();
    for _ in 0..5 {
        f.clock.advance(Duration::from_secs(100));
        assert!(f.store.claim(&claim_request(10)).await.unwrap().is_empty());
    }
    f.clock.advance(Duration::from_secs(100));
    let job = claim_one(&*f.store).await.job;
    // A job that is given back untried.
    f.store.record(&[outcome(&job, NextState::Released)]).await.unwrap();
    let job = claim_one(&*f.store).await.job;
    // A lease that ends.
    f.clock.advance(LEASE + Duration::from_secs(1));
    let job = {
        assert_eq!(claim_one(&*f.store).await.job.id, job.id);
        job.id
    };
    f.clock.advance(LEASE + Duration::from_secs(1));
    let job = {
        let again = claim_one(&*f.store).await.job;
        assert_eq!(again.id, job);
        again
    };
    // An operator.
    f.store.record(&[outcome(&job, dead())]).await.unwrap();
    forgotten(&f).await;
    f.store.retry(&tidehook::store::Retry::One(job.id)).await.unwrap();
    let job = claim_one(&*f.store).await.job;
    f.store.record(&[outcome(&job, dead())]).await.unwrap();
    forgotten(&f).await;
    let all = tidehook::store::Retry::All { state: tidehook::model::JobState::Dead, handler: None };
    assert_eq!(f.store.retry(&all).await.unwrap(), 1);
    let job = claim_one(&*f.store).await.job;
    f.store.record(&[outcome(&job, NextState::Done)]).await.unwrap();
    forgotten(&f).await;
    // A new event, and one that starts with its commit and whose worker dies.
    accept(&*f.store, new_event(&["a"])).await;
    let job = claim_one(&*f.store).await.job;
    f.store.record(&[outcome(&job, NextState::Done)]).await.unwrap();
    forgotten(&f).await;
    let mut started = new_event(&["a"]);
    started.plan.jobs.iter_mut().for_each(|job| job.start = true);
    accept(&*f.store, started).await;
    assert!(f.store.claim(&claim_request(1)).await.unwrap().is_empty());
    f.clock.advance(LEASE + Duration::from_secs(1));
    let job = claim_one(&*f.store).await.job;
    f.store.record(&[outcome(&job, NextState::Done)]).await.unwrap();
    // A pause that ends.
    f.store.pause(&LaneId::handler("a"), true).await.unwrap();
    accept(&*f.store, new_event(&["a"])).await;
    forgotten(&f).await;
    f.store.pause(&LaneId::handler("a"), false).await.unwrap();
    claim_one(&*f.store).await;
}

async fn no_job_is_left_behind_when_events_come_in_while_lanes_run_empty(f: Fresh) {
    f.store.upsert_lanes(&[spec("a"), spec("b")]).await.unwrap();
    let store = &f.store;
    let accepting = |handler: &'static str| async move {
        for _ in 0..60 {
            assert!(store.accept(&[new_event(&[handler])]).await.unwrap()[0].is_ok());
        }
    };
    let done = std::sync::atomic::AtomicUsize::new(0);
    let drain = || async {
        let claimed = store.claim(&claim_request(3)).await.unwrap();
        let outcomes: Vec<_> = claimed.iter().map(|c| outcome(&c.job, NextState::Done)).collect();
        for recorded in store.record(&outcomes).await.unwrap() {
            recorded.unwrap();
        }
        done.fetch_add(claimed.len(), std::sync::atomic::Ordering::SeqCst);
        claimed.len()
    };
    let working = || async {
        for _ in 0..80 {
            drain().await;
        }
    };
    tokio::join!(accepting("a"), accepting("b"), accepting("a"), working(), working());
    // What the last look could not see yet is found by the next ones, within their pauses.
    for seconds in [0, 1, 1, 3, 13] {
        f.clock.advance(Duration::from_secs(seconds));
        while drain().await > 0 {}
    }
    assert_eq!(done.load(std::sync::atomic::Ordering::SeqCst), 180);
    assert_eq!(store.totals().await.unwrap().open, 0);
}

async fn work_that_an_older_version_has_left_is_found_by_a_sweep(f: Fresh) {
    seed(&*f.store, &["a", "b", "c"], 1).await;
    // A version that knows nothing of looks stores jobs in lanes that nobody looks at.
    let forget = "UPDATE lanes SET ready = 0, look_at = NULL WHERE id <> 'handler:b'";
    if f.url.starts_with("memory") {
        return;
    }
    crate::support::stores::execute(&f.url, forget).await;
    // Nor does this process, which forgets with its first claim what it has stored itself.
    let skip = ["a", "b", "c"].map(LaneId::handler).to_vec();
    let none = f.store.claim(&ClaimRequest { skip, ..claim_request(1) }).await.unwrap();
    assert!(none.is_empty());
    let claimed = f.store.claim(&claim_request(5)).await.unwrap();
    assert_eq!(claimed.len(), 1, "b");
    assert_eq!(f.store.sweep_lanes(None, 10).await.unwrap(), (0, None), "not yet overdue");
    f.clock.advance(Duration::from_secs(6));
    let (found, next) = f.store.sweep_lanes(None, 2).await.unwrap();
    assert_eq!((found, next.as_ref()), (1, Some(&LaneId::handler("b"))));
    assert_eq!(f.store.sweep_lanes(next, 2).await.unwrap(), (1, None));
    assert_eq!(f.store.claim(&claim_request(5)).await.unwrap().len(), 2);
}

async fn what_one_process_gives_back_another_one_finds(f: Fresh) {
    // Only servers have several processes.
    if f.url.starts_with("memory") || f.url.starts_with("sqlite") {
        return;
    }
    let other = crate::support::stores::open(&f.url, Some(f.clock.clone())).await;
    let mut started = new_event(&["a"]);
    started.plan.jobs.iter_mut().for_each(|job| job.start = true);
    f.store.upsert_lanes(&[spec("a")]).await.unwrap();
    forgotten(&f).await;
    accept(&*f.store, started).await;
    let page = tidehook::store::Page { limit: 1, newest_first: false };
    let jobs = f.store.jobs(&tidehook::store::JobFilter::default(), page).await.unwrap();
    let released = JobOutcome { lane_fact: None, ..outcome(&jobs[0], NextState::Released) };
    f.store.record(&[released]).await.unwrap()[0].as_ref().unwrap();
    assert_eq!(claim_one(&*other).await.job.id, jobs[0].id);
}

async fn a_lane_nobody_announced_keeps_its_jobs(f: Fresh) {
    accept(&*f.store, new_event(&["later"])).await;
    assert!(f.store.claim(&claim_request(5)).await.unwrap().is_empty());
    f.store.upsert_lanes(&[spec("later")]).await.unwrap();
    claim_one(&*f.store).await;
}

async fn fail(f: &Fresh, times: usize) {
    for _ in 0..times {
        let claimed = claim_one(&*f.store).await;
        f.store.record(&[outcome(&claimed.job, retry_in(0))]).await.unwrap();
    }
}

async fn five_failures_in_a_row_open_the_breaker_for_a_minute(f: Fresh) {
    seed(&*f.store, &["a"], 10).await;
    fail(&f, 4).await;
    let claimed = claim_one(&*f.store).await;
    assert!(!claimed.lane_clean);
    f.store.record(&[outcome(&claimed.job, dead())]).await.unwrap();
    assert!(f.store.claim(&claim_request(5)).await.unwrap().is_empty());
    f.clock.advance(OPEN_FOR - Duration::from_millis(1));
    assert!(f.store.claim(&claim_request(5)).await.unwrap().is_empty());
    f.clock.advance(Duration::from_millis(1));
    claim_one(&*f.store).await;
}

async fn a_success_in_between_keeps_it_closed(f: Fresh) {
    seed(&*f.store, &["a"], 10).await;
    for _ in 0..3 {
        fail(&f, 4).await;
        let claimed = claim_one(&*f.store).await;
        f.store.record(&[outcome(&claimed.job, NextState::Done)]).await.unwrap();
    }
    assert!(claim_one(&*f.store).await.lane_clean);
}

async fn an_open_breaker_costs_no_attempts(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    fail(&f, 5).await;
    for _ in 0..10 {
        f.clock.advance(Duration::from_secs(5));
        assert!(f.store.claim(&claim_request(5)).await.unwrap().is_empty());
    }
    f.clock.advance(Duration::from_secs(10));
    assert_eq!(claim_one(&*f.store).await.job.attempt, 5);
}

async fn a_lane_that_is_resumed_probes_at_once_although_its_breaker_is_open(f: Fresh) {
    seed(&*f.store, &["a"], 10).await;
    fail(&f, 5).await;
    assert!(f.store.claim(&claim_request(5)).await.unwrap().is_empty());
    assert!(f.store.pause(&LaneId::handler("a"), false).await.unwrap());
    let probe = f.store.claim(&claim_request(5)).await.unwrap();
    assert_eq!(probe.len(), 1);
    // A probe that fails leaves it open for its full time; one that succeeds closes it.
    f.store.record(&[outcome(&probe[0].job, retry_in(0))]).await.unwrap();
    f.clock.advance(OPEN_FOR - Duration::from_secs(1));
    assert!(f.store.claim(&claim_request(5)).await.unwrap().is_empty());
    assert!(f.store.pause(&LaneId::handler("a"), false).await.unwrap());
    let probe = claim_one(&*f.store).await;
    f.store.record(&[outcome(&probe.job, NextState::Done)]).await.unwrap();
    assert!(!f.store.claim(&claim_request(5)).await.unwrap().is_empty());
}

async fn a_half_open_breaker_lets_one_probe_through(f: Fresh) {
    seed(&*f.store, &["a"], 10).await;
    fail(&f, 5).await;
    f.clock.advance(OPEN_FOR);
    let probe = f.store.claim(&claim_request(5)).await.unwrap();
    assert_eq!(probe.len(), 1);
    assert!(f.store.claim(&claim_request(5)).await.unwrap().is_empty());
    // A probe whose worker dies leaves the place free when its lease ends.
    f.clock.advance(LEASE);
    let probe = f.store.claim(&claim_request(5)).await.unwrap();
    assert_eq!(probe.len(), 1);
    f.store.record(&[outcome(&probe[0].job, retry_in(0))]).await.unwrap();
    f.clock.advance(OPEN_FOR - Duration::from_millis(1));
    assert!(f.store.claim(&claim_request(5)).await.unwrap().is_empty());
}

async fn a_breaker_that_closes_lets_the_backlog_out_under_a_ramp(f: Fresh) {
    seed(&*f.store, &["a"], 30).await;
    fail(&f, 5).await;
    f.clock.advance(OPEN_FOR);
    let probe = claim_one(&*f.store).await;
    f.store.record(&[outcome(&probe.job, NextState::Done)]).await.unwrap();
    let mut sizes = Vec::new();
    for _ in 0..4 {
        let given = f.store.claim(&claim_request(20)).await.unwrap();
        // However fast it answers, it gets no more in this second.
        for claimed in &given {
            f.store.record(&[outcome(&claimed.job, NextState::Done)]).await.unwrap();
        }
        assert!(f.store.claim(&claim_request(20)).await.unwrap().is_empty(), "the ramp is a rate");
        sizes.push(given.len());
        f.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(sizes, [1, 2, 4, 8]);
}

async fn a_receiver_that_asks_for_less_is_left_alone_and_does_not_trip(f: Fresh) {
    seed(&*f.store, &["a"], 30).await;
    let claimed = f.store.claim(&claim_request(9)).await.unwrap();
    let limited: Vec<_> = claimed
        .iter()
        .map(|c| tidehook::decide::settle::JobOutcome {
            lane_fact: Some(LaneFact::Limited(Duration::from_secs(4))),
            ..outcome(&c.job, retry_in(0))
        })
        .collect();
    f.store.record(&limited).await.unwrap();
    let lane = f.store.lanes().await.unwrap().remove(0);
    assert_eq!((lane.breaker.failures, lane.breaker.open_until), (0, None));
    f.clock.advance(Duration::from_millis(3_999));
    assert!(f.store.claim(&claim_request(9)).await.unwrap().is_empty());
    f.clock.advance(Duration::from_millis(1));
    assert_eq!(f.store.claim(&claim_request(9)).await.unwrap().len(), 1, "then it goes on slowly");
}

async fn a_lane_has_the_breaker_that_is_configured(f: Fresh) {
    seed(&*f.store, &["a"], 10).await;
    let rules = BreakerRules { failures: 2, open_for_ms: 1_000, max_open_ms: 4_000, probes: 1 };
    f.store.upsert_lanes(&[LaneSpec { breaker: rules, ..spec("a") }]).await.unwrap();
    fail(&f, 2).await;
    assert!(f.store.claim(&claim_request(5)).await.unwrap().is_empty());
    f.clock.advance(Duration::from_secs(1));
    fail(&f, 1).await;
    f.clock.advance(Duration::from_secs(1));
    assert!(
        f.store.claim(&claim_request(5)).await.unwrap().is_empty(),
        "twice as long after a failed probe"
    );
    f.clock.advance(Duration::from_secs(1));
    claim_one(&*f.store).await;
}

async fn a_throttled_lane_gives_its_rate_each_second(f: Fresh) {
    f.store.upsert_lanes(&[LaneSpec { rate: Some(3), ..spec("a") }]).await.unwrap();
    let new_events: Vec<_> = (0..20).map(|_| new_event(&["a"])).collect();
    f.store.accept(&new_events).await.unwrap();
    assert_eq!(f.store.claim(&claim_request(10)).await.unwrap().len(), 3);
    assert!(f.store.claim(&claim_request(10)).await.unwrap().is_empty());
    f.clock.advance(Duration::from_secs(1));
    let claimed = f.store.claim(&claim_request(10)).await.unwrap();
    assert_eq!(claimed.len(), 3);
    assert_eq!(claimed[0].job.attempt, 0, "waiting costs no attempt");
}

async fn tuning_a_lane_again_keeps_what_is_known_of_it(f: Fresh) {
    seed(&*f.store, &["a"], 6).await;
    fail(&f, 5).await;
    f.store.upsert_lanes(&[LaneSpec { rate: Some(9), ..spec("a") }]).await.unwrap();
    assert!(f.store.claim(&claim_request(5)).await.unwrap().is_empty());
    let lanes = f.store.lanes().await.unwrap();
    assert_eq!(lanes[0].bucket.map(|b| b.rate), Some(9));
    assert!(lanes[0].breaker.open_until.is_some());
}

async fn the_backlog_names_since_when_the_oldest_job_is_due(f: Fresh) {
    seed(&*f.store, &["a", "b"], 1).await;
    f.clock.advance(Duration::from_secs(5));
    accept(&*f.store, new_event(&["a"])).await;
    let backlog = f.store.backlog().await.unwrap();
    assert_eq!(
        backlog.into_iter().collect::<Vec<_>>(),
        [(LaneId::handler("a"), START), (LaneId::handler("b"), START)]
    );
    f.store.claim(&claim_request(10)).await.unwrap();
    assert!(f.store.backlog().await.unwrap().is_empty(), "what is leased is not waiting");
}

async fn open_jobs_are_counted_by_lane(f: Fresh) {
    seed(&*f.store, &["a", "b"], 3).await;
    let claimed = claim_one(&*f.store).await;
    f.store.record(&[outcome(&claimed.job, NextState::Done)]).await.unwrap();
    let (a, b, none) = (LaneId::handler("a"), LaneId::handler("b"), LaneId::handler("none"));
    let counted = f.store.open_jobs(&[a.clone(), none]).await.unwrap();
    assert_eq!(counted, [(a.clone(), 2)].into());
    assert_eq!(f.store.open_jobs(&[a.clone(), b.clone()]).await.unwrap(), [(a, 2), (b, 3)].into());
    assert!(f.store.open_jobs(&[]).await.unwrap().is_empty());
}

async fn what_waits_for_one_handler_is_given_to_another_with_its_pause(f: Fresh) {
    seed(&*f.store, &["old", "other"], 3).await;
    f.store.upsert_lanes(&[spec("new")]).await.unwrap();
    f.store.pause(&LaneId::handler("other"), true).await.unwrap();
    let leased = claim_one(&*f.store).await;
    assert_eq!(leased.job.target.name(), "old");
    f.store.pause(&LaneId::handler("old"), true).await.unwrap();
    assert_eq!(f.store.rename("old", "new", 1).await.unwrap(), 1);
    assert_eq!(f.store.rename("old", "new", 10).await.unwrap(), 1, "one is under lease");
    assert_eq!(f.store.rename("old", "new", 10).await.unwrap(), 0);
    let lanes = f.store.lanes().await.unwrap();
    let paused =
        |name: &str| lanes.iter().any(|lane| lane.id == LaneId::handler(name) && lane.paused);
    assert_eq!((paused("old"), paused("new"), paused("other")), (false, true, true));
    f.store.record(&[outcome(&leased.job, retry_in(0))]).await.unwrap();
    f.store.pause(&LaneId::handler("new"), false).await.unwrap();
    assert_eq!(f.store.rename("old", "new", 10).await.unwrap(), 1, "its lease has ended");
    assert_eq!(f.store.rename("none", "new", 10).await.unwrap(), 0);
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(claim_one(&*f.store).await.job.target.name().to_owned());
    }
    assert_eq!(names, ["new", "new", "new"]);
}

async fn a_lane_that_is_resumed_probes_at_once_although_the_last_probe_was_put_off(f: Fresh) {
    seed(&*f.store, &["a"], 7).await;
    fail(&f, 5).await;
    f.store.pause(&LaneId::handler("a"), false).await.unwrap();
    let probe = claim_one(&*f.store).await;
    let limited = JobOutcome {
        lane_fact: Some(LaneFact::Limited(Duration::from_secs(30))),
        ..outcome(&probe.job, retry_in(0))
    };
    f.store.record(&[limited]).await.unwrap();
    assert!(
        f.store.claim(&claim_request(5)).await.unwrap().is_empty(),
        "its receiver asked for less"
    );
    f.store.pause(&LaneId::handler("a"), false).await.unwrap();
    claim_one(&*f.store).await;
}
