//! The `Maintenance` verbs over maps. There is no schema and no connection to look after.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{Memory, Row};
use crate::model::{
    Event, EventId, JobId, JobState, LaneId, OldestKept, Past, Retention, Run, RunId, Timestamp,
};
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

    async fn oldest_kept(&self, retention: &Retention) -> Result<OldestKept> {
        let tables = self.tables();
        let oldest = |count: Option<u32>, is: fn(JobState) -> bool| {
            let newest_first = tables.jobs.values().rev().filter(|r| is(r.job.state));
            let behind = usize::try_from(count?.saturating_sub(1)).unwrap_or(usize::MAX);
            newest_first.map(|r| r.job.id).nth(behind)
        };
        Ok(OldestKept {
            completed: oldest(retention.completed.count, |_| true),
            dead: oldest(retention.dead.count, |state| state == JobState::Dead),
        })
    }

    async fn prune(
        &self,
        retention: &Retention,
        kept: &OldestKept,
        from: Option<EventId>,
        most: u32,
    ) -> Result<(u64, Option<EventId>)> {
        let now = self.clock.now();
        let limit = now.minus(retention.shortest());
        let past = Past { retention, kept, now };
        let mut tables = self.tables();
        let is_before = |e: &Event| kept.newest().is_some_and(|job| e.id.0 < job.0);
        let old = tables
            .events
            .values()
            .filter(|e| (e.created_at < limit || is_before(e)) && from.is_none_or(|f| e.id > f));
        let old: Vec<EventId> =
            old.map(|e| e.id).take(usize::try_from(most).unwrap_or(usize::MAX)).collect();
        let busy: BTreeSet<EventId> = tables
            .jobs
            .values()
            .filter(|r| past.keeps_job(r.job.id, r.job.state, r.job.finished_at))
            .map(|r| r.job.event)
            .collect();
        let kept_until = |run: &Run| tables.kept_until.get(&run.id).copied();
        let with_runs = tables
            .runs
            .values()
            .filter(|r| past.keeps_run(r.status, r.finished_at, kept_until(r)))
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

    async fn chores(&self, retention: &Retention) -> Result<Chores> {
        let now = self.clock.now();
        let (tables, limit) = (self.tables(), now.minus(retention.shortest()));
        let over =
            |r: &Row| r.job.state == JobState::Pending && r.expires_at.is_some_and(|at| at <= now);
        Ok(Chores {
            expire: tables.jobs.values().any(over),
            prune: retention.counts()
                || tables.events.values().next().is_some_and(|event| event.created_at < limit),
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
