//! Parked work: jobs that wait because this process's configuration does not name their handler,
//! queue or workflow. They are kept, and reported in the log, the API and the command line.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use super::directory::Directory;
use super::tick::{PER_TRANSACTION, repeat_at_most};
use crate::model::{Job, JobState, Lane, LaneId};
use crate::store::{Result, Store};

/// How often lanes with parked jobs are looked for.
const EVERY: Duration = Duration::from_secs(600);
/// The same while a handler lists earlier names: during a rolling update, an older process may
/// still store deliveries under them.
const EVERY_RENAMED: Duration = Duration::from_secs(60);

/// A lane that this configuration does not serve, with the number of its open jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedLane {
    /// The lane whose jobs wait.
    pub lane: LaneId,
    /// How many of its jobs are open, which means pending or leased.
    pub jobs: u64,
    /// The reason, as one sentence for people.
    pub why: String,
}

/// Returns the lanes of the store that this configuration does not serve, with or without jobs.
pub fn unserved(directory: &Directory, lanes: &[Lane]) -> Vec<LaneId> {
    lanes
        .iter()
        .map(|lane| &lane.id)
        .filter(|lane| directory.why_parked(lane).is_some())
        .cloned()
        .collect()
}

/// Returns the lanes that this configuration does not serve and that have open jobs.
///
/// # Errors
/// Those of the store.
pub async fn parked(
    store: &dyn Store,
    directory: &Directory,
    lanes: &[Lane],
) -> Result<Vec<ParkedLane>> {
    let jobs = store.open_jobs(&unserved(directory, lanes)).await?;
    let parked = |(lane, jobs): (LaneId, u64)| {
        Some(ParkedLane { why: directory.why_parked(&lane)?, lane, jobs })
    };
    Ok(jobs.into_iter().filter_map(parked).collect())
}

impl Engine {
    /// Returns the lanes with parked jobs among `lanes`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn parked(&self, lanes: &[Lane]) -> Result<Vec<ParkedLane>> {
        parked(&**self.store(), self.directory(), lanes).await
    }

    /// Why a pending job is parked; `None` if it is not. Either the configuration does not serve
    /// its lane, or the last worker that claimed it had to put it aside.
    pub fn why_parked(&self, job: &Job) -> Option<String> {
        if job.state != JobState::Pending {
            return None;
        }
        self.directory()
            .why_parked(&job.target.lane())
            .or_else(|| job.parked_reason().map(str::to_owned))
    }

    /// Cancels all open deliveries to a handler, even one that the configuration no longer names.
    /// Returns how many.
    ///
    /// # Errors
    /// Those of the store; deliveries that were cancelled before the error stay cancelled.
    pub async fn cancel_handler_jobs(&self, handler: &str) -> Result<u64> {
        repeat_at_most(u32::MAX, || self.store().cancel_handler_jobs(handler, PER_TRANSACTION))
            .await
    }

    /// Moves jobs that wait under a handler's earlier name, and finds the lanes that this process
    /// does not serve. Their jobs stay in the table: another process may serve them, or this one
    /// after its next configuration.
    pub(super) async fn find_parked(&self) -> Result<()> {
        self.move_renamed().await?;
        let lanes = self.store().lanes().await?;
        let parked = self.parked(&lanes).await?;
        let mut housekeeping =
            self.0.housekeeping.parked.lock().unwrap_or_else(PoisonError::into_inner);
        for ParkedLane { lane, jobs, why } in &parked {
            if !housekeeping.reported.contains(lane) {
                tracing::warn!(%lane, jobs, "{why}.");
            }
        }
        let now: BTreeSet<LaneId> = parked.into_iter().map(|parked| parked.lane).collect();
        for lane in housekeeping.reported.difference(&now) {
            tracing::info!(%lane, "This lane has no parked work any more.");
        }
        housekeeping.reported = now;
        housekeeping.unserved = unserved(self.directory(), &lanes);
        Ok(())
    }

    async fn move_renamed(&self) -> Result<()> {
        for handler in &self.config().handlers {
            for old in &handler.was {
                let moved = repeat_at_most(u32::MAX, || {
                    self.store().rename(&old.value, &handler.name, PER_TRANSACTION)
                })
                .await?;
                if moved > 0 {
                    tracing::info!(
                        handler = handler.name,
                        was = old.value,
                        moved,
                        "Waiting deliveries of a renamed handler were moved to its new name."
                    );
                }
            }
        }
        Ok(())
    }

    /// Whether the interval since the last look for parked jobs is over. If so, a new interval
    /// begins.
    pub(super) fn is_time_for_parked(&self) -> bool {
        let every = if self.config().handlers.iter().any(|handler| !handler.was.is_empty()) {
            EVERY_RENAMED
        } else {
            EVERY
        };
        let mut parked = self.0.housekeeping.parked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = parked.looked_at.is_none_or(|at| at.elapsed() >= every);
        if is_time {
            parked.looked_at = Some(Instant::now());
        }
        is_time
    }
}

/// What this process knows about parked lanes, from its last look.
#[derive(Debug, Default)]
pub(super) struct ParkedLanes {
    /// Lanes that this configuration does not serve, with or without jobs. Claims skip them.
    pub(super) unserved: Vec<LaneId>,
    /// Lanes whose parked jobs were logged already.
    reported: BTreeSet<LaneId>,
    looked_at: Option<Instant>,
}
