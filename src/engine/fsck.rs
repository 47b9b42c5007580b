//! Checks the invariants of all stored runs, while the engine keeps running.

use std::collections::BTreeSet;

use super::Engine;
use super::flows::FlowError;
use crate::decide::workflow::check::faults;
use crate::model::job::PARKED_PREFIX;
use crate::model::{JobId, JobState, Run, RunId};
use crate::store::{JobFilter, Page, Result, RunFilter};

/// Runs that are read with one query.
const PAGE: Page = Page { limit: 200, newest_first: false };
/// How many open jobs of one event are read at most.
const JOBS: Page = Page { limit: 100_000, newest_first: false };

/// The result of a check of all stored runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fsck {
    /// How many runs were checked.
    pub runs: u64,
    /// Every fault that was found: the run, and a sentence that says what is wrong.
    pub faults: Vec<(RunId, String)>,
}

impl Engine {
    /// Checks every stored run against the invariants. A run may change during the check; a fault
    /// counts only if the run's version is the same before and after.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn fsck(&self) -> Result<Fsck> {
        let mut fsck = Fsck::default();
        let mut filter = RunFilter::default();
        loop {
            let page = self.store().runs(&filter, PAGE).await?;
            let Some(last) = page.last() else { return Ok(fsck) };
            filter.after = Some(last.id);
            for run in &page {
                fsck.runs += 1;
                let found = self.check_run(run).await?;
                fsck.faults.extend(found.into_iter().map(|what| (run.id, what)));
            }
        }
    }

    async fn check_run(&self, run: &Run) -> Result<Vec<String>> {
        if let Some(why) = &run.unreadable {
            return Ok(vec![why.clone()]);
        }
        if !run.status.is_closed() {
            match self.flow_of(run).await {
                Err(FlowError::Unusable(why)) => return Ok(vec![format!("{PARKED_PREFIX}{why}")]),
                Err(FlowError::Store(error)) => return Err(error),
                Ok(_) => {}
            }
        }
        let mut run = run.clone();
        loop {
            let found = faults(&run, &self.open_jobs(&run).await?);
            if found.is_empty() {
                return Ok(found);
            }
            match self.store().run(run.id).await? {
                Some(now) if now.version == run.version => return Ok(found),
                Some(now) => run = now,
                None => return Ok(Vec::new()),
            }
        }
    }

    async fn open_jobs(&self, run: &Run) -> Result<BTreeSet<JobId>> {
        let states = vec![JobState::Pending, JobState::Leased];
        let filter = JobFilter { states, event: Some(run.event), ..JobFilter::default() };
        let jobs = self.store().jobs(&filter, JOBS).await?;
        let of_run =
            |job: &&crate::model::Job| job.target.visit_ref().is_some_and(|v| v.run == run.id);
        Ok(jobs.iter().filter(of_run).map(|job| job.id).collect())
    }
}
