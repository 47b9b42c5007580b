//! Claiming on Postgres.

use sqlx::{PgConnection, Postgres};

use crate::store::sql::SqlStore;
use crate::store::sql::driver::Take;
use crate::store::sql::rows::DueRow;
use crate::store::sql::values::Rows;

pub(super) async fn take(
    store: &SqlStore<Postgres>,
    conn: &mut PgConnection,
    take: Take<'_>,
) -> sqlx::Result<Vec<DueRow>> {
    let rows = Rows::default()
        .text("lane", take.wants.iter().map(|want| want.lane.clone()))
        .int("most", take.wants.iter().map(|want| i64::from(want.most)));
    let statement = match take.only {
        [] => store.sql("take"),
        only => store.sql("take_of").list("only", only.iter().map(ToString::to_string)),
    };
    statement.bind("rows", rows).bind("lease", take.lease_ms).all(conn).await
}
