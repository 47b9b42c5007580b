//! Announcing due jobs to workers that do not look for them themselves.

use std::time::Duration;

use async_trait::async_trait;

use crate::model::JobId;
use crate::store::error::Result;

/// Once work has been due for this long it is announced again, even if it was announced before: an
/// announcement can get lost.
pub const OVERDUE: Duration = Duration::from_secs(5);

/// A job to announce to workers, and when it can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HintedJob {
    /// The job to announce to workers.
    pub job: JobId,
    /// How long until it can start; zero if it can start now.
    pub after: Duration,
}

/// Finds work to announce to workers that do not look for it themselves, such as functions.
#[async_trait]
pub trait Hints: Send + Sync {
    /// Finds jobs that can start within `horizon` and were not announced for that time, and jobs
    /// that have been due for [`OVERDUE`] despite an announcement. Marks them as announced. At most
    /// `most`, the earliest first.
    async fn hints(&self, horizon: Duration, most: u32) -> Result<Vec<HintedJob>>;
    /// Whether any lane that is neither paused nor held back by its breaker has due jobs.
    async fn has_due_work(&self) -> Result<bool>;
}
