//! What a driver says about its database: clock, locks, placeholders, errors; and the verbs that it
//! has statements of its own for.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::Pool;
use sqlx::migrate::Migrator;

use super::rows::{
    AttemptRow, CountRow, DefinitionRow, DueRow, EndedRow, EntryRow, EventRow, GateRow,
    IdNumberRow, IdRow, JobRow, KeyRow, LaneRow, MadeRow, MaybeNumberRow, MoveRow, NameRow, NowRow,
    QueueCountsRow, RejectionRow, RunRow, TokenRow, TotalRow, VersionRow,
};
use super::seam::{Binds, Executes, Reads};
use super::statement::Texts;
use super::tables::CellsRow;
use super::values::{Column, Rows};
use super::{SqlStore, intake, looks, record};
use crate::decide::settle::JobOutcome;
use crate::model::JobId;
use crate::store::error::{Error, Result};
use crate::store::{Accepted, NewEvent};

/// The types that a database must bind and read for the shared statements.
pub trait SupportsTypes:
    Executes
    + Binds<Option<i64>>
    + Binds<Option<f64>>
    + Binds<String>
    + Binds<Option<String>>
    + Binds<Option<Vec<u8>>>
    + Reads<AttemptRow>
    + Reads<CellsRow>
    + Reads<CountRow>
    + Reads<DefinitionRow>
    + Reads<DueRow>
    + Reads<EndedRow>
    + Reads<EntryRow>
    + Reads<EventRow>
    + Reads<IdRow>
    + Reads<JobRow>
    + Reads<KeyRow>
    + Reads<LaneRow>
    + Reads<MadeRow>
    + Reads<MaybeNumberRow>
    + Reads<MoveRow>
    + Reads<NameRow>
    + Reads<NowRow>
    + Reads<QueueCountsRow>
    + Reads<RejectionRow>
    + Reads<RunRow>
    + Reads<IdNumberRow>
    + Reads<TokenRow>
    + Reads<GateRow>
    + Reads<TotalRow>
    + Reads<VersionRow>
{
}

/// How a list of values is bound to `IN (:names...)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lists {
    /// As one array: `= ANY($1::text[])`.
    Array,
    /// As one JSON array, read by `json_each`.
    Json,
    /// Each value to a placeholder of its own.
    Each,
}

/// What an error of the database means to the runner of verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A concurrent transaction was first (deadlock, lock timeout, busy). Nothing was changed, and
    /// the verb is repeated.
    Conflict,
    /// The connection may be at fault rather than the database, so that another connection may
    /// work.
    StaleConnection,
    /// Anything else.
    Other,
}

/// How many jobs of a lane a claim wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The lane's id.
    pub lane: String,
    /// The most jobs to take from it.
    pub most: u32,
}

/// What a claim takes.
#[derive(Debug, Clone, Copy)]
pub struct Take<'a> {
    /// The lanes, and how many jobs of each.
    pub wants: &'a [Want],
    /// Only these jobs; empty means any that is due.
    pub only: &'a [JobId],
    /// How long the lease lasts, in milliseconds.
    pub lease_ms: i64,
}

/// A database that can hold tidehook's tables.
#[async_trait]
pub trait Driver: SupportsTypes {
    /// The database's clock, as an SQL expression: milliseconds since 1970 as a 64-bit number.
    const NOW: &'static str;
    /// The statement that starts a transaction that will write.
    const BEGIN: &'static str;
    /// The same behind a pooler. It also sets what a direct connection is set to when it is opened.
    const BEGIN_POOLED: &'static str = Self::BEGIN;
    /// Locks the rows of a `SELECT` until the transaction ends.
    const FOR_UPDATE: &'static str;
    /// The same, but skips rows that another transaction has locked.
    const SKIP_LOCKED: &'static str;
    /// The sign before numbered placeholders; `None` where each `?` binds a value of its own.
    const NUMBERED: Option<char>;
    /// How lists are bound.
    const LISTS: Lists;
    /// Whether one text may have several statements, which take one round trip.
    const SCRIPTS: bool = false;
    /// The sign around names that are words of the language.
    const QUOTE: char = '"';

    /// A text column as it is sorted and compared byte by byte.
    fn by_bytes(column: &str) -> String {
        column.to_owned()
    }

    /// A column of exact text as text ([`crate::store::port::tables::Kind::Exact`]).
    fn as_text(column: &str) -> String {
        column.to_owned()
    }

    /// The statements of this driver, shared ones included.
    fn texts() -> &'static Texts;

    /// The migrations that are compiled into this binary.
    fn migrator() -> Migrator;

    /// Runs the migrations; safe when two processes start at once.
    async fn migrate(pool: &Pool<Self>) -> Result<()>;

    /// Why no connection can be opened, asked with a connection of its own. `None` when one can be
    /// opened, or when the driver opens none later.
    async fn why_not(pool: &Pool<Self>) -> Option<String> {
        let _ = pool;
        None
    }

    /// Why this server cannot keep the store's promises; `None` if it can.
    async fn refuse(_: &SqlStore<Self>, _: &mut Self::Connection) -> sqlx::Result<Option<String>> {
        Ok(None)
    }

    /// Binds an array, where the database has them.
    ///
    /// # Errors
    /// It has none.
    fn bind_array(args: &mut Self::Arguments, values: Column) -> sqlx::Result<()> {
        let _ = (args, values);
        Err(sqlx::Error::Configuration(format!("{} has no arrays", Self::NAME).into()))
    }

    /// Stores new events with their jobs, in one transaction. See [`crate::store::Intake::accept`].
    async fn accept(store: &SqlStore<Self>, events: Arc<[NewEvent]>) -> Result<Vec<Accepted>> {
        intake::accept(store, events).await
    }

    /// Stores events without keys with their jobs, within a transaction.
    async fn store_events(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
        events: &[NewEvent],
    ) -> sqlx::Result<()> {
        intake::insert(store, conn, intake::Slice::without_keys(events), false).await.map(drop)
    }

    /// The lanes to look at, at most `most` of each tenant: the tenants behind one by name first,
    /// each with the lane that waits longest first, and last the lanes whose time has come.
    async fn pick(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
        behind: &str,
        skip: &[String],
        most: u32,
    ) -> sqlx::Result<Vec<LaneRow>> {
        looks::pick_by_tenant(conn, store, behind, skip, most).await
    }

    /// Claims due jobs of each lane, oldest first and at most the number beside it, and puts them
    /// under lease. The lanes are locked.
    async fn take(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
        take: Take<'_>,
    ) -> sqlx::Result<Vec<DueRow>>;

    /// Runs a fenced update of jobs by a table of values, and answers the ids of those that it
    /// changed.
    async fn changed(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
        name: &'static str,
        values: Vec<(&'static str, i64)>,
        rows: Rows,
    ) -> sqlx::Result<Vec<IdRow>> {
        let update = values.into_iter().fold(store.sql(name), |sql, (name, n)| sql.bind(name, n));
        update.bind("rows", rows).all(conn).await
    }

    /// Has lanes looked at in time for jobs that become due: rows of `lane`, `due` (an instant) and
    /// `delay` (from now), the earlier of which counts.
    async fn wake(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
        rows: Rows,
    ) -> sqlx::Result<()> {
        store.sql("wake_lanes").bind("rows", rows).run(conn).await.map(|_| ())
    }

    /// Records outcomes. See [`crate::store::Work::record`].
    async fn record(
        store: &SqlStore<Self>,
        outcomes: Arc<[JobOutcome]>,
    ) -> Result<Vec<Result<()>>> {
        record::deliveries_first(store, outcomes).await
    }

    /// Settings that put durability or progress at risk, one sentence each.
    async fn weaknesses(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
    ) -> sqlx::Result<Vec<String>>;

    /// Settings that a connection should have but lacks behind a pooler, one sentence each.
    async fn unset(_: &SqlStore<Self>, _: &mut Self::Connection) -> sqlx::Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// What an error means to the runner of verbs.
    fn kind(error: &sqlx::Error) -> Kind;

    /// Translates an error of the driver into what it means to the caller.
    fn error(error: sqlx::Error) -> Error;
}

/// Whether an error is one of the connection rather than of the database's answer.
pub fn is_of_connection(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed)
}

/// Whether a value or a row could not be translated: trying again does not help.
pub fn is_of_values(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Encode(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::Configuration(_)
    )
}

/// The embedded migrations, in order: number, name and text of each.
pub fn migrations(list: &[(i64, &'static str, &'static str)]) -> Migrator {
    use sqlx::migrate::{Migration, MigrationType};
    let migrations = list.iter().map(|(number, name, text)| {
        Migration::new(
            *number,
            (*name).into(),
            MigrationType::Simple,
            sqlx::SqlSafeStr::into_sql_str(*text),
            false,
        )
    });
    // After a downgrade the database has migrations that this version does not know. They only add,
    // so they are ignored.
    Migrator {
        migrations: migrations.collect::<Vec<_>>().into(),
        ignore_missing: true,
        ..Migrator::DEFAULT
    }
}

/// Refuses a database that holds another program's tables, before any migration changes it.
///
/// # Errors
/// The database holds such tables, or does not answer.
pub async fn refuse_foreign<D: Driver>(conn: &mut D::Connection) -> Result<()> {
    let rows: Vec<NameRow> =
        super::statement::Sql::<D>::named("tables", None).all(conn).await.map_err(D::error)?;
    let tables = super::maintenance::names(rows);
    let has = |name: &str| tables.iter().any(|t| t == name);
    if has("jobs") && !has("lanes") {
        let why = "this database contains tables of another program (qhook uses the same \
                   table names); use a separate database for tidehook";
        return Err(Error::permanent(why.to_owned()));
    }
    Ok(())
}

/// What a failed migration means to the caller.
pub fn migration_error<D: Driver>(error: sqlx::migrate::MigrateError) -> Error {
    match error {
        sqlx::migrate::MigrateError::Execute(error) => D::error(error),
        other => Error::permanent(format!("the database migration failed: {other}")),
    }
}
