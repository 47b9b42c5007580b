//! The `Hints` verbs in SQL: finds jobs that nobody has announced to workers, and marks them as
//! announced.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::driver::Driver;
use super::pool::SqlStore;
use super::rows::{IdNumberRow, IdRow};
use super::values::Rows;
use crate::model::JobId;
use crate::model::time::millis;
use crate::store::error::Result;
use crate::store::{HintedJob, Hints, OVERDUE};

#[async_trait]
impl<D: Driver> Hints for SqlStore<D> {
    async fn hints(&self, horizon: Duration, most: u32) -> Result<Vec<HintedJob>> {
        let (ahead, overdue, most) = (millis(horizon), millis(OVERDUE), i64::from(most));
        // First without a transaction: there is rarely anything to announce.
        let found = self
            .read(move |store, conn| {
                let unannounced = store
                    .sql("unannounced")
                    .bind("ahead", ahead)
                    .bind("overdue", overdue)
                    .bind("most", most);
                Box::pin(async move { unannounced.all::<IdNumberRow>(conn).await })
            })
            .await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        // In the order of their ids, so that two ticks that announce the same jobs cannot deadlock.
        let after: BTreeMap<String, i64> = found.into_iter().map(|row| (row.id, row.at)).collect();
        let wanted = after.clone();
        let rows: Vec<IdRow> = self
            .write(move |store, conn| {
                let rows = Rows::default()
                    .text("job", wanted.keys().cloned())
                    .int("after", wanted.values().copied());
                Box::pin(async move {
                    let overdue = vec![("overdue", overdue)];
                    D::changed(&store, conn, "announce", overdue, rows).await
                })
            })
            .await?;
        let hinted = |row: IdRow| {
            let Ok(job) = row.id.parse::<JobId>() else {
                tracing::error!(
                    job = row.id,
                    "The id of a stored job is invalid. No worker is notified of it."
                );
                return None;
            };
            let after = after.get(&row.id).map_or(0, |ms| u64::try_from(*ms).unwrap_or(0));
            Some(HintedJob { job, after: Duration::from_millis(after) })
        };
        let mut hinted: Vec<HintedJob> = rows.into_iter().filter_map(hinted).collect();
        hinted.sort_by_key(|hinted| hinted.after);
        Ok(hinted)
    }

    async fn has_due_work(&self) -> Result<bool> {
        let rows = self
            .read(|store, conn| {
                let due = store.sql("due_lane");
                Box::pin(async move { due.all::<IdRow>(conn).await })
            })
            .await?;
        Ok(!rows.is_empty())
    }
}
