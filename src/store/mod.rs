//! First floor: what is remembered.
//!
//! The store is a set of verbs over slices. Each call is one transaction that no caller can cancel half
//! way; each answer is per item, in the order of the slice. It makes no decisions of its own: where a
//! state is read and changed under a lock (breaker, throttle), it applies the pure functions of
//! [`crate::decide`].
//!
//! - [`error`]: the few ways a verb can fail
//! - [`memory`]: the reference store, for tests and simulation
//! - [`sql`]: one text over typed pools, with a dialect for what differs

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
use crate::model::run::{Change, Entry, Gate, Token};
use crate::model::{
    Attempt, Event, EventId, Inbound, Job, JobId, JobState, Lane, LaneId, LaneSpec, Lease, ManualClock, Run, RunId, RunStatus,
    Timestamp,
};

/// Answer to a slice. Outer error: the slice as a whole, and whether it was committed is not known.
/// Inner: one item, in the order of the slice.
pub type Each<T> = Result<Vec<Result<T>>>;

/// Everything the engine needs from a database.
pub trait Store: Intake + Work + Hints + Lanes + Runs + Query + Maintenance {}
impl<T: Intake + Work + Hints + Lanes + Runs + Query + Maintenance> Store for T {}

/// An event that wants to be accepted, with all the work it causes.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The id it gets if it is new.
    pub id: EventId,
    /// What came in.
    pub inbound: Inbound,
    /// What it causes.
    pub plan: Plan,
    /// How long its keys are remembered.
    pub key_ttl: Duration,
    /// How long its deliveries may wait.
    pub event_ttl: Option<Duration>,
    /// The lease of jobs that start at once.
    pub lease: Duration,
}

/// What became of a new event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// Stored, with these jobs, in one transaction.
    New {
        /// The event's id.
        event: EventId,
        /// The jobs that were stored: those whose consumer had not seen the key yet.
        jobs: Vec<JobId>,
        /// Those of them that are leased already, with claim 1 of an open lane with a clean breaker.
        started: Vec<JobId>,
        /// When, by the database's clock; only where something was started.
        at: Timestamp,
    },
    /// Seen before: the id of the event that is stored.
    Duplicate(EventId),
    /// The idempotency key was used with another body.
    Conflict(EventId),
}

/// A worker's wish for work.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The worker's slots: no more is taken than can start at once.
    pub slots: Slots,
    /// How long the lease lasts unless it is extended.
    pub lease: Duration,
    /// Lanes this worker cannot serve at the moment.
    pub skip: Vec<LaneId>,
    /// Only these jobs; empty: whatever is due.
    pub of: Vec<JobId>,
}

/// A job under lease.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The job, with its new fencing token.
    pub job: Job,
    /// The database's clock at the claim.
    pub now: Timestamp,
    /// Whether the lane's breaker has nothing to remember, so that a success need not be told.
    pub lane_clean: bool,
}

/// Taking events in.
#[async_trait]
pub trait Intake: Send + Sync {
    /// Stores each new event with all the work it causes; answers duplicates with the first id.
    async fn accept(&self, new_events: &[NewEvent]) -> Each<Accepted>;
}

/// Working jobs off.
#[async_trait]
pub trait Work: Send + Sync {
    /// Takes due jobs under lease, lanes in turn. Short, and committed before it answers.
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>>;
    /// Moves the end of leases ahead. `LeaseLost` for one that someone else has.
    async fn extend(&self, leases: &[Lease], by: Duration) -> Each<()>;
    /// Marks that a send is about to begin under a lease; false when someone else has the job. Asked for only where workers have
    /// gone away before: it tells those that were killed by what they sent from those that never sent it.
    async fn begin_send(&self, lease: Lease) -> Result<bool>;
    /// Records outcomes: attempt, job and lane change together, or nothing does.
    async fn record(&self, outcomes: &[JobOutcome]) -> Each<()>;
    /// Makes every lease end now. Only for a store that no other process can use.
    async fn reclaim(&self) -> Result<u64>;
    /// Dead jobs (or one job that has ended) become due again with a fresh attempt budget.
    async fn retry(&self, which: &Retry) -> Result<u64>;
    /// Calls an open job off. False when it has ended already or does not exist.
    async fn cancel(&self, job: JobId) -> Result<bool>;
    /// Calls open deliveries to a handler off, at most `most` of them; answers how many.
    async fn cancel_of(&self, handler: &str, most: u32) -> Result<u64>;
    /// Open jobs whose time to live has passed become dead; answers them.
    async fn expire(&self, most: u32) -> Result<Vec<Job>>;
}

/// After this, work that is due counts as untold, whoever was told of it: hints get lost.
pub const OVERDUE: Duration = Duration::from_secs(5);

/// A job that workers are to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HintedJob {
    /// The job.
    pub job: JobId,
    /// How long until it can start.
    pub after: Duration,
}

/// Finding work to tell of.
#[async_trait]
pub trait Hints: Send + Sync {
    /// Finds jobs that can start within `horizon` and that nobody was told of for that time, and those that have been due for
    /// [`OVERDUE`] all the same; remembers that they are told of now. At most `most`, the earliest first.
    async fn hints(&self, horizon: Duration, most: u32) -> Result<Vec<HintedJob>>;
    /// Whether a lane that may run has due work.
    async fn is_due(&self) -> Result<bool>;
}

/// Which jobs to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retry {
    /// This one, if it is dead or cancelled.
    One(JobId),
    /// All in this state (`Dead`: fresh budget; `Pending`: due now), of one handler if named.
    All {
        /// `Dead`, or `Pending` for those that wait for a retry.
        state: JobState,
        /// Only this handler's.
        handler: Option<String>,
    },
}

/// Lanes.
#[async_trait]
pub trait Lanes: Send + Sync {
    /// Writes what the configuration says of lanes, and keeps what is known of them.
    async fn upsert_lanes(&self, specs: &[LaneSpec]) -> Result<()>;
    /// All lanes, by id.
    async fn lanes(&self) -> Result<Vec<Lane>>;
    /// Since when the oldest due job of each lane has been due; lanes without due work are left out.
    async fn backlog(&self) -> Result<BTreeMap<LaneId, Timestamp>>;
    /// Pauses or resumes a lane; false when there is none. A lane that is resumed while its breaker is open lets one
    /// probe through at once.
    async fn pause(&self, lane: &LaneId, paused: bool) -> Result<bool>;
    /// How many open jobs each of these lanes has; lanes without are left out.
    async fn open_jobs(&self, lanes: &[LaneId]) -> Result<BTreeMap<LaneId, u64>>;
    /// Gives waiting deliveries of one handler to another, at most `most` of them, and moves a pause of its lane along with them.
    /// Those under lease stay until it ends. Answers how many were moved.
    async fn rename(&self, from: &str, to: &str, most: u32) -> Result<u64>;
}

/// A definition of a workflow as it was written, before variables were replaced: JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// SHA-256 of the body, in hexadecimal.
    pub hash: String,
    /// The workflow's name.
    pub name: String,
    /// What was written.
    pub body: String,
}

/// Which runs.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Only this workflow's.
    pub workflow: Option<String>,
    /// Only in this status.
    pub status: Option<RunStatus>,
    /// Only this event's.
    pub event: Option<EventId>,
    /// Beyond this id in the order of the page.
    pub after: Option<RunId>,
}

/// Runs of workflows.
#[async_trait]
pub trait Runs: Send + Sync {
    /// Keeps definitions; those that are known change nothing.
    async fn define(&self, definitions: &[Definition]) -> Result<()>;
    /// A definition by its hash.
    async fn definition(&self, hash: &str) -> Result<Option<Definition>>;
    /// Runs by their ids; those that do not exist are left out.
    async fn runs_by_id(&self, ids: &[RunId]) -> Result<BTreeMap<RunId, Run>>;
    /// A run by its id.
    async fn run(&self, id: RunId) -> Result<Option<Run>> {
        Ok(self.runs_by_id(&[id]).await?.remove(&id))
    }
    /// Runs in the order of their ids.
    async fn runs(&self, filter: &RunFilter, page: Page) -> Result<Vec<Run>>;
    /// What happened to a run, in order.
    async fn history(&self, run: RunId) -> Result<Vec<Entry>>;
    /// Who runs and who waits under a concurrency key, and how often that has changed; nobody, where there is none yet.
    async fn gate(&self, id: &str) -> Result<(i64, Gate)>;
    /// A token by its hash.
    async fn token(&self, hash: &str) -> Result<Option<Token>>;
    /// Changes runs without a job that causes it: an answer from outside, a person. `MovedOn` when the run is not
    /// what it was. A change that is new names an id that nobody has used; one that is used is an error, and nothing changes.
    /// Changes with a cause are part of [`Work::record`].
    async fn change(&self, changes: &[Change]) -> Each<()>;
}

/// A page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// At most this many.
    pub limit: u32,
    /// Newest first instead of oldest first.
    pub newest_first: bool,
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only this source's.
    pub source: Option<String>,
    /// Only this type.
    pub kind: Option<String>,
    /// Accepted at or after.
    pub since: Option<Timestamp>,
    /// Accepted before or at.
    pub until: Option<Timestamp>,
    /// Beyond this id in the order of the page.
    pub after: Option<EventId>,
}

/// Which jobs.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only in one of these states; empty is all.
    pub states: Vec<JobState>,
    /// Only with at least one attempt (`Some(true)`) or with none (`Some(false)`).
    pub attempted: Option<bool>,
    /// Only this handler's.
    pub handler: Option<String>,
    /// Only this event's.
    pub event: Option<EventId>,
    /// Only what is parked, or only what is not: jobs of these lanes, which nobody serves, and those that were put aside.
    pub parked: Option<(bool, Vec<LaneId>)>,
    /// Beyond this id in the order of the page.
    pub after: Option<JobId>,
}

/// A rejected request, by source and reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The source it was sent to.
    pub source: String,
    /// Why: a stable word.
    pub reason: String,
    /// How often.
    pub count: u64,
    /// When last.
    pub last_at: Timestamp,
}

/// Totals that are kept up with the work, never counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Jobs that are open.
    pub open: i64,
    /// Jobs that are dead.
    pub dead: i64,
}

/// Reading.
#[async_trait]
pub trait Query: Send + Sync {
    /// A list of events; bodies are left out.
    async fn events(&self, filter: &EventFilter, page: Page) -> Result<Vec<Event>>;
    /// Events with their bodies; unknown ids are left out.
    async fn events_by_id(&self, ids: &[EventId]) -> Result<BTreeMap<EventId, Event>>;
    /// A list of jobs.
    async fn jobs(&self, filter: &JobFilter, page: Page) -> Result<Vec<Job>>;
    /// One job.
    async fn job(&self, id: JobId) -> Result<Option<Job>>;
    /// A job's attempts, in order.
    async fn attempts(&self, job: JobId) -> Result<Vec<Attempt>>;
    /// Totals.
    async fn totals(&self) -> Result<Totals>;
    /// Rejected requests, by source and reason.
    async fn rejections(&self) -> Result<Vec<Rejection>>;
}

/// Which chores have anything to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chores {
    /// [`Work::expire`].
    pub expire: bool,
    /// [`Maintenance::prune`].
    pub prune: bool,
    /// [`Maintenance::forget_keys`].
    pub forget: bool,
}

/// Housekeeping.
#[async_trait]
pub trait Maintenance: Send + Sync {
    /// Brings the schema up to date; safe when two processes start at once.
    async fn migrate(&self) -> Result<()>;
    /// How many migrations the schema lacks; nothing where it is that of this version, or of a later one.
    async fn lacks(&self) -> Result<usize>;
    /// The database's clock; the cheapest way to see that it answers.
    async fn now(&self) -> Result<Timestamp>;
    /// Writes a row of this many bytes that means nothing, and answers the database's clock: whether an event of that size could be
    /// stored now.
    async fn probe(&self, bytes: usize) -> Result<Timestamp>;
    /// Adds to the counts of rejected requests.
    async fn reject(&self, rejections: &[Rejection]) -> Result<()>;
    /// Removes events older than `age` whose jobs have all ended, with all that is theirs, starting after
    /// `from`. Answers how many went, and where to go on (`None` at the end).
    async fn prune(&self, age: Duration, from: Option<EventId>, most: u32) -> Result<(u64, Option<EventId>)>;
    /// Looks which chores have anything to do, in one query; events older than `age` may be old enough to go.
    async fn chores(&self, age: Duration) -> Result<Chores>;
    /// Removes keys whose time has passed; answers how many.
    async fn forget_keys(&self, most: u32) -> Result<u64>;
    /// How many slices of the same verb are worth committing side by side.
    fn writers(&self) -> usize;
    /// Open connections and how many of them are idle; nothing for a store without.
    fn connections(&self) -> Option<(u32, u32)>;
    /// What the database is: its version and the like, for people.
    async fn about(&self) -> Result<Vec<String>>;
    /// Warnings about settings that weaken a promise.
    async fn weaknesses(&self) -> Result<Vec<String>>;
    /// Finishes what is under way and closes the connections.
    async fn close(&self);
}

/// How to reach a database.
#[derive(Debug, Clone)]
pub struct Address {
    /// `sqlite:…`, `postgres://…`
    pub url: crate::model::Secret,
    /// Pool size.
    pub connections: u32,
    /// Tests put a clock here; otherwise the database's own is used.
    pub clock: Option<ManualClock>,
    /// A pooler hands out a connection for one transaction at a time: nothing may outlive one.
    pub pooler: crate::model::Pooler,
    /// Connections may have died while this process was frozen: an idle one is asked before it is used.
    pub tests_idle: bool,
    /// The password is made of somebody's credentials of AWS, again and again.
    pub iam: Option<crate::model::AwsIdentity>,
}

impl Address {
    /// A database that is reached directly, by a process that lives on.
    pub fn new(url: crate::model::Secret, connections: u32) -> Self {
        Self { url, connections, clock: None, pooler: crate::model::Pooler::None, tests_idle: false, iam: None }
    }
}

/// Opens the store of one dialect.
pub type Open = fn(Address) -> futures::future::BoxFuture<'static, Result<Arc<dyn Store>>>;

/// The dialects: the URL schemes and how to open them.
pub static DIALECTS: &[(&[&str], Open)] = &[
    (&["sqlite"], |address| Box::pin(sql::sqlite::open(address))),
    (&["postgres", "postgresql"], |address| Box::pin(sql::postgres::open(address))),
];

/// Opens the store a URL names. `memory:` is the reference store.
///
/// # Errors
/// The URL names no known dialect, or the database cannot be opened.
pub async fn connect(address: Address) -> Result<Arc<dyn Store>> {
    let scheme = address.url.expose().split(':').next().unwrap_or("").to_owned();
    if scheme == "memory" {
        return Ok(Arc::new(memory::Memory::new(address.clock)));
    }
    let open = DIALECTS.iter().find(|(schemes, _)| schemes.contains(&scheme.as_str())).map(|(_, open)| open);
    let Some(open) = open else {
        let known: Vec<&str> = DIALECTS.iter().flat_map(|(schemes, _)| schemes.iter().copied()).collect();
        return Err(Error::Corrupt(format!("database URL starts with `{scheme}:`; known are {}", known.join(", "))));
    };
    open(address).await
}
