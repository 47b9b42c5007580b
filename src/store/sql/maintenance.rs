//! Housekeeping in SQL: migrations, retention, probes, and counts of refused requests.

use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use super::driver::Driver;
use super::intake::count;
use super::keys;
use super::looks;
use super::pool::SqlStore;
use super::rows::{CountRow, EndedRow, IdRow, KeyRow, MaybeNumberRow, NameRow, NowRow};
use super::runs::encoded;
use super::values::Rows;
use crate::model::key::within_limits;
use crate::model::run::Gate;
use crate::model::time::millis;
use crate::model::{
    EventId, JobId, JobState, LaneId, OldestKept, Past, Pooler, Retention, Timestamp,
};
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

    async fn oldest_kept(&self, retention: &Retention) -> Result<OldestKept> {
        let (completed, dead) = (retention.completed.count, retention.dead.count);
        self.read(move |store, conn| {
            Box::pin(async move {
                let completed = oldest_kept(conn, &store, "oldest_kept", completed).await?;
                let dead = oldest_kept(conn, &store, "oldest_kept_dead", dead).await?;
                Ok(OldestKept { completed, dead })
            })
        })
        .await
    }

    async fn prune(
        &self,
        retention: &Retention,
        kept: &OldestKept,
        from: Option<EventId>,
        most: u32,
    ) -> Result<(u64, Option<EventId>)> {
        let (retention, kept) = (*retention, *kept);
        self.write(move |store, conn| {
            Box::pin(async move { prune(conn, &store, (&retention, &kept), from, most).await })
        })
        .await
    }

    async fn chores(&self, retention: &Retention) -> Result<Chores> {
        let (age, counts) = (millis(retention.shortest()), i64::from(retention.counts()));
        let names = self
            .read(move |store, conn| {
                Box::pin(async move {
                    let chores = store.sql("chores").bind("age", age).bind("counts", counts);
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

/// The oldest of the newest deliveries, so many of them; `None` if there are fewer or any number
/// may be kept.
async fn oldest_kept<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    name: &'static str,
    count: Option<u32>,
) -> sqlx::Result<Option<JobId>> {
    let Some(count) = count else { return Ok(None) };
    let found: Option<IdRow> =
        store.sql(name).bind("behind", count.saturating_sub(1)).first(conn).await?;
    found.map(|row| parsed(&row.id)).transpose()
}

async fn prune<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    (retention, kept): (&Retention, &OldestKept),
    from: Option<EventId>,
    most: u32,
) -> sqlx::Result<(u64, Option<EventId>)> {
    let from = from.map_or_else(String::new, |id| id.to_string());
    let before = kept.newest().map_or_else(String::new, |id| id.to_string());
    let age = millis(retention.shortest());
    let old = store.sql("old_events").bind("from", from).bind("most", most);
    let old: Vec<IdRow> = old.bind("age", age).bind("before", before).all(conn).await?;
    let Some(last) = old.last() else {
        // These are older than everything that is kept.
        let gates = store.sql("old_gates").bind("empty", encoded(&Gate::default())?);
        gates.bind("age", age).run(conn).await?;
        return Ok((0, None));
    };
    let last = parsed(&last.id)?;
    let mut events: Vec<String> = old.into_iter().map(|r| r.id).collect();
    let jobs: Vec<EndedRow> = store.sql("jobs_of_events").list("events", &events).all(conn).await?;
    let runs: Vec<EndedRow> = store.sql("runs_of_events").list("events", &events).all(conn).await?;
    let mut busy: BTreeSet<&str> = BTreeSet::new();
    for row in &jobs {
        let past = Past { retention, kept, now: Timestamp(row.now) };
        let state = row.state.parse().map_err(|_| undecodable(&row.state))?;
        if past.keeps_job(parsed(&row.id)?, state, row.finished_at.map(Timestamp)) {
            busy.insert(&row.event_id);
        }
    }
    for row in &runs {
        let past = Past { retention, kept, now: Timestamp(row.now) };
        let status = row.state.parse().map_err(|_| undecodable(&row.state))?;
        let kept_until = row.kept_until.map(Timestamp);
        if past.keeps_run(status, row.finished_at.map(Timestamp), kept_until) {
            busy.insert(&row.event_id);
        }
    }
    events.retain(|id| !busy.contains(id.as_str()));
    if events.is_empty() {
        return Ok((0, Some(last)));
    }
    let goes = |row: &&EndedRow| !busy.contains(row.event_id.as_str());
    let dead = jobs.iter().filter(goes).filter(|row| row.state == JobState::Dead.as_str()).count();
    let jobs: Vec<&str> = jobs.iter().filter(goes).map(|row| row.id.as_str()).collect();
    for jobs in jobs.chunks(IDS_MAX) {
        store.sql("delete_attempts").list("jobs", jobs.iter().copied()).run(conn).await?;
        store.sql("delete_jobs").list("jobs", jobs.iter().copied()).run(conn).await?;
    }
    let runs: Vec<&str> = runs.iter().filter(goes).map(|row| row.id.as_str()).collect();
    for runs in runs.chunks(IDS_MAX) {
        store.sql("delete_history").list("runs", runs.iter().copied()).run(conn).await?;
        store.sql("delete_tokens").list("runs", runs.iter().copied()).run(conn).await?;
        store.sql("delete_runs").list("runs", runs.iter().copied()).run(conn).await?;
    }
    let gone = store.sql("delete_events").list("events", &events).run(conn).await?;
    let dead = i64::try_from(dead).unwrap_or(i64::MAX);
    count(conn, store, BTreeMap::from([("dead", -dead)])).await?;
    Ok((gone, Some(last)))
}

fn parsed<T: FromStr>(id: &str) -> sqlx::Result<T> {
    id.parse().map_err(|_| undecodable(id))
}

fn undecodable(text: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("the database holds `{text}`, which tidehook never wrote").into())
}

/// The texts that a query for names returned.
pub(in crate::store) fn names(rows: Vec<NameRow>) -> Vec<String> {
    rows.into_iter().map(|r| r.name).collect()
}
