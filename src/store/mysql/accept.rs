//! Accepting on MySQL: keys, events, jobs and totals, statement by statement in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sqlx::{MySql, MySqlConnection};

use super::number;
use crate::store::error::Result;
use crate::store::sql::SqlStore;
use crate::store::sql::intake::{Inserted, Slice, count, has_no_keys};
use crate::store::sql::looks::wake;
use crate::store::sql::rows::{CountRow, IdNumberRow, IdRow};
use crate::store::sql::values::Rows;
use crate::store::{Accepted, NewEvent};

pub(super) async fn accept(
    store: &SqlStore<MySql>,
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

pub(super) async fn insert(
    store: &SqlStore<MySql>,
    conn: &mut MySqlConnection,
    slice: Slice<'_>,
) -> sqlx::Result<Vec<Accepted>> {
    insert_events(store, conn, slice.event_rows()?).await?;
    // Which jobs start is decided here, not by a join: an INSERT that reads another table locks it.
    let mut inserted = Inserted::default();
    let wanted = slice.starting_lanes();
    let mut clean = BTreeSet::new();
    let mut at = 0;
    if !wanted.is_empty() {
        let rows: Vec<IdNumberRow> =
            store.sql("clean_lanes").list("lanes", wanted).all(conn).await?;
        at = rows.first().map_or(0, |row| row.at);
        clean.extend(rows.into_iter().map(|row| row.id));
    }
    let jobs = slice.job_rows(|lane| clean.contains(lane));
    let made = insert_jobs(store, conn, jobs).await?;
    let created = i64::try_from(made.len()).unwrap_or(i64::MAX);
    count(conn, store, BTreeMap::from([("created", created)])).await?;
    for (event, job, lane) in slice.starting() {
        if clean.contains(&lane) && made.contains(&job) {
            inserted.started.insert(job);
            inserted.at.insert(event, at);
        }
    }
    wake(conn, store, &slice.wakes(&made, &inserted.started)).await?;
    Ok(slice.answers(&inserted))
}

/// Inserts events, in statements of as many rows as a power of two, so that there are few texts.
/// Those that are stored already are left out: a slice is repeated when its answer was lost.
async fn insert_events(
    store: &SqlStore<MySql>,
    conn: &mut MySqlConnection,
    mut rows: Rows,
) -> sqlx::Result<()> {
    while !rows.is_empty() {
        // One packet holds them all, and the text of the statement.
        let mut most = 1 << rows.len().ilog2();
        while most > 1 && rows.bytes(most) > PACKET {
            most /= 2;
        }
        let some = rows.split_first(most);
        if some.bytes(most) > PACKET {
            fits(store, conn, some.bytes(most)).await?;
        }
        match store.sql("insert_events").bind("rows", some.clone()).run(conn).await {
            Ok(_) => {}
            Err(error) if number(&error) == Some(DUPLICATE) => {
                let known = known(store, conn, "stored_events", &some).await?;
                let mut missing = some.without("id", &known);
                while !missing.is_empty() {
                    let one = missing.split_first(1);
                    store.sql("insert_events").bind("rows", one).run(conn).await?;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fails if the server does not take a packet of this size. It would end the connection, which
/// looks like an outage.
async fn fits(
    store: &SqlStore<MySql>,
    conn: &mut MySqlConnection,
    bytes: usize,
) -> sqlx::Result<()> {
    let most: Option<CountRow> = store.sql("packet_max").first(conn).await?;
    let most = most.map_or(i64::MAX, |row| row.n);
    let needs = i64::try_from(bytes).unwrap_or(i64::MAX).saturating_add(64 << 10);
    if needs <= most {
        return Ok(());
    }
    Err(sqlx::Error::Encode(
        format!(
            "the event has {bytes} bytes, but the server accepts packets of at most {most}: raise \
             max_allowed_packet on the server"
        )
        .into(),
    ))
}

/// Inserts jobs and answers the ids of those that were new.
async fn insert_jobs(
    store: &SqlStore<MySql>,
    conn: &mut MySqlConnection,
    mut rows: Rows,
) -> sqlx::Result<BTreeSet<String>> {
    if rows.is_empty() {
        return Ok(BTreeSet::new());
    }
    if let Err(error) = store.sql("insert_jobs").bind("rows", rows.clone()).run(conn).await {
        if number(&error) != Some(DUPLICATE) {
            return Err(error);
        }
        let known = known(store, conn, "stored_jobs", &rows).await?;
        rows = rows.without("id", &known);
        if !rows.is_empty() {
            store.sql("insert_jobs").bind("rows", rows.clone()).run(conn).await?;
        }
    }
    Ok(rows.texts("id").into_iter().collect())
}

/// The most bytes of bodies and headers in one statement, as long as it holds several events. Less
/// than any server's `max_allowed_packet` by default.
const PACKET: usize = 512 << 10;

/// `ER_DUP_ENTRY`: the statement, and nothing else of the transaction, was undone.
const DUPLICATE: u16 = 1062;

async fn known(
    store: &SqlStore<MySql>,
    conn: &mut MySqlConnection,
    name: &'static str,
    rows: &Rows,
) -> sqlx::Result<BTreeSet<String>> {
    let known: Vec<IdRow> = store.sql(name).list("ids", rows.texts("id")).all(conn).await?;
    Ok(known.into_iter().map(|row| row.id).collect())
}
