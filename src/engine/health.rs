//! Tracks whether the database can be used. Every call of the store updates it, so an outage is
//! known from the first failure and its end from the first success.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::model::Timestamp;
use crate::observe::metrics;
use crate::store::{Error, Result};

/// How long the result of a probe is reused. Several load balancers may probe at once, and the
/// database sees one write a second.
const PROBE_AGE_MAX: Duration = Duration::from_secs(1);

/// What the latest calls of the store have shown.
#[derive(Debug, Default)]
pub struct Health {
    /// Migrations are done and [`Engine::prepare`] has succeeded.
    is_prepared: AtomicBool,
    is_down: AtomicBool,
    /// Why the store takes no writes, as [`NoWrites`]; 0 while it takes them. Reads prove nothing
    /// here, so only a successful write resets it.
    no_writes: AtomicU8,
    probed: tokio::sync::Mutex<Option<(Instant, Timestamp)>>,
}

/// Why a store that answers takes no writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoWrites {
    /// It has no room for further rows.
    Full = 1,
    /// It is read-only: a replica, or configured so.
    ReadOnly = 2,
}

impl NoWrites {
    /// A stable name for the reason, for machine-readable output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ReadOnly => "read_only",
        }
    }
}

impl fmt::Display for NoWrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the database is full",
            Self::ReadOnly => "the database is read-only",
        })
    }
}

impl Health {
    /// Whether the store is prepared and answered the last call.
    pub fn is_up(&self) -> bool {
        self.is_prepared() && !self.is_down.load(Ordering::Relaxed)
    }

    /// Whether [`Engine::prepare`] has succeeded. Events are refused before that.
    pub fn is_prepared(&self) -> bool {
        self.is_prepared.load(Ordering::Relaxed)
    }

    /// Marks the store as prepared; events are refused before that.
    pub(super) fn set_prepared(&self) {
        self.is_prepared.store(true, Ordering::Relaxed);
    }

    /// Why the store takes no writes; `None` while it takes them.
    pub fn no_writes(&self) -> Option<NoWrites> {
        [NoWrites::Full, NoWrites::ReadOnly]
            .into_iter()
            .find(|why| *why as u8 == self.no_writes.load(Ordering::Relaxed))
    }

    /// Updates the health from the result of a store call, and returns that result unchanged.
    pub fn learn<T>(&self, answer: Result<T>) -> Result<T> {
        match &answer {
            Err(Error::Down(why)) => {
                metrics::database_error();
                self.set_down(&why.to_string());
            }
            Err(Error::Full(why)) => self.set_no_writes(NoWrites::Full, &why.to_string()),
            Err(Error::ReadOnly(why)) => self.set_no_writes(NoWrites::ReadOnly, &why.to_string()),
            _ => {
                if self.is_down.swap(false, Ordering::Relaxed) {
                    tracing::info!("The database is available again.");
                }
            }
        }
        answer
    }

    fn set_no_writes(&self, no_writes: NoWrites, why: &str) {
        metrics::database_error();
        if self.no_writes.swap(no_writes as u8, Ordering::Relaxed) != no_writes as u8 {
            tracing::error!(%why, "The database does not accept writes: {no_writes}. New events \
                get 503 until it does.");
        }
    }

    /// Records a successful write: from now on the store counts as writable again.
    pub fn set_written(&self) {
        if self.no_writes.load(Ordering::Relaxed) != 0
            && self.no_writes.swap(0, Ordering::Relaxed) != 0
        {
            tracing::info!("The database accepts writes again.");
        }
    }

    /// Records that the store did not answer. `why` goes to the log, once per outage.
    pub fn set_down(&self, why: &str) {
        if !self.is_down.swap(true, Ordering::Relaxed) {
            tracing::error!(why, "The database is unavailable. Requests get 503 until it is back.");
        }
    }
}

impl Engine {
    /// Asks the database for its time, as the cheapest test that it answers.
    ///
    /// # Errors
    /// It did not answer.
    pub async fn ask(&self) -> Result<Timestamp> {
        self.0.health.learn(self.store().now().await)
    }

    /// Tests whether an event could be stored, by writing a row. Returns the database's time. While
    /// all is well it writes at most once a second, however many callers ask.
    ///
    /// # Errors
    /// The write failed.
    pub async fn write_check(&self) -> Result<Timestamp> {
        let health = &self.0.health;
        let mut probed = health.probed.lock().await;
        if let Some((at, now)) = *probed
            && at.elapsed() < PROBE_AGE_MAX
            && health.is_up()
            && health.no_writes().is_none()
        {
            return Ok(now.plus(at.elapsed()));
        }
        *probed = None;
        // A database that was full counts as recovered only when the largest event fits. Otherwise
        // readiness would flap.
        let bytes = if health.no_writes() == Some(NoWrites::Full) {
            self.config().server.body_bytes_max
        } else {
            0
        };
        let now = health.learn(self.store().write_check(bytes).await)?;
        health.set_written();
        *probed = Some((Instant::now(), now));
        Ok(now)
    }
}
