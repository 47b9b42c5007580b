//! Accepting on Postgres: one statement stores events, jobs and totals.

use std::sync::Arc;

use sqlx::{PgConnection, Postgres};

use crate::store::error::Result;
use crate::store::sql::SqlStore;
use crate::store::sql::intake::{Inserted, Slice, has_no_keys};
use crate::store::sql::rows::MadeRow;
use crate::store::{Accepted, NewEvent};

pub(super) async fn accept(
    store: &SqlStore<Postgres>,
    events: Arc<[NewEvent]>,
) -> Result<Vec<Accepted>> {
    // Without keys there is nothing else to do, and the statement is its own transaction.
    if events.iter().all(has_no_keys) {
        return store
            .statement(move |store, conn| {
                let events = Arc::clone(&events);
                Box::pin(async move { insert(&store, conn, Slice::without_keys(&events)).await })
            })
            .await;
    }
    store
        .write(move |store, conn| {
            let events = Arc::clone(&events);
            Box::pin(async move {
                let slice = Slice::with_keys(conn, &store, &events).await?;
                insert(&store, conn, slice).await
            })
        })
        .await
}

async fn insert(
    store: &SqlStore<Postgres>,
    conn: &mut PgConnection,
    slice: Slice<'_>,
) -> sqlx::Result<Vec<Accepted>> {
    let (events, jobs) = (slice.event_rows()?, slice.job_rows(|_| true));
    if events.is_empty() {
        return Ok(slice.answers(&Inserted::default()));
    }
    let made = store.sql("store").bind("events", events).bind("jobs", jobs);
    let made: Vec<MadeRow> = made.bind("shard", store.shard()).all(conn).await?;
    let started = made.iter().filter(|row| row.claim == Some(1)).map(|row| row.id.clone());
    let started = started.collect();
    let at = made.into_iter().filter_map(|row| Some((row.id, row.at?))).collect();
    Ok(slice.answers(&Inserted { at, started }))
}
