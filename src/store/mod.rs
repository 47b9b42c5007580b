//! First floor: the store, which keeps events, jobs, lanes and runs in a database.
//!
//! The store is a set of verbs over slices. Each call is one transaction that no caller can cancel
//! half way. Each answer is per item, in the order of the slice. The store makes no decisions of
//! its own: where a state is read and changed under a lock (breaker, rate limit), it applies the
//! pure functions of [`crate::decide`].
//!
//! - [`error`]: the few ways a verb can fail
//! - [`memory`]: the reference store, for tests and simulation
//! - [`sql`]: shared SQL over typed pools, with a dialect for what differs

pub mod error;
pub mod memory;
pub mod sql;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use error::{Error, Result};

use crate::decide::fair::Slots;
use crate::decide::plan::Plan;
use crate::decide::settle::JobOutcome;
use crate::model::history::HistoryEntry;
use crate::model::run::{Change, Gate, Token};
use crate::model::{
    Attempt, Event, EventId, Inbound, Job, JobId, JobState, Lane, LaneId, LaneSpec, Lease,
    ManualClock, Run, RunId, RunStatus, Timestamp,
};

/// The answer to a slice. The outer error concerns the slice as a whole, and whether it was
/// committed is then not known. The inner results are per item, in the order of the slice.
pub type Each<T> = Result<Vec<Result<T>>>;

/// Everything the engine needs from a database.
pub trait Store: Intake + Work + Hints + Lanes + Runs + Query + Maintenance {}
impl<T: Intake + Work + Hints + Lanes + Runs + Query + Maintenance> Store for T {}

/// An event to be stored, with all the jobs it causes.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The id it gets, unless it is a duplicate.
    pub id: EventId,
    /// The verified request: source, type, headers, body and keys.
    pub inbound: Inbound,
    /// The jobs that the event causes, as routing decided.
    pub plan: Plan,
    /// How long its keys (idempotency and deduplication) are remembered.
    pub key_ttl: Duration,
    /// How long its deliveries may wait before they expire; `None` is without limit.
    pub event_ttl: Option<Duration>,
    /// How long the lease lasts for jobs that start with the commit.
    pub lease: Duration,
}

/// The result of accepting one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It was stored with these jobs, in one transaction.
    New {
        /// The id under which the event is stored.
        event: EventId,
        /// The jobs that were stored. A job is left out if the idempotency key of its handler or
        /// workflow was seen before.
        jobs: Vec<JobId>,
        /// Those of `jobs` that were leased by the same commit, with claim 1: their lane was open,
        /// without a rate limit and with a clean breaker.
        started: Vec<JobId>,
        /// When it was stored, by the database's clock. Set only if `started` is not empty.
        at: Timestamp,
    },
    /// A duplicate: one of its keys is held by the event with this id.
    Duplicate(EventId),
    /// The idempotency key was used before with another body, by the event with this id.
    Conflict(EventId),
}

/// A worker's request for jobs.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The worker's free slots. No more jobs are claimed than can start at once.
    pub slots: Slots,
    /// How long the lease lasts unless it is extended.
    pub lease: Duration,
    /// Lanes this worker leaves out for now.
    pub skip: Vec<LaneId>,
    /// Only these jobs, if they are due; empty means any job that is due.
    pub only: Vec<JobId>,
}

/// A job that a worker now holds under a lease.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The job. Its `claim` is the fencing token of the new lease.
    pub job: Job,
    /// The database's clock at the claim.
    pub now: Timestamp,
    /// Whether the lane's breaker was clean at the claim: no failures, no ramp. A success then
    /// changes nothing and need not be recorded on the lane.
    pub lane_clean: bool,
}

/// Accepts events, with everything they cause.
#[async_trait]
pub trait Intake: Send + Sync {
    /// Stores each new event with the jobs it causes, in one transaction. A duplicate is answered
    /// with the id of the event that holds its key.
    async fn accept(&self, new_events: &[NewEvent]) -> Each<Accepted>;
}

/// Lets workers claim due jobs, extend their leases and record outcomes. Also retries, cancels and
/// expires jobs.
#[async_trait]
pub trait Work: Send + Sync {
    /// Claims due jobs under lease; tenants and their lanes take turns. The transaction is short,
    /// and committed before this returns.
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>>;
    /// Moves the end of leases to `by` from now. `LeaseLost` for a lease that is over.
    async fn extend(&self, leases: &[Lease], by: Duration) -> Each<()>;
    /// Marks that a send is about to begin under this lease. False when the lease is over. The
    /// engine asks only for jobs whose workers have died before: the mark tells a job that kills
    /// its worker from one that never got as far as sending.
    async fn begin_send(&self, lease: Lease) -> Result<bool>;
    /// Records outcomes. Attempt, job, lane and run change together for each one, or not at all.
    async fn record(&self, outcomes: &[JobOutcome]) -> Each<()>;
    /// Ends every lease now. Only safe for a store that no other process can use, at its start.
    async fn reclaim(&self) -> Result<u64>;
    /// Makes jobs due again with a fresh attempt budget: one dead or cancelled job, or all jobs in
    /// a state. Answers how many.
    async fn retry(&self, which: &Retry) -> Result<u64>;
    /// Cancels an open job. False when it is finished already or does not exist.
    async fn cancel(&self, job: JobId) -> Result<bool>;
    /// Cancels open deliveries of a handler, at most `most` in one call. Answers how many.
    async fn cancel_handler_jobs(&self, handler: &str, most: u32) -> Result<u64>;
    /// Marks pending jobs whose time to live has passed as dead, at most `most` in one call.
    /// Answers these jobs.
    async fn expire(&self, most: u32) -> Result<Vec<Job>>;
}

/// Once work has been due for this long it is announced again, even if it was announced before: an
/// announcement can get lost.
pub const OVERDUE: Duration = Duration::from_secs(5);

/// A job to announce to workers, and when it can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HintedJob {
    /// The job to announce to workers.
    pub job: JobId,
    /// How long until it can start; zero if it can start now.
    pub after: Duration,
}

/// Finds work to announce to workers that do not look for it themselves, such as functions.
#[async_trait]
pub trait Hints: Send + Sync {
    /// Finds jobs that can start within `horizon` and were not announced for that time, and jobs
    /// that have been due for [`OVERDUE`] despite an announcement. Marks them as announced. At most
    /// `most`, the earliest first.
    async fn hints(&self, horizon: Duration, most: u32) -> Result<Vec<HintedJob>>;
    /// Whether any lane that is neither paused nor held back by its breaker has due jobs.
    async fn has_due_work(&self) -> Result<bool>;
}

/// Which jobs an operator wants to retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retry {
    /// This job, if it is dead or cancelled.
    One(JobId),
    /// All jobs in this state, of every handler or of one. Each becomes due now, with a fresh
    /// attempt budget.
    All {
        /// `Dead`, or `Pending` for jobs that wait for a retry. A pending job that was never tried
        /// is left alone.
        state: JobState,
        /// Only jobs of this handler, by its name; `None` is every handler.
        handler: Option<String>,
    },
}

/// Reads and changes lanes: their settings, pauses and backlogs.
#[async_trait]
pub trait Lanes: Send + Sync {
    /// Stores the settings of lanes from the configuration. The state of existing lanes stays:
    /// breaker, pause, tokens and turn.
    async fn upsert_lanes(&self, specs: &[LaneSpec]) -> Result<()>;
    /// Every lane that was ever written, in the order of ids, including lanes that the
    /// configuration no longer names.
    async fn lanes(&self) -> Result<Vec<Lane>>;
    /// For each lane with due jobs, since when the oldest of them has been due.
    async fn backlog(&self) -> Result<BTreeMap<LaneId, Timestamp>>;
    /// Pauses or resumes a lane; false when it does not exist. Resuming a lane whose breaker is
    /// open lets one probe through at once.
    async fn pause(&self, lane: &LaneId, paused: bool) -> Result<bool>;
    /// How many open jobs each of these lanes has. Lanes without any are left out.
    async fn open_jobs(&self, lanes: &[LaneId]) -> Result<BTreeMap<LaneId, u64>>;
    /// Moves waiting deliveries from one handler to another, at most `most` in one call, and a
    /// pause of the old lane with them. Leased ones are left where they are until their lease ends.
    /// Answers how many were moved.
    async fn rename(&self, from: &str, to: &str, most: u32) -> Result<u64>;
}

/// One version of a workflow's definition, as written: variables and secrets are not replaced yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// SHA-256 of the body, in hexadecimal. Runs name their definition by it.
    pub hash: String,
    /// The name of the workflow. Several definitions can have the same one.
    pub name: String,
    /// The definition as JSON. Secrets and other variables are still references in it.
    pub body: String,
}

/// Which runs a list holds. Every field that is set narrows it further.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Only runs of the workflow with this name.
    pub workflow: Option<String>,
    /// Only runs that are in this status now.
    pub status: Option<RunStatus>,
    /// Only what this event caused, the work of child runs included; `None` is every event.
    pub event: Option<EventId>,
    /// Only ids that come after this one in the order of the page. `None` starts at the first.
    pub after: Option<RunId>,
}

/// Stores workflow definitions and runs, and reads them back.
#[async_trait]
pub trait Runs: Send + Sync {
    /// Stores definitions. One whose hash is stored already changes nothing.
    async fn define(&self, definitions: &[Definition]) -> Result<()>;
    /// A definition by its hash; `None` if it was never stored.
    async fn definition(&self, hash: &str) -> Result<Option<Definition>>;
    /// Runs by their ids; those that do not exist are left out.
    async fn runs_by_id(&self, ids: &[RunId]) -> Result<BTreeMap<RunId, Run>>;
    /// One run by its id; `None` if it does not exist.
    async fn run(&self, id: RunId) -> Result<Option<Run>> {
        Ok(self.runs_by_id(&[id]).await?.remove(&id))
    }
    /// Runs that match the filter, in the order of their ids.
    async fn runs(&self, filter: &RunFilter, page: Page) -> Result<Vec<Run>>;
    /// The history of a run, oldest first.
    async fn history(&self, run: RunId) -> Result<Vec<HistoryEntry>>;
    /// A gate (the queue of one concurrency key) with its version: which runs are inside and which
    /// wait. Version 0 and an empty gate if there is none yet.
    async fn gate(&self, id: &str) -> Result<(i64, Gate)>;
    /// A callback token by the SHA-256 of its text; `None` if there is no such token.
    async fn token(&self, hash: &str) -> Result<Option<Token>>;
    /// Applies changes that no job causes: an answer from outside, or an operator's request.
    /// `MovedOn` when the run has changed since it was read. A new run whose id is taken is an
    /// error, and nothing changes. Changes that a job causes are part of [`Work::record`].
    async fn change(&self, changes: &[Change]) -> Each<()>;
}

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

/// Totals over all jobs, maintained with every change so that no query has to count rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Jobs that are not finished: pending or leased.
    pub open: i64,
    /// Jobs that are out of retries and were not retried by an operator since.
    pub dead: i64,
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

/// Which housekeeping verbs have anything to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chores {
    /// [`Work::expire`] has jobs to mark as dead.
    pub expire: bool,
    /// [`Maintenance::prune`] has events that are old enough to be deleted, or gates that are no
    /// longer used.
    pub prune: bool,
    /// [`Maintenance::forget_keys`] has keys that have expired.
    pub forget: bool,
}

/// Migrations, retention, health checks and figures about the database.
#[async_trait]
pub trait Maintenance: Send + Sync {
    /// Brings the schema up to date. Safe when two processes start at once.
    async fn migrate(&self) -> Result<()>;
    /// How many migrations the schema lacks; 0 when it is up to date or newer than this version.
    async fn missing_migrations(&self) -> Result<usize>;
    /// The database's clock. Also the cheapest check that the database answers.
    async fn now(&self) -> Result<Timestamp>;
    /// Writes a dummy row of this many bytes and answers the database's clock. It shows whether an
    /// event of that size could be stored now.
    async fn write_check(&self, bytes: usize) -> Result<Timestamp>;
    /// Adds to the counts of refused requests, per source and reason.
    async fn reject(&self, rejections: &[Rejection]) -> Result<()>;
    /// Deletes events older than `age`, with their jobs, attempts and runs, if all of their work
    /// ended before that as well and no workflow keeps a run longer. Looks at `most` events,
    /// starting after `from`. Answers how many were deleted, and where to continue (`None` at the
    /// end).
    async fn prune(
        &self,
        age: Duration,
        from: Option<EventId>,
        most: u32,
    ) -> Result<(u64, Option<EventId>)>;
    /// Finds out in one query which chores have anything to do. `age` is the retention for
    /// [`Maintenance::prune`].
    async fn chores(&self, age: Duration) -> Result<Chores>;
    /// Deletes keys that have expired, at most `most` in one call. Answers how many.
    async fn forget_keys(&self, most: u32) -> Result<u64>;
    /// How many slices of the same verb are worth committing at the same time.
    fn writers(&self) -> usize;
    /// Open connections, and how many of them are idle. `None` for a store without connections.
    fn connections(&self) -> Option<(u32, u32)>;
    /// Version and similar facts about the database, for people.
    async fn about(&self) -> Result<Vec<String>>;
    /// Warnings about database settings that put durability or progress at risk, one sentence each.
    async fn weaknesses(&self) -> Result<Vec<String>>;
    /// Finishes running work and closes the connections.
    async fn close(&self);
}

/// How to reach a database.
#[derive(Debug, Clone)]
pub struct Address {
    /// `sqlite:…`, `postgres://…` or `memory:`. Secret, because it can hold a password.
    pub url: crate::model::Secret,
    /// The most connections of the pool. SQLite uses 1 to 4 of them, for reading only.
    pub connections: u32,
    /// What stands between this process and the database. Behind a pooler every access is a
    /// transaction.
    pub pooler: crate::model::Pooler,
    /// Idle connections are checked before use. For processes that are frozen between invocations:
    /// their connections may have died meanwhile.
    pub tests_idle: bool,
    /// Sign passwords with these AWS credentials (IAM database authentication), again whenever the
    /// last one gets old.
    pub iam: Option<crate::model::AwsIdentity>,
}

impl Address {
    /// An address without pooler or IAM authentication.
    pub fn new(url: crate::model::Secret, connections: u32) -> Self {
        Self { url, connections, pooler: crate::model::Pooler::None, tests_idle: false, iam: None }
    }
}

/// Opens the store of one dialect.
pub type Open =
    fn(Address, Option<ManualClock>) -> futures::future::BoxFuture<'static, Result<Arc<dyn Store>>>;

/// The dialects: the URL schemes and how to open them.
pub static DIALECTS: &[(&[&str], Open)] = &[
    (&["sqlite"], |address, clock| Box::pin(sql::sqlite::open(address, clock))),
    (&["postgres", "postgresql"], |address, clock| Box::pin(sql::postgres::open(address, clock))),
];

/// Opens the store that a URL names. `memory:` is the reference store.
///
/// # Errors
/// The URL's scheme is not known, or the database cannot be opened.
pub async fn connect(address: Address) -> Result<Arc<dyn Store>> {
    connect_with_clock(address, None).await
}

/// Opens a store that takes the time from `clock` instead of its database, so that simulations and
/// the scenarios of `tidehook test` decide when work is due.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with_clock(
    address: Address,
    clock: Option<ManualClock>,
) -> Result<Arc<dyn Store>> {
    let scheme = address.url.expose().split(':').next().unwrap_or("").to_owned();
    if scheme == "memory" {
        return Ok(Arc::new(memory::Memory::new(clock)));
    }
    let open = DIALECTS
        .iter()
        .find(|(schemes, _)| schemes.contains(&scheme.as_str()))
        .map(|(_, open)| open);
    let Some(open) = open else {
        let known: Vec<&str> =
            DIALECTS.iter().flat_map(|(schemes, _)| schemes.iter().copied()).collect();
        return Err(Error::permanent(format!(
            "the database URL starts with `{scheme}:`; supported are {}",
            known.join(", ")
        )));
    };
    open(address, clock).await
}
