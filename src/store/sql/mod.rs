//! The stores that use SQL: each verb is written once, and a dialect covers what differs between
//! databases.
//!
//! - [`seam`]: what shared statements need from a database; [`statement`]: static text and its
//!   bound values
//! - [`dialect`]: the few things that differ; [`postgres`], [`sqlite`]: one dialect each
//! - `backup`: a copy of an SQLite file that is in use
//! - [`tx`]: a transaction that cannot be left half way
//! - `rows`: rows and how they become values of the model; `intake`, `work`, `lanes`, `hints`,
//!   `query`, `maintenance`: the verbs, named as in [`super`]

#[cfg(feature = "cli")]
pub mod backup;
pub mod dialect;
mod hints;
mod intake;
mod lanes;
mod maintenance;
mod outcomes;
pub mod postgres;
mod query;
mod record;
pub(crate) mod rows;
mod runs;
pub mod seam;
pub mod sqlite;
pub mod statement;
#[cfg(feature = "lambda")]
mod token;
pub mod tx;
mod work;

pub use maintenance::statements;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::Pool;

use super::error::{Error, Result};
use crate::model::time::Clock;
use crate::model::{Ids, ManualClock, Pooler, SystemIds, Timestamp};
use dialect::Dialect;
use tx::{IdleConnections, Tx};

/// A verb that takes longer fails as if the database did not answer.
const VERB_TIME_MAX: Duration = Duration::from_secs(10);
/// The same limit for a verb that only reads.
const READ_TIME_MAX: Duration = Duration::from_secs(4);
/// How many rows per total one process spreads its additions over.
const SHARDS: i64 = 16;
/// How often a verb is tried when it meets a passing conflict (deadlock, busy).
const BUSY_TRIES: u32 = 5;

tokio::task_local! {
    /// Whether the verb of this task may keep prepared statements. A task-local, because the
    /// driver's calls take only a connection and a text, and neither knows whether a pooler is in
    /// between.
    static KEEPS_STATEMENTS: bool;
}

/// Whether prepared statements may be kept on a connection. Not behind a pooler, where the next
/// transaction may get another connection.
pub fn keeps_statements() -> bool {
    KEEPS_STATEMENTS.try_with(|keeps| *keeps).unwrap_or(true)
}

/// How many statements a verb consists of, which decides how it runs and whether it may be
/// repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Several statements in one transaction, in a task that no caller can cancel.
    Transaction,
    /// One statement that is its own transaction and may be repeated.
    Statement,
}

/// Gives a pool the password for its next connections, or says in one sentence why it cannot.
pub(super) type Renew<D> =
    Box<dyn Fn(Pool<D>) -> BoxFuture<'static, std::result::Result<(), String>> + Send + Sync>;

/// A store over one dialect. Cheap to clone: clones share pools and clock.
pub struct SqlStore<D: Dialect>(Arc<Inner<D>>);

impl<D: Dialect> Clone for SqlStore<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<D: Dialect> {
    /// The pool for verbs that write. SQLite's has one connection.
    write: Pool<D>,
    /// The pool for verbs that only read. For Postgres it is the same pool.
    read: Pool<D>,
    /// Connections kept out of the pool for immediate reuse.
    at_hand: Arc<IdleConnections<D>>,
    /// A clock for tests. Without one the database's own clock is used.
    clock: Option<ManualClock>,
    /// The pooler in front of the server, if any. Behind one every access is a transaction, and no
    /// statement is kept.
    pooler: Pooler,
    /// Renews the password of the pool, for passwords that expire.
    renew: Option<Renew<D>>,
    /// The first of the rows per total that this process adds to.
    first_shard: i64,
    /// Counts transactions; modulo `SHARDS` it picks the row for the next one.
    next_shard: AtomicI64,
    /// Keeps SQLite's lock file open, and so locked, for as long as the store lives.
    _keep: Option<std::fs::File>,
    /// Held while one caller finds out why no connection can be opened. Others that wait in vain do
    /// not ask again.
    asking: tokio::sync::Mutex<()>,
}

/// The connections of a store.
struct Pools<D: Dialect> {
    /// For verbs that write. SQLite's has one connection.
    write: Pool<D>,
    /// For verbs that only read; the same pool on Postgres.
    read: Pool<D>,
    /// How many connections may be kept for immediate reuse; 0 when reads and writes have pools of
    /// their own.
    at_hand: usize,
}

impl<D: Dialect> SqlStore<D> {
    fn new(
        Pools { write, read, at_hand }: Pools<D>,
        clock: Option<ManualClock>,
        pooler: Pooler,
        keep: Option<std::fs::File>,
    ) -> Self {
        // Process ids are no help: in containers they are all the same.
        let first_shard = i64::try_from(SystemIds::default().next().0 % 64).unwrap_or(0) * SHARDS;
        Self(Arc::new(Inner {
            write,
            read,
            at_hand: Arc::new(IdleConnections::new(at_hand)),
            clock,
            pooler,
            renew: None,
            first_shard,
            next_shard: AtomicI64::new(0),
            _keep: keep,
            asking: tokio::sync::Mutex::default(),
        }))
    }

    /// What an error means to the caller. A pool that ran into its timeout does not say why, so a
    /// connection of its own is tried to find out.
    async fn failed(&self, error: sqlx::Error) -> Error {
        if matches!(error, sqlx::Error::PoolTimedOut)
            && let Ok(_asking) = self.0.asking.try_lock()
            && let Some(why) = D::why_not(&self.0.write).await
        {
            return Error::down(why);
        }
        D::error(error)
    }

    /// The row of a total that the next transaction adds to. A row stays locked until its
    /// transaction ends, so processes, and the writers of one process, must not all share one row.
    fn shard(&self) -> i64 {
        self.0.first_shard + self.0.next_shard.fetch_add(1, Ordering::Relaxed).rem_euclid(SHARDS)
    }

    /// The value bound to `{now}`: an instant in tests, null otherwise.
    fn clock(&self) -> Option<i64> {
        self.0.clock.as_ref().map(|c| c.now().0)
    }

    /// Runs a verb inside one transaction, in a task that no caller can cancel.
    ///
    /// A passing conflict is tried again from the start.
    async fn write<T, F>(&self, verb: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(Self, &'c mut D::Connection) -> BoxFuture<'c, sqlx::Result<T>>
            + Send
            + Sync
            + 'static,
    {
        self.run_owned(Extent::Transaction, verb).await
    }

    async fn run_owned<T, F>(&self, extent: Extent, verb: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(Self, &'c mut D::Connection) -> BoxFuture<'c, sqlx::Result<T>>
            + Send
            + Sync
            + 'static,
    {
        let store = self.clone();
        let work = async move {
            let mut tries = match extent {
                Extent::Transaction => BUSY_TRIES,
                // Every pooled connection may have died meanwhile.
                Extent::Statement => BUSY_TRIES + store.0.write.options().get_max_connections(),
            };
            loop {
                tries -= 1;
                let tried = match extent {
                    Extent::Transaction => store.try_transaction(&verb).await,
                    Extent::Statement => store.try_statement(&verb).await,
                };
                match tried {
                    Ok(value) => return Ok(value),
                    Err(error) if D::is_busy(&error) && tries > 0 => {}
                    Err(error)
                        if extent == Extent::Statement
                            && D::is_stale_connection(&error)
                            && tries > 0 => {}
                    Err(error) => return Err(store.failed(error).await),
                }
            }
        };
        match extent {
            Extent::Transaction => self.owned(VERB_TIME_MAX, work).await,
            Extent::Statement => self.here(VERB_TIME_MAX, work).await,
        }
    }

    /// Runs a verb that is a single statement: its own transaction, in one round trip.
    async fn try_statement<T, F>(&self, verb: &F) -> sqlx::Result<T>
    where
        F: for<'c> Fn(Self, &'c mut D::Connection) -> BoxFuture<'c, sqlx::Result<T>>,
    {
        let mut tx = self.open(&self.0.write).await?;
        let value = verb(self.clone(), tx.conn()?).await?;
        tx.close().await?;
        Ok(value)
    }

    async fn try_transaction<T, F>(&self, verb: &F) -> sqlx::Result<T>
    where
        F: for<'c> Fn(Self, &'c mut D::Connection) -> BoxFuture<'c, sqlx::Result<T>>,
    {
        let mut tx = Tx::begin(&self.0.write, &self.0.at_hand, self.begin()).await?;
        match verb(self.clone(), tx.conn()?).await {
            Ok(value) => tx.commit().await.map(|()| value),
            Err(error) => {
                tx.rollback().await;
                Err(error)
            }
        }
    }

    /// The same store, with a function that renews its passwords.
    #[cfg(feature = "lambda")]
    fn renewing(self, renew: Renew<D>) -> Self {
        match Arc::try_unwrap(self.0) {
            Ok(inner) => Self(Arc::new(Inner { renew: Some(renew), ..inner })),
            // It was made a moment ago, and nobody else has it.
            Err(shared) => Self(shared),
        }
    }

    /// The text that begins a transaction.
    fn begin(&self) -> &'static str {
        if self.0.pooler == Pooler::Transaction { D::BEGIN_POOLED } else { D::BEGIN }
    }

    /// Opens a connection for statements that stand alone. Behind a pooler this is a transaction
    /// too: parsing, binding and running are separate messages, and the pooler could send them to
    /// different connections.
    async fn open(&self, pool: &Pool<D>) -> sqlx::Result<Tx<D>> {
        match self.0.pooler.is_there() {
            true => Tx::begin(pool, &self.0.at_hand, self.begin()).await,
            false => Tx::plain(pool, &self.0.at_hand).await,
        }
    }

    /// Puts a time limit on work, and first renews the password where passwords expire.
    async fn bounded<T: Send + 'static>(
        &self,
        time_max: Duration,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<BoxFuture<'static, Result<T>>> {
        let keeps = !self.0.pooler.is_there();
        if let Some(renew) = &self.0.renew {
            renew(self.0.write.clone()).await.map_err(Error::down)?;
        }
        Ok(Box::pin(KEEPS_STATEMENTS.scope(keeps, async move {
            match tokio::time::timeout(time_max, work).await {
                Ok(done) => done,
                Err(_) => Err(Error::down(format!(
                    "the database did not respond within {} s",
                    time_max.as_secs()
                ))),
            }
        })))
    }

    /// Bounded work in a task of its own, which continues when its caller goes away.
    async fn owned<T: Send + 'static>(
        &self,
        time_max: Duration,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match tokio::spawn(self.bounded(time_max, work).await?).await {
            Ok(done) => done,
            Err(died) => Err(Error::permanent(format!("a database operation crashed: {died}"))),
        }
    }

    /// Bounded work in the caller's task, for a single statement, which is atomic by itself. If the
    /// caller goes away the connection is closed, and the database ends what was begun on it.
    async fn here<T: Send + 'static>(
        &self,
        time_max: Duration,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match AssertUnwindSafe(self.bounded(time_max, work).await?).catch_unwind().await {
            Ok(done) => done,
            Err(_) => Err(Error::permanent("a database operation crashed".to_owned())),
        }
    }

    /// Runs a verb that reads. It is repeated, up to twice, if its connection turns out to be dead.
    async fn read<T, F>(&self, verb: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(Self, &'c mut D::Connection) -> BoxFuture<'c, sqlx::Result<T>>
            + Send
            + Sync
            + 'static,
    {
        let store = self.clone();
        self.owned(READ_TIME_MAX, async move {
            let mut tries = 0;
            loop {
                let mut tx = match store.open(&store.0.read).await {
                    Ok(tx) => tx,
                    Err(error) => return Err(store.failed(error).await),
                };
                match verb(store.clone(), tx.conn().map_err(D::error)?).await {
                    // What was read is read, however its transaction ends.
                    Ok(value) => {
                        let _ = tx.close().await;
                        return Ok(value);
                    }
                    Err(error) if tries < 2 && D::is_stale_connection(&error) => tries += 1,
                    Err(error) => return Err(store.failed(error).await),
                }
            }
        })
        .await
    }
}

/// Applies a slice as a whole if possible. If one item spoils it, the items are applied one by one.
async fn each<I, T, Fut>(items: &[I], whole: impl Fn(Arc<[I]>) -> Fut) -> super::Each<T>
where
    I: Clone,
    Fut: Future<Output = Result<Vec<Result<T>>>>,
{
    if items.is_empty() {
        return Ok(Vec::new());
    }
    match whole(Arc::from(items)).await {
        Err(Error::Permanent(why)) if items.len() == 1 => Ok(vec![Err(Error::Permanent(why))]),
        Err(Error::Permanent(_)) => {
            let mut answers = Vec::with_capacity(items.len());
            for item in items {
                match whole(Arc::from([item.clone()])).await {
                    Ok(mut one) => answers.push(one.pop().unwrap_or_else(|| {
                        Err(Error::permanent("the store returned too few results"))
                    })),
                    Err(Error::Permanent(why)) => answers.push(Err(Error::Permanent(why))),
                    Err(error) => return Err(error),
                }
            }
            Ok(answers)
        }
        other => other,
    }
}

fn timestamp(ms: i64) -> Timestamp {
    Timestamp(ms)
}
