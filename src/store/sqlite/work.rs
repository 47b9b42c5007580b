//! Claiming on SQLite. The transaction excludes other writers, so what was read is what is changed.

use sqlx::{Sqlite, SqliteConnection};

use crate::store::sql::SqlStore;
use crate::store::sql::driver::Take;
use crate::store::sql::rows::{DueRow, leased, leases};

pub(super) async fn take(
    store: &SqlStore<Sqlite>,
    conn: &mut SqliteConnection,
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
