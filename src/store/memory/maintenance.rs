//! The `Maintenance` verbs over maps. There is no schema and no connection to look after.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;

use super::{Memory, Row};
use crate::model::{EventId, JobId, JobState, LaneId, Run, RunId, Timestamp};
use crate::store::error::Result;
use crate::store::{Chores, Maintenance, Rejection, Tables};

#[async_trait]
impl Maintenance for Memory {
    async fn missing_migrations(&self) -> Result<usize> {
        Ok(0)
    }

    async fn migrate(&self) -> Result<()> {
        Ok(())
    }

    async fn now(&self) -> Result<Timestamp> {
        Ok(self.clock.now())
    }

    async fn reject(&self, rejections: &[Rejection]) -> Result<()> {
        let now = self.clock.now();
        let mut tables = self.tables();
        for rejection in rejections {
            let entry = tables
                .rejections
                .entry((rejection.source.clone(), rejection.reason.clone()))
                .or_insert((0, now));
            *entry = (entry.0 + rejection.count, now);
        }
        Ok(())
    }

    async fn prune(
        &self,
        age: Duration,
        from: Option<EventId>,
        most: u32,
    ) -> Result<(u64, Option<EventId>)> {
        let limit = self.clock.now().minus(age);
        let mut tables = self.tables();
        let old = tables
            .events
            .values()
            .filter(|e| e.created_at < limit && from.is_none_or(|f| e.id > f));
        let old: Vec<EventId> =
            old.map(|e| e.id).take(usize::try_from(most).unwrap_or(usize::MAX)).collect();
        let busy: BTreeSet<EventId> = tables
            .jobs
            .values()
            .filter(|r| r.job.finished_at.is_none_or(|at| at >= limit))
            .map(|r| r.job.event)
            .collect();
        let now = self.clock.now();
        let is_kept = |run: &Run| tables.kept_until.get(&run.id).is_some_and(|until| *until > now);
        let with_runs = tables
            .runs
            .values()
            .filter(|r| r.finished_at.is_none_or(|at| at >= limit) || is_kept(r))
            .map(|r| r.event);
        let busy: BTreeSet<EventId> = busy.into_iter().chain(with_runs).collect();
        let gone: BTreeSet<EventId> = old.iter().copied().filter(|id| !busy.contains(id)).collect();
        let jobs: BTreeSet<JobId> = tables
            .jobs
            .values()
            .filter(|r| gone.contains(&r.job.event))
            .map(|r| r.job.id)
            .collect();
        tables.events.retain(|id, _| !gone.contains(id));
        let runs: BTreeSet<RunId> =
            tables.runs.values().filter(|r| gone.contains(&r.event)).map(|r| r.id).collect();
        tables.runs.retain(|id, _| !runs.contains(id));
        tables.history.retain(|(id, _), _| !runs.contains(id));
        tables.tokens.retain(|_, token| !runs.contains(&token.run));
        tables.jobs.retain(|id, _| !jobs.contains(id));
        tables.attempts.retain(|(id, _), _| !jobs.contains(id));
        Ok((u64::try_from(gone.len()).unwrap_or(u64::MAX), old.last().copied()))
    }

    async fn chores(&self, age: Duration) -> Result<Chores> {
        let now = self.clock.now();
        let (tables, limit) = (self.tables(), now.minus(age));
        let over =
            |r: &Row| r.job.state == JobState::Pending && r.expires_at.is_some_and(|at| at <= now);
        Ok(Chores {
            expire: tables.jobs.values().any(over),
            prune: tables.events.values().next().is_some_and(|event| event.created_at < limit),
            forget: tables.keys.values().any(|key| key.expires_at <= now),
        })
    }

    async fn sweep_lanes(&self, _: Option<LaneId>, _: u32) -> Result<(u64, Option<LaneId>)> {
        // Every claim looks at every lane.
        Ok((0, None))
    }

    async fn forget_keys(&self, most: u32) -> Result<u64> {
        let now = self.clock.now();
        let mut tables = self.tables();
        let over: Vec<_> = tables
            .keys
            .iter()
            .filter(|(_, k)| k.expires_at <= now)
            .map(|(key, _)| key.clone())
            .collect();
        let over: Vec<_> =
            over.into_iter().take(usize::try_from(most).unwrap_or(usize::MAX)).collect();
        for key in &over {
            tables.keys.remove(key);
        }
        Ok(u64::try_from(over.len()).unwrap_or(u64::MAX))
    }

    async fn write_check(&self, _bytes: usize) -> Result<Timestamp> {
        Ok(self.clock.now())
    }

    fn writers(&self) -> usize {
        1
    }

    fn connections(&self) -> Option<(u32, u32)> {
        None
    }

    async fn about(&self) -> Result<Vec<String>> {
        Ok(vec!["in memory".to_owned()])
    }

    async fn weaknesses(&self) -> Result<Vec<String>> {
        Ok(vec!["the in-memory store loses all data when the process stops".to_owned()])
    }

    async fn close(&self) {}
}

impl Tables for Memory {}
