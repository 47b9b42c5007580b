//! Second floor: the only room that holds everything.
//!
//! Events are accepted and work is done here; what is stored, sent and decided lies below.
//!
//! - [`accept`]: an inbound event, planned and committed
//! - [`batch`]: callers hand in one item, a slice is committed, each gets its own answer
//! - [`work`]: claim, execute, record, within a budget; `worker`: what it does next; [`execute`], [`record`]: its steps
//! - [`advance`]: what an outcome means for a run; [`flows`]: definitions, compiled;
//!   [`callback`]: an answer from outside; [`operate`]: what people do to runs; [`fsck`]: their invariants
//! - [`inflight`]: the leases in hand meanwhile; [`tick`]: housekeeping; [`parked`]: work that the configuration has nobody for
//! - [`watch`]: what lanes wait for, told when it changes
//! - [`health`]: whether the store answers; [`reject`]: refused requests, counted; [`near`]: near misses

pub mod accept;
pub mod advance;
pub mod approval;
pub mod batch;
pub mod callback;
pub mod execute;
pub mod flows;
pub mod fsck;
pub mod health;
pub mod inflight;
pub mod near;
pub mod operate;
pub mod parked;
pub mod record;
pub mod reject;
pub mod tick;
pub mod watch;
pub mod work;
mod worker;

use std::collections::HashMap;
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
use crate::store::{Accepted, Store};
use crate::wake::{Wake, Wakeup};
use accept::Submission;
use batch::Batch;
use health::Health;
use inflight::{Handed, Inflight};
use reject::Rejections;

/// A lease lasts this long unless the configuration says less; it is extended while work runs.
const LEASE: Duration = Duration::from_secs(30);

/// So many lines a minute tell of deliveries of one lane that are tried again.
const RETRY_LINES_MAX: u32 = 5;

/// What an engine is made of.
pub struct Parts {
    /// What is remembered.
    pub store: Arc<dyn Store>,
    /// Out.
    pub deliver: Arc<dyn Deliver>,
    /// Telling workers.
    pub wake: Arc<dyn Wake>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn Ids>,
    /// Where jitter comes from.
    pub chance: Chance,
    /// The configuration.
    pub config: Arc<Config>,
    /// Where moments are told.
    pub feed: Feed,
}

/// Random numbers for jitter. Seeded, so that a seed replays a run.
pub struct Chance(Mutex<StdRng>);

impl Chance {
    /// Chance from a seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// Chance from the operating system.
    #[expect(clippy::disallowed_methods, reason = "the one place that draws the seed of a process")]
    pub fn system() -> Self {
        Self(Mutex::new(StdRng::from_rng(&mut rand::rng())))
    }

    fn draw(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    /// 256 random bits.
    fn bytes(&self) -> [u8; 32] {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    parts: Parts,
    routes: Routes,
    handlers: HashMap<String, Handler>,
    lease: Duration,
    new_events: Batch<Submission, Accepted>,
    commits: Batch<JobOutcome, ()>,
    health: Health,
    inflight: Arc<Inflight>,
    /// A commit of this process has stored jobs that are due at once.
    follows: AtomicBool,
    rejections: Rejections,
    /// Lines about deliveries that are tried again, by lane.
    retries: Repeats<LaneId>,
    near: near::NearMisses,
    flows: flows::Flows,
    housekeeping: tick::Housekeeping,
    watched: watch::Watched,
    /// No further job is taken.
    draining: CancellationToken,
    /// Nothing is taken in any more.
    closed: AtomicBool,
    /// What is under way is handed back.
    aborting: CancellationToken,
}

impl Engine {
    /// Why a due job of a lane is not taken by this process's worker at the moment; `None` where nothing of the worker holds it back.
    pub fn crowded(&self, lane: &LaneId) -> Option<String> {
        self.0.inflight.crowded(lane)
    }

    /// Builds an engine. It starts the tasks that commit; nothing is worked on before [`Engine::work`].
    pub fn new(parts: Parts) -> Self {
        let config = Arc::clone(&parts.config);
        let writers = parts.store.writers();
        let inflight = Arc::new(Inflight::new(config.lanes().into_iter().map(|lane| (lane.id, lane.tenant)).collect()));
        let recording = Arc::clone(&parts.store);
        let new_events = Batch::start(writers, "accept", accept::bytes, accept::committer(&parts, &inflight));
        let commits = Batch::start(writers, "record", record::bytes, move |commits: Vec<JobOutcome>| {
            let store = Arc::clone(&recording);
            async move { store.record(&commits).await }
        });
        Self(Arc::new(Inner {
            routes: config.routes(),
            handlers: config.handlers.iter().map(|h| (h.name.clone(), h.clone())).collect(),
            lease: LEASE.min(config.worker.lease_max),
            new_events,
            commits,
            health: Health::default(),
            inflight,
            follows: AtomicBool::new(false),
            rejections: Rejections::default(),
            retries: Repeats::new(RETRY_LINES_MAX),
            near: near::NearMisses::default(),
            flows: flows::Flows::of(&config),
            housekeeping: tick::Housekeeping::default(),
            watched: watch::Watched::default(),
            draining: CancellationToken::new(),
            closed: AtomicBool::new(false),
            aborting: CancellationToken::new(),
            parts,
        }))
    }

    /// Prepares the store: the lanes as configured and, where no other process can hold one, all leases ended.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn prepare(&self, only_process: bool) -> crate::store::Result<()> {
        let store = self.store();
        // Ids carry an instant, and lists are in the order of ids: it is the database's, which all processes share.
        self.0.parts.ids.follow(store.now().await?, self.clock().now());
        store.upsert_lanes(&self.config().lanes()).await?;
        self.define().await?;
        if only_process {
            let reclaimed = store.reclaim().await?;
            if reclaimed > 0 {
                tracing::info!(reclaimed, "Deliveries that were under way when the last process ended are tried again.");
            }
        }
        self.find_parked().await?;
        self.0.health.set_prepared();
        Ok(())
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.parts.store
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<Config> {
        &self.0.parts.config
    }

    /// A handler by name.
    pub fn handler(&self, name: &str) -> Option<&Handler> {
        self.0.handlers.get(name)
    }

    /// Wall time.
    pub fn clock(&self) -> &dyn Clock {
        &*self.0.parts.clock
    }

    /// Where moments are told.
    pub fn feed(&self) -> &Feed {
        &self.0.parts.feed
    }

    /// Whether the store answers.
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// The routes, as configured.
    pub fn routes(&self) -> &Routes {
        &self.0.routes
    }

    /// Events that a handler of their source did not get.
    pub fn near_misses(&self) -> &near::NearMisses {
        &self.0.near
    }

    /// Deliveries in the hands of this process.
    pub fn slots_in_use(&self) -> u32 {
        self.0.inflight.held()
    }

    /// Waits until there may be work, or for `at_most`.
    pub async fn woken(&self, at_most: Duration) {
        self.0.parts.wake.woken(at_most).await;
    }

    /// Tells workers that there is due work, after an operator changed something.
    pub async fn wake(&self) {
        self.tell(&[Wakeup::LOOK]).await;
    }

    /// Tells workers of work that is committed.
    pub async fn tell(&self, due: &[Wakeup]) {
        if !due.is_empty() {
            self.0.parts.wake.wake(due).await;
        }
    }

    /// A worker with this many slots runs until further notice: jobs may be handed to it by the commit that
    /// creates them.
    pub fn open_worker(&self, parallel: u32) {
        self.0.inflight.open(parallel);
    }

    /// Takes no further jobs; what is under way goes on.
    pub fn drain(&self) {
        self.0.inflight.open(0);
        self.0.draining.cancel();
    }

    /// Whether no further jobs are taken.
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Waits until no further jobs are taken.
    pub async fn draining(&self) {
        self.0.draining.cancelled().await;
    }

    /// Stores what is counted in memory.
    ///
    /// # Errors
    /// Those of the store; the counts are kept.
    pub async fn flush(&self) -> crate::store::Result<()> {
        self.store_rejections().await
    }

    /// Gives back what was handed over after the last worker had ended.
    pub async fn put_back(&self) {
        let Some(mut handed) = self.0.inflight.handed() else { return };
        while let Ok(Handed { claimed, event, .. }) = handed.try_recv() {
            let ran = execute::Ran::postponed(self.clock().now());
            self.record(&claimed, &event, ran).await;
            self.0.inflight.put_down(claimed.job.lease());
        }
    }

    /// Takes no further events: whoever brings one would not hear that it was stored.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
    }

    /// Stops waiting for what is under way: what was sent is on record as interrupted, the rest is handed back.
    pub fn abort(&self) {
        self.0.inflight.open(0);
        self.0.draining.cancel();
        self.0.aborting.cancel();
    }
}
