//! A job: a unit of work with a due time, stored as one row.

use std::fmt;
use std::str::FromStr;

use super::id::{EventId, JobId};
use super::target::Target;
use super::time::Timestamp;

/// The state of a job in its life cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Waits for its due time.
    Pending,
    /// A worker holds it until its due time, which is the end of the lease.
    Leased,
    /// Finished. A delivery succeeded; a job of a run did its part, even if its step failed.
    Done,
    /// Given up. `last_error` has the reason.
    Dead,
    /// Cancelled by an operator, or because its run no longer needs it.
    Cancelled,
}

impl JobState {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Leased, Self::Done, Self::Dead, Self::Cancelled];

    /// The word that the database stores. The API and the command line show finer states, such as
    /// `retryable` and `parked` for `pending`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Leased => "leased",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JobState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| format!("unknown job state `{text}`"))
    }
}

/// The start of `last_error` for a job that cannot run as things stand, because its handler or
/// definition is missing.
pub const PARKED_PREFIX: &str = "parked: ";

/// The right to record a job's outcome. It is lost when the job is claimed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job that is leased.
    pub job: JobId,
    /// How often the job had been claimed when the lease began. This number is the fencing token.
    pub claim: i64,
}

/// A job to be stored together with the event that causes it.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The job's id, made before it is stored, so that a repeated commit stores it once.
    pub id: JobId,
    /// Who the job is for: a handler, a workflow to start, or a visit of a run. It also decides the
    /// lane that the job waits in.
    pub target: Target,
    /// The consumer's idempotency key, as `(scope, key)`. If the key was seen before, the job is
    /// not stored.
    pub key: Option<(String, String)>,
    /// When it becomes due; `None` is at once. An instant that has passed is at once, too.
    pub due: Option<Timestamp>,
    /// Whether the process that stores the job can start it at once. The commit then leases it, if
    /// its lane allows that.
    pub start: bool,
}

/// A job as read from the store or as claimed.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id: the same over all attempts.
    pub id: JobId,
    /// The event that caused it.
    pub event: EventId,
    /// Who the job is for: a handler, a workflow to start, or a visit of a run. It also decides the
    /// lane that the job waits in.
    pub target: Target,
    /// The state as of the time it was read. A leased job whose due time has passed can be claimed
    /// again.
    pub state: JobState,
    /// How many sends are on record, including interrupted ones.
    pub attempt: u32,
    /// How many of these were interrupted: the worker disappeared before it recorded an outcome.
    pub interrupted: u32,
    /// How many workers disappeared after they had marked the beginning of a send of this job.
    pub crashes: u32,
    /// How often it was claimed. The latest number is the fencing token of the present lease.
    pub claim: i64,
    /// When it becomes due. For a leased job: when the lease ends.
    pub due_at: Timestamp,
    /// When it was stored, by the database's clock.
    pub created_at: Timestamp,
    /// When it reached a final state, by the database's clock; `None` while it is open.
    pub finished_at: Option<Timestamp>,
    /// The last failure, for people.
    pub last_error: Option<String>,
}

impl Job {
    /// A job under its first lease, which ends at `until`, as it is when it has just been stored.
    pub fn leased(
        id: JobId,
        event: EventId,
        target: Target,
        now: Timestamp,
        until: Timestamp,
    ) -> Self {
        Self {
            id,
            event,
            target,
            state: JobState::Leased,
            attempt: 0,
            interrupted: 0,
            crashes: 0,
            claim: 1,
            due_at: until,
            created_at: now,
            finished_at: None,
            last_error: None,
        }
    }

    /// The lease this job was claimed with.
    pub fn lease(&self) -> Lease {
        Lease { job: self.id, claim: self.claim }
    }

    /// Why a waiting job was parked by the worker that had claimed it; `None` if it was not.
    /// Nothing was sent, and it is tried again later.
    pub fn parked_reason(&self) -> Option<&str> {
        let error = self.last_error.as_deref().filter(|_| self.state == JobState::Pending)?;
        error.starts_with(PARKED_PREFIX).then_some(error)
    }

    /// The attempts that count against the retry policy: real exchanges only.
    pub fn counted(&self) -> u32 {
        self.attempt.saturating_sub(self.interrupted)
    }
}
