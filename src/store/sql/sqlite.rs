//! The SQLite dialect: one writer, several readers beside it, JSON as a table of values.

use std::fmt::Write;
use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Pool, Sqlite};

use super::dialect::{Dialect, SupportsTypes};
use super::rows::DueRow;
use super::seam;
use super::statement::{Column, Rows, sql};
use super::{Pools, SqlStore};
use crate::model::ManualClock;
use crate::model::Pooler;
use crate::store::error::Cause;
use crate::store::error::{Error, Result};
use crate::store::{Address, Store};

crate::impl_executes!(Sqlite);
impl SupportsTypes for Sqlite {}

const DUE: &str =
    "SELECT id, event_id, target_kind, target_name, lane, attempt, lost, deaths, begun, claim,
        due_at, created_at, state AS was, {now} AS now
    FROM jobs WHERE lane = ? AND finished_at IS NULL AND due_at <= {now} ORDER BY due_at LIMIT ?";
const DUE_OF: &str =
    "SELECT id, event_id, target_kind, target_name, lane, attempt, lost, deaths, begun, claim,
        due_at, created_at, state AS was, {now} AS now
    FROM jobs WHERE id {any} AND lane = ? AND finished_at IS NULL AND due_at <= {now}
        ORDER BY due_at LIMIT ?";
const LEASE: &str =
    "UPDATE jobs SET state = 'leased', claim = claim + 1, due_at = r.until, attempt = r.sent,
        lost = r.interrupted, deaths = r.crashes
    FROM {rows: job text, until int, sent int, interrupted int, crashes int} AS r
    WHERE jobs.id = r.job";

/// Opens a SQLite store, and refuses a file that another process has open.
///
/// # Errors
/// The URL cannot be read, the file cannot be opened, or another process uses it.
pub async fn open(address: Address, clock: Option<ManualClock>) -> Result<Arc<dyn Store>> {
    let mut url = address.url.expose().to_owned();
    if !url.contains("mode=") && !url.contains(":memory:") {
        url.push_str(if url.contains('?') { "&mode=rwc" } else { "?mode=rwc" });
    }
    let options = SqliteConnectOptions::from_str(&url)
        .map_err(|e| Error::permanent(format!("the SQLite URL is invalid: {e}")))?
        .journal_mode(SqliteJournalMode::Wal)
        // In WAL mode only FULL keeps a committed transaction through a power failure.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        .pragma("temp_store", "memory")
        .statement_cache_capacity(200);
    let file = options.get_filename().to_path_buf();
    let in_memory =
        file.as_os_str().is_empty() || url.contains(":memory:") || url.contains("mode=memory");
    let lock = if in_memory { None } else { Some(lock(&file)?) };
    if !in_memory {
        make_private(&file)?;
    }
    let pool = |connections: u32| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(10))
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
    };
    // If the disk is full or the file is locked, the store opens lazily, and its first caller
    // waits.
    let passes = |error: &sqlx::Error| {
        Sqlite::is_busy(error) || primary_code(error) == Some(13) || code(error) == Some(4874)
    };
    let write = match pool(1).connect_with(options.clone()).await {
        Ok(pool) => pool,
        Err(error) if passes(&error) => pool(1).connect_lazy_with(options.clone()),
        Err(error) => return Err(Sqlite::error(error)),
    };
    check_writable(&write, &file, passes).await?;
    let read = match in_memory {
        true => write.clone(),
        false => pool(address.connections.clamp(1, 4)).connect_lazy_with(options),
    };
    Ok(Arc::new(SqlStore::new(Pools { write, read, at_hand: 0 }, clock, Pooler::None, lock)))
}

/// Creates the database file readable for its owner only, before any data is in it. SQLite gives
/// the files beside it the same mode. An existing file keeps its mode.
fn make_private(file: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => {
            Err(Error::permanent(format!("{} cannot be created: {error}", file.display())))
        }
    }
}

/// Fails if the file cannot be written to: this does not pass, so waiting would not help.
async fn check_writable(
    pool: &Pool<Sqlite>,
    file: &std::path::Path,
    passes: impl Fn(&sqlx::Error) -> bool,
) -> Result<()> {
    let tried = sqlx::raw_sql("BEGIN IMMEDIATE; ROLLBACK").execute(pool).await;
    match tried {
        // 8 SQLITE_READONLY
        Err(error) if primary_code(&error) == Some(8) => {
            let why = "make the file and its directory writable for the user that runs tidehook";
            Err(Error::permanent(format!("{} is not writable: {why}", file.display())))
        }
        Err(error) if !passes(&error) => Err(Sqlite::error(error)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Locks a file beside the database. SQLite's own locks would also keep `sqlite3` from reading.
fn lock(database: &std::path::Path) -> Result<File> {
    let mut path = database.as_os_str().to_owned();
    path.push("-lock");
    let path = PathBuf::from(path);
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let why = "create its directory, and make it writable for the user that runs tidehook";
    let file = open.map_err(|e| {
        Error::permanent(format!("{} cannot be opened: {e}; {why}", path.display()))
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::InUse(format!(
            "{} is in use by another tidehook process; stop it first, or use Postgres to run \
             several",
            database.display()
        ))),
        Err(std::fs::TryLockError::Error(e)) => {
            Err(Error::permanent(format!("{} cannot be locked: {e}", path.display())))
        }
    }
}

#[async_trait]
impl Dialect for Sqlite {
    const DIALECT_NAME: &'static str = "sqlite";
    const NOW: &'static str = "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)";
    // BEGIN IMMEDIATE: a reader that becomes a writer can fail half way.
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const LOCK: &'static str = "";
    const SKIP_LOCKED: &'static str = "";
    const ABOUT: &'static str = "SELECT 'SQLite ' || sqlite_version() AS name";

    fn migrator() -> Migrator {
        super::dialect::migrations(&[
            (1, "first", include_str!("../../../migrations/sqlite/0001_first.sql")),
            (2, "runs", include_str!("../../../migrations/sqlite/0002_runs.sql")),
            (3, "endings", include_str!("../../../migrations/sqlite/0003_endings.sql")),
            (4, "announced", include_str!("../../../migrations/sqlite/0004_announced.sql")),
            (5, "breakers", include_str!("../../../migrations/sqlite/0005_breakers.sql")),
        ])
    }

    async fn migrate(pool: &Pool<Self>) -> Result<()> {
        let mut conn = pool.acquire().await.map_err(Self::error)?;
        super::dialect::refuse_foreign::<Self>(
            &mut conn,
            "SELECT name FROM sqlite_master WHERE type = 'table'",
        )
        .await?;
        drop(conn);
        Self::migrator().run(pool).await.map_err(super::dialect::migration_error::<Self>)
    }

    fn placeholder(out: &mut String, next: &mut usize) {
        out.push('?');
        *next += 1;
    }

    fn rows(out: &mut String, columns: &[(&str, &str)], next: &mut usize) {
        out.push_str("(SELECT ");
        for (at, (name, kind)) in columns.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            // Writing to a string cannot fail.
            let _ = match *kind {
                "bytes" => write!(out, "{comma}unhex(value ->> {at}) AS {name}"),
                _ => write!(out, "{comma}value ->> {at} AS {name}"),
            };
        }
        out.push_str(" FROM json_each(");
        Self::placeholder(out, next);
        out.push_str("))");
    }

    fn bind_rows(args: &mut Self::Arguments, rows: Rows) -> sqlx::Result<()> {
        <Self as seam::Binds<_>>::bind(args, json(&rows)?)
    }

    fn list(out: &mut String, next: &mut usize) {
        out.push_str("IN (SELECT value FROM json_each(");
        Self::placeholder(out, next);
        out.push_str("))");
    }

    fn bind_list(args: &mut Self::Arguments, words: Vec<String>) -> sqlx::Result<()> {
        let json = serde_json::to_string(&words).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
        <Self as seam::Binds<_>>::bind(args, json)
    }

    async fn take(
        conn: &mut Self::Connection,
        clock: Option<i64>,
        lease_ms: i64,
        wants: &[(String, i64)],
        of: &[String],
    ) -> sqlx::Result<Vec<DueRow>> {
        let mut taken: Vec<DueRow> = Vec::new();
        for (lane, most) in wants {
            let due = match of {
                [] => sql::<Self>(DUE).bind(clock),
                of => sql::<Self>(DUE_OF).bind(clock).list(of),
            };
            let due = due.bind(lane.clone()).bind(clock).bind(*most);
            taken.extend(due.all::<DueRow>(conn).await?);
        }
        if taken.is_empty() {
            return Ok(taken);
        }
        for row in &mut taken {
            let interrupted = i64::from(row.was == "leased");
            row.deaths += i64::from(row.was == "leased" && row.begun == Some(row.claim));
            row.claim += 1;
            row.attempt += interrupted;
            row.lost += interrupted;
            row.due_at = row.now + lease_ms;
        }
        let rows = Rows::default()
            .text(taken.iter().map(|r| r.id.clone()))
            .int(taken.iter().map(|r| r.due_at))
            .int(taken.iter().map(|r| r.attempt))
            .int(taken.iter().map(|r| r.lost))
            .int(taken.iter().map(|r| r.deaths));
        sql::<Self>(LEASE).rows(rows).run(conn).await?;
        Ok(taken)
    }

    async fn weaknesses(_: &mut Self::Connection) -> sqlx::Result<Vec<String>> {
        // Everything that matters is set when the connection is opened.
        Ok(Vec::new())
    }

    fn is_busy(error: &sqlx::Error) -> bool {
        // 5 SQLITE_BUSY, 6 SQLITE_LOCKED, with their extended codes.
        primary_code(error).is_some_and(|code| code == 5 || code == 6)
    }

    fn error(error: sqlx::Error) -> Error {
        let text = error.to_string();
        // SQLITE_IOERR_SHMSIZE: the file beside the database that its connections share cannot
        // grow.
        if code(&error) == Some(4874) {
            return Error::full(format!(
                "{text}: the disk has no space for the `-shm` file next to the database"
            ));
        }
        match primary_code(&error) {
            // 13 SQLITE_FULL; 10 IOERR, 14 CANTOPEN, 8 READONLY, 5 and 6 busy that did not pass.
            Some(13) => Error::full(Cause::of(text, error)),
            Some(8) => Error::read_only(Cause::of(text, error)),
            Some(5 | 6 | 10 | 14) => Error::down(Cause::of(text, error)),
            Some(_) => Error::permanent(Cause::of(text, error)),
            None => match error {
                sqlx::Error::Encode(_)
                | sqlx::Error::Decode(_)
                | sqlx::Error::ColumnDecode { .. } => Error::permanent(Cause::of(text, error)),
                _ => Error::down(Cause::of(text, error)),
            },
        }
    }
}

/// The primary result code of SQLite: the low byte of the extended one.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    code(error).map(|code| code & 0xff)
}

/// The extended result code of SQLite.
fn code(error: &sqlx::Error) -> Option<u32> {
    match error {
        sqlx::Error::Database(e) => e.code()?.parse().ok(),
        _ => None,
    }
}

/// The rows as one JSON text: an array of arrays, bytes in hexadecimal.
fn json(rows: &Rows) -> sqlx::Result<String> {
    let count = rows.0.first().map_or(0, |column| match column {
        Column::Text(values) => values.len(),
        Column::Int(values) => values.len(),
        Column::Bytes(values) => values.len(),
    });
    let mut out = String::with_capacity(64 * count + 2);
    out.push('[');
    for at in 0..count {
        out.push_str(if at > 0 { ",[" } else { "[" });
        for (n, column) in rows.0.iter().enumerate() {
            out.push_str(if n > 0 { "," } else { "" });
            match column {
                Column::Text(values) => match values.get(at).and_then(Option::as_deref) {
                    Some(text) => {
                        let quoted = serde_json::to_string(text)
                            .map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
                        out.push_str(&quoted);
                    }
                    None => out.push_str("null"),
                },
                Column::Int(values) => match values.get(at).copied().flatten() {
                    Some(n) => {
                        // Writing to a string cannot fail.
                        let _ = write!(out, "{n}");
                    }
                    None => out.push_str("null"),
                },
                Column::Bytes(values) => {
                    out.push('"');
                    out.push_str(&hex::encode(values.get(at).map_or(&[][..], Vec::as_slice)));
                    out.push('"');
                }
            }
        }
        out.push(']');
    }
    out.push(']');
    Ok(out)
}
