//! Accepting on SQLite: keys, events, jobs and totals, statement by statement in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::{Sqlite, SqliteConnection};

use crate::store::error::Result;
use crate::store::sql::SqlStore;
use crate::store::sql::intake::{Inserted, Slice, count, has_no_keys};
use crate::store::sql::looks::wake;
use crate::store::sql::rows::{IdNumberRow, StartedRow};
use crate::store::{Accepted, NewEvent};

pub(super) async fn accept(
    store: &SqlStore<Sqlite>,
    events: Arc<[NewEvent]>,
) -> Result<Vec<Accepted>> {
    store
        .write(move |store, conn| {
            let events = Arc::clone(&events);
            Box::pin(async move {
                let slice = match events.iter().all(has_no_keys) {
                    true => Slice::without_keys(&events),
                    false => Slice::with_keys(conn, &store, &events).await?,
                };
                insert(&store, conn, slice).await
            })
        })
        .await
}

async fn insert(
    store: &SqlStore<Sqlite>,
    conn: &mut SqliteConnection,
    slice: Slice<'_>,
) -> sqlx::Result<Vec<Accepted>> {
    let (events, jobs) = (slice.event_rows()?, slice.job_rows(|_| true));
    let mut inserted = Inserted::default();
    if !events.is_empty() {
        let stored = store.sql("insert_events").bind("rows", events);
        let stored: Vec<IdNumberRow> = stored.all(conn).await?;
        inserted.at = stored.into_iter().map(|row| (row.id, row.at)).collect();
    }
    if !jobs.is_empty() {
        // A repeated slice inserts nothing, so it counts nothing.
        let made: Vec<StartedRow> = store.sql("insert_jobs").bind("rows", jobs).all(conn).await?;
        let created = i64::try_from(made.len()).unwrap_or(i64::MAX);
        count(conn, store, BTreeMap::from([("created", created)])).await?;
        inserted.started =
            made.iter().filter(|row| row.claim == 1).map(|row| row.id.clone()).collect();
        let made = made.into_iter().map(|row| row.id).collect();
        wake(conn, store, &slice.wakes(&made, &inserted.started)).await?;
    }
    Ok(slice.answers(&inserted))
}
