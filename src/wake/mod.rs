//! First floor: wake-ups, which tell workers that there is work.
//!
//! A wake-up is a hint. If it is lost, repeated or late, work is only slower: the rows in the
//! database are the truth, and workers look for work themselves.
//!
//! - [`local`]: between the tasks of one process; [`postgres`]: between processes on one database
//! - [`sqs`]: messages for workers that read a queue, functions above all

pub mod local;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "lambda")]
pub mod sqs;

use std::time::Duration;

use async_trait::async_trait;

use crate::model::JobId;

/// One piece of work that is due, now or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wakeup {
    /// The job; `None` for any work that a worker finds when it looks.
    pub job: Option<JobId>,
    /// How long until it is due; zero if it is due now.
    pub after: Duration,
    /// Whether the caller will continue with this job itself, so that no other worker needs a
    /// message.
    pub here: bool,
}

impl Wakeup {
    /// Some work is due now.
    pub const LOOK: Self = Self { job: None, after: Duration::ZERO, here: false };

    /// This job is due after this time.
    pub fn of(job: JobId, after: Duration) -> Self {
        Self { job: Some(job), after, here: false }
    }
}

/// Sends wake-ups to workers, and lets workers wait for them.
#[async_trait]
pub trait Wake: Send + Sync {
    /// Announces work that is committed. A failure is not an error: workers, or the next tick, find
    /// the work anyway.
    async fn wake(&self, due: &[Wakeup]);

    /// Waits until a wake-up arrives (or has arrived since the last call), for at most `at_most`.
    async fn woken(&self, at_most: Duration);

    /// Announces to other processes that pull queues have new messages. As with [`Wake::wake`], a
    /// failure is not an error: consumers look once a second.
    async fn messages_arrived(&self) {}

    /// Waits until another process announces messages; forever, where nothing can be heard.
    async fn messages_elsewhere(&self) {
        std::future::pending().await
    }

    /// How far ahead a tick looks for work to announce; `None` if workers poll by themselves all
    /// the time.
    fn horizon(&self) -> Option<Duration> {
        None
    }
}
