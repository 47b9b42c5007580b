//! Cron sources: each slot once, whatever runs and however often.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidehook::config::layers::Variables;
use tidehook::config::load::from_texts;
use tidehook::config::problem::Text;
use tidehook::deliver::Deliver;
use tidehook::engine::{Budget, Engine};
use tidehook::ingress;
use tidehook::model::{JobState, LaneId, ManualClock, Outcome, Request, Response, Timestamp};
use tidehook::store::{EventFilter, Page, Store};

use crate::conformance::on_every_store;
use crate::support::engines;
use crate::support::stores::Fresh;
use crate::support::world::config;

on_every_store!(
    two_servers_fire_each_slot_once_across_a_change_of_the_clock,
    slots_that_nothing_ran_for_are_treated_as_the_file_says,
    the_configuration_that_started_last_decides_the_schedule,
    a_tick_survives_a_death_between_its_commit_and_its_end,
    a_source_that_the_file_no_longer_names_is_parked_and_goes_on_later,
);

const ALL: Page = Page { limit: 1000, newest_first: false };

/// Counts what is delivered, by the slot of the tick.
#[derive(Default)]
struct Counting(Mutex<BTreeMap<String, usize>>);

#[async_trait]
impl Deliver for Counting {
    async fn send(&self, request: Request) -> Outcome {
        let tick: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let slot = tick["fired_at"].as_str().unwrap().to_owned();
        *self.0.lock().unwrap().entry(slot).or_default() += 1;
        Outcome::Answered(Response::of(200, ""))
    }
}

fn file(schedule: &str) -> String {
    format!(
        "sources: {{ nightly: {{ type: cron, {schedule} }} }}\nhandlers: {{ report: {{ source: nightly, url: \"https://report.example/\" }} }}\n"
    )
}

fn engine(
    f: &Fresh,
    counting: &Arc<Counting>,
    clock: &ManualClock,
    text: &str,
    seed: u64,
) -> Engine {
    let deliver = Arc::clone(counting) as Arc<dyn Deliver>;
    engines::engine(&f.store, deliver, clock, Arc::new(config(text)), seed)
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

async fn work(engine: &Engine) {
    // A tick is found at once, and its deliveries by the look after it.
    for _ in 0..3 {
        engine.tick(Budget::endless(4)).await.unwrap();
    }
}

async fn events(store: &dyn Store, kind: &str) -> usize {
    let filter = EventFilter { kind: Some(kind.to_owned()), ..EventFilter::default() };
    store.events(&filter, ALL).await.unwrap().len()
}

async fn two_servers_fire_each_slot_once_across_a_change_of_the_clock(f: Fresh) {
    let counting = Arc::new(Counting::default());
    let text = file("schedule: \"30 * * * *\", timezone: Europe/Berlin");
    f.clock.set(at("2026-10-24T22:00:00Z"));
    // The second server's own clock is two hours ahead.
    let skewed = ManualClock::at(at("2026-10-25T00:00:00Z"));
    let one = engine(&f, &counting, &f.clock, &text, 1);
    let two = engine(&f, &counting, &skewed, &text, 2);
    let (first, second) = tokio::join!(one.prepare(false), two.prepare(false));
    first.unwrap();
    second.unwrap();
    for _ in 0..24 {
        f.clock.advance(Duration::from_secs(15 * 60));
        skewed.advance(Duration::from_secs(15 * 60));
        tokio::join!(work(&one), work(&two));
    }
    let fired = counting.0.lock().unwrap().clone();
    let slots: Vec<&str> = fired.keys().map(|slot| &slot[11..16]).collect();
    assert_eq!(slots, ["22:30", "23:30", "00:30", "01:30", "02:30", "03:30"]);
    assert!(fired.values().all(|times| *times == 1), "{fired:?}");
    assert_eq!(events(&*f.store, "cron.tick").await, 6);
    assert_eq!(f.store.peek(&LaneId::cron("nightly"), false, 10).await.unwrap().len(), 1);
}

async fn slots_that_nothing_ran_for_are_treated_as_the_file_says(f: Fresh) {
    for (catch_up, ticks, missed) in [("skip", 0, 1), ("one", 1, 0), ("all", 4, 0)] {
        let counting = Arc::new(Counting::default());
        let text = file(&format!("schedule: \"0 * * * *\", catch_up: {catch_up}"))
            .replace("nightly", catch_up);
        f.clock.set(at("2026-01-31T10:30:00Z"));
        let server = engine(&f, &counting, &f.clock, &text, u64::from(catch_up.as_bytes()[0]));
        server.prepare(false).await.unwrap();
        f.clock.set(at("2026-01-31T14:30:00Z"));
        for _ in 0..6 {
            work(&server).await;
        }
        assert_eq!(counting.0.lock().unwrap().len(), ticks, "{catch_up}");
        let filter = EventFilter {
            source: Some(catch_up.to_owned()),
            kind: Some("cron.missed".to_owned()),
            ..EventFilter::default()
        };
        assert_eq!(f.store.events(&filter, ALL).await.unwrap().len(), missed, "{catch_up}");
        // Whatever was missed, the next one fires in time.
        f.clock.set(at("2026-01-31T15:00:01Z"));
        work(&server).await;
        let fired = counting.0.lock().unwrap().clone();
        assert_eq!(fired.get("2026-01-31T15:00:00.000Z"), Some(&1), "{catch_up}: {fired:?}");
        assert!(fired.values().all(|times| *times == 1));
    }
}

async fn the_configuration_that_started_last_decides_the_schedule(f: Fresh) {
    let counting = Arc::new(Counting::default());
    f.clock.set(at("2026-01-31T10:30:00Z"));
    let old = engine(&f, &counting, &f.clock, &file("schedule: \"0 * * * *\""), 1);
    old.prepare(false).await.unwrap();
    let new = engine(&f, &counting, &f.clock, &file("schedule: \"15 * * * *\""), 2);
    new.prepare(false).await.unwrap();
    f.clock.set(at("2026-01-31T11:05:00Z"));
    tokio::join!(work(&old), work(&new));
    assert!(counting.0.lock().unwrap().is_empty(), "the old schedule is over");
    f.clock.set(at("2026-01-31T11:15:01Z"));
    // The old server takes the slot, cannot fire it, and leaves it to the new one.
    work(&old).await;
    assert!(counting.0.lock().unwrap().is_empty());
    f.clock.advance(Duration::from_secs(40));
    work(&new).await;
    work(&new).await;
    let fired: Vec<String> = counting.0.lock().unwrap().keys().cloned().collect();
    assert_eq!(fired, ["2026-01-31T11:15:00.000Z"]);
}

async fn a_tick_survives_a_death_between_its_commit_and_its_end(f: Fresh) {
    let counting = Arc::new(Counting::default());
    let text = file("schedule: \"0 * * * *\"");
    f.clock.set(at("2026-01-31T10:30:00Z"));
    let server = engine(&f, &counting, &f.clock, &text, 1);
    server.prepare(false).await.unwrap();
    let slot = f.store.peek(&LaneId::cron("nightly"), false, 10).await.unwrap().remove(0);
    f.clock.set(at("2026-01-31T11:00:01Z"));
    work(&server).await;
    // As a death leaves it: the tick is stored, its job is not done.
    assert_eq!(f.store.retry(&tidehook::store::Retry::One(slot.id)).await.unwrap(), 0);
    assert_eq!(f.store.job(slot.id).await.unwrap().unwrap().state, JobState::Done);
    let again = engine(&f, &counting, &f.clock, &text, 3);
    again.prepare(false).await.unwrap();
    work(&again).await;
    assert_eq!(events(&*f.store, "cron.tick").await, 1);
    assert_eq!(events(&*f.store, "cron.armed").await, 1, "the chain goes on by itself");
    assert_eq!(counting.0.lock().unwrap().values().sum::<usize>(), 1);
}

async fn a_source_that_the_file_no_longer_names_is_parked_and_goes_on_later(f: Fresh) {
    let counting = Arc::new(Counting::default());
    let text = file("schedule: \"0 * * * *\"");
    f.clock.set(at("2026-01-31T10:30:00Z"));
    engine(&f, &counting, &f.clock, &text, 1).prepare(false).await.unwrap();
    let without = "sources: { app: { type: event } }\nhandlers: {}\n";
    let without = engine(&f, &counting, &f.clock, without, 2);
    without.prepare(false).await.unwrap();
    f.clock.set(at("2026-01-31T11:00:01Z"));
    work(&without).await;
    let lanes = f.store.lanes().await.unwrap();
    let parked = without.parked(&lanes).await.unwrap();
    assert_eq!((parked.len(), &parked[0].lane), (1, &LaneId::cron("nightly")));
    assert!(parked[0].why.contains("no cron source `nightly`"), "{}", parked[0].why);
    f.clock.set(at("2026-01-31T12:00:01Z"));
    let back = engine(&f, &counting, &f.clock, &text, 3);
    back.prepare(false).await.unwrap();
    work(&back).await;
    assert!(counting.0.lock().unwrap().is_empty(), "what passed meanwhile is left out");
    f.clock.set(at("2026-01-31T13:00:01Z"));
    work(&back).await;
    assert_eq!(counting.0.lock().unwrap().len(), 1);
}

#[test]
fn a_jitter_longer_than_the_period_is_warned_of() {
    let mut problems = tidehook::config::Problems::default();
    let content = file("schedule: \"* * * * * *\", jitter: 5s");
    let texts = vec![Text { name: "test.yaml".into(), content }];
    let read = from_texts(texts, &Variables::new(), false, &ingress::known(), &mut problems);
    assert!(read.is_some());
    assert!(problems.list.iter().any(|problem| problem.code == "long_jitter"));
}
