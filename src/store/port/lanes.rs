//! Lanes: settings, pauses, backlogs.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::model::{Lane, LaneId, LaneSpec, Timestamp};
use crate::store::error::Result;

/// Reads and changes lanes: their settings, pauses and backlogs.
#[async_trait]
pub trait Lanes: Send + Sync {
    /// Stores the settings of lanes from the configuration. The state of existing lanes stays:
    /// breaker, pause, tokens and turn.
    async fn upsert_lanes(&self, specs: &[LaneSpec]) -> Result<()>;
    /// Every lane that was ever written, in the order of ids, including lanes that the
    /// configuration no longer names.
    async fn lanes(&self) -> Result<Vec<Lane>>;
    /// For each lane with due jobs, since when the oldest of them has been due.
    async fn backlog(&self) -> Result<BTreeMap<LaneId, Timestamp>>;
    /// Pauses or resumes a lane; false when it does not exist. Resuming a lane whose breaker is
    /// open lets one probe through at once.
    async fn pause(&self, lane: &LaneId, paused: bool) -> Result<bool>;
    /// How many open jobs each of these lanes has. Lanes without any are left out.
    async fn open_jobs(&self, lanes: &[LaneId]) -> Result<BTreeMap<LaneId, u64>>;
    /// Moves waiting deliveries from one handler to another, at most `most` in one call, and a
    /// pause of the old lane with them. Leased ones are left where they are until their lease ends.
    /// Answers how many were moved.
    async fn rename(&self, from: &str, to: &str, most: u32) -> Result<u64>;
}
