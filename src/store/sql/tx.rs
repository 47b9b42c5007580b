//! A transaction that cannot be left half way.
//!
//! sqlx's own `begin` is not cancel-safe: a future that is dropped at the wrong moment returns a
//! connection to the pool with a transaction open, and the next user's work is rolled back with it.
//! Here a connection goes back to the pool only after COMMIT or ROLLBACK has answered; in every other
//! case, a dropped future included, it is closed, and the database rolls back by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Pool;
use sqlx::pool::PoolConnection;

use super::dialect::Dialect;

/// A connection is kept at hand no longer than this: then the pool looks at its age, and whether it lives.
const AT_HAND_MAX: Duration = Duration::from_secs(60);

/// A few connections that are at rest. The pool asks each that comes back whether it lives, in a task of its own; under load that is
/// a message and a wake-up for each statement, and whoever takes a dead connection notices all the same.
pub struct AtHand<D: Dialect> {
    most: usize,
    kept: Mutex<Option<Vec<Kept<D>>>>,
}

struct Kept<D: Dialect> {
    conn: PoolConnection<D>,
    since: Instant,
}

impl<D: Dialect> AtHand<D> {
    /// Keeps at most so many.
    pub fn new(most: usize) -> Self {
        Self { most, kept: Mutex::new(Some(Vec::with_capacity(most))) }
    }

    fn take(&self) -> Option<Kept<D>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.pop()
    }

    /// Keeps a connection that is at rest, or gives it back to its pool: where enough are kept, where it is old, and where somebody may
    /// wait for the pool to have one.
    fn put(&self, kept: Kept<D>, pool: &Pool<D>) {
        let has_room = pool.size() < pool.options().get_max_connections() || pool.num_idle() > 0;
        if has_room
            && kept.since.elapsed() < AT_HAND_MAX
            && let Some(all) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
            && all.len() < self.most
        {
            all.push(kept);
        }
    }

    /// How many are kept.
    pub fn count(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, Vec::len)
    }

    /// Gives them back, and keeps none any more.
    pub fn close(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// An open transaction, or a connection for statements that stand alone.
pub struct Tx<D: Dialect> {
    kept: Option<Kept<D>>,
    is_open: bool,
    pool: Pool<D>,
    at_hand: Arc<AtHand<D>>,
}

impl<D: Dialect> Tx<D> {
    async fn take(pool: &Pool<D>, at_hand: &Arc<AtHand<D>>, is_open: bool) -> sqlx::Result<Self> {
        let kept = match at_hand.take() {
            Some(kept) => kept,
            None => Kept { conn: pool.acquire().await?, since: Instant::now() },
        };
        Ok(Self { kept: Some(kept), is_open, pool: pool.clone(), at_hand: Arc::clone(at_hand) })
    }

    /// Gives the connection back: it is at rest.
    fn give_back(&mut self) {
        if let Some(kept) = self.kept.take() {
            self.at_hand.put(kept, &self.pool);
        }
    }

    /// Takes a connection and begins. A pooled connection that turns out to be dead is replaced: nothing
    /// was done on it yet.
    ///
    /// # Errors
    /// No connection can be had.
    pub async fn begin(pool: &Pool<D>, at_hand: &Arc<AtHand<D>>, text: &'static str) -> sqlx::Result<Self> {
        let mut tries = pool.options().get_max_connections() + 1;
        loop {
            let mut tx = Self::take(pool, at_hand, true).await?;
            match D::plain(tx.conn()?, text).await {
                Ok(()) => return Ok(tx),
                Err(error) if tries > 0 && D::is_stale_connection(&error) => tries -= 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes a connection without beginning: for statements that stand alone. Like a transaction, it goes back
    /// to the pool only when it is known to be at rest.
    ///
    /// # Errors
    /// No connection can be had.
    pub async fn plain(pool: &Pool<D>, at_hand: &Arc<AtHand<D>>) -> sqlx::Result<Self> {
        Self::take(pool, at_hand, false).await
    }

    /// Gives the connection back, after a commit where one is open.
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

    /// The connection.
    ///
    /// # Errors
    /// The transaction has ended, which cannot happen before `commit` or `rollback` consumed it.
    pub fn conn(&mut self) -> sqlx::Result<&mut D::Connection> {
        match &mut self.kept {
            Some(kept) => Ok(&mut *kept.conn),
            None => Err(sqlx::Error::PoolClosed),
        }
    }

    /// Commits and gives the connection back.
    ///
    /// # Errors
    /// Whether it was committed is not known; the connection is closed.
    pub async fn commit(mut self) -> sqlx::Result<()> {
        D::plain(self.conn()?, "COMMIT").await?;
        self.give_back();
        Ok(())
    }

    /// Rolls back and gives the connection back, or closes it.
    pub async fn rollback(mut self) {
        if let Ok(conn) = self.conn()
            && D::plain(conn, "ROLLBACK").await.is_ok()
        {
            self.give_back();
        }
    }
}

impl<D: Dialect> Drop for Tx<D> {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take() {
            // Detached and dropped: the socket closes now, and the pool may open another.
            drop(kept.conn.detach());
        }
    }
}
