//! Claiming and recording on Postgres.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::{PgConnection, Postgres};

use crate::decide::settle::{JobOutcome, NextState};
use crate::store::error::{Error, Result};
use crate::store::sql::driver::Take;
use crate::store::sql::outcomes::{attempt_rows, record_rows};
use crate::store::sql::rows::{DueRow, IdRow};
use crate::store::sql::values::Rows;
use crate::store::sql::{SqlStore, record};

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

/// Records outcomes that end their jobs and concern no breaker and no run in one statement;
/// whatever is left of the slice, because its lease is over or because more depends on it, in a
/// transaction.
pub(super) async fn record(
    store: &SqlStore<Postgres>,
    outcomes: Arc<[JobOutcome]>,
) -> Result<Vec<Result<()>>> {
    // A job that stays open has its lane looked at, which the one statement does not do.
    let ends = |next: &NextState| !matches!(next, NextState::Retry { .. } | NextState::Released);
    let is_plain = |outcome: &JobOutcome| {
        outcome.lane_fact.is_none() && outcome.change.is_none() && ends(&outcome.next_state)
    };
    let recorded = match outcomes.iter().all(is_plain) {
        true => record_plain(store, &outcomes).await?,
        false => BTreeSet::new(),
    };
    if recorded.is_empty() {
        return record::in_transaction(store, outcomes).await;
    }
    let is_recorded = |outcome: &JobOutcome| recorded.contains(&outcome.lease.job.to_string());
    let rest: Arc<[JobOutcome]> =
        outcomes.iter().filter(|outcome| !is_recorded(outcome)).cloned().collect();
    let mut answers = match rest.is_empty() {
        true => Vec::new(),
        false => record::in_transaction(store, rest).await?,
    }
    .into_iter();
    let answer = |outcome: &JobOutcome| match is_recorded(outcome) {
        true => Ok(()),
        false => answers.next().unwrap_or(Err(Error::LeaseLost)),
    };
    Ok(outcomes.iter().map(answer).collect())
}

/// Answers the jobs that still held their lease.
async fn record_plain(
    store: &SqlStore<Postgres>,
    outcomes: &Arc<[JobOutcome]>,
) -> Result<BTreeSet<String>> {
    let outcomes = Arc::clone(outcomes);
    let rows: Vec<IdRow> = store
        .statement(move |store, conn| {
            let attempts: Vec<(&JobOutcome, bool)> =
                outcomes.iter().filter(|c| c.attempt.is_some()).map(|c| (c, true)).collect();
            let record = store
                .sql("record_plain")
                .bind("rows", record_rows(&outcomes))
                .bind("attempts", attempt_rows(&attempts))
                .bind("shard", store.shard());
            Box::pin(async move { record.all(conn).await })
        })
        .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}
