//! Due jobs: claims, leases, outcomes, and what operators do with jobs.

use std::time::Duration;

use async_trait::async_trait;

use super::Each;
use crate::decide::fair::Slots;
use crate::decide::settle::JobOutcome;
use crate::model::{Job, JobId, JobState, LaneId, Lease, Timestamp};
use crate::store::error::Result;

/// A worker's request for jobs.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The worker's free slots. No more jobs are claimed than can start at once.
    pub slots: Slots,
    /// How long the lease lasts unless it is extended.
    pub lease: Duration,
    /// Lanes this worker leaves out for now.
    pub skip: Vec<LaneId>,
    /// Lanes this worker does not serve. They are put off, so that they do not come up at every
    /// claim; another worker may serve them.
    pub unserved: Vec<LaneId>,
    /// Only these jobs, if they are due; empty means any job that is due.
    pub only: Vec<JobId>,
}

/// A job that a worker now holds under a lease.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The job. Its `claim` is the fencing token of the new lease.
    pub job: Job,
    /// The database's clock at the claim.
    pub now: Timestamp,
    /// Whether the lane's breaker was clean at the claim: no failures, no ramp. A success then
    /// changes nothing and need not be recorded on the lane.
    pub lane_clean: bool,
}

/// Which jobs an operator wants to retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retry {
    /// This job, if it is dead or cancelled.
    One(JobId),
    /// All dead messages of a queue, by its name.
    Queue(String),
    /// All jobs in this state, of every handler or of one. Each becomes due now, with a fresh
    /// attempt budget.
    All {
        /// `Dead`, or `Pending` for jobs that wait for a retry. A pending job that was never tried
        /// is left alone.
        state: JobState,
        /// Only jobs of this handler, by its name; `None` is every handler.
        handler: Option<String>,
    },
}

/// Lets workers claim due jobs, extend their leases and record outcomes. Also retries, cancels and
/// expires jobs.
#[async_trait]
pub trait Work: Send + Sync {
    /// Claims due jobs under lease; tenants and their lanes take turns. The transaction is short,
    /// and committed before this returns.
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>>;
    /// Moves the end of leases to `by` from now. `LeaseLost` for a lease that is over.
    async fn extend(&self, leases: &[Lease], by: Duration) -> Each<()>;
    /// Marks that a send is about to begin under this lease. False when the lease is over. The
    /// engine asks only for jobs whose workers have died before: the mark tells a job that kills
    /// its worker from one that never got as far as sending.
    async fn begin_send(&self, lease: Lease) -> Result<bool>;
    /// Records outcomes. Attempt, job, lane and run change together for each one, or not at all.
    async fn record(&self, outcomes: &[JobOutcome]) -> Each<()>;
    /// Ends every lease of a worker now. Only safe for a store that no other process can use, at
    /// its start.
    async fn reclaim(&self) -> Result<u64>;
    /// Makes jobs due again with a fresh attempt budget: one dead or cancelled job, or all jobs in
    /// a state. Answers how many.
    async fn retry(&self, which: &Retry) -> Result<u64>;
    /// Cancels an open job. False when it is finished already or does not exist.
    async fn cancel(&self, job: JobId) -> Result<bool>;
    /// Cancels open deliveries of a handler, at most `most` in one call. Answers how many.
    async fn cancel_handler_jobs(&self, handler: &str, most: u32) -> Result<u64>;
    /// Marks pending jobs whose time to live has passed as dead, at most `most` in one call.
    /// Answers these jobs.
    async fn expire(&self, most: u32) -> Result<Vec<Job>>;
}
