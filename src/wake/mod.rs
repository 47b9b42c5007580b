//! First floor: telling a worker that there is something to do.
//!
//! A wake-up is a hint: lost, repeated or late, it changes nothing but speed, since workers look for
//! themselves every second.
//!
//! - [`local`]: between the tasks of one process; [`postgres`]: between processes on one database

pub mod local;
pub mod postgres;

use std::time::Duration;

use async_trait::async_trait;

/// Tells workers, and lets them wait.
#[async_trait]
pub trait Wake: Send + Sync {
    /// There is due work, for whoever is free.
    fn wake(&self);

    /// There will be due work after this time; for this process only.
    fn wake_after(&self, after: Duration);

    /// Waits until a wake-up came since the last return, or for `at_most`.
    async fn woken(&self, at_most: Duration);
}
