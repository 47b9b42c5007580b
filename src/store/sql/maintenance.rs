//! Housekeeping in SQL: migrations, retention, probes, and counts of refused requests.

use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::driver::Driver;
use super::intake::count;
use super::keys;
use super::looks;
use super::pool::SqlStore;
use super::rows::{CountRow, IdRow, KeyRow, MaybeNumberRow, NameRow, NowRow};
use super::runs::encoded;
use super::values::Rows;
use crate::model::key::within_limits;
use crate::model::run::Gate;
use crate::model::time::millis;
use crate::model::{EventId, LaneId, Pooler, Timestamp};
use crate::store::error::{Error, Result};
use crate::store::{Chores, Maintenance, OVERDUE, Rejection};

/// How many rows one statement deletes by a list of ids.
const IDS_MAX: usize = 5_000;
const UNREACHABLE: &str = "the database schema is out of date, and migrations cannot run through a \
                           pooler: run `tidehook migrate` with TIDEHOOK_MIGRATE_URL set to the \
                           direct address of the database";

#[async_trait]
impl<D: Driver> Maintenance for SqlStore<D> {
    async fn migrate(&self) -> Result<()> {
        // A schema that is up to date needs no migration, and so no right to alter it.
        match self.missing_migrations().await? {
            0 => Ok(()),
            _ if !self.0.pooler.is_there() => {
                self.0.at_hand.release();
                D::migrate(&self.0.write).await
            }
            // Migrations take a session lock, which a pooler in transaction mode does not support.
            _ => Err(Error::permanent(UNREACHABLE.to_owned())),
        }
    }

    async fn missing_migrations(&self) -> Result<usize> {
        let refused =
            self.read(|store, conn| Box::pin(async move { D::refuse(&store, conn).await })).await?;
        if let Some(why) = refused {
            return Err(Error::permanent(why));
        }
        let wanted = D::migrator().iter().count();
        let found = self.of_migrations("migrated").await?;
        Ok(wanted.saturating_sub(usize::try_from(found).unwrap_or(0)))
    }

    async fn now(&self) -> Result<Timestamp> {
        let row = self
            .read(|store, conn| {
                Box::pin(async move { store.sql("now").first::<NowRow>(conn).await })
            })
            .await?;
        Ok(Timestamp(row.map_or(0, |r| r.now)))
    }

    async fn write_check(&self, bytes: usize) -> Result<Timestamp> {
        let filler = "x".repeat(bytes);
        let probe = move |store: &Self| {
            let probe = store.sql("probe").bind("word", store.shard().to_string());
            probe.bind("filler", filler.clone())
        };
        self.run(probe).await?;
        self.now().await
    }

    async fn reject(&self, rejections: &[Rejection]) -> Result<()> {
        if rejections.is_empty() {
            return Ok(());
        }
        let mut rejections = rejections.to_vec();
        rejections.sort_by(|a, b| (&a.source, &a.reason).cmp(&(&b.source, &b.reason)));
        self.run(move |store| {
            let rows = Rows::default()
                .text("source", rejections.iter().map(|r| within_limits(&r.source)))
                .text("reason", rejections.iter().map(|r| r.reason.clone()))
                .int("n", rejections.iter().map(|r| i64::try_from(r.count).unwrap_or(i64::MAX)));
            store.sql("reject").bind("rows", rows)
        })
        .await
        .map(|_| ())
    }

    async fn prune(
        &self,
        age: Duration,
        from: Option<EventId>,
        most: u32,
    ) -> Result<(u64, Option<EventId>)> {
        self.write(move |store, conn| {
            Box::pin(async move { prune(conn, &store, age, from, most).await })
        })
        .await
    }

    async fn chores(&self, age: Duration) -> Result<Chores> {
        let names = self
            .read(move |store, conn| {
                Box::pin(async move {
                    let chores = store.sql("chores").bind("age", millis(age));
                    chores.bind("empty", encoded(&Gate::default())?).all::<NameRow>(conn).await
                })
            })
            .await?;
        let names = self::names(names);
        let has = |name: &str| names.iter().any(|n| n == name);
        Ok(Chores { expire: has("expire"), prune: has("prune"), forget: has("forget") })
    }

    async fn sweep_lanes(&self, from: Option<LaneId>, most: u32) -> Result<(u64, Option<LaneId>)> {
        let from = from.map_or_else(String::new, |lane| lane.0);
        let page: Vec<MaybeNumberRow> = self
            .read(move |store, conn| {
                let page = store.sql("stray_lanes").bind("from", from.clone());
                let page = page.bind("most", most).bind("overdue", millis(OVERDUE));
                Box::pin(async move { page.all(conn).await })
            })
            .await?;
        let is_full = page.len() == usize::try_from(most).unwrap_or(usize::MAX);
        let last = page.last().filter(|_| is_full).map(|row| LaneId(row.id.clone()));
        let stray: Vec<String> =
            page.into_iter().filter(|row| row.at.is_some()).map(|row| row.id).collect();
        let found = u64::try_from(stray.len()).unwrap_or(u64::MAX);
        if !stray.is_empty() {
            self.write(move |store, conn| {
                let stray = stray.clone();
                Box::pin(async move { looks::wake_now(conn, &store, stray).await })
            })
            .await?;
        }
        Ok((found, last))
    }

    async fn forget_keys(&self, most: u32) -> Result<u64> {
        self.write(move |store, conn| {
            Box::pin(async move {
                let old: Vec<KeyRow> = store.sql("old_keys").bind("most", most).all(conn).await?;
                let old = old.into_iter().map(|row| (row.scope, row.word)).collect();
                keys::delete(conn, &store, old).await
            })
        })
        .await
    }

    fn writers(&self) -> usize {
        // SQLite has one writer. Elsewhere, more writers than processors only make batches smaller,
        // and half of the pool stays for claims and reads.
        let connections = self.0.write.options().get_max_connections();
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        usize::try_from(connections / 2).unwrap_or(1).clamp(1, processors.min(4))
    }

    fn connections(&self) -> Option<(u32, u32)> {
        let idle =
            u32::try_from(self.0.write.num_idle() + self.0.at_hand.count()).unwrap_or(u32::MAX);
        Some((self.0.write.size(), idle))
    }

    async fn about(&self) -> Result<Vec<String>> {
        let rows: Vec<NameRow> = self
            .read(|store, conn| Box::pin(async move { store.sql("about").all(conn).await }))
            .await?;
        Ok(names(rows))
    }

    async fn weaknesses(&self) -> Result<Vec<String>> {
        let mut weaknesses = self
            .read(|store, conn| Box::pin(async move { D::weaknesses(&store, conn).await }))
            .await?;
        if self.0.pooler == Pooler::RdsProxy {
            weaknesses.extend(
                self.read(|store, conn| Box::pin(async move { D::unset(&store, conn).await }))
                    .await?,
            );
        }
        let known = D::migrator().iter().map(|migration| migration.version).max().unwrap_or(0);
        let found = self.of_migrations("newest_migration").await?;
        if found > known {
            weaknesses.push(format!(
                "the database has schema version {found}, but this tidehook ({}) supports \
                 version {known}: a newer tidehook has migrated \
                 it. This version still works, but upgrade to the newer one",
                env!("CARGO_PKG_VERSION")
            ));
        }
        Ok(weaknesses)
    }

    async fn close(&self) {
        self.0.at_hand.close();
        self.0.at_hand_to_read.close();
        self.0.write.close().await;
        self.0.read.close().await;
    }
}

impl<D: Driver> SqlStore<D> {
    /// A number from the table of migrations; 0 if the table does not exist yet.
    async fn of_migrations(&self, name: &'static str) -> Result<i64> {
        let found = self
            .read(move |store, conn| {
                Box::pin(async move { store.sql(name).first::<CountRow>(conn).await })
            })
            .await;
        match found {
            Ok(found) => Ok(found.map_or(0, |found| found.n)),
            Err(Error::Down(why) | Error::Permanent(why)) if why.contains("_sqlx_migrations") => {
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }
}

async fn prune<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    age: Duration,
    from: Option<EventId>,
    most: u32,
) -> sqlx::Result<(u64, Option<EventId>)> {
    let (from, age) = (from.map_or_else(String::new, |id| id.to_string()), millis(age));
    let old = store.sql("old_events").bind("from", from).bind("most", most).bind("age", age);
    let old: Vec<IdRow> = old.all(conn).await?;
    let Some(last) = old.last() else {
        // These are older than everything that is kept.
        let gates = store.sql("old_gates").bind("empty", encoded(&Gate::default())?);
        gates.bind("age", age).run(conn).await?;
        return Ok((0, None));
    };
    let last = last.id.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    let mut events: Vec<String> = old.into_iter().map(|r| r.id).collect();
    for name in ["busy_events", "busy_runs"] {
        let busy = store.sql(name).list("events", &events).bind("age", age);
        let busy: BTreeSet<String> = ids(busy.all(conn).await?).into_iter().collect();
        events.retain(|id| !busy.contains(id));
    }
    if events.is_empty() {
        return Ok((0, Some(last)));
    }
    let dead: Option<CountRow> = store.sql("dead_jobs").list("events", &events).first(conn).await?;
    let jobs = ids(store.sql("jobs_of_events").list("events", &events).all(conn).await?);
    for jobs in jobs.chunks(IDS_MAX) {
        store.sql("delete_attempts").list("jobs", jobs).run(conn).await?;
        store.sql("delete_jobs").list("jobs", jobs).run(conn).await?;
    }
    let runs = ids(store.sql("runs_of_events").list("events", &events).all(conn).await?);
    for runs in runs.chunks(IDS_MAX) {
        store.sql("delete_history").list("runs", runs).run(conn).await?;
        store.sql("delete_tokens").list("runs", runs).run(conn).await?;
        store.sql("delete_runs").list("runs", runs).run(conn).await?;
    }
    let gone = store.sql("delete_events").list("events", &events).run(conn).await?;
    count(conn, store, BTreeMap::from([("dead", -dead.map_or(0, |r| r.n))])).await?;
    Ok((gone, Some(last)))
}

fn ids(rows: Vec<IdRow>) -> Vec<String> {
    rows.into_iter().map(|row| row.id).collect()
}

/// The texts that a query for names returned.
pub(in crate::store) fn names(rows: Vec<NameRow>) -> Vec<String> {
    rows.into_iter().map(|r| r.name).collect()
}
