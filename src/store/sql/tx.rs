//! A transaction that cannot be left half way.
//!
//! sqlx's own `begin` is not cancel-safe. A future dropped at the wrong moment returns a connection
//! to the pool with a transaction open, and the next user's work is rolled back with it. Here a
//! connection returns to the pool only after COMMIT or ROLLBACK has answered. In every other case,
//! including a dropped future, it is closed, and the database rolls back by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Pool;
use sqlx::pool::PoolConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::driver::{Driver, Kind};

/// How long a connection is kept at most. Then it returns to the pool, which checks its age and
/// whether it is alive.
const AT_HAND_MAX: Duration = Duration::from_secs(60);

/// A few idle connections, kept outside the pool for immediate reuse. The pool pings each
/// connection that returns, in a task of its own. Under load that is one message and one wake-up
/// per statement, and a dead connection is noticed anyway when it is used.
pub struct IdleConnections<D: Driver> {
    most: usize,
    /// Who may use the only connection of a pool that has just one: while it is kept here, nobody
    /// who waits for the pool would be told.
    turns: Option<Arc<Semaphore>>,
    kept: Mutex<Option<Vec<IdleConnection<D>>>>,
}

struct IdleConnection<D: Driver> {
    conn: PoolConnection<D>,
    since: Instant,
}

impl<D: Driver> IdleConnections<D> {
    /// Keeps at most `most` connections of a pool; with 0 each one goes back at once.
    pub fn new(most: usize, pool: &Pool<D>) -> Self {
        let is_single = most > 0 && pool.options().get_max_connections() == 1;
        let turns = is_single.then(|| Arc::new(Semaphore::new(1)));
        Self { most, turns, kept: Mutex::new(Some(Vec::with_capacity(most))) }
    }

    async fn turn(&self) -> sqlx::Result<Option<OwnedSemaphorePermit>> {
        match &self.turns {
            None => Ok(None),
            Some(turns) => {
                let turn = Arc::clone(turns).acquire_owned().await;
                turn.map(Some).map_err(|_| sqlx::Error::PoolClosed)
            }
        }
    }

    fn take(&self) -> Option<IdleConnection<D>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.pop()
    }

    /// Keeps an idle connection, or returns it to its pool: if enough are kept, if it is old, or if
    /// somebody may be waiting for the pool.
    fn put(&self, kept: IdleConnection<D>, pool: &Pool<D>) {
        let has_room = self.turns.is_some()
            || pool.size() < pool.options().get_max_connections()
            || pool.num_idle() > 0;
        if has_room
            && kept.since.elapsed() < AT_HAND_MAX
            && let Some(all) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
            && all.len() < self.most
        {
            all.push(kept);
        }
    }

    /// How many connections are kept at the moment. The pool counts them as in use.
    pub fn count(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, Vec::len)
    }

    /// Returns the kept connections to the pool, for who uses the pool directly.
    pub fn release(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.as_mut() {
            kept.clear();
        }
    }

    /// Returns the kept connections to the pool and keeps none from now on.
    pub fn close(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// An open transaction, or a connection for statements that stand alone.
pub struct Tx<D: Driver> {
    kept: Option<IdleConnection<D>>,
    is_open: bool,
    pool: Pool<D>,
    at_hand: Arc<IdleConnections<D>>,
    /// Given back last, when the connection is at hand again.
    _turn: Option<OwnedSemaphorePermit>,
}

impl<D: Driver> Tx<D> {
    async fn take(
        pool: &Pool<D>,
        at_hand: &Arc<IdleConnections<D>>,
        is_open: bool,
    ) -> sqlx::Result<Self> {
        let turn = at_hand.turn().await?;
        let kept = match at_hand.take() {
            Some(kept) => kept,
            None => IdleConnection { conn: pool.acquire().await?, since: Instant::now() },
        };
        let at_hand = Arc::clone(at_hand);
        Ok(Self { kept: Some(kept), is_open, pool: pool.clone(), at_hand, _turn: turn })
    }

    /// Returns the connection, which has no transaction open.
    fn give_back(&mut self) {
        if let Some(kept) = self.kept.take() {
            self.at_hand.put(kept, &self.pool);
        }
    }

    /// Takes a connection and begins a transaction. A pooled connection that turns out to be dead
    /// is replaced, since nothing was done on it yet.
    ///
    /// # Errors
    /// No connection can be had, or the transaction cannot begin.
    pub async fn begin(
        pool: &Pool<D>,
        at_hand: &Arc<IdleConnections<D>>,
        text: &'static str,
    ) -> sqlx::Result<Self> {
        let mut tries = pool.options().get_max_connections() + 1;
        loop {
            let mut tx = Self::take(pool, at_hand, true).await?;
            match D::plain(tx.conn()?, text).await {
                Ok(()) => return Ok(tx),
                Err(error) if tries > 0 && D::kind(&error) == Kind::StaleConnection => tries -= 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes a connection without beginning a transaction, for statements that stand alone. It
    /// returns to the pool only through `close`.
    ///
    /// # Errors
    /// No connection can be had.
    pub async fn plain(pool: &Pool<D>, at_hand: &Arc<IdleConnections<D>>) -> sqlx::Result<Self> {
        Self::take(pool, at_hand, false).await
    }

    /// Returns the connection. An open transaction is committed first.
    ///
    /// # Errors
    /// As [`Tx::commit`].
    pub async fn close(mut self) -> sqlx::Result<()> {
        if self.is_open {
            return self.commit().await;
        }
        self.give_back();
        Ok(())
    }

    /// The connection to run statements on.
    ///
    /// # Errors
    /// The transaction has ended, which cannot happen before `commit` or `rollback` consumed it.
    pub fn conn(&mut self) -> sqlx::Result<&mut D::Connection> {
        match &mut self.kept {
            Some(kept) => Ok(&mut *kept.conn),
            None => Err(sqlx::Error::PoolClosed),
        }
    }

    /// Commits and returns the connection.
    ///
    /// # Errors
    /// Whether it was committed is not known; the connection is closed.
    pub async fn commit(mut self) -> sqlx::Result<()> {
        D::plain(self.conn()?, "COMMIT").await?;
        self.give_back();
        Ok(())
    }

    /// Rolls back and returns the connection; closes it if that fails.
    pub async fn rollback(mut self) {
        if let Ok(conn) = self.conn()
            && D::plain(conn, "ROLLBACK").await.is_ok()
        {
            self.give_back();
        }
    }
}

impl<D: Driver> Drop for Tx<D> {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take() {
            // Detached and dropped: the socket closes now, and the pool may open another.
            drop(kept.conn.detach());
        }
    }
}
