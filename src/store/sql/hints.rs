//! The `Hints` verbs in SQL: finds jobs that nobody has announced to workers, and marks them as
//! announced.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::SqlStore;
use super::dialect::Dialect;
use super::rows::{IdNumberRow, IdRow};
use super::statement::{Rows, sql};
use super::work::PICK_LANES;
use crate::model::JobId;
use crate::model::time::millis;
use crate::store::error::Result;
use crate::store::{HintedJob, Hints, OVERDUE};

// Leased jobs are skipped. So are jobs that have been due for less than five seconds: whoever made
// them due announced them. After that time the announcement counts as lost.
macro_rules! unannounced {
    ($of_each_lane:expr) => {
        concat!(
            "SELECT due.id, CASE WHEN due.at > {now} THEN due.at - {now} ELSE 0 END AS at
        FROM (SELECT place.id, CASE WHEN l.open_until > place.due_at
        AND l.open_until >= COALESCE(l.probe_until, 0) THEN l.open_until
        WHEN l.probe_until > place.due_at THEN l.probe_until ELSE place.due_at END AS at
        FROM lanes l ",
            $of_each_lane,
            " WHERE l.paused = 0) AS due
    WHERE due.at <= {now} + ? AND (due.at > {now} OR due.at <= {now} - ?) ORDER BY due.at, due.id
        LIMIT ?"
        )
    };
}

/// The condition for jobs of a lane that were not announced for the time at which they can start.
macro_rules! of_lane {
    () => {
        "j.finished_at IS NULL AND j.due_at <= {now} + ? AND (j.state = 'pending' OR j.due_at <=
        {now})
        AND (j.woken_until IS NULL OR j.woken_until <= {now} OR j.woken_until < j.due_at OR
        j.woken_until < l.open_until
            OR j.woken_until < l.probe_until)"
    };
}

// One query per lane, so that a long or blocked backlog neither hides nor slows the others. Where
// the database supports it, the text leaves the planner no other way.
pub(super) const UNANNOUNCED: &str = unannounced!(concat!(
    "JOIN (SELECT j.id, j.due_at, j.lane, ROW_NUMBER() OVER (PARTITION BY j.lane
        ORDER BY j.due_at) AS n
        FROM lanes l JOIN jobs j ON j.lane = l.id WHERE ",
    of_lane!(),
    ") AS place ON place.lane = l.id AND place.n <= ?"
));
pub(super) const UNANNOUNCED_LATERAL: &str = unannounced!(concat!(
    "CROSS JOIN LATERAL (SELECT j.id, j.due_at FROM jobs j WHERE j.lane = l.id AND ",
    of_lane!(),
    " ORDER BY j.due_at LIMIT ?) AS place"
));
// If another tick has announced these jobs meanwhile, this returns no rows.
const MARK_ANNOUNCED: &str =
    "UPDATE jobs SET woken_until = {now} + r.after + ? FROM {rows: job text, after int} AS r
    WHERE {only jobs.id} AND jobs.id = r.job AND jobs.finished_at IS NULL
    AND (jobs.woken_until IS NULL OR jobs.woken_until <= {now} + r.after) RETURNING jobs.id";

pub(super) const ALL: &[&str] = &[UNANNOUNCED, MARK_ANNOUNCED];

#[async_trait]
impl<D: Dialect> Hints for SqlStore<D> {
    async fn hints(&self, horizon: Duration, most: u32) -> Result<Vec<HintedJob>> {
        let (ahead, overdue, most) = (millis(horizon), millis(OVERDUE), i64::from(most));
        // First without a transaction: there is rarely anything to announce.
        let found = self
            .read(move |store, conn| {
                let clock = store.clock();
                let unannounced = sql::<D>(D::UNANNOUNCED)
                    .bind(clock)
                    .bind(clock)
                    .bind(clock)
                    .bind(ahead)
                    .bind(clock)
                    .bind(clock);
                let unannounced = unannounced
                    .bind(most)
                    .bind(clock)
                    .bind(ahead)
                    .bind(clock)
                    .bind(clock)
                    .bind(overdue)
                    .bind(most);
                Box::pin(async move { unannounced.all::<IdNumberRow>(conn).await })
            })
            .await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        // In the order of their ids, so that two ticks that announce the same jobs cannot deadlock.
        let after: BTreeMap<String, i64> = found.into_iter().map(|row| (row.id, row.at)).collect();
        let wanted = after.clone();
        let rows = self
            .write(move |store, conn| {
                let clock = store.clock();
                let rows =
                    Rows::default().text(wanted.keys().cloned()).int(wanted.values().copied());
                let tell = sql::<D>(MARK_ANNOUNCED)
                    .bind(clock)
                    .bind(overdue)
                    .rows(rows)
                    .only(wanted.keys().cloned())
                    .bind(clock);
                Box::pin(async move { tell.all::<IdRow>(conn).await })
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
                let clock = store.clock();
                let pick = sql::<D>(PICK_LANES)
                    .bind(clock)
                    .bind(clock)
                    .list::<String>([])
                    .bind(clock)
                    .bind(1_i64);
                Box::pin(async move { pick.all::<IdRow>(conn).await })
            })
            .await?;
        Ok(!rows.is_empty())
    }
}
