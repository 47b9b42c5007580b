//! Lists, single rows and totals. Nothing here changes anything.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::model::{Attempt, Event, EventId, Job, JobId, JobState, LaneId, Timestamp};
use crate::store::error::Result;

/// How a list is cut: how many items, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The most items the page may have; the page is shorter at the end of the list.
    pub limit: u32,
    /// Newest first instead of oldest first.
    pub newest_first: bool,
}

/// Which events a list holds. Every field that is set narrows it further.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only events that came in through this source.
    pub source: Option<String>,
    /// Only events of exactly this type. Patterns and aliases do not apply.
    pub kind: Option<String>,
    /// Only events accepted at this instant or later.
    pub since: Option<Timestamp>,
    /// Only events accepted at this instant or earlier.
    pub until: Option<Timestamp>,
    /// Only ids that come after this one in the order of the page. `None` starts at the first.
    pub after: Option<EventId>,
}

/// Which jobs a list holds. Every field that is set narrows it further.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only jobs in one of these states; empty means every state.
    pub states: Vec<JobState>,
    /// `Some(true)`: only jobs with at least one attempt. `Some(false)`: only jobs with none.
    pub attempted: Option<bool>,
    /// Only deliveries to this handler, by its name.
    pub handler: Option<String>,
    /// Only what this event caused, the work of child runs included; `None` is every event.
    pub event: Option<EventId>,
    /// `(true, lanes)`: only parked jobs; `(false, lanes)`: all others. Parked are the jobs of
    /// these lanes, which the configuration does not serve, and jobs that a worker parked.
    pub parked: Option<(bool, Vec<LaneId>)>,
    /// Only ids that come after this one in the order of the page. `None` starts at the first.
    pub after: Option<JobId>,
}

/// Totals over all jobs, maintained with every change so that no query has to count rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Jobs that are not finished: pending or leased.
    pub open: i64,
    /// Jobs that are out of retries and were not retried by an operator since.
    pub dead: i64,
}

/// How often requests to a source were refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The source that the requests were sent to.
    pub source: String,
    /// Why it was refused, as a stable word such as `signature_wrong`.
    pub reason: String,
    /// How many requests were refused for this reason. A call of `reject` adds this many.
    pub count: u64,
    /// When the last one was refused, by the database's clock.
    pub last_at: Timestamp,
}

/// Reads events, jobs, attempts and totals. Nothing here changes anything.
#[async_trait]
pub trait Query: Send + Sync {
    /// Events that match the filter, without their bodies.
    async fn events(&self, filter: &EventFilter, page: Page) -> Result<Vec<Event>>;
    /// Events by their ids, with bodies. Unknown ids are left out.
    async fn events_by_id(&self, ids: &[EventId]) -> Result<BTreeMap<EventId, Event>>;
    /// Jobs that match the filter, in the order of their ids, cut to the page.
    async fn jobs(&self, filter: &JobFilter, page: Page) -> Result<Vec<Job>>;
    /// One job by its id; `None` if it does not exist.
    async fn job(&self, id: JobId) -> Result<Option<Job>>;
    /// The attempts of a job, oldest first.
    async fn attempts(&self, job: JobId) -> Result<Vec<Attempt>>;
    /// How many jobs are open and how many are dead.
    async fn totals(&self) -> Result<Totals>;
    /// All counts of refused requests, by source and reason.
    async fn rejections(&self) -> Result<Vec<Rejection>>;
}
