//! The few points in which databases differ: clock, locks, placeholders, tables of values, errors.

use async_trait::async_trait;
use sqlx::Pool;
use sqlx::migrate::Migrator;

use super::rows::{
    AttemptRow, CountRow, DefinitionRow, DueRow, EntryRow, EventRow, GateRow, IdNumberRow, IdRow,
    JobRow, KeyRow, LaneRow, MadeRow, NameRow, NowRow, RejectionRow, RunRow, StartedRow, TokenRow,
    TotalRow, VersionRow,
};
use super::seam::{Binds, Executes, Reads};
use super::statement::Rows;
use crate::store::error::Error;

/// The types that a database must bind and read for the shared statements.
pub trait SupportsTypes:
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
    + Reads<IdNumberRow>
    + Reads<TokenRow>
    + Reads<GateRow>
    + Reads<TotalRow>
    + Reads<VersionRow>
{
}

/// A database that can hold tidehook's tables.
#[async_trait]
pub trait Dialect: SupportsTypes {
    /// The database's name, in messages and as a key of caches.
    const DIALECT_NAME: &'static str;
    /// The database's clock, as an SQL expression: milliseconds since 1970 as a 64-bit number.
    const NOW: &'static str;
    /// The statement that starts a transaction that will write.
    const BEGIN: &'static str;
    /// The same behind a pooler. It also sets what a direct connection is set to when it is opened.
    const BEGIN_POOLED: &'static str = Self::BEGIN;
    /// Locks the rows of a `SELECT` until the transaction ends.
    const LOCK: &'static str;
    /// The same, but skips rows that another transaction has locked.
    const SKIP_LOCKED: &'static str;

    /// A query for version and similar facts: texts in the column `name`.
    const ABOUT: &'static str;
    /// One statement that stores events, their jobs and the total, if the database can do that. It
    /// does in one round trip what the shared statements of `intake` do in several. Binds the same
    /// values, then the shard.
    const STORE: Option<&'static str> = None;
    /// One statement that records outcomes with attempts and totals, for those that still hold
    /// their lease; only for outcomes that concern neither a breaker nor a run. It does in one
    /// round trip what the shared statements of `work` do in several.
    const RECORD: Option<&'static str> = None;

    /// The query for jobs to announce, in the form that suits the database's planner.
    const UNANNOUNCED: &'static str = super::hints::UNANNOUNCED;

    /// The migrations that are compiled into this binary.
    fn migrator() -> Migrator;

    /// Runs the migrations; safe when two processes start at once.
    async fn migrate(pool: &Pool<Self>) -> Result<(), Error>;

    /// Why no connection can be opened, asked with a connection of its own. `None` when one can be
    /// opened, or when the dialect opens none later.
    async fn why_not(pool: &Pool<Self>) -> Option<String> {
        let _ = pool;
        None
    }

    /// Appends the next placeholder and counts it.
    fn placeholder(out: &mut String, next: &mut usize);

    /// Appends a table of bound values and counts its placeholders. The alias follows in the text.
    fn rows(out: &mut String, columns: &[(&str, &str)], next: &mut usize);

    /// Binds the values of one `{rows: …}`.
    fn bind_rows(args: &mut Self::Arguments, rows: Rows) -> sqlx::Result<()>;

    /// Appends the condition that the column before it equals one of a bound list, and counts its
    /// placeholder.
    fn list(out: &mut String, next: &mut usize);

    /// Whether `{only …}` is expanded. It keeps the planner from starting a join at the wrong
    /// table.
    const GUIDES_JOINS: bool = false;

    /// Appends the condition of an `{only …}`, or `true` where joins are not guided.
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

    /// Binds the values of one `{any}`.
    fn bind_list(args: &mut Self::Arguments, words: Vec<String>) -> sqlx::Result<()>;

    /// Claims due jobs of each lane, oldest first and at most the number beside it, and puts them
    /// under lease. With `of`, only jobs of that list.
    ///
    /// This is the one statement that every dialect writes for itself. With row locks it takes one
    /// round trip. Without them it is a query and an update inside a transaction that excludes
    /// other writers.
    async fn take(
        conn: &mut Self::Connection,
        clock: Option<i64>,
        lease_ms: i64,
        wants: &[(String, i64)],
        of: &[String],
    ) -> sqlx::Result<Vec<DueRow>>;

    /// Settings that put durability or progress at risk, one sentence each.
    async fn weaknesses(conn: &mut Self::Connection) -> sqlx::Result<Vec<String>>;

    /// Settings that a connection should have but lacks behind a pooler, one sentence each.
    async fn unset(_: &mut Self::Connection) -> sqlx::Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Whether a statement failed because of a concurrent transaction and may be tried again.
    fn is_busy(error: &sqlx::Error) -> bool;

    /// Whether the connection may be at fault rather than the database, so that another connection
    /// may work.
    fn is_stale_connection(error: &sqlx::Error) -> bool {
        matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed)
            || matches!(
                error, sqlx::Error::Database(e) if e.code().is_some_and(|c| c.starts_with("57P")),
            )
    }

    /// Translates an error of the driver into what it means to the caller.
    fn error(error: sqlx::Error) -> Error;
}

/// The embedded migrations, in order: number, name and text of each.
pub(super) fn migrations(list: &[(i64, &'static str, &'static str)]) -> Migrator {
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
pub(super) async fn refuse_foreign<D: Dialect>(
    conn: &mut D::Connection,
    tables: &'static str,
) -> Result<(), Error> {
    let rows: Vec<NameRow> =
        super::statement::sql::<D>(tables).all(conn).await.map_err(D::error)?;
    let tables = super::maintenance::names(rows);
    let has = |name: &str| tables.iter().any(|t| t == name);
    if has("jobs") && !has("lanes") {
        let why = "this database contains tables of another program (qhook uses the same \
                   table names); use a separate database for tidehook";
        return Err(Error::permanent(why.to_owned()));
    }
    Ok(())
}

pub(super) fn migration_error<D: Dialect>(error: sqlx::migrate::MigrateError) -> Error {
    match error {
        sqlx::migrate::MigrateError::Execute(error) => D::error(error),
        other => Error::permanent(format!("the database migration failed: {other}")),
    }
}
