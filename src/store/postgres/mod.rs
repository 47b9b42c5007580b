//! Postgres: row locks that skip, arrays as tables of values, one statement to accept, to claim and
//! to record.
//!
//! - `work`: claiming; `texts/`: the statements
//! - `token`: passwords signed by AWS credentials

#[cfg(feature = "lambda")]
mod token;
mod work;

use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, Pool, Postgres};

use super::sql::driver::{self, Driver, Kind, Lists, SupportsTypes, Take};
use super::sql::maintenance::names;
use super::sql::pool::Pools;
use super::sql::rows::{DueRow, LaneRow, NameRow};
use super::sql::seam::Binds;
use super::sql::statement::Texts;
use super::sql::values::Column;
use super::sql::{SHARED_TEXTS, SqlStore};
use super::{Address, Store};
use crate::model::{AwsIdentity, ManualClock};
use crate::store::error::{Cause, Error, Result};

crate::impl_executes!(Postgres);
impl SupportsTypes for Postgres {}

/// How long a request may wait for a connection: ingress answers 503 within two seconds.
const ACQUIRE_MAX: Duration = Duration::from_millis(1_500);
/// The most connections that are kept for immediate reuse.
const AT_HAND_MAX: usize = 4;
/// How long a test connection may take that finds out why none can be opened.
const WHY_NOT_MAX: Duration = Duration::from_secs(1);

static TEXTS: LazyLock<Texts> = LazyLock::new(|| {
    let own = [
        include_str!("texts/intake.sql"),
        include_str!("texts/work.sql"),
        include_str!("texts/runs.sql"),
        include_str!("texts/upkeep.sql"),
    ];
    Texts::read(&[SHARED_TEXTS.as_slice(), &own].concat())
});

/// The options for connecting to a URL directly, with the settings of each session.
///
/// # Errors
/// The URL cannot be read.
pub fn options(url: &str) -> sqlx::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url)?.application_name("tidehook").options(SETTINGS);
    Ok(options.options([("tcp_user_timeout", "10s")]))
}

/// The settings of each connection. A direct connection gets them when it is opened, a pooled one
/// in each transaction ([`Driver::BEGIN_POOLED`]), and RDS Proxy sets them itself
/// (`infra/proxy.yaml`).
pub const SETTINGS: [(&str, &str); 6] = [
    // A statement or a lock that hangs must not hold a request; a crashed peer must not hold a row.
    ("statement_timeout", "10s"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "10s"),
    // An acknowledged event is on disk, whatever the server's default.
    ("synchronous_commit", "on"),
    // Every statement goes by key, a slice of keys or the head of an index. The statistics of a
    // queue's tables are stale most of the time, plans are kept, and a plan made for an empty table
    // would read the whole of a full one.
    ("enable_seqscan", "off"),
    // JIT is off: the statements are short, and `enable_seqscan=off` inflates the costs that
    // trigger it.
    ("jit", "off"),
];

/// Removes from the options what a pooler refuses at connect time: settings that its next user
/// would not expect.
fn pooled(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("tidehook").extra_float_digits(None)
}

/// Opens a Postgres store.
///
/// # Errors
/// The URL cannot be read, or no connection can be made.
pub async fn open(address: Address, clock: Option<ManualClock>) -> Result<Arc<dyn Store>> {
    let options = match address.pooler.is_there() {
        true => PgConnectOptions::from_str(address.url.expose()).map(pooled),
        false => options(address.url.expose()),
    };
    let wrong = |e: sqlx::Error| {
        let help = "percent-encode characters like `:/?#[]@%` in the user name and password";
        Error::permanent(format!("the Postgres URL is invalid: {e}; {help}"))
    };
    let options = options.map_err(wrong)?;
    let authenticated = options.clone();
    let pool = PgPoolOptions::new()
        .max_connections(address.connections.max(1))
        .acquire_timeout(ACQUIRE_MAX)
        .test_before_acquire(address.tests_idle)
        .connect_lazy_with(options);
    // Connections that must be tested before use stay in the pool, which does that.
    let at_hand = if address.tests_idle {
        0
    } else {
        usize::try_from(address.connections / 4).unwrap_or(0).min(AT_HAND_MAX)
    };
    let store = SqlStore::new(
        Pools { write: pool.clone(), read: pool, at_hand, at_hand_to_read: None },
        clock,
        address.pooler,
        None,
    );
    match address.iam {
        None => Ok(Arc::new(store)),
        Some(who) => Ok(Arc::new(with_iam(store, authenticated, who)?)),
    }
}

/// The same store with passwords that are signed by AWS credentials.
#[cfg(feature = "lambda")]
#[expect(clippy::unnecessary_wraps, reason = "a build without the feature has none")]
fn with_iam(
    store: SqlStore<Postgres>,
    options: PgConnectOptions,
    who: AwsIdentity,
) -> Result<SqlStore<Postgres>> {
    let tokens = Arc::new(token::Tokens::new(options, who));
    Ok(store.renewing(Box::new(move |pool| {
        let tokens = Arc::clone(&tokens);
        Box::pin(async move { tokens.renew(&pool).await })
    })))
}

#[cfg(not(feature = "lambda"))]
fn with_iam(
    _: SqlStore<Postgres>,
    _: PgConnectOptions,
    _: AwsIdentity,
) -> Result<SqlStore<Postgres>> {
    Err(Error::permanent(
        "this build does not support `database.auth: iam`; use a build with the feature `lambda`"
            .to_owned(),
    ))
}

#[async_trait]
impl Driver for Postgres {
    // The statement's time, which is one value per statement and so can be looked up in an index.
    // With the wall clock, jobs that are due later would be scanned.
    const NOW: &'static str = "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000 AS BIGINT)";
    const BEGIN: &'static str = "BEGIN";
    // The same settings as `options`, by SET LOCAL: a pooler refuses settings at connect time, and
    // they must not outlive the transaction.
    const BEGIN_POOLED: &'static str =
        "BEGIN; SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '5s';
        SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL synchronous_commit = on;
        SET LOCAL enable_seqscan = off; SET LOCAL jit = off";
    const FOR_UPDATE: &'static str = "FOR UPDATE";
    const SKIP_LOCKED: &'static str = "FOR UPDATE SKIP LOCKED";
    const NUMBERED: Option<char> = Some('$');
    const LISTS: Lists = Lists::Array;

    fn by_bytes(column: &str) -> String {
        format!("{column} COLLATE \"C\"")
    }

    fn texts() -> &'static Texts {
        &TEXTS
    }

    fn migrator() -> Migrator {
        driver::migrations(&[
            (1, "first", include_str!("../../../migrations/postgres/0001_first.sql")),
            (2, "runs", include_str!("../../../migrations/postgres/0002_runs.sql")),
            (3, "endings", include_str!("../../../migrations/postgres/0003_endings.sql")),
            (4, "announced", include_str!("../../../migrations/postgres/0004_announced.sql")),
            (5, "breakers", include_str!("../../../migrations/postgres/0005_breakers.sql")),
            (6, "looks", include_str!("../../../migrations/postgres/0006_looks.sql")),
            (7, "moves", include_str!("../../../migrations/postgres/0007_moves.sql")),
            (8, "answers", include_str!("../../../migrations/postgres/0008_answers.sql")),
            (9, "pull", include_str!("../../../migrations/postgres/0009_pull.sql")),
        ])
    }

    async fn migrate(pool: &Pool<Self>) -> Result<()> {
        // A connection outside the pool reports the real connection error.
        let mut conn =
            sqlx::PgConnection::connect_with(&pool.connect_options()).await.map_err(Self::error)?;
        driver::refuse_foreign::<Self>(&mut conn).await?;
        // sqlx takes an advisory lock, so two processes that start at once wait for each other.
        conn.close().await.map_err(Self::error)?;
        // The lock belongs to the session. The connection is closed afterwards, so that no failure
        // can leave the lock behind.
        let own = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_MAX)
            .connect_lazy_with((*pool.connect_options()).clone());
        let migrated = Self::migrator().run(&own).await.map_err(driver::migration_error::<Self>);
        own.close().await;
        migrated
    }

    async fn why_not(pool: &Pool<Self>) -> Option<String> {
        let options = pool.connect_options();
        match tokio::time::timeout(WHY_NOT_MAX, sqlx::PgConnection::connect_with(&options)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => {
                Some(format!("{}:{} does not respond", options.get_host(), options.get_port()))
            }
        }
    }

    fn bind_array(args: &mut Self::Arguments, values: Column) -> sqlx::Result<()> {
        match values {
            Column::Text(values) => <Self as Binds<_>>::bind(args, values),
            Column::Int(values) => <Self as Binds<_>>::bind(args, values),
            Column::Bytes(values) => <Self as Binds<_>>::bind(args, values),
        }
    }

    async fn pick(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
        behind: &str,
        skip: &[String],
        most: u32,
    ) -> sqlx::Result<Vec<LaneRow>> {
        let pick = store.sql("pick").bind("behind", behind).list("skip", skip);
        pick.bind("most", most).all(conn).await
    }

    async fn take(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
        take: Take<'_>,
    ) -> sqlx::Result<Vec<DueRow>> {
        work::take(store, conn, take).await
    }

    async fn weaknesses(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
    ) -> sqlx::Result<Vec<String>> {
        let rows: Vec<NameRow> = store.sql("weak_settings").all(conn).await?;
        let word = |name: String| {
            format!(
                "Postgres runs with {name}=off, so a power failure can lose acknowledged events: \
                 turn the setting on"
            )
        };
        let mut weak: Vec<String> = names(rows).into_iter().map(word).collect();
        let long: Vec<NameRow> = store.sql("long_transactions").all(conn).await?;
        let held = |pid: String| {
            format!(
                "the Postgres process {pid} has had a transaction open for more than 5 minutes, so \
                 dead rows cannot be removed: end that transaction"
            )
        };
        weak.extend(names(long).into_iter().map(held));
        Ok(weak)
    }

    async fn unset(
        store: &SqlStore<Self>,
        conn: &mut Self::Connection,
    ) -> sqlx::Result<Vec<String>> {
        let mut unset = Vec::new();
        for (name, value) in SETTINGS {
            let found = store.sql("setting").bind("name", name).first::<NameRow>(conn).await?;
            let found = found.map_or(String::new(), |row| row.name);
            if found != value {
                unset.push(format!(
                    "{name} is {found}, but must be {value}: set the init query of \
                    infra/proxy.yaml on the proxy"
                ));
            }
        }
        Ok(unset)
    }

    fn kind(error: &sqlx::Error) -> Kind {
        let code = match error {
            sqlx::Error::Database(e) => e.code(),
            error if driver::is_of_connection(error) => return Kind::StaleConnection,
            _ => return Kind::Other,
        };
        match code.as_deref().unwrap_or("") {
            // Serialization failure, deadlock, lock timeout.
            "40001" | "40P01" | "55P03" => Kind::Conflict,
            // The server shuts down or has ended the connection.
            code if code.starts_with("57P") => Kind::StaleConnection,
            _ => Kind::Other,
        }
    }

    fn error(error: sqlx::Error) -> Error {
        let code = match &error {
            sqlx::Error::Database(e) => e.code().map(|c| c.into_owned()),
            error_ if driver::is_of_values(error_) => {
                return Error::permanent(Cause::of(error.to_string(), error));
            }
            _ => return Error::down(Cause::of(error.to_string(), error)),
        };
        let text = error.to_string();
        match code.as_deref().unwrap_or("") {
            "53100" => Error::full(Cause::of(text, error)),
            // A table or a column that is not there yet. Waiting may help: a deployment migrates.
            "42P01" | "42703" => Error::down(format!(
                "{text}: the database schema does not match this version; run `tidehook migrate`"
            )),
            // Connection, resource, operator, system.
            c if ["08", "53", "57", "58", "28", "3D"].iter().any(|class| c.starts_with(class)) => {
                Error::down(Cause::of(text, error))
            }
            "25006" => Error::read_only(Cause::of(text, error)),
            "40001" | "40P01" | "55P03" => Error::conflict(Cause::of(text, error)),
            _ => Error::permanent(Cause::of(text, error)),
        }
    }
}

/// The statements whose cost must not grow with the amount of stored data. A test checks their
/// plans.
pub const HOT: [&str; 13] = [
    "pick",
    "lanes_of_jobs",
    "next_due",
    "take",
    "take_of",
    "expired",
    "old_events",
    "extend",
    "record",
    "record_delivered",
    "events_by_id",
    "unannounced",
    "chores",
];
