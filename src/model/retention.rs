//! How long ended work is kept: by age and by number, apart for what ended well and what is dead.

use std::time::Duration;

use super::{JobId, JobState, RunStatus, Timestamp};

/// How long ended work of one kind is kept. Whichever limit is reached first counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// For how long after it ended.
    pub age: Duration,
    /// While fewer than so many newer deliveries exist. `None` is no limit.
    pub count: Option<u32>,
}

/// How long ended work is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Deliveries that were made or cancelled, and runs that completed or were cancelled. The count
    /// is of deliveries of every status.
    pub completed: Keep,
    /// Dead deliveries and failed runs. The count is of dead deliveries.
    pub dead: Keep,
}

impl Retention {
    /// Keeps everything for this long.
    pub fn of(age: Duration) -> Self {
        let keep = Keep { age, count: None };
        Self { completed: keep, dead: keep }
    }

    /// The shortest age at which anything may be deleted.
    pub fn shortest(&self) -> Duration {
        self.completed.age.min(self.dead.age)
    }

    /// Whether anything is kept by number.
    pub fn counts(&self) -> bool {
        self.completed.count.is_some() || self.dead.count.is_some()
    }
}

/// The oldest deliveries that the counts keep; `None` where there is no count, or where there are
/// fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OldestKept {
    /// By the count of `completed`.
    pub completed: Option<JobId>,
    /// By the count of `dead`.
    pub dead: Option<JobId>,
}

impl OldestKept {
    /// The newer of the two: nothing before it is sure to be kept.
    pub fn newest(&self) -> Option<JobId> {
        self.completed.max(self.dead)
    }
}

/// What of ended work is past its time at an instant.
#[derive(Debug, Clone, Copy)]
pub struct Past<'a> {
    /// How long ended work is kept.
    pub retention: &'a Retention,
    /// Where the counts begin to keep.
    pub kept: &'a OldestKept,
    /// The database's clock.
    pub now: Timestamp,
}

impl Past<'_> {
    /// Whether a delivery is kept. Open ones always are.
    pub fn keeps_job(&self, id: JobId, state: JobState, finished_at: Option<Timestamp>) -> bool {
        let (keep, oldest) = match state {
            JobState::Dead => (self.retention.dead, self.kept.dead),
            _ => (self.retention.completed, self.kept.completed),
        };
        let is_over_count = oldest.is_some_and(|oldest| id < oldest);
        finished_at.is_none_or(|at| at >= self.now.minus(keep.age) && !is_over_count)
    }

    /// Whether a run is kept: an open one always, and one that its workflow keeps longer.
    pub fn keeps_run(
        &self,
        status: RunStatus,
        finished_at: Option<Timestamp>,
        kept_until: Option<Timestamp>,
    ) -> bool {
        let keep = match status {
            RunStatus::Failed => self.retention.dead,
            _ => self.retention.completed,
        };
        let is_longer = kept_until.is_some_and(|until| until > self.now);
        finished_at.is_none_or(|at| at >= self.now.minus(keep.age)) || is_longer
    }
}
