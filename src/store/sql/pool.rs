//! A store over the pools of one driver.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use sqlx::Pool;

use super::driver::Driver;
use super::statement::Sql;
use super::tx::{IdleConnections, Tx};
use crate::model::LaneId;
use crate::model::time::Clock;
use crate::model::{Ids, ManualClock, Pooler, SystemIds};
use crate::store::error::Error;

/// How many rows per total one process spreads its additions over.
const SHARDS: i64 = 16;

/// How many lanes with fresh work are remembered between two claims.
const FRESH_MAX: usize = 200;

/// Gives a pool the password for its next connections, or says in one sentence why it cannot.
pub type Renew<D> =
    Box<dyn Fn(Pool<D>) -> BoxFuture<'static, std::result::Result<(), String>> + Send + Sync>;

/// A store over one driver. Cheap to clone: clones share pools and clock.
pub struct SqlStore<D: Driver>(pub(super) Arc<Inner<D>>);

impl<D: Driver> Clone for SqlStore<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What the clones of a store share.
pub struct Inner<D: Driver> {
    /// The pool for verbs that write. SQLite's has one connection.
    pub(super) write: Pool<D>,
    /// The pool for verbs that only read. Elsewhere than on SQLite it is the same pool.
    pub(super) read: Pool<D>,
    /// Connections kept out of the pool for immediate reuse.
    pub(super) at_hand: Arc<IdleConnections<D>>,
    /// The same for the pool that only reads.
    pub(super) at_hand_to_read: Arc<IdleConnections<D>>,
    /// A clock for tests. Without one the database's own clock is used.
    clock: Option<ManualClock>,
    /// The pooler in front of the server, if any. Behind one every access is a transaction, and no
    /// statement is kept.
    pub(super) pooler: Pooler,
    /// Renews the password of the pool, for passwords that expire.
    pub(super) renew: Option<Renew<D>>,
    /// The first of the rows per total that this process adds to.
    first_shard: i64,
    /// Counts transactions; modulo `SHARDS` it picks the row for the next one.
    next_shard: AtomicI64,
    /// The tenant whose lane came last in a claim: the next claim goes on behind it.
    last_tenant: Mutex<String>,
    /// Lanes that this process has given due work since its last claim.
    fresh: Mutex<BTreeSet<String>>,
    /// Keeps SQLite's lock file open, and so locked, for as long as the store lives.
    _keep: Option<std::fs::File>,
    /// Held while one caller finds out why no connection can be opened. Others that wait in vain do
    /// not ask again.
    asking: tokio::sync::Mutex<()>,
}

/// What a connection is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only to read.
    Read,
    /// To change something, and perhaps to read.
    Write,
}

/// The connections of a store.
pub struct Pools<D: Driver> {
    /// For verbs that write. SQLite's has one connection.
    pub write: Pool<D>,
    /// For verbs that only read; the same pool except on SQLite.
    pub read: Pool<D>,
    /// How many connections may be kept for immediate reuse.
    pub at_hand: usize,
    /// How many of a pool of its own for reads; `None` where there is none.
    pub at_hand_to_read: Option<usize>,
}

impl<D: Driver> SqlStore<D> {
    /// A store over these pools. `keep` is a file that stays open for as long as the store lives.
    pub fn new(
        Pools { write, read, at_hand, at_hand_to_read }: Pools<D>,
        clock: Option<ManualClock>,
        pooler: Pooler,
        keep: Option<std::fs::File>,
    ) -> Self {
        // Process ids are no help: in containers they are all the same.
        let first_shard = i64::try_from(SystemIds::default().next().0 % 64).unwrap_or(0) * SHARDS;
        let at_hand = Arc::new(IdleConnections::new(at_hand, &write));
        let at_hand_to_read = match at_hand_to_read {
            None => Arc::clone(&at_hand),
            Some(most) => Arc::new(IdleConnections::new(most, &read)),
        };
        Self(Arc::new(Inner {
            write,
            read,
            at_hand,
            at_hand_to_read,
            clock,
            pooler,
            renew: None,
            first_shard,
            next_shard: AtomicI64::new(0),
            last_tenant: Mutex::default(),
            fresh: Mutex::default(),
            _keep: keep,
            asking: tokio::sync::Mutex::default(),
        }))
    }

    /// The same store, with a function that renews its passwords.
    pub fn renewing(self, renew: Renew<D>) -> Self {
        match Arc::try_unwrap(self.0) {
            Ok(inner) => Self(Arc::new(Inner { renew: Some(renew), ..inner })),
            // It was made a moment ago, and nobody else has it.
            Err(shared) => Self(shared),
        }
    }

    /// Starts the statement of this name.
    pub fn sql(&self, name: &'static str) -> Sql<D> {
        Sql::named(name, self.0.clock.as_ref().map(|clock| clock.now().0))
    }

    /// The row of a total that the next transaction adds to. A row stays locked until its
    /// transaction ends, so processes, and the writers of one process, must not all share one row.
    pub fn shard(&self) -> i64 {
        self.0.first_shard + self.0.next_shard.fetch_add(1, Ordering::Relaxed).rem_euclid(SHARDS)
    }

    /// The tenant whose lane came last in a claim of this process.
    pub(super) fn last_tenant(&self) -> String {
        self.0.last_tenant.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_last_tenant(&self, tenant: String) {
        *self.0.last_tenant.lock().unwrap_or_else(PoisonError::into_inner) = tenant;
    }

    /// Notes lanes to which this process has committed work that is due. Its next claim looks at
    /// them whatever the lanes say: a claim that ran meanwhile may have found them empty. No claim
    /// looks at what consumers pull.
    pub(super) fn note_fresh(&self, lanes: impl IntoIterator<Item = String>) {
        let mut fresh = self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        let pushed = lanes.into_iter().map(LaneId).filter(|lane| !lane.is_pulled());
        fresh.extend(pushed.map(|lane| lane.0).take(FRESH_MAX));
        // Beyond that the lanes' own looks will do.
        while fresh.len() > FRESH_MAX {
            fresh.pop_first();
        }
    }

    /// Takes those lanes.
    pub(super) fn take_fresh(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What an error means to the caller. A pool that ran into its timeout does not say why, so a
    /// connection of its own is tried to find out.
    pub(super) async fn failed(&self, error: sqlx::Error) -> Error {
        if matches!(error, sqlx::Error::PoolTimedOut)
            && let Ok(_asking) = self.0.asking.try_lock()
            && let Some(why) = D::why_not(&self.0.write).await
        {
            return Error::down(why);
        }
        D::error(error)
    }

    /// The text that begins a transaction.
    pub(super) fn begin(&self) -> &'static str {
        if self.0.pooler == Pooler::Transaction { D::BEGIN_POOLED } else { D::BEGIN }
    }

    /// Opens a connection for statements that stand alone. Behind a pooler this is a transaction
    /// too: parsing, binding and running are separate messages, and the pooler could send them to
    /// different connections.
    pub(super) async fn open(&self, access: Access) -> sqlx::Result<Tx<D>> {
        let (pool, at_hand) = match access {
            Access::Write => (&self.0.write, &self.0.at_hand),
            Access::Read => (&self.0.read, &self.0.at_hand_to_read),
        };
        match self.0.pooler.is_there() {
            true => Tx::begin(pool, at_hand, self.begin()).await,
            false => Tx::plain(pool, at_hand).await,
        }
    }
}
