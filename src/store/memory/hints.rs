//! The `Hints` verbs over maps: which jobs to announce to workers.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::Memory;
use crate::decide::breaker::{self, Allows};
use crate::model::{JobState, LaneId};
use crate::store::error::Result;
use crate::store::{HintedJob, Hints, OVERDUE};

#[async_trait]
impl Hints for Memory {
    async fn hints(&self, horizon: Duration, most: u32) -> Result<Vec<HintedJob>> {
        let now = self.clock.now();
        let mut tables = self.tables();
        let mut found = Vec::new();
        for row in
            tables.jobs.values().filter(|row| row.job.finished_at.is_none() && !row.is_paused)
        {
            let Some(lane) = tables.lanes.get(&row.job.target.lane()).filter(|lane| !lane.paused)
            else {
                continue;
            };
            let is_leased = row.job.state == JobState::Leased && row.job.due_at > now;
            let holds = [lane.breaker.open_until, lane.breaker.not_before];
            let at = holds.into_iter().flatten().fold(row.job.due_at, |at, hold| at.max(hold));
            let is_hinted = row.woken_until.is_some_and(|until| until > now && until >= at);
            let is_just_due = at <= now && at.plus(OVERDUE) > now;
            if !is_leased && !is_hinted && !is_just_due && at <= now.plus(horizon) {
                found.push((at, row.job.id, lane.id.clone()));
            }
        }
        found.sort_unstable();
        let mut of_lane: BTreeMap<LaneId, u32> = BTreeMap::new();
        found.retain(|(_, _, lane)| {
            let n = of_lane.entry(lane.clone()).or_default();
            *n += 1;
            *n <= most
        });
        found.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        let hinted: Vec<HintedJob> =
            found.into_iter().map(|(at, job, _)| HintedJob { job, after: at.since(now) }).collect();
        for HintedJob { job, after } in &hinted {
            if let Some(row) = tables.jobs.get_mut(job) {
                row.woken_until = Some(now.plus(*after).plus(OVERDUE));
            }
        }
        Ok(hinted)
    }

    async fn has_due_work(&self) -> Result<bool> {
        let now = self.clock.now();
        let tables = self.tables();
        let runs = |lane: &&crate::model::Lane| {
            !lane.paused && !matches!(breaker::allows(&lane.breaker, now), Allows::NothingBefore(_))
        };
        Ok(tables.lanes.values().filter(runs).any(|lane| !tables.due(&lane.id, now).is_empty()))
    }
}
