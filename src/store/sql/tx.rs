//! A transaction that cannot be left half way.
//!
//! sqlx's own `begin` is not cancel-safe: a future that is dropped at the wrong moment returns a
//! connection to the pool with a transaction open, and the next user's work is rolled back with it.
//! Here a connection goes back to the pool only after COMMIT or ROLLBACK has answered; in every other
//! case, a dropped future included, it is closed, and the database rolls back by itself.

use sqlx::Pool;
use sqlx::pool::PoolConnection;

use super::dialect::Dialect;

/// An open transaction, or a connection for statements that stand alone.
pub struct Tx<D: Dialect>(Option<PoolConnection<D>>, bool);

impl<D: Dialect> Tx<D> {
    /// Takes a connection and begins. A pooled connection that turns out to be dead is replaced: nothing
    /// was done on it yet.
    ///
    /// # Errors
    /// No connection can be had.
    pub async fn begin(pool: &Pool<D>, text: &'static str) -> sqlx::Result<Self> {
        let mut tries = pool.options().get_max_connections() + 1;
        loop {
            let mut tx = Self(Some(pool.acquire().await?), true);
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
    pub async fn plain(pool: &Pool<D>) -> sqlx::Result<Self> {
        pool.acquire().await.map(|conn| Self(Some(conn), false))
    }

    /// Gives the connection back, after a commit where one is open.
    ///
    /// # Errors
    /// As [`Tx::commit`].
    pub async fn close(mut self) -> sqlx::Result<()> {
        if self.1 {
            return self.commit().await;
        }
        self.0.take();
        Ok(())
    }

    /// The connection.
    ///
    /// # Errors
    /// The transaction has ended, which cannot happen before `commit` or `rollback` consumed it.
    pub fn conn(&mut self) -> sqlx::Result<&mut D::Connection> {
        match &mut self.0 {
            Some(conn) => Ok(&mut **conn),
            None => Err(sqlx::Error::PoolClosed),
        }
    }

    /// Commits and gives the connection back.
    ///
    /// # Errors
    /// Whether it was committed is not known; the connection is closed.
    pub async fn commit(mut self) -> sqlx::Result<()> {
        D::plain(self.conn()?, "COMMIT").await?;
        self.0.take();
        Ok(())
    }

    /// Rolls back and gives the connection back, or closes it.
    pub async fn rollback(mut self) {
        if let Ok(conn) = self.conn()
            && D::plain(conn, "ROLLBACK").await.is_ok()
        {
            self.0.take();
        }
    }
}

impl<D: Dialect> Drop for Tx<D> {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            // Detached and dropped: the socket closes now, and the pool may open another.
            drop(conn.detach());
        }
    }
}
