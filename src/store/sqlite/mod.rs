//! SQLite: one writer, several readers beside it, JSON as a table of values.
//!
//! - `work`: claiming; `texts/`: the statements
//! - `backup`: a copy of a file that is in use

#[cfg(feature = "cli")]
pub mod backup;
mod work;

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Pool, Sqlite};

use super::sql::driver::{self, Driver, Kind, Lists, SupportsTypes, Take};
use super::sql::pool::Pools;
use super::sql::rows::DueRow;
use super::sql::statement::Texts;
use super::sql::{SHARED_TEXTS, SqlStore};
use super::{Address, Store};
use crate::model::{ManualClock, Pooler};
use crate::store::error::{Cause, Error, Result};

crate::impl_executes!(Sqlite);
impl SupportsTypes for Sqlite {}

static TEXTS: LazyLock<Texts> = LazyLock::new(|| {
    let own = [
        include_str!("texts/intake.sql"),
        include_str!("texts/work.sql"),
        include_str!("texts/runs.sql"),
        include_str!("texts/upkeep.sql"),
    ];
    Texts::read(&[SHARED_TEXTS.as_slice(), &own].concat())
});

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
    let lock = if in_memory || address.beside { None } else { Some(lock(&file)?) };
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
        Sqlite::kind(error) == Kind::Conflict
            || primary_code(error) == Some(13)
            || code(error) == Some(4874)
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
    let at_hand_to_read = if in_memory { None } else { Some(2) };
    let pools = Pools { write, read, at_hand: 1, at_hand_to_read };
    Ok(Arc::new(SqlStore::new(pools, clock, Pooler::None, lock)))
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
impl Driver for Sqlite {
    const NOW: &'static str = "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)";
    // BEGIN IMMEDIATE: a reader that becomes a writer can fail half way.
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const FOR_UPDATE: &'static str = "";
    const SKIP_LOCKED: &'static str = "";
    // With `?1` a statement of a script that leaves a number out would have its values shifted.
    const NUMBERED: Option<char> = Some('$');
    const SCRIPTS: bool = true;
    const LISTS: Lists = Lists::Json;

    fn texts() -> &'static Texts {
        &TEXTS
    }

    fn migrator() -> Migrator {
        driver::migrations(&[
            (1, "first", include_str!("../../../migrations/sqlite/0001_first.sql")),
            (2, "runs", include_str!("../../../migrations/sqlite/0002_runs.sql")),
            (3, "endings", include_str!("../../../migrations/sqlite/0003_endings.sql")),
            (4, "announced", include_str!("../../../migrations/sqlite/0004_announced.sql")),
            (5, "breakers", include_str!("../../../migrations/sqlite/0005_breakers.sql")),
            (6, "looks", include_str!("../../../migrations/sqlite/0006_looks.sql")),
            (7, "moves", include_str!("../../../migrations/sqlite/0007_moves.sql")),
            (8, "answers", include_str!("../../../migrations/sqlite/0008_answers.sql")),
            (9, "pull", include_str!("../../../migrations/sqlite/0009_pull.sql")),
        ])
    }

    async fn migrate(pool: &Pool<Self>) -> Result<()> {
        let mut conn = pool.acquire().await.map_err(Self::error)?;
        driver::refuse_foreign::<Self>(&mut conn).await?;
        drop(conn);
        Self::migrator().run(pool).await.map_err(driver::migration_error::<Self>)
    }

    async fn take(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
        take: Take<'_>,
    ) -> sqlx::Result<Vec<DueRow>> {
        work::take(store, conn, take).await
    }

    async fn weaknesses(_: &SqlStore<Self>, _: &mut Self::Connection) -> sqlx::Result<Vec<String>> {
        // Everything that matters is set when the connection is opened.
        Ok(Vec::new())
    }

    fn kind(error: &sqlx::Error) -> Kind {
        // 5 SQLITE_BUSY, 6 SQLITE_LOCKED, with their extended codes.
        match primary_code(error) {
            Some(5 | 6) => Kind::Conflict,
            _ if driver::is_of_connection(error) => Kind::StaleConnection,
            _ => Kind::Other,
        }
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
            // A table or a column that is not there: its schema is another one.
            Some(1) if text.contains("no such table") || text.contains("no such column") => {
                Error::down(format!(
                    "{text}: the database schema does not match this version; run `tidehook \
                     migrate`"
                ))
            }
            // 13 SQLITE_FULL; 10 IOERR, 14 CANTOPEN, 8 READONLY, 5 and 6 busy.
            Some(13) => Error::full(Cause::of(text, error)),
            Some(8) => Error::read_only(Cause::of(text, error)),
            Some(5 | 6) => Error::conflict(Cause::of(text, error)),
            Some(10 | 14) => Error::down(Cause::of(text, error)),
            Some(_) => Error::permanent(Cause::of(text, error)),
            None if driver::is_of_values(&error) => Error::permanent(Cause::of(text, error)),
            None => Error::down(Cause::of(text, error)),
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
