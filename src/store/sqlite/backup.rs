//! Copies an SQLite database while a server uses it: everything that was committed before the copy
//! began, and nothing later.
//!
//! Copying the file alone would not do, because the latest commits may still be in the `-wal` file
//! beside it. `VACUUM INTO` reads both under one snapshot
//! (<https://www.sqlite.org/lang_vacuum.html>) and writes one file that needs no other.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use crate::store::error::{Error, Result};
use crate::store::sql::driver::Driver;

/// The result of a finished backup, for the command line to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// How many events the copy holds, counted in the copy.
    pub events: u64,
    /// The size of the copied file in bytes.
    pub bytes: u64,
}

/// Copies the database at a URL into a new file that only its owner can read. The file appears once
/// the copy is complete, checked and on disk. A copy that is interrupted leaves a file whose name
/// ends in `.partial`.
///
/// # Errors
/// The database cannot be read, the file exists already or cannot be written, or the copy fails its
/// check.
pub async fn backup(url: &str, to: &Path) -> Result<Backup> {
    let wrong = |why: String| Error::permanent(why);
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|e| wrong(format!("the SQLite URL is invalid: {e}")))?;
    let options = options.create_if_missing(false).busy_timeout(Duration::from_secs(30));
    if to.exists() {
        return Err(wrong(format!("{} already exists; name a new file", to.display())));
    }
    let partial = PathBuf::from(format!("{}.partial", to.display()));
    let text = partial.to_str().ok_or_else(|| {
        wrong(format!(
            "the path {} is not UTF-8, which SQLite requires; choose another name",
            to.display()
        ))
    })?;
    let of_file = |path: &Path, e: std::io::Error| {
        wrong(format!("{} cannot be written: {e}", path.display()))
    };
    // An empty file is taken as a new one, and keeps its mode.
    let mut open = OpenOptions::new();
    open.write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .map_err(|e| of_file(&partial, e))?;

    let error = <sqlx::Sqlite as Driver>::error;
    let mut source = SqliteConnection::connect_with(&options).await.map_err(error)?;
    sqlx::query("VACUUM INTO ?").bind(text.to_owned()).execute(&mut source).await.map_err(error)?;
    source.close().await.map_err(error)?;

    let copy = SqliteConnectOptions::new().filename(&partial).read_only(true);
    let mut copy = SqliteConnection::connect_with(&copy).await.map_err(error)?;
    let found: String =
        sqlx::query_scalar("PRAGMA quick_check").fetch_one(&mut copy).await.map_err(error)?;
    if found != "ok" {
        return Err(wrong(format!("the backup failed its integrity check: {found}")));
    }
    let events: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM events")
        .fetch_one(&mut copy)
        .await
        .map_err(error)?;
    copy.close().await.map_err(error)?;

    let file = File::open(&partial).map_err(|e| of_file(&partial, e))?;
    file.sync_all().map_err(|e| of_file(&partial, e))?;
    let bytes = file.metadata().map_err(|e| of_file(&partial, e))?.len();
    std::fs::rename(&partial, to).map_err(|e| of_file(to, e))?;
    let folder =
        to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| of_file(to, e))?;
    Ok(Backup { events: u64::try_from(events).unwrap_or(0), bytes })
}
