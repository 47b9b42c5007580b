//! First floor: telling a worker that there is something to do.
//!
//! A wake-up is a hint: lost, repeated or late, it changes nothing but speed, since rows are the truth and workers look
//! for themselves.
//!
//! - [`local`]: between the tasks of one process; [`postgres`]: between processes on one database
//! - [`sqs`]: to whoever reads a queue, functions above all

pub mod local;
pub mod postgres;
#[cfg(feature = "lambda")]
pub mod sqs;

use std::time::Duration;

use async_trait::async_trait;

use crate::model::JobId;

/// Work that is due, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wakeup {
    /// The job; `None`: some work, whatever a look finds.
    pub job: Option<JobId>,
    /// How long until it is due.
    pub after: Duration,
    /// Whoever tells of it goes on with it by itself, if there is time; others need not be sent for.
    pub here: bool,
}

impl Wakeup {
    /// There is some work now.
    pub const LOOK: Self = Self { job: None, after: Duration::ZERO, here: false };

    /// A job is due after this time.
    pub fn of(job: JobId, after: Duration) -> Self {
        Self { job: Some(job), after, here: false }
    }
}

/// Tells workers, and lets them wait.
#[async_trait]
pub trait Wake: Send + Sync {
    /// Tells of work that is committed. What cannot be told is not an error: workers, or the next tick, find it.
    async fn wake(&self, due: &[Wakeup]);

    /// Waits until a wake-up came since the last return, or for `at_most`.
    async fn woken(&self, at_most: Duration);

    /// How far ahead a tick looks for work to tell of; `None` where workers look for themselves all the time.
    fn horizon(&self) -> Option<Duration> {
        None
    }
}
