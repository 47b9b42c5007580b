//! The engine: it accepts events, executes the jobs they cause and records the outcomes.
//!
//! It is the second floor of the architecture. Storing, sending and deciding are done by the
//! modules below it, and only the engine uses all of them.
//!
//! - [`accept`] — plans and commits an inbound event
//! - [`batch`] — commits the items of many callers together
//! - [`work`] — claims and executes jobs within a budget
//! - `worker` — decides what a worker does next
//! - [`targets`] — what is done with a job, by whom it is for
//! - [`directory`] — finds what a target names
//! - [`execute`], [`record`] — execute one job and record its outcome
//! - [`advance`] — changes a run by the outcome of a job
//! - [`flows`] — compiled workflow definitions
//! - [`pull`] — consumers receive and acknowledge messages
//! - [`cron`] — ticks of schedules
//! - [`callback`], [`approval`] — answers and decisions from outside
//! - [`operate`] — what operators do to runs
//! - [`fsck`] — checks the invariants of stored runs
//! - [`inflight`] — the leases and slots of this process
//! - [`tick`] — housekeeping
//! - [`parked`] — work that the configuration has no handler or workflow for
//! - [`watch`] — reports when lanes stop or open again
//! - [`notices`] — events about tidehook itself, for alerts
//! - [`health`] — whether the database can be used
//! - [`reject`] — counts refused requests
//! - [`near`] — events that narrowly missed a handler

pub mod accept;
pub mod advance;
pub mod approval;
pub mod batch;
pub mod callback;
pub mod cron;
pub mod directory;
pub mod execute;
pub mod flows;
pub mod fsck;
pub mod health;
pub mod inflight;
pub mod near;
pub mod notices;
pub mod operate;
pub mod parked;
pub mod pull;
pub mod record;
pub mod reject;
pub mod targets;
pub mod tick;
pub mod watch;
pub mod work;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_util::sync::CancellationToken;

pub use accept::{NotAccepted, Planned, Receipt};
pub use tick::Ticked;
pub use work::{Budget, Worked};

use crate::config::{Config, Handler};
use crate::decide::plan::Routes;
use crate::decide::settle::JobOutcome;
use crate::deliver::Deliver;
use crate::model::{Clock, Ids, LaneId};
use crate::observe::feed::Feed;
use crate::observe::repeats::Repeats;
use crate::store::port::tables::Move;
use crate::store::{Accepted, Error, Store};
use crate::wake::{Wake, Wakeup};
use accept::Submission;
use batch::Batches;
use directory::Directory;
use health::Health;
use inflight::{Inflight, ReadyJob};
use reject::Rejections;

/// How long a lease lasts, unless the configuration sets a shorter limit. Leases are extended while
/// their jobs run.
const LEASE: Duration = Duration::from_secs(30);

/// How many log lines a minute one lane may write about failed deliveries that are retried. Further
/// ones are counted.
const RETRY_LINES_MAX: u32 = 5;

/// Everything an engine is built from. Tests replace any of it.
pub struct Parts {
    /// The store of events, jobs and runs.
    pub store: Arc<dyn Store>,
    /// The sender of outgoing HTTP requests.
    pub deliver: Arc<dyn Deliver>,
    /// The channel that wakes workers when jobs become due.
    pub wake: Arc<dyn Wake>,
    /// The process's wall clock, for signatures, ids and the times on attempts. Due times and
    /// leases use the database's.
    pub clock: Arc<dyn Clock>,
    /// The source of ids for events, jobs and runs.
    pub ids: Arc<dyn Ids>,
    /// The source of randomness for jitter and tokens.
    pub chance: Chance,
    /// The compiled configuration, which does not change while the engine lives.
    pub config: Arc<Config>,
    /// The live feed of what the engine does.
    pub feed: Feed,
}

/// A random number generator for jitter and tokens. It is seeded, so that a test can replay a run.
pub struct Chance(Mutex<StdRng>);

impl Chance {
    /// Creates a generator from a fixed seed. Tests use it to replay a run.
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// Creates a generator with a seed from the operating system.
    #[expect(clippy::disallowed_methods, reason = "the one place that draws the seed of a process")]
    pub fn system() -> Self {
        Self(Mutex::new(StdRng::from_rng(&mut rand::rng())))
    }

    fn draw(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    /// Draws 256 random bits, for a token.
    fn bytes(&self) -> [u8; 32] {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}

/// The engine. A clone is cheap and shares all state.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    parts: Parts,
    routes: Routes,
    directory: Directory,
    lease: Duration,
    new_events: Batches<Submission, Accepted>,
    outcomes: Batches<JobOutcome, ()>,
    health: Health,
    inflight: Arc<Inflight>,
    /// A commit of this process has stored a job that is due at once, so the worker must look for
    /// it.
    has_new_due_job: AtomicBool,
    rejections: Rejections,
    /// Limits the log lines about deliveries that are retried, per lane.
    retries: Repeats<LaneId>,
    near: near::NearMisses,
    /// Whether any consumer listens to notices.
    has_listeners: bool,
    alerts: Repeats<notices::Subject>,
    flows: flows::Flows,
    housekeeping: tick::Housekeeping,
    pulls: pull::Pulls,
    watched: watch::LaneStates,
    /// Cancelled when no further job may be claimed: the graceful shutdown has begun.
    draining: CancellationToken,
    /// Set when no further event is accepted.
    closed: AtomicBool,
    /// Cancelled when running calls must stop, at the end of the time for a graceful shutdown.
    aborting: CancellationToken,
}

impl Engine {
    /// Why this process's worker does not take a due job of a lane now; `None` where the worker has
    /// room for it, or where no worker runs here.
    pub fn why_no_slot(&self, lane: &LaneId) -> Option<String> {
        self.0.inflight.why_no_slot(lane)
    }

    /// Builds an engine and starts the tasks that commit. No job is executed before
    /// [`Engine::work`] is called.
    pub fn new(parts: Parts) -> Self {
        let config = Arc::clone(&parts.config);
        let writers = parts.store.writers();
        let inflight = Arc::new(Inflight::new(
            config.lanes().into_iter().map(|lane| (lane.id, lane.tenant)).collect(),
        ));
        let recording = Arc::clone(&parts.store);
        let new_events =
            Batches::start(writers, "accept", accept::bytes, accept::committer(&parts, &inflight));
        let outcomes =
            Batches::start(writers, "record", record::bytes, move |outcomes: Vec<JobOutcome>| {
                let store = Arc::clone(&recording);
                async move { store.record(&outcomes).await }
            });
        let routes = config.routes();
        let has_listeners =
            routes.0.iter().any(|route| route.source == crate::decide::alert::SOURCE);
        Self(Arc::new(Inner {
            routes,
            directory: Directory::of(&config),
            lease: LEASE.min(config.worker.lease_max),
            new_events,
            outcomes,
            health: Health::default(),
            inflight,
            has_new_due_job: AtomicBool::new(false),
            rejections: Rejections::default(),
            retries: Repeats::new(RETRY_LINES_MAX),
            near: near::NearMisses::default(),
            has_listeners,
            alerts: Repeats::new(notices::ALERTS_A_MINUTE),
            flows: flows::Flows::of(&config),
            housekeeping: tick::Housekeeping::default(),
            pulls: pull::Pulls::default(),
            watched: watch::LaneStates::default(),
            draining: CancellationToken::new(),
            closed: AtomicBool::new(false),
            aborting: CancellationToken::new(),
            parts,
        }))
    }

    /// Prepares the store: writes the configured lanes and workflow definitions. If `only_process`
    /// is true, no other process can hold a lease, so all leases are ended.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn prepare(&self, only_process: bool) -> crate::store::Result<()> {
        let store = self.store();
        match store.moved().await? {
            None => {}
            Some(Move::Source { to }) => {
                return Err(Error::permanent(format!(
                    "this database was copied to {to}, which has its work now: use that one, or \
                     undo the move with `tidehook copy --undo`"
                )));
            }
            Some(Move::Target { from }) => {
                return Err(Error::permanent(format!(
                    "this database holds an unfinished copy of {from}: run `tidehook copy` again \
                     until it is finished"
                )));
            }
        }
        // Ids carry an instant, and lists are in the order of ids: it is the database's, which all
        // processes share.
        self.0.parts.ids.follow(store.now().await?, self.clock().now());
        store.upsert_lanes(&self.config().lanes()).await?;
        self.define().await?;
        if only_process {
            let reclaimed = store.reclaim().await?;
            if reclaimed > 0 {
                tracing::info!(
                    reclaimed,
                    "Deliveries that were in flight when the last process stopped will be \
                     attempted again."
                );
            }
        }
        self.arm_crons(true).await?;
        self.find_parked().await?;
        self.0.health.set_prepared();
        Ok(())
    }

    /// The store that this engine works on.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.parts.store
    }

    /// The configuration that this engine was built with.
    pub fn config(&self) -> &Arc<Config> {
        &self.0.parts.config
    }

    /// Finds what targets name.
    pub fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// Looks up a handler by its present name; `None` where the configuration does not name it.
    pub fn handler(&self, name: &str) -> Option<&Handler> {
        self.0.directory.handler(name)
    }

    /// The process's wall clock. Due times and leases use the database's clock instead.
    pub fn clock(&self) -> &dyn Clock {
        &*self.0.parts.clock
    }

    /// The live feed of what the engine does, such as accepted events and finished attempts.
    pub fn feed(&self) -> &Feed {
        &self.0.parts.feed
    }

    /// Whether the database can be used.
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// The routes of the configuration.
    pub fn routes(&self) -> &Routes {
        &self.0.routes
    }

    /// Recent events of this process that a handler of their source did not get, and why.
    pub fn near_misses(&self) -> &near::NearMisses {
        &self.0.near
    }

    /// How many worker slots of this process are in use or reserved.
    pub fn slots_in_use(&self) -> u32 {
        self.0.inflight.in_use()
    }

    /// Waits until a wake-up arrives, at most this long.
    pub async fn woken(&self, at_most: Duration) {
        self.0.parts.wake.woken(at_most).await;
    }

    /// Wakes workers and consumers after an operator's change has made jobs due.
    pub async fn wake(&self) {
        self.notify_workers(&[Wakeup::LOOK]).await;
        self.messages_may_have_arrived().await;
    }

    /// Wakes workers for jobs that are committed. Wake-ups are hints: a lost one costs time, never
    /// a job.
    pub async fn notify_workers(&self, due: &[Wakeup]) {
        if !due.is_empty() {
            self.0.parts.wake.wake(due).await;
        }
    }

    /// Announces a worker with this many slots. From now on a commit may pass new jobs straight to
    /// it.
    pub fn open_worker(&self, parallel: u32) {
        self.0.inflight.set_slots(parallel);
    }

    /// Begins to drain: no further job is claimed, and running jobs continue.
    pub fn drain(&self) {
        self.0.inflight.set_slots(0);
        self.0.draining.cancel();
    }

    /// Whether the engine drains, so that no further job is claimed.
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Waits until the engine begins to drain.
    pub async fn draining(&self) {
        self.0.draining.cancelled().await;
    }

    /// Stores the counts that are kept in memory only, before the process ends.
    ///
    /// # Errors
    /// Those of the store; the counts are kept.
    pub async fn flush(&self) -> crate::store::Result<()> {
        self.store_rejections().await
    }

    /// Gives back the leases of jobs that were passed in memory after the last worker had stopped.
    /// No attempt is counted for them.
    pub async fn return_unstarted(&self) {
        let Some(mut ready_jobs) = self.0.inflight.ready_jobs() else { return };
        while let Ok(ReadyJob { claimed, event, .. }) = ready_jobs.try_recv() {
            let ran = execute::Execution::released(self.clock().now());
            self.record(&claimed, &event, ran).await;
            self.0.inflight.forget(claimed.job.lease());
        }
    }

    /// Takes no further events. Called at shutdown, when a sender could no longer be told that its
    /// event is stored.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
    }

    /// Stops running calls. A request that may have been sent is recorded as interrupted; other
    /// jobs are given back.
    pub fn abort(&self) {
        self.0.inflight.set_slots(0);
        self.0.draining.cancel();
        self.0.aborting.cancel();
    }
}
