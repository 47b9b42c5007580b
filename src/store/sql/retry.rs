//! Runs verbs: bounded in time, in tasks that no caller can cancel, and again after a conflict.
//!
//! A conflict (deadlock, lock timeout, busy) means that somebody was first and nothing was changed.
//! The verb is repeated after a pause of random length, within a budget of time, and is never an
//! outage. A connection that died is replaced where that is safe.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::driver::{Driver, Kind};
use super::pool::{Access, SqlStore};
use super::tx::Tx;
use crate::model::{Ids, SystemIds};
use crate::store::Each;
use crate::store::error::{Cause, Error, Result};

/// A verb that takes longer fails as if the database did not answer.
const VERB_TIME_MAX: Duration = Duration::from_secs(10);
/// The same limit for a verb that only reads.
const READ_TIME_MAX: Duration = Duration::from_secs(4);
/// How long a verb is repeated that meets conflicts. Less than a verb may take, so that the last
/// try can end.
const CONFLICT_TIME_MAX: Duration = Duration::from_secs(7);
/// The longest first pause after a conflict; the next ones may be twice as long each.
const PAUSE: Duration = Duration::from_millis(4);
/// The longest pause after a conflict.
const PAUSE_MAX: Duration = Duration::from_millis(250);

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

/// The pauses between the tries of one verb: random, and longer each time.
struct Conflicts {
    until: Instant,
    pause: Duration,
}

impl Conflicts {
    fn new() -> Self {
        Self { until: Instant::now() + CONFLICT_TIME_MAX, pause: PAUSE }
    }

    /// Waits before the next try. False once the budget is used up.
    async fn pause(&mut self) -> bool {
        // Its random half makes an id as good a die as any.
        let roll = (SystemIds::default().next().0 & 0xffff) as u32;
        sleep(self.pause * roll / 0xffff).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Instant::now() < self.until
    }
}

impl<D: Driver> SqlStore<D> {
    /// Runs a verb inside one transaction, in a task that no caller can cancel. After a conflict it
    /// is tried again from the start.
    ///
    /// # Errors
    /// Those of the verb; `Conflict` when others were first for too long.
    pub async fn write<T, F>(&self, verb: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(Self, &'c mut D::Connection) -> BoxFuture<'c, sqlx::Result<T>>
            + Send
            + Sync
            + 'static,
    {
        self.run_owned(Extent::Transaction, verb).await
    }

    /// Runs a verb that is one statement ([`super::statement::Sql::alone`]), which is its own
    /// transaction and may be repeated.
    ///
    /// # Errors
    /// As [`SqlStore::write`].
    pub async fn statement<T, F>(&self, verb: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(Self, &'c mut D::Connection) -> BoxFuture<'c, sqlx::Result<T>>
            + Send
            + Sync
            + 'static,
    {
        self.run_owned(Extent::Statement, verb).await
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
            let mut conflicts = Conflicts::new();
            // Every pooled connection may have died meanwhile.
            let mut stale = 1 + store.0.write.options().get_max_connections();
            loop {
                let tried = match extent {
                    Extent::Transaction => store.try_transaction(&verb).await,
                    Extent::Statement => store.try_statement(&verb).await,
                };
                let error = match tried {
                    Ok(value) => return Ok(value),
                    Err(error) => error,
                };
                match D::kind(&error) {
                    Kind::Conflict if conflicts.pause().await => {}
                    Kind::Conflict => {
                        return Err(Error::conflict(Cause::of(error.to_string(), error)));
                    }
                    Kind::StaleConnection if extent == Extent::Statement && stale > 0 => stale -= 1,
                    Kind::StaleConnection | Kind::Other => return Err(store.failed(error).await),
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
        let mut tx = self.open(Access::Write).await?;
        match verb(self.clone(), tx.conn()?).await {
            Ok(value) => tx.close().await.map(|()| value),
            Err(error) => {
                // A script may have left its transaction open.
                if D::SCRIPTS {
                    tx.rollback().await;
                }
                Err(error)
            }
        }
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

    /// Runs a verb that reads. It is repeated as long as its connection turns out to be dead, and
    /// up to twice after a conflict.
    ///
    /// # Errors
    /// Those of the verb.
    pub async fn read<T, F>(&self, verb: F) -> Result<T>
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
            // Every pooled connection may have died meanwhile.
            let mut stale = 1 + store.0.read.options().get_max_connections();
            loop {
                let mut tx = match store.open(Access::Read).await {
                    Ok(tx) => tx,
                    Err(error) => return Err(store.failed(error).await),
                };
                match verb(store.clone(), tx.conn().map_err(D::error)?).await {
                    // What was read is read, however its transaction ends.
                    Ok(value) => {
                        let _ = tx.close().await;
                        return Ok(value);
                    }
                    Err(error) => match D::kind(&error) {
                        Kind::StaleConnection if stale > 0 => stale -= 1,
                        Kind::Conflict if tries < 2 => tries += 1,
                        _ => return Err(store.failed(error).await),
                    },
                }
            }
        })
        .await
    }
}

/// Applies a slice as a whole if possible. If one item spoils it, the items are applied one by one.
pub(super) async fn each<I, T, Fut>(items: &[I], whole: impl Fn(Arc<[I]>) -> Fut) -> Each<T>
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
