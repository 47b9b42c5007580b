//! Claiming, and fenced updates, on MySQL: rows are locked and read first, then changed.

use sqlx::{MySql, MySqlConnection};

use crate::store::sql::SqlStore;
use crate::store::sql::driver::Take;
use crate::store::sql::rows::{DueRow, IdNumberRow, IdRow, leased, leases};
use crate::store::sql::values::Rows;

pub(super) async fn take(
    store: &SqlStore<MySql>,
    conn: &mut MySqlConnection,
    take: Take<'_>,
) -> sqlx::Result<Vec<DueRow>> {
    let mut taken: Vec<DueRow> = Vec::new();
    for want in take.wants {
        let due = match take.only {
            [] => store.sql("due"),
            only => store.sql("due_of").list("only", only.iter().map(ToString::to_string)),
        };
        let due = due.bind("lane", want.lane.clone()).bind("most", want.most);
        taken.extend(due.all::<DueRow>(conn).await?);
    }
    if taken.is_empty() {
        return Ok(taken);
    }
    taken.iter_mut().for_each(|row| leased(row, take.lease_ms));
    store.sql("lease").bind("rows", leases(&taken)).run(conn).await?;
    Ok(taken)
}

pub(super) async fn changed(
    store: &SqlStore<MySql>,
    conn: &mut MySqlConnection,
    name: &'static str,
    values: Vec<(&'static str, i64)>,
    rows: Rows,
) -> sqlx::Result<Vec<IdRow>> {
    let lock = match name {
        "announce" => "lock_announce",
        // Under the lease of this claim.
        _ => "lock_leased",
    };
    let held: Vec<IdRow> = store.sql(lock).bind("rows", rows.clone()).all(conn).await?;
    if !held.is_empty() {
        let update = store.sql(name).bind("rows", rows);
        let update = values.into_iter().fold(update, |sql, (name, value)| sql.bind(name, value));
        update.run(conn).await?;
    }
    Ok(held)
}

/// Reads first which lanes need it: an UPDATE would wait for rows that are locked, although it
/// changes nothing in them.
pub(super) async fn wake(
    store: &SqlStore<MySql>,
    conn: &mut MySqlConnection,
    rows: Rows,
) -> sqlx::Result<()> {
    let needed: Vec<IdNumberRow> = store.sql("lanes_to_wake").bind("rows", rows).all(conn).await?;
    if needed.is_empty() {
        return Ok(());
    }
    let rows = Rows::default()
        .text("lane", needed.iter().map(|row| &row.id))
        .int("due", needed.iter().map(|row| row.at));
    store.sql("wake_lanes").bind("rows", rows).run(conn).await.map(|_| ())
}
