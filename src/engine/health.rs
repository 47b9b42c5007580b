//! Whether the store answers. Learnt from every verb, so that an outage is known with the first failure
//! and its end with the first success.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Engine;
use crate::observe::metrics;
use crate::store::{Error, Result};

/// What the last verbs said.
#[derive(Debug, Default)]
pub struct Health {
    /// The store was migrated and prepared.
    is_prepared: AtomicBool,
    is_down: AtomicBool,
    is_full: AtomicBool,
}

impl Health {
    /// Whether the store is prepared and answers.
    pub fn is_up(&self) -> bool {
        self.is_prepared() && !self.is_down.load(Ordering::Relaxed)
    }

    /// Whether the store is prepared.
    pub fn is_prepared(&self) -> bool {
        self.is_prepared.load(Ordering::Relaxed)
    }

    /// The store is prepared.
    pub(super) fn set_prepared(&self) {
        self.is_prepared.store(true, Ordering::Relaxed);
    }

    /// Whether the store said that it is full.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Learns from a verb's answer, and passes it on.
    pub fn learn<T>(&self, answer: Result<T>) -> Result<T> {
        match &answer {
            Err(Error::Down(why)) => {
                metrics::database_error();
                self.set_down(why);
            }
            Err(Error::Full(why)) => {
                metrics::database_error();
                if !self.is_full.swap(true, Ordering::Relaxed) {
                    tracing::error!(%why, "The database is full; nothing is accepted until there is room.");
                }
            }
            _ => {
                if self.is_down.swap(false, Ordering::Relaxed) {
                    tracing::info!("The database can be used again.");
                }
            }
        }
        answer
    }

    /// Something new was stored.
    pub fn set_has_room(&self) {
        if self.is_full.load(Ordering::Relaxed) && self.is_full.swap(false, Ordering::Relaxed) {
            tracing::info!("The database has room again.");
        }
    }

    /// The store did not answer in time.
    pub fn set_down(&self, why: &str) {
        if !self.is_down.swap(true, Ordering::Relaxed) {
            tracing::error!(why, "The database cannot be used; requests get 503 until it can.");
        }
    }
}

impl Engine {
    /// Asks the store whether it is there, and learns from the answer.
    ///
    /// # Errors
    /// It is not.
    pub async fn probe(&self) -> Result<crate::model::Timestamp> {
        self.0.health.learn(self.store().now().await)
    }
}
