//! Reading lists, single rows and totals for the API.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::SqlStore;
use super::dialect::Dialect;
use super::rows::{AttemptRow, EventRow, JobRow, RejectionRow, TotalRow};
use super::statement::{Sql, sql};
use crate::model::{Attempt, Event, EventId, Job, JobId};
use crate::store::error::Result;
use crate::store::{EventFilter, JobFilter, Page, Query, Rejection, Totals};

const EVENTS: &str =
    "SELECT id, source, kind, headers, SUBSTR(body, 1, 0) AS body, unique_key, created_at
    FROM events WHERE 1 = 1";
pub(super) const EVENTS_BY_ID: &str =
    "SELECT id, source, kind, headers, body, unique_key, created_at
    FROM events WHERE id {any}";
const JOBS: &str =
    "SELECT id, event_id, target_kind, target_name, state, attempt, lost, deaths, claim, due_at,
        created_at, finished_at, last_error
    FROM jobs WHERE 1 = 1";
const STATES: &str = " AND state {any}";
// What is parked says so in its last error (`Job::parked_reason`).
const PARKED: &str = " AND (lane {any} OR COALESCE(last_error, '') LIKE 'parked: %')";
const NOT_PARKED: &str = " AND NOT (lane {any} OR COALESCE(last_error, '') LIKE 'parked: %')";
const ATTEMPTS: &str =
    "SELECT number, claim, ending, code, status, error, duration_ms, response, at
    FROM attempts WHERE job_id = ? ORDER BY claim";
const TOTALS: &str = "SELECT name, CAST(SUM(value) AS BIGINT) AS value FROM counters GROUP BY name";
const REJECTIONS: &str =
    "SELECT source, reason, count, last_at FROM rejections ORDER BY source, reason";

pub(super) const ALL: &[&str] = &[EVENTS, EVENTS_BY_ID, JOBS, ATTEMPTS, TOTALS, REJECTIONS];

/// Orders a list by id and cuts it to the page.
pub(super) fn paged<D: Dialect>(statement: Sql<D>, after: Option<String>, page: Page) -> Sql<D> {
    let (beyond, order) = match page.newest_first {
        true => (" AND id < ?", " ORDER BY id DESC LIMIT ?"),
        false => (" AND id > ?", " ORDER BY id LIMIT ?"),
    };
    statement.and(beyond, after).and(order, Some(i64::from(page.limit)))
}

#[async_trait]
impl<D: Dialect> Query for SqlStore<D> {
    async fn events(&self, filter: &EventFilter, page: Page) -> Result<Vec<Event>> {
        let filter = filter.clone();
        let rows = self
            .read(move |_, conn| {
                let filter = filter.clone();
                Box::pin(async move {
                    let statement = sql::<D>(EVENTS)
                        .and(" AND source = ?", filter.source)
                        .and(" AND kind = ?", filter.kind)
                        .and(" AND created_at >= ?", filter.since.map(|t| t.0))
                        .and(" AND created_at <= ?", filter.until.map(|t| t.0));
                    paged(statement, filter.after.map(|id| id.to_string()), page)
                        .all::<EventRow>(conn)
                        .await
                })
            })
            .await?;
        rows.into_iter().map(Event::try_from).collect()
    }

    async fn events_by_id(&self, ids: &[EventId]) -> Result<BTreeMap<EventId, Event>> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let rows = self
            .read(move |_, conn| {
                let ids = ids.clone();
                Box::pin(
                    async move { sql::<D>(EVENTS_BY_ID).list(ids).all::<EventRow>(conn).await },
                )
            })
            .await?;
        rows.into_iter().map(|row| Event::try_from(row).map(|event| (event.id, event))).collect()
    }

    async fn jobs(&self, filter: &JobFilter, page: Page) -> Result<Vec<Job>> {
        let filter = filter.clone();
        let rows = self
            .read(move |_, conn| {
                let filter = filter.clone();
                Box::pin(async move {
                    let mut statement = sql::<D>(JOBS);
                    if !filter.states.is_empty() {
                        statement =
                            statement.then(STATES).list(filter.states.iter().map(|s| s.as_str()));
                    }
                    statement = match filter.attempted {
                        Some(true) => statement.then(" AND attempt > 0"),
                        Some(false) => statement.then(" AND attempt = 0"),
                        None => statement,
                    };
                    if let Some((is_parked, lanes)) = filter.parked {
                        let text = if is_parked { PARKED } else { NOT_PARKED };
                        statement = statement.then(text).list(lanes.into_iter().map(|lane| lane.0));
                    }
                    let statement = statement
                        .and(" AND target_name = ?", filter.handler)
                        .and(" AND event_id = ?", filter.event.map(|id| id.to_string()));
                    paged(statement, filter.after.map(|id| id.to_string()), page)
                        .all::<JobRow>(conn)
                        .await
                })
            })
            .await?;
        rows.into_iter().map(Job::try_from).collect()
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>> {
        let row = self
            .read(move |_, conn| {
                Box::pin(async move {
                    sql::<D>(JOBS)
                        .and(" AND id = ?", Some(id.to_string()))
                        .first::<JobRow>(conn)
                        .await
                })
            })
            .await?;
        row.map(Job::try_from).transpose()
    }

    async fn attempts(&self, job: JobId) -> Result<Vec<Attempt>> {
        let rows = self
            .read(move |_, conn| {
                Box::pin(async move {
                    sql::<D>(ATTEMPTS).bind(job.to_string()).all::<AttemptRow>(conn).await
                })
            })
            .await?;
        rows.into_iter().map(Attempt::try_from).collect()
    }

    async fn totals(&self) -> Result<Totals> {
        let rows = self
            .read(|_, conn| Box::pin(async move { sql::<D>(TOTALS).all::<TotalRow>(conn).await }))
            .await?;
        let total = |name: &str| rows.iter().find(|r| r.name == name).map_or(0, |r| r.value);
        Ok(Totals { open: total("created") - total("finished"), dead: total("dead") })
    }

    async fn rejections(&self) -> Result<Vec<Rejection>> {
        let rows = self
            .read(|_, conn| {
                Box::pin(async move { sql::<D>(REJECTIONS).all::<RejectionRow>(conn).await })
            })
            .await?;
        Ok(rows.into_iter().map(Rejection::from).collect())
    }
}
