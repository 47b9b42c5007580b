//! The few things in which databases differ.

use async_trait::async_trait;
use sqlx::Pool;
use sqlx::migrate::Migrator;

use super::rows::{
    AttemptRow, CountRow, DefinitionRow, DueRow, EntryRow, EventRow, GateRow, IdRow, JobRow, KeyRow, LaneRow, MadeRow, NameRow,
    NowRow, RejectionRow, RunRow, StartedRow, StoredRow, TokenRow, TotalRow, VersionRow,
};
use super::seam::{Binds, Executes, Reads};
use super::statement::Rows;
use crate::store::error::Error;

/// What a database must be able to take and give for the shared statements.
pub trait Speaks:
    Executes
    + Binds<i64>
    + Binds<Option<i64>>
    + Binds<f64>
    + Binds<String>
    + Binds<Option<String>>
    + Reads<AttemptRow>
    + Reads<CountRow>
    + Reads<DefinitionRow>
    + Reads<DueRow>
    + Reads<EntryRow>
    + Reads<EventRow>
    + Reads<IdRow>
    + Reads<JobRow>
    + Reads<KeyRow>
    + Reads<LaneRow>
    + Reads<MadeRow>
    + Reads<NameRow>
    + Reads<NowRow>
    + Reads<RejectionRow>
    + Reads<RunRow>
    + Reads<StartedRow>
    + Reads<StoredRow>
    + Reads<TokenRow>
    + Reads<GateRow>
    + Reads<TotalRow>
    + Reads<VersionRow>
{
}

/// A database tidehook can live in.
#[async_trait]
pub trait Dialect: Speaks {
    /// Its name in messages and caches.
    const DIALECT_NAME: &'static str;
    /// The database's clock: an expression for milliseconds since 1970 as a 64-bit number.
    const NOW: &'static str;
    /// Starts a transaction that will write.
    const BEGIN: &'static str;
    /// The same behind a pooler, with whatever a connection is set to elsewhere.
    const BEGIN_POOLED: &'static str = Self::BEGIN;
    /// Locks the rows of a `SELECT` until the transaction ends.
    const LOCK: &'static str;
    /// The same, leaving out rows that someone else has locked.
    const SKIP_LOCKED: &'static str;

    /// What the database is: texts under the column `name`.
    const ABOUT: &'static str;
    /// Stores events, their jobs and the total in one statement, where the database can do that: the shared
    /// statements of `intake` in one round trip. Binds as they do, then the shard.
    const STORE: Option<&'static str> = None;
    /// Records outcomes that no lane need know, with attempts and totals, in one statement: the shared
    /// statements of `work` in one round trip, for those that still hold their lease.
    const RECORD: Option<&'static str> = None;

    /// What a tick tells of, in the form that suits the planner.
    const UNTOLD: &'static str = super::hints::UNTOLD;

    /// The embedded migrations.
    fn migrator() -> Migrator;

    /// Runs the migrations; safe when two processes start at once.
    async fn migrate(pool: &Pool<Self>) -> Result<(), Error>;

    /// Why no connection can be opened; nothing where one can, or where none is opened while the store runs.
    async fn why_not(pool: &Pool<Self>) -> Option<String> {
        let _ = pool;
        None
    }

    /// Appends the next placeholder and counts it.
    fn placeholder(out: &mut String, next: &mut usize);

    /// Appends a table of bound values without its alias, or with it where the columns are named there,
    /// and counts its placeholders.
    fn rows(out: &mut String, columns: &[(&str, &str)], next: &mut usize);

    /// Binds the values of a `{rows: …}`.
    fn bind_rows(args: &mut Self::Arguments, rows: Rows) -> sqlx::Result<()>;

    /// Appends the condition that the column before it is one of a bound list, and counts its placeholder.
    fn list(out: &mut String, next: &mut usize);

    /// Whether joins with a table of values are narrowed by `{only …}`.
    const GUIDES_JOINS: bool = false;

    /// Appends the condition that narrows a join, and counts its placeholder if it has one.
    fn only(out: &mut String, column: &str, next: &mut usize) {
        match Self::GUIDES_JOINS {
            true => {
                out.push_str(column);
                out.push(' ');
                Self::list(out, next);
            }
            false => out.push_str("true"),
        }
    }

    /// Binds the words of a `{any}`.
    fn bind_list(args: &mut Self::Arguments, words: Vec<String>) -> sqlx::Result<()>;

    /// Takes due jobs of each lane, at most the number beside it, oldest first, and puts them under lease; with `of`, only
    /// jobs of that list.
    ///
    /// The one statement that is written per dialect: with row locks it is one round trip, without them
    /// it is a look and an update that nobody can come between.
    async fn take(
        conn: &mut Self::Connection,
        clock: Option<i64>,
        lease_ms: i64,
        wants: &[(String, i64)],
        of: &[String],
    ) -> sqlx::Result<Vec<DueRow>>;

    /// Settings that weaken a promise, one sentence each.
    async fn weaknesses(conn: &mut Self::Connection) -> sqlx::Result<Vec<String>>;

    /// Settings that a connection lacks although whoever made it was to set them, one sentence each.
    async fn unset(_: &mut Self::Connection) -> sqlx::Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Whether a statement failed because of someone else and may be tried again.
    fn is_busy(error: &sqlx::Error) -> bool;

    /// Whether the connection, not the database, may have been the cause.
    fn is_stale_connection(error: &sqlx::Error) -> bool {
        matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed)
            || matches!(error, sqlx::Error::Database(e) if e.code().is_some_and(|c| c.starts_with("57P")))
    }

    /// What an error means to a caller.
    fn error(error: sqlx::Error) -> Error;
}

/// Embedded migrations: number, name and text of each, in order.
pub(super) fn migrations(list: &[(i64, &'static str, &'static str)]) -> Migrator {
    use sqlx::migrate::{Migration, MigrationType};
    let migrations = list.iter().map(|(number, name, text)| {
        Migration::new(*number, (*name).into(), MigrationType::Simple, sqlx::SqlSafeStr::into_sql_str(*text), false)
    });
    // A version that is gone back to finds migrations that it does not know: they only add, so it runs on.
    Migrator { migrations: migrations.collect::<Vec<_>>().into(), ignore_missing: true, ..Migrator::DEFAULT }
}

/// A database with another program's tables is left alone.
pub(super) async fn refuse_foreign<D: Dialect>(conn: &mut D::Connection, tables: &'static str) -> Result<(), Error> {
    let rows: Vec<NameRow> = super::statement::sql::<D>(tables).all(conn).await.map_err(D::error)?;
    let tables = super::maintenance::names(rows);
    let has = |name: &str| tables.iter().any(|t| t == name);
    if has("jobs") && !has("lanes") {
        let why = "this database holds the tables of another program (qhook keeps its own in the same names); \
                   give tidehook a database of its own";
        return Err(Error::Corrupt(why.to_owned()));
    }
    Ok(())
}

pub(super) fn migration_error<D: Dialect>(error: sqlx::migrate::MigrateError) -> Error {
    match error {
        sqlx::migrate::MigrateError::Execute(error) => D::error(error),
        other => Error::Corrupt(format!("the schema cannot be brought up to date: {other}")),
    }
}
