//! The stores that speak SQL: the verbs once, over typed pools, and a dialect for what differs.
//!
//! - [`seam`]: what shared statements need from a database; [`statement`]: static text and its binds
//! - [`dialect`]: the few things that differ; [`postgres`], [`sqlite`]: one dialect each
//! - `backup`: a copy of an SQLite file that is in use
//! - [`tx`]: a transaction that cannot be left half way
//! - `rows`: rows and the model; `intake`, `work`, `lanes`, `hints`, `query`, `maintenance`: the verbs, named as in [`super`]

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
use tx::{AtHand, Tx};

/// A verb that takes longer is taken for a database that does not answer.
const VERB_TIME_MAX: Duration = Duration::from_secs(10);
/// The same for one that only reads.
const READ_TIME_MAX: Duration = Duration::from_secs(4);
/// Rows of each total that one process adds to, in turn.
const SHARDS: i64 = 16;
/// A passing conflict (deadlock, busy) is tried this often.
const BUSY_TRIES: u32 = 5;

tokio::task_local! {
    /// Whether the verb of this task may prepare statements under names. A task's own, because the driver's calls take
    /// a connection and a text, and neither knows what stands between it and the server.
    static KEEPS_STATEMENTS: bool;
}

/// Whether prepared statements may be kept on a connection: not behind a pooler, where the next transaction has another.
pub fn keeps_statements() -> bool {
    KEEPS_STATEMENTS.try_with(|keeps| *keeps).unwrap_or(true)
}

/// How much a verb is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Several statements that hold together.
    Transaction,
    /// One statement that may be repeated.
    Statement,
}

/// Gives a pool what its next connections need; or says, in a sentence, why it cannot.
pub(super) type Renew<D> = Box<dyn Fn(Pool<D>) -> BoxFuture<'static, std::result::Result<(), String>> + Send + Sync>;

/// A store over one dialect. Cheap to clone.
pub struct SqlStore<D: Dialect>(Arc<Inner<D>>);

impl<D: Dialect> Clone for SqlStore<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<D: Dialect> {
    /// For statements that write.
    write: Pool<D>,
    /// For statements that only read.
    read: Pool<D>,
    /// Connections of theirs that need not go back to them at once.
    at_hand: Arc<AtHand<D>>,
    /// Tests put a clock here; otherwise the database's own is used.
    clock: Option<ManualClock>,
    /// A pooler stands before the server: whatever is done is done in a transaction, and no statement is kept.
    pooler: Pooler,
    /// Gives a pool what its next connections need, if that grows old.
    renew: Option<Renew<D>>,
    /// The first of the rows of each total that this process adds to.
    first_shard: i64,
    /// Which of them is next.
    next_shard: AtomicI64,
    /// Whatever must live as long as the store: SQLite's lock file.
    _keep: Option<std::fs::File>,
    /// Held by whoever asks why no connection can be had: of many that wait in vain, one is enough.
    asking: tokio::sync::Mutex<()>,
}

impl<D: Dialect> SqlStore<D> {
    /// `at_hand`: so many connections may be kept at hand; none where the two pools are not the same.
    fn new(
        (write, read, at_hand): (Pool<D>, Pool<D>, usize),
        clock: Option<ManualClock>,
        pooler: Pooler,
        keep: Option<std::fs::File>,
    ) -> Self {
        // Process ids are no help: in containers they are all the same.
        let first_shard = i64::try_from(SystemIds::default().next().0 % 64).unwrap_or(0) * SHARDS;
        Self(Arc::new(Inner {
            write,
            read,
            at_hand: Arc::new(AtHand::new(at_hand)),
            clock,
            pooler,
            renew: None,
            first_shard,
            next_shard: AtomicI64::new(0),
            _keep: keep,
            asking: tokio::sync::Mutex::default(),
        }))
    }

    /// What an error means to a caller. A pool only says that it was waited for in vain: a connection of its own says why.
    async fn failed(&self, error: sqlx::Error) -> Error {
        if matches!(error, sqlx::Error::PoolTimedOut)
            && let Ok(_asking) = self.0.asking.try_lock()
            && let Some(why) = D::why_not(&self.0.write).await
        {
            return Error::Down(why);
        }
        D::error(error)
    }

    /// The row of a total that the next transaction adds to. A row is locked until its transaction has ended, so
    /// neither processes nor the writers of one process may share them all the time.
    fn shard(&self) -> i64 {
        self.0.first_shard + self.0.next_shard.fetch_add(1, Ordering::Relaxed).rem_euclid(SHARDS)
    }

    /// What `{now}` binds: an instant in tests, nothing otherwise.
    fn clock(&self) -> Option<i64> {
        self.0.clock.as_ref().map(|c| c.now().0)
    }

    /// Runs a verb in a task of its own, which no caller can cancel half way, inside one transaction.
    ///
    /// A passing conflict is tried again from the start.
    async fn write<T, F>(&self, verb: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(Self, &'c mut D::Connection) -> BoxFuture<'c, sqlx::Result<T>> + Send + Sync + 'static,
    {
        self.run_owned(Extent::Transaction, verb).await
    }

    async fn run_owned<T, F>(&self, extent: Extent, verb: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(Self, &'c mut D::Connection) -> BoxFuture<'c, sqlx::Result<T>> + Send + Sync + 'static,
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
                    Extent::Transaction => store.attempt(&verb).await,
                    Extent::Statement => store.attempt_alone(&verb).await,
                };
                match tried {
                    Ok(value) => return Ok(value),
                    Err(error) if D::is_busy(&error) && tries > 0 => {}
                    Err(error) if extent == Extent::Statement && D::is_stale_connection(&error) && tries > 0 => {}
                    Err(error) => return Err(store.failed(error).await),
                }
            }
        };
        match extent {
            Extent::Transaction => self.owned(VERB_TIME_MAX, work).await,
            Extent::Statement => self.here(VERB_TIME_MAX, work).await,
        }
    }

    /// A statement that is its own transaction, and one round trip.
    async fn attempt_alone<T, F>(&self, verb: &F) -> sqlx::Result<T>
    where
        F: for<'c> Fn(Self, &'c mut D::Connection) -> BoxFuture<'c, sqlx::Result<T>>,
    {
        let mut tx = self.open(&self.0.write).await?;
        let value = verb(self.clone(), tx.conn()?).await?;
        tx.close().await?;
        Ok(value)
    }

    async fn attempt<T, F>(&self, verb: &F) -> sqlx::Result<T>
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

    /// With passwords that grow old.
    #[cfg(feature = "lambda")]
    fn renewing(self, renew: Renew<D>) -> Self {
        match Arc::try_unwrap(self.0) {
            Ok(inner) => Self(Arc::new(Inner { renew: Some(renew), ..inner })),
            // It was made a moment ago, and nobody else has it.
            Err(shared) => Self(shared),
        }
    }

    /// How a transaction begins.
    fn begin(&self) -> &'static str {
        if self.0.pooler == Pooler::Transaction { D::BEGIN_POOLED } else { D::BEGIN }
    }

    /// A connection for statements that stand alone. A pooler hands out another one for each transaction, and parsing, binding
    /// and running are several messages: behind one even these are transactions.
    async fn open(&self, pool: &Pool<D>) -> sqlx::Result<Tx<D>> {
        match self.0.pooler.is_there() {
            true => Tx::begin(pool, &self.0.at_hand, self.begin()).await,
            false => Tx::plain(pool, &self.0.at_hand).await,
        }
    }

    /// Work that ends when the database does not answer, with what its connections need.
    async fn bounded<T: Send + 'static>(
        &self,
        time_max: Duration,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<BoxFuture<'static, Result<T>>> {
        let keeps = !self.0.pooler.is_there();
        if let Some(renew) = &self.0.renew {
            renew(self.0.write.clone()).await.map_err(Error::Down)?;
        }
        Ok(Box::pin(KEEPS_STATEMENTS.scope(keeps, async move {
            match tokio::time::timeout(time_max, work).await {
                Ok(done) => done,
                Err(_) => Err(Error::Down(format!("no answer within {} s", time_max.as_secs()))),
            }
        })))
    }

    /// Bounded work in a task of its own, which goes on when its caller hangs up.
    async fn owned<T: Send + 'static>(
        &self,
        time_max: Duration,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match tokio::spawn(self.bounded(time_max, work).await?).await {
            Ok(done) => done,
            Err(died) => Err(Error::Corrupt(format!("a store verb panicked: {died}"))),
        }
    }

    /// Bounded work in the task of its caller: for a single statement, which is whole or nothing by itself. A caller that hangs up
    /// closes the connection, and the database ends what was begun on it.
    async fn here<T: Send + 'static>(
        &self,
        time_max: Duration,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match AssertUnwindSafe(self.bounded(time_max, work).await?).catch_unwind().await {
            Ok(done) => done,
            Err(_) => Err(Error::Corrupt("a store verb panicked".to_owned())),
        }
    }

    /// Runs a reading verb, once more if the first connection turned out to be dead.
    async fn read<T, F>(&self, verb: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(Self, &'c mut D::Connection) -> BoxFuture<'c, sqlx::Result<T>> + Send + Sync + 'static,
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

/// Applies a slice: as a whole if it can be, item by item if one of them spoils it.
async fn each<I, T, Fut>(items: &[I], whole: impl Fn(Arc<[I]>) -> Fut) -> super::Each<T>
where
    I: Clone,
    Fut: Future<Output = Result<Vec<Result<T>>>>,
{
    if items.is_empty() {
        return Ok(Vec::new());
    }
    match whole(Arc::from(items)).await {
        Err(Error::Corrupt(why)) if items.len() == 1 => Ok(vec![Err(Error::Corrupt(why))]),
        Err(Error::Corrupt(_)) => {
            let mut answers = Vec::with_capacity(items.len());
            for item in items {
                match whole(Arc::from([item.clone()])).await {
                    Ok(mut one) => answers.push(one.pop().unwrap_or_else(|| Err(Error::Corrupt("no answer".into())))),
                    Err(Error::Corrupt(why)) => answers.push(Err(Error::Corrupt(why))),
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
