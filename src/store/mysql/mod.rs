//! MySQL 8.0 and MariaDB 10.6, and later: row locks that skip, JSON as a table of values, rows
//! locked and read before they are changed.
//!
//! - `accept`, `work`: the verbs with statements of their own; `texts/`: the statements
//! - `server`: what a server must be, and what it is asked about its settings

mod accept;
mod server;
mod work;

use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPoolOptions};
use sqlx::{ConnectOptions, Connection, MySql, MySqlConnection, Pool};

use super::sql::driver::{self, Driver, Kind, Lists, SupportsTypes, Take};
use super::sql::intake::Slice;
use super::sql::pool::Pools;
use super::sql::rows::{DueRow, IdRow};
use super::sql::statement::Texts;
use super::sql::values::Rows;
use super::sql::{SHARED_TEXTS, SqlStore, record};
use super::{Accepted, Address, NewEvent, Store};
use crate::decide::settle::JobOutcome;
use crate::model::ManualClock;
use crate::store::error::{Cause, Error, Result};

crate::impl_executes!(MySql);
impl SupportsTypes for MySql {}

/// How long a request may wait for a connection: ingress answers 503 within two seconds.
const ACQUIRE_MAX: Duration = Duration::from_millis(1_500);
/// The most connections that are kept for immediate reuse.
const AT_HAND_MAX: usize = 4;
/// How long a test connection may take that finds out why none can be opened.
const WHY_NOT_MAX: Duration = Duration::from_secs(1);
/// The name of the lock that migrations hold. It ends with its connection.
const MIGRATION_LOCK: &str = "tidehook migration";
/// How long a migration waits for another one, in seconds.
const MIGRATION_WAIT_MAX: u32 = 300;

/// What each connection is set to. At READ COMMITTED a statement locks the rows that it returns and
/// no gaps between them, and each one sees what was committed before it.
const SESSION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET SESSION sql_mode = 'STRICT_ALL_TABLES,PIPES_AS_CONCAT,NO_ENGINE_SUBSTITUTION',
        SESSION innodb_lock_wait_timeout = 5, SESSION autocommit = 1";

static TEXTS: LazyLock<Texts> = LazyLock::new(|| {
    let own = [
        include_str!("texts/intake.sql"),
        include_str!("texts/work.sql"),
        include_str!("texts/runs.sql"),
        include_str!("texts/upkeep.sql"),
    ];
    Texts::read(&[SHARED_TEXTS.as_slice(), &own].concat())
});

/// The options for connecting to a URL. The session is in UTC, and texts are UTF-8 that is compared
/// byte by byte, whatever the server's defaults.
///
/// # Errors
/// The URL cannot be read.
pub fn options(url: &str) -> sqlx::Result<MySqlConnectOptions> {
    Ok(MySqlConnectOptions::from_str(url)?
        .charset("utf8mb4")
        .collation("utf8mb4_bin")
        .timezone(Some("+00:00".to_owned()))
        .statement_cache_capacity(300))
}

/// Opens a store on MySQL or MariaDB.
///
/// # Errors
/// The URL cannot be read, or asks for what this driver lacks.
pub async fn open(address: Address, clock: Option<ManualClock>) -> Result<Arc<dyn Store>> {
    if address.iam.is_some() {
        return Err(Error::permanent(
            "`database.auth: iam` works with Postgres only; give MySQL a password in \
             `database.url`",
        ));
    }
    let options = options(address.url.expose()).map_err(|e| {
        let help = "percent-encode characters like `:/?#[]@%` in the user name and password";
        Error::permanent(format!("the MySQL URL is invalid: {e}; {help}"))
    })?;
    let pool = MySqlPoolOptions::new()
        .max_connections(address.connections.max(1))
        .acquire_timeout(ACQUIRE_MAX)
        .test_before_acquire(address.tests_idle)
        .after_connect(|conn, _| Box::pin(set_up(conn)))
        .connect_lazy_with(options);
    // Connections that must be tested before use stay in the pool, which does that.
    let at_hand = if address.tests_idle {
        0
    } else {
        usize::try_from(address.connections / 4).unwrap_or(0).min(AT_HAND_MAX)
    };
    let pools = Pools { write: pool.clone(), read: pool, at_hand, at_hand_to_read: None };
    Ok(Arc::new(SqlStore::new(pools, clock, address.pooler, None)))
}

/// The number of an error of the server.
fn number(error: &sqlx::Error) -> Option<u16> {
    let sqlx::Error::Database(error) = error else { return None };
    error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

async fn set_up(conn: &mut MySqlConnection) -> sqlx::Result<()> {
    sqlx::raw_sql(SESSION).execute(conn).await.map(|_| ())
}

/// A connection outside the pool, which reports the real connection error.
async fn own(pool: &Pool<MySql>) -> Result<MySqlConnection> {
    let options = pool.connect_options().as_ref().clone();
    let mut conn = options.connect().await.map_err(MySql::error)?;
    set_up(&mut conn).await.map_err(MySql::error)?;
    Ok(conn)
}

#[async_trait]
impl Driver for MySql {
    const NOW: &'static str = "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)";
    const BEGIN: &'static str = "BEGIN";
    const FOR_UPDATE: &'static str = "FOR UPDATE";
    const SKIP_LOCKED: &'static str = "FOR UPDATE SKIP LOCKED";
    const NUMBERED: Option<char> = None;
    const LISTS: Lists = Lists::Each;
    const QUOTE: char = '`';

    fn by_bytes(column: &str) -> String {
        format!("CAST({column} AS BINARY)")
    }

    fn as_text(column: &str) -> String {
        format!("CONVERT({column} USING utf8mb4)")
    }

    fn texts() -> &'static Texts {
        &TEXTS
    }

    fn migrator() -> Migrator {
        let mut migrator = driver::migrations(&[
            (6, "first", include_str!("../../../migrations/mysql/0006_first.sql")),
            (7, "moves", include_str!("../../../migrations/mysql/0007_moves.sql")),
            (8, "answers", include_str!("../../../migrations/mysql/0008_answers.sql")),
            (9, "pull", include_str!("../../../migrations/mysql/0009_pull.sql")),
        ]);
        // `migrate` holds a lock of its own, around more than sqlx's.
        migrator.locking = false;
        migrator
    }

    async fn migrate(pool: &Pool<Self>) -> Result<()> {
        let mut conn = own(pool).await?;
        // The lock belongs to the connection, which is closed afterwards: no failure can leave it
        // behind.
        let locked: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK(?, ?)")
            .bind(MIGRATION_LOCK)
            .bind(MIGRATION_WAIT_MAX)
            .fetch_one(&mut conn)
            .await
            .map_err(Self::error)?;
        if locked != Some(1) {
            return Err(Error::down(format!(
                "another migration of this database has not ended within {MIGRATION_WAIT_MAX} s"
            )));
        }
        driver::refuse_foreign::<Self>(&mut conn).await?;
        // DDL commits by itself, so a migration that was interrupted is half done. Its statements
        // can run again; only its mark has to go.
        let forgotten = sqlx::query("DELETE FROM _sqlx_migrations WHERE success = 0");
        match forgotten.execute(&mut conn).await {
            Ok(_) => {}
            // 1146: there is no such table yet.
            Err(error) if number(&error) == Some(1146) => {}
            Err(error) => return Err(Self::error(error)),
        }
        let own = MySqlPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_MAX)
            .after_connect(|conn, _| Box::pin(set_up(conn)))
            .connect_lazy_with(pool.connect_options().as_ref().clone());
        let migrated = Self::migrator().run(&own).await.map_err(driver::migration_error::<Self>);
        own.close().await;
        conn.close().await.map_err(Self::error)?;
        migrated
    }

    async fn why_not(pool: &Pool<Self>) -> Option<String> {
        let options = pool.connect_options();
        let connect = MySqlConnection::connect_with(&options);
        match tokio::time::timeout(WHY_NOT_MAX, connect).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(sentence(&error)),
            Err(_) => {
                Some(format!("{}:{} does not respond", options.get_host(), options.get_port()))
            }
        }
    }

    async fn refuse(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
    ) -> sqlx::Result<Option<String>> {
        server::refuse(store, conn).await
    }

    async fn store_events(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
        events: &[NewEvent],
    ) -> sqlx::Result<()> {
        accept::insert(store, conn, Slice::without_keys(events)).await.map(drop)
    }

    async fn accept(store: &SqlStore<Self>, events: Arc<[NewEvent]>) -> Result<Vec<Accepted>> {
        accept::accept(store, events).await
    }

    async fn take(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
        take: Take<'_>,
    ) -> sqlx::Result<Vec<DueRow>> {
        work::take(store, conn, take).await
    }

    async fn changed(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
        name: &'static str,
        values: Vec<(&'static str, i64)>,
        rows: Rows,
    ) -> sqlx::Result<Vec<IdRow>> {
        work::changed(store, conn, name, values, rows).await
    }

    async fn wake(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
        rows: Rows,
    ) -> sqlx::Result<()> {
        work::wake(store, conn, rows).await
    }

    async fn record(
        store: &SqlStore<Self>,
        outcomes: Arc<[JobOutcome]>,
    ) -> Result<Vec<Result<()>>> {
        record::in_transaction(store, outcomes).await
    }

    async fn weaknesses(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
    ) -> sqlx::Result<Vec<String>> {
        server::weaknesses(store, conn).await
    }

    fn kind(error: &sqlx::Error) -> Kind {
        match number(error) {
            // Deadlock, lock wait timeout, and MariaDB's "record has changed since last read".
            Some(1213 | 1205 | 1020) => Kind::Conflict,
            // The server shuts down, or has ended the connection: by KILL, or because it was idle.
            Some(1053 | 1927 | 1317 | 4031 | 1080 | 1152) => Kind::StaleConnection,
            Some(_) => Kind::Other,
            None if driver::is_of_connection(error) => Kind::StaleConnection,
            None => Kind::Other,
        }
    }

    fn error(error: sqlx::Error) -> Error {
        let text = sentence(&error);
        let Some(number) = number(&error) else {
            return match driver::is_of_values(&error) && !text.contains("ssl-mode") {
                true => Error::permanent(Cause::of(text, error)),
                false => Error::down(Cause::of(text, error)),
            };
        };
        match number {
            // The table or the disk is full; temporary space too.
            1114 | 1021 | 3019 => Error::full(Cause::of(text, error)),
            // An error of the storage engine tells the operating system's: 28 is "no space left".
            1030 | 1026 if text.contains("28") => Error::full(Cause::of(text, error)),
            // read_only, super_read_only, innodb_read_only, a transaction that may not write.
            1290 | 1836 | 1874 | 1792 => Error::read_only(Cause::of(text, error)),
            // A table or a column that is not there yet. Waiting may help: a deployment migrates.
            1146 | 1054 => Error::down(format!(
                "{text}: the database schema does not match this version; run `tidehook migrate`"
            )),
            1213 | 1205 | 1020 => Error::conflict(Cause::of(text, error)),
            // Too many connections or statements, no memory, shutting down, killed, cannot get a
            // thread; a wrong password, an unknown database, a host that is blocked.
            1040
            | 1203
            | 1226
            | 1461
            | 1037
            | 1038
            | 1041
            | 1135
            | 1053
            | 1927
            | 1317
            | 4031
            | 1080
            | 1152
            | 1158..=1161
            | 1044
            | 1045
            | 1049
            | 1129
            | 1130
            | 1698
            | 1030
            | 1026 => Error::down(Cause::of(text, error)),
            _ => Error::permanent(Cause::of(text, error)),
        }
    }
}

/// What an error says, with the fix where the server's own words do not tell it.
fn sentence(error: &sqlx::Error) -> String {
    let text = error.to_string();
    if text.contains("mysql-rsa") {
        return "the server asks for the password by caching_sha2_password, which is sent only over \
                TLS or a socket: add `?ssl-mode=REQUIRED` (or VERIFY_IDENTITY) or \
                `?socket=/path` to the URL"
            .to_owned();
    }
    match number(error) {
        Some(1153) => format!(
            "{text}: raise max_allowed_packet on the server above the largest body \
             (`server.max_body`) plus 1 MiB"
        ),
        Some(1044 | 1142 | 1143 | 1227) => format!(
            "{text}: grant the user SELECT, INSERT, UPDATE, DELETE on the database, and CREATE, \
             ALTER, INDEX, DROP to the one that runs `tidehook migrate`"
        ),
        _ => text,
    }
}
