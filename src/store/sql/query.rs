//! Reading lists, single rows and totals for the API.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::driver::Driver;
use super::pool::SqlStore;
use super::rows::{AttemptRow, EventRow, JobRow, RejectionRow, TotalRow};
use super::statement::Sql;
use crate::model::{Attempt, Event, EventId, Job, JobId};
use crate::store::error::Result;
use crate::store::{EventFilter, JobFilter, Page, Query, Rejection, Totals};

const STATES: &str = " AND state IN (:states...)";
// What is parked says so in its last error (`Job::parked_reason`).
const PARKED: &str = " AND (lane IN (:lanes...) OR COALESCE(last_error, '') LIKE 'parked: %')";
const NOT_PARKED: &str =
    " AND NOT (lane IN (:lanes...) OR COALESCE(last_error, '') LIKE 'parked: %')";

/// Orders a list by id and cuts it to the page.
pub(super) fn paged<D: Driver>(statement: Sql<D>, after: Option<String>, page: Page) -> Sql<D> {
    let (beyond, order) = match page.newest_first {
        true => (" AND id < :after", " ORDER BY id DESC LIMIT :limit"),
        false => (" AND id > :after", " ORDER BY id LIMIT :limit"),
    };
    statement.and(beyond, "after", after).and(order, "limit", Some(page.limit))
}

#[async_trait]
impl<D: Driver> Query for SqlStore<D> {
    async fn events(&self, filter: &EventFilter, page: Page) -> Result<Vec<Event>> {
        let filter = filter.clone();
        let rows = self
            .read(move |store, conn| {
                let filter = filter.clone();
                Box::pin(async move {
                    let statement = store
                        .sql("events")
                        .and(" AND source = :source", "source", filter.source)
                        .and(" AND kind = :kind", "kind", filter.kind)
                        .and(" AND created_at >= :since", "since", filter.since.map(|t| t.0))
                        .and(" AND created_at <= :until", "until", filter.until.map(|t| t.0));
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
            .read(move |store, conn| {
                let ids = ids.clone();
                Box::pin(async move {
                    store.sql("events_by_id").list("ids", ids).all::<EventRow>(conn).await
                })
            })
            .await?;
        rows.into_iter().map(|row| Event::try_from(row).map(|event| (event.id, event))).collect()
    }

    async fn jobs(&self, filter: &JobFilter, page: Page) -> Result<Vec<Job>> {
        let filter = filter.clone();
        let rows = self
            .read(move |store, conn| {
                let filter = filter.clone();
                Box::pin(async move {
                    let mut statement = store.sql("jobs");
                    if !filter.states.is_empty() {
                        statement = statement
                            .then(STATES)
                            .list("states", filter.states.iter().map(|s| s.as_str()));
                    }
                    statement = match filter.attempted {
                        Some(true) => statement.then(" AND attempt > 0"),
                        Some(false) => statement.then(" AND attempt = 0"),
                        None => statement,
                    };
                    if let Some((is_parked, lanes)) = filter.parked {
                        let text = if is_parked { PARKED } else { NOT_PARKED };
                        let lanes = lanes.into_iter().map(|lane| lane.0);
                        statement = statement.then(text).list("lanes", lanes);
                    }
                    let statement = statement
                        .and(" AND target_name = :handler", "handler", filter.handler)
                        .and(
                            " AND event_id = :event",
                            "event",
                            filter.event.map(|id| id.to_string()),
                        );
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
            .read(move |store, conn| {
                Box::pin(async move {
                    store
                        .sql("jobs")
                        .and(" AND id = :id", "id", Some(id.to_string()))
                        .first::<JobRow>(conn)
                        .await
                })
            })
            .await?;
        row.map(Job::try_from).transpose()
    }

    async fn attempts(&self, job: JobId) -> Result<Vec<Attempt>> {
        let rows = self
            .read(move |store, conn| {
                Box::pin(async move {
                    store.sql("attempts").bind("job", job.to_string()).all::<AttemptRow>(conn).await
                })
            })
            .await?;
        rows.into_iter().map(Attempt::try_from).collect()
    }

    async fn totals(&self) -> Result<Totals> {
        let rows = self
            .read(|store, conn| {
                Box::pin(async move { store.sql("totals").all::<TotalRow>(conn).await })
            })
            .await?;
        let total = |name: &str| rows.iter().find(|r| r.name == name).map_or(0, |r| r.value);
        Ok(Totals { open: total("created") - total("finished"), dead: total("dead") })
    }

    async fn rejections(&self) -> Result<Vec<Rejection>> {
        let rows = self
            .read(|store, conn| {
                Box::pin(async move { store.sql("rejections").all::<RejectionRow>(conn).await })
            })
            .await?;
        Ok(rows.into_iter().map(Rejection::from).collect())
    }
}
