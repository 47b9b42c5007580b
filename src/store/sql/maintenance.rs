//! Housekeeping in SQL: migrations, retention, probes, and counts of refused requests.

use async_trait::async_trait;
use std::collections::BTreeMap;
use std::time::Duration;

use super::SqlStore;
use super::dialect::Dialect;
use super::intake::{count, delete_keys};
use super::rows::{CountRow, IdRow, KeyRow, NameRow, NowRow};
use super::runs::encoded;
use super::statement::{Rows, sql};
use crate::model::key::within_limits;
use crate::model::run::Gate;
use crate::model::time::millis;
use crate::model::{EventId, Pooler, Timestamp};
use crate::store::error::{Error, Result};
use crate::store::{Chores, Maintenance, Rejection};

const MIGRATED: &str = "SELECT COUNT(*) AS n FROM _sqlx_migrations WHERE success";
const NEWEST: &str = "SELECT COALESCE(MAX(version), 0) AS n FROM _sqlx_migrations WHERE success";
const UNREACHABLE: &str = "the database schema is out of date, and migrations cannot run through a \
                           pooler: run `tidehook migrate` with \
    TIDEHOOK_MIGRATE_URL set to the direct address of the database";
const NOW: &str = "SELECT {now} AS now";
// A dummy key. It expires a day after the last probe.
const PROBE: &str = "INSERT INTO keys (scope, word, event_id, fingerprint, expires_at)
        VALUES ('probe', ?, '', ?, {now} + 86400000)
    ON CONFLICT (scope, word) DO UPDATE
        SET fingerprint = excluded.fingerprint, expires_at = excluded.expires_at";
const REJECT: &str = "INSERT INTO rejections (source, reason, count, first_at, last_at)
    SELECT r.source, r.reason, r.n, {now}, {now} FROM {rows: source text, reason text, n int} AS r
        WHERE true
    ON CONFLICT (source, reason) DO UPDATE
        SET count = rejections.count + excluded.count, last_at = excluded.last_at";
// Ids are in the order of time, so a page without an old event ends the pass, however many events
// are kept.
pub(super) const OLD_EVENTS: &str =
    "SELECT page.id FROM (SELECT id, created_at FROM events WHERE id > ? ORDER BY id
        LIMIT ?) AS page
    WHERE page.created_at < {now} - ? ORDER BY page.id";
const BUSY_EVENTS: &str = "SELECT DISTINCT event_id AS id FROM jobs WHERE event_id {any}
    AND (finished_at IS NULL OR finished_at >= {now} - ?)";
const DEAD_JOBS: &str = "SELECT COUNT(*) AS n FROM jobs WHERE state = 'dead'
    AND event_id {any}";
const DELETE_JOBS: &str = "DELETE FROM jobs WHERE event_id {any} RETURNING id";
const DELETE_ATTEMPTS: &str = "DELETE FROM attempts WHERE job_id {any}";
const DELETE_RUNS: &str = "DELETE FROM runs WHERE event_id {any} RETURNING id";
const DELETE_HISTORY: &str = "DELETE FROM history WHERE run_id {any}";
const DELETE_TOKENS: &str = "DELETE FROM tokens WHERE run_id {any}";
// A run that its workflow keeps longer keeps its event.
const BUSY_RUNS: &str = "SELECT DISTINCT event_id AS id FROM runs WHERE event_id {any}
    AND (finished_at IS NULL OR finished_at >= {now} - ? OR prune_at > {now})";
const OLD_GATES: &str = "DELETE FROM gates WHERE state = ? AND changed_at < {now} - ?";
const DELETE_EVENTS: &str = "DELETE FROM events WHERE id {any}";
const OLD_KEYS: &str = "SELECT scope, word, event_id, fingerprint, expires_at, {now} AS now
        FROM keys WHERE expires_at <= {now}
    ORDER BY expires_at LIMIT ?";

// Which chores have work, in one query before any of them starts a transaction. Each looks at the
// head of an index.
pub(super) const CHORES: &str = "SELECT CAST('expire' AS TEXT) AS name
    WHERE (SELECT expires_at FROM jobs WHERE finished_at IS NULL AND expires_at IS NOT NULL
        AND state = 'pending'
        ORDER BY expires_at LIMIT 1) <= {now}
    UNION ALL SELECT CAST('prune' AS TEXT) AS name
    WHERE (SELECT created_at FROM events ORDER BY id LIMIT 1) < {now} - ?
    OR EXISTS (SELECT 1 FROM gates WHERE state = ? AND changed_at < {now} - ?)
    UNION ALL SELECT CAST('forget' AS TEXT) AS name 
    WHERE (SELECT expires_at FROM keys ORDER BY expires_at LIMIT 1) <= {now}";

pub(super) const ALL: &[&str] = &[
    NOW,
    PROBE,
    REJECT,
    OLD_EVENTS,
    BUSY_EVENTS,
    DEAD_JOBS,
    DELETE_ATTEMPTS,
    DELETE_JOBS,
    DELETE_RUNS,
    DELETE_HISTORY,
    DELETE_TOKENS,
    BUSY_RUNS,
    OLD_GATES,
    DELETE_EVENTS,
    OLD_KEYS,
    CHORES,
];

#[async_trait]
impl<D: Dialect> Maintenance for SqlStore<D> {
    async fn migrate(&self) -> Result<()> {
        // A schema that is up to date needs no migration, and so no right to alter it.
        match self.missing_migrations().await? {
            0 => Ok(()),
            _ if !self.0.pooler.is_there() => D::migrate(&self.0.write).await,
            // Migrations take a session lock, which a pooler in transaction mode does not support.
            _ => Err(Error::permanent(UNREACHABLE.to_owned())),
        }
    }

    async fn missing_migrations(&self) -> Result<usize> {
        let wanted = D::migrator().iter().count();
        let found = self.of_migrations(MIGRATED).await?;
        Ok(wanted.saturating_sub(usize::try_from(found).unwrap_or(0)))
    }

    async fn now(&self) -> Result<Timestamp> {
        let row = self
            .read(|store, conn| {
                Box::pin(
                    async move { sql::<D>(NOW).bind(store.clock()).first::<NowRow>(conn).await },
                )
            })
            .await?;
        Ok(Timestamp(row.map_or(0, |r| r.now)))
    }

    async fn write_check(&self, bytes: usize) -> Result<Timestamp> {
        let filler = "x".repeat(bytes);
        let probe = move |store: &Self| {
            sql::<D>(PROBE).bind(store.shard().to_string()).bind(filler.clone()).bind(store.clock())
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
                .text(rejections.iter().map(|r| within_limits(&r.source)))
                .text(rejections.iter().map(|r| r.reason.clone()))
                .int(rejections.iter().map(|r| i64::try_from(r.count).unwrap_or(i64::MAX)));
            sql::<D>(REJECT).bind(store.clock()).bind(store.clock()).rows(rows)
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
            Box::pin(async move { prune::<D>(conn, &store, age, from, most).await })
        })
        .await
    }

    async fn chores(&self, age: Duration) -> Result<Chores> {
        let names = self
            .read(move |store, conn| {
                let clock = store.clock();
                Box::pin(async move {
                    let chores = sql::<D>(CHORES)
                        .bind(clock)
                        .bind(clock)
                        .bind(millis(age))
                        .bind(encoded(&Gate::default())?)
                        .bind(clock);
                    chores.bind(millis(age)).bind(clock).all::<NameRow>(conn).await
                })
            })
            .await?;
        let names = self::names(names);
        let has = |name: &str| names.iter().any(|n| n == name);
        Ok(Chores { expire: has("expire"), prune: has("prune"), forget: has("forget") })
    }

    async fn forget_keys(&self, most: u32) -> Result<u64> {
        self.write(move |store, conn| {
            Box::pin(async move {
                let (clock, most) = (store.clock(), i64::from(most));
                let old: Vec<KeyRow> =
                    sql::<D>(OLD_KEYS).bind(clock).bind(clock).bind(most).all(conn).await?;
                delete_keys::<D>(conn, old.into_iter().map(|row| (row.scope, row.word)).collect())
                    .await
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
            .read(|_, conn| Box::pin(async move { sql::<D>(D::ABOUT).all(conn).await }))
            .await?;
        Ok(names(rows))
    }

    async fn weaknesses(&self) -> Result<Vec<String>> {
        let mut weaknesses =
            self.read(|_, conn| Box::pin(async move { D::weaknesses(conn).await })).await?;
        if self.0.pooler == Pooler::RdsProxy {
            weaknesses
                .extend(self.read(|_, conn| Box::pin(async move { D::unset(conn).await })).await?);
        }
        let known = D::migrator().iter().map(|migration| migration.version).max().unwrap_or(0);
        let found = self.of_migrations(NEWEST).await?;
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
        self.0.write.close().await;
        self.0.read.close().await;
    }
}

impl<D: Dialect> SqlStore<D> {
    /// A number from the table of migrations; 0 if the table does not exist yet.
    async fn of_migrations(&self, statement: &'static str) -> Result<i64> {
        let found = self
            .read(move |_, conn| {
                Box::pin(async move { sql::<D>(statement).first::<CountRow>(conn).await })
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

async fn prune<D: Dialect>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    age: Duration,
    from: Option<EventId>,
    most: u32,
) -> sqlx::Result<(u64, Option<EventId>)> {
    let clock = store.clock();
    let from = from.map_or_else(String::new, |id| id.to_string());
    let old: Vec<IdRow> = sql::<D>(OLD_EVENTS)
        .bind(from)
        .bind(i64::from(most))
        .bind(clock)
        .bind(millis(age))
        .all(conn)
        .await?;
    let Some(last) = old.last() else {
        // These are older than everything that is kept.
        sql::<D>(OLD_GATES)
            .bind(encoded(&Gate::default())?)
            .bind(clock)
            .bind(millis(age))
            .run(conn)
            .await?;
        return Ok((0, None));
    };
    let last = last.id.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    let ids: Vec<String> = old.into_iter().map(|r| r.id).collect();
    let busy: Vec<IdRow> =
        sql::<D>(BUSY_EVENTS).list(&ids).bind(clock).bind(millis(age)).all(conn).await?;
    let with_runs: Vec<IdRow> =
        sql::<D>(BUSY_RUNS).list(&ids).bind(clock).bind(millis(age)).bind(clock).all(conn).await?;
    let busy: Vec<IdRow> = busy.into_iter().chain(with_runs).collect();
    let ids: Vec<String> = ids.into_iter().filter(|id| !busy.iter().any(|b| b.id == *id)).collect();
    if ids.is_empty() {
        return Ok((0, Some(last)));
    }
    let dead: Option<CountRow> = sql::<D>(DEAD_JOBS).list(&ids).first(conn).await?;
    let jobs: Vec<IdRow> = sql::<D>(DELETE_JOBS).list(&ids).all(conn).await?;
    sql::<D>(DELETE_ATTEMPTS).list(jobs.into_iter().map(|row| row.id)).run(conn).await?;
    let runs: Vec<IdRow> = sql::<D>(DELETE_RUNS).list(&ids).all(conn).await?;
    if !runs.is_empty() {
        sql::<D>(DELETE_HISTORY).list(runs.iter().map(|row| &row.id)).run(conn).await?;
        sql::<D>(DELETE_TOKENS).list(runs.iter().map(|row| &row.id)).run(conn).await?;
    }
    let gone = sql::<D>(DELETE_EVENTS).list(&ids).run(conn).await?;
    let mut counts = BTreeMap::from([("dead", -dead.map_or(0, |r| r.n))]);
    count::<D>(conn, store.shard(), &mut counts).await?;
    Ok((gone, Some(last)))
}

/// Every shared statement. A test prepares each one on every dialect.
pub fn statements() -> Vec<&'static str> {
    [
        super::intake::ALL,
        super::work::ALL,
        super::lanes::ALL,
        super::query::ALL,
        super::runs::ALL,
        super::hints::ALL,
        ALL,
    ]
    .concat()
}

/// The texts that a query for names returned.
pub(super) fn names(rows: Vec<NameRow>) -> Vec<String> {
    rows.into_iter().map(|r| r.name).collect()
}
