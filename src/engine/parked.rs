//! Parked work: what waits because the configuration of this process does not name its handler or its workflow. It is kept, and it is
//! told wherever people look.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use super::tick::{PER_TRANSACTION, repeat_at_most};
use crate::config::Config;
use crate::model::job::PUT_ASIDE;
use crate::model::{Job, JobState, Lane, LaneId};
use crate::store::{Result, Store};

/// How often parked lanes are looked for.
const EVERY: Duration = Duration::from_secs(600);
/// The same where handlers were renamed: a process of the version before may store deliveries under their earlier names.
const EVERY_RENAMED: Duration = Duration::from_secs(60);

/// A lane that nobody with this configuration serves, and how many open jobs it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The lane.
    pub lane: LaneId,
    /// Its open jobs.
    pub jobs: u64,
    /// Why they wait.
    pub why: String,
}

/// Why a configuration serves no job of a lane, if it serves none. Steps and instants of runs are served whatever the file says: a run
/// stays on the definition it started with.
pub fn why_parked(config: &Config, lane: &LaneId) -> Option<String> {
    let missing = |what: &str, name: &str| {
        Some(format!("{PUT_ASIDE}no {what} `{name}` in the configuration; name it again, or cancel what waits for it"))
    };
    match lane.0.split_once(':') {
        Some(("handler", name)) if config.handlers.iter().all(|handler| handler.name != name) => missing("handler", name),
        Some(("workflow", name)) if config.workflow(name).is_none() => missing("workflow", name),
        Some(("handler" | "workflow" | "step", _)) => None,
        _ if *lane == LaneId::timers() => None,
        _ => Some(format!("{PUT_ASIDE}this version has nothing that serves `{lane}`")),
    }
}

/// Those of a store's lanes that nobody with this configuration serves, with or without jobs.
pub fn unserved(config: &Config, lanes: &[Lane]) -> Vec<LaneId> {
    lanes.iter().map(|lane| &lane.id).filter(|lane| why_parked(config, lane).is_some()).cloned().collect()
}

/// Those of a store's lanes that nobody with this configuration serves and that have open jobs.
///
/// # Errors
/// Those of the store.
pub async fn parked(store: &dyn Store, config: &Config, lanes: &[Lane]) -> Result<Vec<Parked>> {
    let jobs = store.open_jobs(&unserved(config, lanes)).await?;
    let parked = |(lane, jobs): (LaneId, u64)| Some(Parked { why: why_parked(config, &lane)?, lane, jobs });
    Ok(jobs.into_iter().filter_map(parked).collect())
}

impl Engine {
    /// Those of the store's lanes with parked work.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn parked(&self, lanes: &[Lane]) -> Result<Vec<Parked>> {
        parked(&**self.store(), self.config(), lanes).await
    }

    /// Why a job is parked, if it is: nobody serves its lane, or whoever had claimed it put it aside.
    pub fn why_parked(&self, job: &Job) -> Option<String> {
        if job.state != JobState::Pending {
            return None;
        }
        why_parked(self.config(), &job.target.lane()).or_else(|| job.put_aside().map(str::to_owned))
    }

    /// Calls all open deliveries to a handler off, also one that the configuration no longer names; answers how many.
    ///
    /// # Errors
    /// Those of the store; what was called off before stays so.
    pub async fn cancel_of(&self, handler: &str) -> Result<u64> {
        repeat_at_most(u32::MAX, || self.store().cancel_of(handler, PER_TRANSACTION)).await
    }

    /// Moves what waits under earlier names of handlers, and finds the lanes that nobody serves. Their jobs stay: another process
    /// may know the handler, or this one may after its next configuration.
    pub(super) async fn find_parked(&self) -> Result<()> {
        self.move_renamed().await?;
        let lanes = self.store().lanes().await?;
        let parked = self.parked(&lanes).await?;
        let mut housekeeping = self.0.housekeeping.parked.lock().unwrap_or_else(PoisonError::into_inner);
        for Parked { lane, jobs, why } in &parked {
            if !housekeeping.told.contains(lane) {
                tracing::warn!(%lane, jobs, "{why}.");
            }
        }
        let now: BTreeSet<LaneId> = parked.into_iter().map(|parked| parked.lane).collect();
        for lane in housekeeping.told.difference(&now) {
            tracing::info!(%lane, "Nothing of this lane is parked any more.");
        }
        housekeeping.told = now;
        housekeeping.unserved = unserved(self.config(), &lanes);
        Ok(())
    }

    async fn move_renamed(&self) -> Result<()> {
        for handler in &self.config().handlers {
            for old in &handler.was {
                let moved = repeat_at_most(u32::MAX, || self.store().rename(&old.value, &handler.name, PER_TRANSACTION)).await?;
                if moved > 0 {
                    tracing::info!(
                        handler = handler.name,
                        was = old.value,
                        moved,
                        "Deliveries of a renamed handler go to its new name."
                    );
                }
            }
        }
        Ok(())
    }

    /// Whether it is time to look for parked work again.
    pub(super) fn is_time_for_parked(&self) -> bool {
        let every = if self.config().handlers.iter().any(|handler| !handler.was.is_empty()) { EVERY_RENAMED } else { EVERY };
        let mut parked = self.0.housekeeping.parked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = parked.looked_at.is_none_or(|at| at.elapsed() >= every);
        if is_time {
            parked.looked_at = Some(Instant::now());
        }
        is_time
    }
}

/// What this process knows of parked lanes.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Lanes that nobody with this configuration serves, with or without jobs.
    pub(super) unserved: Vec<LaneId>,
    /// Those whose jobs the log tells of.
    told: BTreeSet<LaneId>,
    looked_at: Option<Instant>,
}
