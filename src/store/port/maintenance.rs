//! The schema, retention, health checks and figures about the database.

use async_trait::async_trait;

use super::Rejection;
use crate::model::{EventId, LaneId, OldestKept, Retention, Timestamp};
use crate::store::error::Result;

/// Which housekeeping verbs have anything to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chores {
    /// [`super::Work::expire`] has jobs to mark as dead.
    pub expire: bool,
    /// [`Maintenance::prune`] has events that are old enough to be deleted, or gates that are no
    /// longer used.
    pub prune: bool,
    /// [`Maintenance::forget_keys`] has keys that have expired.
    pub forget: bool,
}

/// Migrations, retention, health checks and figures about the database.
#[async_trait]
pub trait Maintenance: Send + Sync {
    /// Brings the schema up to date. Safe when two processes start at once.
    async fn migrate(&self) -> Result<()>;
    /// How many migrations the schema lacks; 0 when it is up to date or newer than this version.
    async fn missing_migrations(&self) -> Result<usize>;
    /// The database's clock. Also the cheapest check that the database answers.
    async fn now(&self) -> Result<Timestamp>;
    /// Writes a dummy row of this many bytes and answers the database's clock. It shows whether an
    /// event of that size could be stored now.
    async fn write_check(&self, bytes: usize) -> Result<Timestamp>;
    /// Adds to the counts of refused requests, per source and reason.
    async fn reject(&self, rejections: &[Rejection]) -> Result<()>;
    /// The oldest deliveries that the counts of the retention keep.
    async fn oldest_kept(&self, retention: &Retention) -> Result<OldestKept>;
    /// Deletes events whose work is past its retention, with their jobs, attempts and runs: all of
    /// it has ended, and no workflow keeps a run longer. Looks at `most` events, starting after
    /// `from`, in the order of their ids, which is that of time. Answers how many were deleted,
    /// and where to continue; `None` once the next event is too young.
    async fn prune(
        &self,
        retention: &Retention,
        kept: &OldestKept,
        from: Option<EventId>,
        most: u32,
    ) -> Result<(u64, Option<EventId>)>;
    /// Finds out in one query which chores may have anything to do. The retention is that for
    /// [`Maintenance::prune`].
    async fn chores(&self, retention: &Retention) -> Result<Chores>;
    /// Has lanes looked at that have due work and that no claim would look at, of a page of `most`
    /// lanes behind `from`. There are none unless an older version works on the same database.
    /// Answers how many there were, and where to continue (`None` at the end).
    async fn sweep_lanes(&self, from: Option<LaneId>, most: u32) -> Result<(u64, Option<LaneId>)>;
    /// Deletes keys that have expired, at most `most` in one call. Answers how many.
    async fn forget_keys(&self, most: u32) -> Result<u64>;
    /// How many slices of the same verb are worth committing at the same time.
    fn writers(&self) -> usize;
    /// Open connections, and how many of them are idle. `None` for a store without connections.
    fn connections(&self) -> Option<(u32, u32)>;
    /// Version and similar facts about the database, for people.
    async fn about(&self) -> Result<Vec<String>>;
    /// Warnings about database settings that put durability or progress at risk, one sentence each.
    async fn weaknesses(&self) -> Result<Vec<String>>;
    /// Finishes running work and closes the connections.
    async fn close(&self);
}
