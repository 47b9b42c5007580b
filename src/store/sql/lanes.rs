//! The `Lanes` verbs in SQL: settings from the configuration, pauses, backlogs and renames.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::driver::Driver;
use super::looks;
use super::pool::SqlStore;
use super::rows::{IdNumberRow, IdRow, LaneRow};
use super::runs::encoded;
use super::values::Rows;
use crate::model::{Lane, LaneId, LaneSpec, Timestamp};
use crate::store::Lanes;
use crate::store::error::Result;

/// `ready` of a lane that a claim looks at now, and of one that no claim ever looks at.
const READY: i64 = 1;
const PULLED: i64 = 2;

#[async_trait]
impl<D: Driver> Lanes for SqlStore<D> {
    async fn upsert_lanes(&self, specs: &[LaneSpec]) -> Result<()> {
        if specs.is_empty() {
            return Ok(());
        }
        let mut specs = specs.to_vec();
        specs.sort_by(|a, b| a.id.cmp(&b.id));
        self.write(move |store, conn| {
            let rules = specs.iter().map(|s| encoded(&s.breaker)).collect::<sqlx::Result<Vec<_>>>();
            let rows = Rows::default()
                .text("id", specs.iter().map(|s| s.id.0.clone()))
                .text("tenant", specs.iter().map(|s| s.tenant.clone()))
                .maybe_int("rate", specs.iter().map(|s| s.rate.map(i64::from)))
                .int("ready", specs.iter().map(|s| if s.id.is_pulled() { PULLED } else { READY }));
            Box::pin(async move {
                store.sql("upsert_lanes").bind("rows", rows.text("rules", rules?)).run(conn).await
            })
        })
        .await
        .map(|_| ())
    }

    async fn lanes(&self) -> Result<Vec<Lane>> {
        let rows = self
            .read(|store, conn| {
                Box::pin(async move { store.sql("lanes").all::<LaneRow>(conn).await })
            })
            .await?;
        Ok(rows.into_iter().map(Lane::from).collect())
    }

    async fn backlog(&self) -> Result<BTreeMap<LaneId, Timestamp>> {
        let rows = self
            .read(|store, conn| {
                Box::pin(async move { store.sql("backlog").all::<IdNumberRow>(conn).await })
            })
            .await?;
        Ok(rows.into_iter().map(|row| (LaneId(row.id), Timestamp(row.at))).collect())
    }

    async fn pause(&self, lane: &LaneId, paused: bool) -> Result<bool> {
        let lane = lane.0.clone();
        let changed = self.run(move |store| match paused {
            true => store.sql("pause").bind("id", lane.clone()),
            false => store.sql("resume").bind("id", lane.clone()),
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
            .read(move |store, conn| {
                let lanes = lanes.clone();
                Box::pin(async move {
                    store.sql("open_jobs").list("lanes", lanes).all::<IdNumberRow>(conn).await
                })
            })
            .await?;
        Ok(rows
            .into_iter()
            .map(|row| (LaneId(row.id), u64::try_from(row.at).unwrap_or(0)))
            .collect())
    }

    async fn rename(&self, from: &str, to: &str, most: u32) -> Result<u64> {
        let (old, new, name) = (LaneId::handler(from).0, LaneId::handler(to).0, to.to_owned());
        self.write(move |store, conn| {
            let (old, new, name) = (old.clone(), new.clone(), name.clone());
            Box::pin(async move {
                let few = store.sql("lock_renamed").bind("old", old.clone()).bind("most", most);
                let few: Vec<IdRow> = few.all(conn).await?;
                if few.is_empty() {
                    return Ok(0);
                }
                let rename = store.sql("rename").bind("name", name).bind("new", new.clone());
                let moved = rename.list("ids", few.into_iter().map(|row| row.id)).run(conn).await?;
                looks::wake_now(conn, &store, [new.clone()]).await?;
                // The old lane loses its pause too. Otherwise the next pass would pause the new
                // lane again after an operator has resumed it.
                let paused = store.sql("paused_lane").bind("old", old.clone());
                if moved > 0
                    && paused.first::<IdRow>(conn).await?.is_some()
                    && store.sql("pause").bind("id", new).run(conn).await? > 0
                {
                    store.sql("unpause").bind("id", old).run(conn).await?;
                }
                Ok(moved)
            })
        })
        .await
    }
}
