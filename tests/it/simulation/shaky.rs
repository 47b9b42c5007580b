//! A store that fails as real ones do: it refuses, or it does what it was asked and the answer is
//! lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidehook::decide::settle::JobOutcome;
use tidehook::model::history::HistoryEntry;
use tidehook::model::run::{Change, Gate, Token};
use tidehook::model::{
    Attempt, Event, EventId, Job, JobId, Lane, LaneId, LaneSpec, Lease, OldestKept, Retention, Run,
    RunId, Timestamp,
};
use tidehook::store::*;

pub struct Shaky {
    pub inner: Arc<dyn Store>,
    dice: Mutex<StdRng>,
    /// One call in so many fails; 0 is never.
    pub one_in: Mutex<u32>,
}

impl Shaky {
    pub fn new(inner: Arc<dyn Store>, seed: u64, one_in: u32) -> Self {
        Self { inner, dice: Mutex::new(StdRng::seed_from_u64(seed)), one_in: Mutex::new(one_in) }
    }

    /// Whether this call fails: before it is made, or after.
    fn fails(&self) -> Option<bool> {
        let one_in = *self.one_in.lock().unwrap();
        let mut dice = self.dice.lock().unwrap();
        (one_in > 0 && dice.random_range(0..one_in) == 0).then(|| dice.random())
    }

    async fn shaken<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let down = || Error::down("shaken".to_owned());
        match self.fails() {
            Some(false) => Err(down()),
            Some(true) => {
                let _ = call.await;
                Err(down())
            }
            None => call.await,
        }
    }
}

/// Verbs that are passed on, shaken.
macro_rules! shaken {
    ($room:ident: $(fn $name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl $room for Shaky {
            $(async fn $name(&self, $($arg: $type),*) -> $answer {
                self.shaken(self.inner.$name($($arg),*)).await
            })*
        }
    };
}

shaken! { Intake: fn accept(new_events: &[NewEvent]) -> Each<Accepted>; }
shaken! { Work:
    fn claim(ask: &ClaimRequest) -> Result<Vec<Claimed>>;
    fn extend(leases: &[Lease], by: Duration) -> Each<()>;
    fn begin_send(lease: Lease) -> Result<bool>;
    fn record(commits: &[JobOutcome]) -> Each<()>;
    fn reclaim() -> Result<u64>;
    fn retry(which: &Retry) -> Result<u64>;
    fn cancel(job: JobId) -> Result<bool>;
    fn cancel_handler_jobs(handler: &str, most: u32) -> Result<u64>;
    fn expire(most: u32) -> Result<Vec<Job>>;
}
shaken! { Pull:
    fn receive(requests: &[Receive]) -> Result<Vec<Received>>;
    fn bury(lane: &LaneId, attempts_max: u32, most: u32) -> Result<Vec<Job>>;
    fn queue_counts(lanes: &[LaneId]) -> Result<BTreeMap<LaneId, QueueCounts>>;
    fn messages(ids: &[JobId]) -> Result<BTreeMap<JobId, Job>>;
    fn peek(lane: &LaneId, dead: bool, most: u32) -> Result<Vec<Job>>;
    fn drain(lane: &LaneId, most: u32) -> Result<u64>;
}
shaken! { Hints:
    fn hints(horizon: Duration, most: u32) -> Result<Vec<HintedJob>>;
    fn has_due_work() -> Result<bool>;
}
shaken! { Lanes:
    fn upsert_lanes(specs: &[LaneSpec]) -> Result<()>;
    fn lanes() -> Result<Vec<Lane>>;
    fn backlog() -> Result<BTreeMap<LaneId, Timestamp>>;
    fn pause(lane: &LaneId, paused: bool) -> Result<bool>;
    fn open_jobs(lanes: &[LaneId]) -> Result<BTreeMap<LaneId, u64>>;
    fn rename(from: &str, to: &str, most: u32) -> Result<u64>;
}
shaken! { Runs:
    fn define(definitions: &[Definition]) -> Result<()>;
    fn definition(hash: &str) -> Result<Option<Definition>>;
    fn runs_by_id(ids: &[RunId]) -> Result<BTreeMap<RunId, Run>>;
    fn gate(id: &str) -> Result<(i64, Gate)>;
    fn runs(filter: &RunFilter, page: Page) -> Result<Vec<Run>>;
    fn history(run: RunId) -> Result<Vec<HistoryEntry>>;
    fn token(hash: &str) -> Result<Option<Token>>;
    fn change(changes: &[Change]) -> Each<()>;
}
shaken! { Query:
    fn events(filter: &EventFilter, page: Page) -> Result<Vec<Event>>;
    fn events_by_id(ids: &[EventId]) -> Result<BTreeMap<EventId, Event>>;
    fn jobs(filter: &JobFilter, page: Page) -> Result<Vec<Job>>;
    fn job(id: JobId) -> Result<Option<Job>>;
    fn attempts(job: JobId) -> Result<Vec<Attempt>>;
    fn totals() -> Result<Totals>;
    fn rejections() -> Result<Vec<Rejection>>;
}

#[async_trait]
impl Maintenance for Shaky {
    async fn missing_migrations(&self) -> Result<usize> {
        self.inner.missing_migrations().await
    }
    async fn migrate(&self) -> Result<()> {
        self.inner.migrate().await
    }
    async fn write_check(&self, bytes: usize) -> Result<Timestamp> {
        self.inner.write_check(bytes).await
    }
    async fn now(&self) -> Result<Timestamp> {
        self.inner.now().await
    }
    async fn reject(&self, rejections: &[Rejection]) -> Result<()> {
        self.shaken(self.inner.reject(rejections)).await
    }
    async fn prune(
        &self,
        retention: &Retention,
        kept: &OldestKept,
        from: Option<EventId>,
        most: u32,
    ) -> Result<(u64, Option<EventId>)> {
        self.shaken(self.inner.prune(retention, kept, from, most)).await
    }
    async fn oldest_kept(&self, retention: &Retention) -> Result<OldestKept> {
        self.shaken(self.inner.oldest_kept(retention)).await
    }
    async fn chores(&self, retention: &Retention) -> Result<Chores> {
        self.shaken(self.inner.chores(retention)).await
    }
    async fn sweep_lanes(&self, from: Option<LaneId>, most: u32) -> Result<(u64, Option<LaneId>)> {
        self.shaken(self.inner.sweep_lanes(from, most)).await
    }
    async fn forget_keys(&self, most: u32) -> Result<u64> {
        self.shaken(self.inner.forget_keys(most)).await
    }
    fn writers(&self) -> usize {
        1
    }
    fn connections(&self) -> Option<(u32, u32)> {
        None
    }
    async fn about(&self) -> Result<Vec<String>> {
        self.inner.about().await
    }
    async fn weaknesses(&self) -> Result<Vec<String>> {
        self.inner.weaknesses().await
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}

impl Tables for Shaky {}
