//! The `Lanes` verbs in SQL: settings from the configuration, pauses, backlogs and renames.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::SqlStore;
use super::dialect::Dialect;
use super::rows::{IdNumberRow, LaneRow};
use super::runs::encoded;
use super::statement::{Rows, sql};
use crate::model::{Lane, LaneId, LaneSpec, Timestamp};
use crate::store::Lanes;
use crate::store::error::Result;

// A changed rate starts with a full second's worth; an unchanged one keeps its tokens.
const UPSERT_LANES: &str = "INSERT INTO lanes (id, tenant, paused, failures, ramp, rate, tokens,
        refilled_at, turn, rules)
    SELECT r.id, r.tenant, 0, 0, 0, r.rate, COALESCE(r.rate, 0), {now}, 0, r.rules
    FROM {rows: id text, tenant text, rate int, rules text} AS r WHERE true
    ON CONFLICT (id) DO UPDATE
        SET tenant = excluded.tenant, rate = excluded.rate, rules = excluded.rules
    WHERE lanes.tenant <> excluded.tenant OR COALESCE(lanes.rate, -1) <> COALESCE(excluded.rate, -1)
    OR COALESCE(lanes.rules, '') <> COALESCE(excluded.rules, '')";
const LANES: &str =
    "SELECT id, tenant, paused, failures, open_until, probe_until, ramp, rate, tokens, refilled_at,
        turn, rules, {now} AS now
    FROM lanes ORDER BY id";
const PAUSE: &str = "UPDATE lanes SET paused = 1 WHERE id = ?";
// An open breaker admits one probe now, even if an earlier probe is unfinished.
const RESUME: &str = "UPDATE lanes SET paused = 0, open_until = CASE WHEN open_until > {now}
        THEN {now} ELSE open_until END,
    probe_until = CASE WHEN open_until IS NULL THEN probe_until END WHERE id = ?";

// One index lookup per lane, whatever the backlog.
pub(super) const BACKLOG: &str = "SELECT w.id, w.at FROM (SELECT l.id, (SELECT MIN(j.due_at)
        FROM jobs j
    WHERE j.lane = l.id AND j.finished_at IS NULL) AS at FROM lanes l) AS w WHERE w.at <= {now}
        ORDER BY w.id";

const OPEN_JOBS: &str = "SELECT lane AS id, COUNT(*) AS at FROM jobs WHERE lane {any}
        AND finished_at IS NULL GROUP BY lane";
// Locked rows are being claimed or recorded. The next pass finds them.
const RENAME: &str = "WITH few AS MATERIALIZED (SELECT id FROM jobs
    WHERE lane = ? AND finished_at IS NULL AND state = 'pending' ORDER BY due_at
        LIMIT ? {skip locked})
    UPDATE jobs SET target_name = ?, lane = ? WHERE state = 'pending' AND id IN
        (SELECT id FROM few)";
// The old lane loses its pause too. Otherwise the next pass would pause the new lane again after an
// operator has resumed it.
const MOVE_PAUSE: &str = "UPDATE lanes SET paused = CASE WHEN id = ? THEN 1 ELSE 0 END
    WHERE id IN (?, ?) AND EXISTS (SELECT 1 FROM lanes AS old WHERE old.id = ? AND old.paused = 1)
    AND EXISTS (SELECT 1 FROM lanes AS new WHERE new.id = ?)";

pub(super) const ALL: &[&str] =
    &[UPSERT_LANES, LANES, PAUSE, RESUME, BACKLOG, OPEN_JOBS, RENAME, MOVE_PAUSE];

#[async_trait]
impl<D: Dialect> Lanes for SqlStore<D> {
    async fn upsert_lanes(&self, specs: &[LaneSpec]) -> Result<()> {
        if specs.is_empty() {
            return Ok(());
        }
        let mut specs = specs.to_vec();
        specs.sort_by(|a, b| a.id.cmp(&b.id));
        self.write(move |store, conn| {
            let rules = specs.iter().map(|s| encoded(&s.breaker)).collect::<sqlx::Result<Vec<_>>>();
            let rows = Rows::default()
                .text(specs.iter().map(|s| s.id.0.clone()))
                .text(specs.iter().map(|s| s.tenant.clone()))
                .maybe_int(specs.iter().map(|s| s.rate.map(i64::from)));
            Box::pin(async move {
                sql::<D>(UPSERT_LANES).bind(store.clock()).rows(rows.text(rules?)).run(conn).await
            })
        })
        .await
        .map(|_| ())
    }

    async fn lanes(&self) -> Result<Vec<Lane>> {
        let rows = self
            .read(|store, conn| {
                Box::pin(
                    async move { sql::<D>(LANES).bind(store.clock()).all::<LaneRow>(conn).await },
                )
            })
            .await?;
        Ok(rows.into_iter().map(Lane::from).collect())
    }

    async fn backlog(&self) -> Result<BTreeMap<LaneId, Timestamp>> {
        let rows = self
            .read(|store, conn| {
                Box::pin(async move {
                    sql::<D>(BACKLOG).bind(store.clock()).all::<IdNumberRow>(conn).await
                })
            })
            .await?;
        Ok(rows.into_iter().map(|row| (LaneId(row.id), Timestamp(row.at))).collect())
    }

    async fn pause(&self, lane: &LaneId, paused: bool) -> Result<bool> {
        let lane = lane.0.clone();
        let changed = self.run(move |store| match paused {
            true => sql::<D>(PAUSE).bind(lane.clone()),
            false => sql::<D>(RESUME).bind(store.clock()).bind(store.clock()).bind(lane.clone()),
        });
        let changed = changed.await?;
        Ok(changed > 0)
    }

    async fn open_jobs(&self, lanes: &[LaneId]) -> Result<BTreeMap<LaneId, u64>> {
        if lanes.is_empty() {
            return Ok(BTreeMap::new());
        }
        let lanes: Vec<String> = lanes.iter().map(|lane| lane.0.clone()).collect();
        let rows = self
            .read(move |_, conn| {
                let lanes = lanes.clone();
                Box::pin(
                    async move { sql::<D>(OPEN_JOBS).list(lanes).all::<IdNumberRow>(conn).await },
                )
            })
            .await?;
        Ok(rows
            .into_iter()
            .map(|row| (LaneId(row.id), u64::try_from(row.at).unwrap_or(0)))
            .collect())
    }

    async fn rename(&self, from: &str, to: &str, most: u32) -> Result<u64> {
        let (old, new, name) = (LaneId::handler(from).0, LaneId::handler(to).0, to.to_owned());
        self.write(move |_, conn| {
            let jobs = sql::<D>(RENAME)
                .bind(old.clone())
                .bind(i64::from(most))
                .bind(name.clone())
                .bind(new.clone());
            let pause = sql::<D>(MOVE_PAUSE)
                .bind(new.clone())
                .bind(old.clone())
                .bind(new.clone())
                .bind(old.clone())
                .bind(new.clone());
            Box::pin(async move {
                let moved = jobs.run(conn).await?;
                if moved > 0 {
                    pause.run(conn).await?;
                }
                Ok(moved)
            })
        })
        .await
    }
}
