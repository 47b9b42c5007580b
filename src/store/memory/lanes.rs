//! The `Lanes` verbs over maps: settings, pauses and backlogs of lanes.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Memory, Row};
use crate::model::lane::{Breaker, Bucket};
use crate::model::{JobState, Lane, LaneId, LaneSpec, Target, Timestamp};
use crate::store::Lanes;
use crate::store::error::Result;

#[async_trait]
impl Lanes for Memory {
    async fn upsert_lanes(&self, specs: &[LaneSpec]) -> Result<()> {
        let now = self.clock.now();
        let mut tables = self.tables();
        for spec in specs {
            let fresh =
                || spec.rate.map(|rate| Bucket { rate, tokens: f64::from(rate), refilled_at: now });
            match tables.lanes.get_mut(&spec.id) {
                Some(lane) => {
                    lane.tenant.clone_from(&spec.tenant);
                    lane.rules = spec.breaker;
                    lane.bucket = match (lane.bucket, spec.rate) {
                        (Some(bucket), Some(rate)) => Some(Bucket { rate, ..bucket }),
                        _ => fresh(),
                    };
                }
                None => {
                    let lane = Lane {
                        id: spec.id.clone(),
                        tenant: spec.tenant.clone(),
                        paused: false,
                        breaker: Breaker::default(),
                        rules: spec.breaker,
                        bucket: fresh(),
                        last_served_at: Timestamp(0),
                    };
                    tables.lanes.insert(spec.id.clone(), lane);
                }
            }
        }
        Ok(())
    }

    async fn lanes(&self) -> Result<Vec<Lane>> {
        Ok(self.tables().lanes.values().cloned().collect())
    }

    async fn backlog(&self) -> Result<BTreeMap<LaneId, Timestamp>> {
        let now = self.clock.now();
        let tables = self.tables();
        let oldest = tables
            .lanes
            .keys()
            .filter(|lane| !lane.is_pulled())
            .filter_map(|lane| Some((lane.clone(), tables.due(lane, now).first()?.0)));
        Ok(oldest.collect())
    }

    async fn open_jobs(&self, lanes: &[LaneId]) -> Result<BTreeMap<LaneId, u64>> {
        let mut found = BTreeMap::new();
        for row in self.tables().jobs.values().filter(|row| row.job.finished_at.is_none()) {
            let lane = row.job.target.lane();
            if lanes.contains(&lane) {
                *found.entry(lane).or_default() += 1;
            }
        }
        Ok(found)
    }

    async fn rename(&self, from: &str, to: &str, most: u32) -> Result<u64> {
        let (old, new) = (LaneId::handler(from), LaneId::handler(to));
        let mut tables = self.tables();
        let waits = |r: &&mut Row| r.job.state == JobState::Pending && r.job.target.lane() == old;
        let mut moved = 0;
        for row in
            tables.jobs.values_mut().filter(waits).take(usize::try_from(most).unwrap_or(usize::MAX))
        {
            row.job.target = Target::Handler(to.to_owned());
            moved += 1;
        }
        let was_paused = tables.lanes.get(&old).is_some_and(|lane| lane.paused);
        if moved > 0 && was_paused && tables.lanes.contains_key(&new) {
            for (lane, paused) in [(&old, false), (&new, true)] {
                tables.lanes.entry(lane.clone()).and_modify(|lane| lane.paused = paused);
            }
        }
        Ok(moved)
    }

    async fn pause(&self, lane: &LaneId, paused: bool) -> Result<bool> {
        let now = self.clock.now();
        let mut tables = self.tables();
        let Some(lane) = tables.lanes.get_mut(lane).filter(|lane| !lane.id.is_pulled()) else {
            return Ok(false);
        };
        lane.paused = paused;
        if !paused && let Some(until) = lane.breaker.open_until {
            lane.breaker.open_until = Some(until.min(now));
            lane.breaker.not_before = None;
        }
        Ok(true)
    }
}
