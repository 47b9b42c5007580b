//! The `Query` verbs over maps: lists and single rows.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Memory, paged};
use crate::model::{Attempt, Event, EventId, Job, JobId, JobState};
use crate::store::error::Result;
use crate::store::{EventFilter, JobFilter, Page, Query, Rejection, Totals};

#[async_trait]
impl Query for Memory {
    async fn events(&self, filter: &EventFilter, page: Page) -> Result<Vec<Event>> {
        let tables = self.tables();
        let wanted = |e: &&Event| {
            filter.source.as_ref().is_none_or(|s| e.source == *s)
                && filter.kind.as_ref().is_none_or(|k| e.kind == *k)
                && filter.since.is_none_or(|t| e.created_at >= t)
                && filter.until.is_none_or(|t| e.created_at <= t)
        };
        let found = tables
            .events
            .values()
            .filter(wanted)
            .map(|e| (e.id, Event { body: crate::model::Body::default(), ..e.clone() }));
        Ok(paged(found.collect(), filter.after, page))
    }

    async fn events_by_id(&self, ids: &[EventId]) -> Result<BTreeMap<EventId, Event>> {
        let tables = self.tables();
        Ok(ids.iter().filter_map(|id| tables.events.get(id).map(|e| (*id, e.clone()))).collect())
    }

    async fn jobs(&self, filter: &JobFilter, page: Page) -> Result<Vec<Job>> {
        let tables = self.tables();
        let wanted = |j: &&Job| {
            (filter.states.is_empty() || filter.states.contains(&j.state))
                && filter.attempted.is_none_or(|yes| yes == (j.attempt > 0))
                && filter.handler.as_ref().is_none_or(|h| j.target.name() == h)
                && filter.event.is_none_or(|e| j.event == e)
                && filter.parked.as_ref().is_none_or(|(yes, lanes)| {
                    *yes == (lanes.contains(&j.target.lane()) || j.parked_reason().is_some())
                })
        };
        let found = tables.jobs.values().map(|r| &r.job).filter(wanted).map(|j| (j.id, j.clone()));
        Ok(paged(found.collect(), filter.after, page))
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>> {
        Ok(self.tables().jobs.get(&id).map(|r| r.job.clone()))
    }

    async fn attempts(&self, job: JobId) -> Result<Vec<Attempt>> {
        Ok(self
            .tables()
            .attempts
            .range((job, i64::MIN)..=(job, i64::MAX))
            .map(|(_, a)| a.clone())
            .collect())
    }

    async fn totals(&self) -> Result<Totals> {
        let tables = self.tables();
        let count = |test: fn(&Job) -> bool| {
            i64::try_from(tables.jobs.values().filter(|r| test(&r.job)).count()).unwrap_or(i64::MAX)
        };
        Ok(Totals {
            open: count(|j| j.finished_at.is_none()),
            dead: count(|j| j.state == JobState::Dead),
        })
    }

    async fn rejections(&self) -> Result<Vec<Rejection>> {
        let tables = self.tables();
        let all = tables.rejections.iter().map(|((source, reason), (count, last_at))| Rejection {
            source: source.clone(),
            reason: reason.clone(),
            count: *count,
            last_at: *last_at,
        });
        Ok(all.collect())
    }
}
