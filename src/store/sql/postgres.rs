//! The Postgres dialect: row locks that skip, arrays as tables of values, one statement per claim.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, Pool, Postgres};

use super::dialect::{Dialect, SupportsTypes};
use super::intake::{insert_events, insert_jobs};
use super::rows::{DueRow, NameRow};
use super::statement::{Column, Rows, sql};
use super::{Pools, SqlStore};
use super::{maintenance, seam};
use crate::model::AwsIdentity;
use crate::model::ManualClock;
use crate::store::error::Cause;
use crate::store::error::{Error, Result};
use crate::store::{Address, Store};

crate::impl_executes!(Postgres);
impl SupportsTypes for Postgres {}

/// How long a request may wait for a connection: ingress answers 503 within two seconds.
const ACQUIRE_MAX: Duration = Duration::from_millis(1_500);
/// The most connections that are kept for immediate reuse.
const AT_HAND_MAX: usize = 4;
/// How long a test connection may take that finds out why none can be opened.
const WHY_NOT_MAX: Duration = Duration::from_secs(1);

// Without a join: the ids come as an array, so every plan uses the index of due jobs and then the
// primary key, whatever the statistics say.
macro_rules! take {
    ($of:literal) => {
        concat!(
            "WITH due AS MATERIALIZED (
        SELECT j.id, j.state FROM {rows: lane text, most int} AS want CROSS JOIN LATERAL (
            SELECT id, state FROM jobs WHERE ",
            $of,
            "jobs.lane = want.lane AND jobs.finished_at IS NULL AND jobs.due_at <= {now}
            ORDER BY jobs.due_at LIMIT want.most {skip locked}
        ) AS j
    )
    UPDATE jobs SET state = 'leased', claim = claim + 1, due_at = {now} + ?,
        attempt = attempt + CAST(state = 'leased' AS INTEGER),
            lost = lost + CAST(state = 'leased' AS INTEGER),
        deaths = deaths + CAST(state = 'leased' AND COALESCE(begun, 0) = claim AS INTEGER)
    WHERE id = ANY(ARRAY(SELECT due.id FROM due))
    RETURNING id, event_id, target_kind, target_name, lane, attempt, lost, deaths, begun, claim,
        due_at, created_at, {now} AS now,
        CASE WHEN id = ANY(ARRAY(SELECT due.id FROM due WHERE due.state = 'leased')) THEN 'leased'
            ELSE 'pending' END AS was"
        )
    };
}

const TAKE: &str = take!("");
const TAKE_OF: &str = take!("jobs.id {any} AND ");

const STORE: &str = concat!(
    "WITH e AS (",
    insert_events!(),
    "), j AS (",
    insert_jobs!(),
    "), c AS (
        INSERT INTO counters (name, shard, value)
        SELECT 'created', ?, made.n FROM (SELECT COUNT(*) AS n FROM j) AS made WHERE made.n > 0
        ON CONFLICT (name, shard) DO UPDATE SET value = counters.value + excluded.value
    )
    SELECT id, at, CAST(NULL AS BIGINT) AS claim FROM e UNION ALL
        SELECT id, CAST(NULL AS BIGINT), claim FROM j"
);

// `dead` before `finished`, as in every statement, so that two of them cannot deadlock on the
// totals.
const RECORD: &str = "WITH r AS MATERIALIZED (
        SELECT * FROM {rows: job text, token int, next text, sent int, after int, lost int,
            ended int, error text} AS r
    ), held AS (
        UPDATE jobs SET state = r.next, attempt = r.sent, lost = jobs.lost + r.lost,
            due_at = {now} + r.after,
            finished_at = {now} + r.ended, last_error = COALESCE(r.error, jobs.last_error)
        FROM r WHERE {only jobs.id} AND jobs.id = r.job AND jobs.claim = r.token
            AND jobs.state = 'leased' RETURNING jobs.id
    ), a AS (
        INSERT INTO attempts (job_id, claim, number, ending, code, status, error, duration_ms,
            response, at)
        SELECT t.job_id, t.claim, t.number, t.ending, t.code, t.status, t.error, t.duration_ms,
            t.response, {now}
        FROM {rows: job_id text, claim int, number int, ending text, code text, status int,
            error text, duration_ms int, response bytes} AS t
        JOIN held ON held.id = t.job_id
        ON CONFLICT (job_id, claim) DO NOTHING
    ), n AS (
        SELECT COUNT(r.ended) AS finished, COUNT(*) FILTER (WHERE r.next = 'dead') AS dead
            FROM held JOIN r ON r.job = held.id
    ), c AS (
        INSERT INTO counters (name, shard, value)
        SELECT v.name, ?, v.made FROM n CROSS
            JOIN LATERAL (VALUES ('dead', n.dead), ('finished', n.finished)) AS v(name, made)
        WHERE v.made > 0
        ON CONFLICT (name, shard) DO UPDATE SET value = counters.value + excluded.value
    )
    SELECT id FROM held";

/// The options for connecting to a URL directly, with the settings of each session.
///
/// # Errors
/// The URL cannot be read.
pub fn options(url: &str) -> sqlx::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url)?.application_name("tidehook").options(SETTINGS);
    Ok(options.options([("tcp_user_timeout", "10s")]))
}

/// The settings of each connection. A direct connection gets them when it is opened, a pooled one
/// in each transaction ([`Dialect::BEGIN_POOLED`]), and RDS Proxy sets them itself
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
        Pools { write: pool.clone(), read: pool, at_hand },
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
    let tokens = Arc::new(super::token::Tokens::new(options, who));
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
impl Dialect for Postgres {
    const DIALECT_NAME: &'static str = "postgres";
    // The statement's time, which is one value per statement and so can be looked up in an index.
    // With the wall clock, jobs that are due later would be scanned.
    const NOW: &'static str = "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000 AS BIGINT)";
    const GUIDES_JOINS: bool = true;
    const BEGIN: &'static str = "BEGIN";
    // The same settings as `options`, by SET LOCAL: a pooler refuses settings at connect time, and
    // they must not outlive the transaction.
    const BEGIN_POOLED: &'static str =
        "BEGIN; SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '5s';
        SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL synchronous_commit = on;
        SET LOCAL enable_seqscan = off; SET LOCAL jit = off";
    const LOCK: &'static str = "FOR UPDATE";
    const SKIP_LOCKED: &'static str = "FOR UPDATE SKIP LOCKED";
    const ABOUT: &'static str = "SELECT 'Postgres ' || current_setting('server_version') AS name
        UNION ALL
        SELECT CASE WHEN ssl THEN 'TLS ' || COALESCE(version, '') ELSE 'no TLS' END
            FROM pg_stat_ssl WHERE pid = pg_backend_pid() UNION ALL
        SELECT 'at most ' || current_setting('max_connections') || ' connections'";
    const STORE: Option<&'static str> = Some(STORE);
    const RECORD: Option<&'static str> = Some(RECORD);
    const UNANNOUNCED: &'static str = super::hints::UNANNOUNCED_LATERAL;

    fn migrator() -> Migrator {
        super::dialect::migrations(&[
            (1, "first", include_str!("../../../migrations/postgres/0001_first.sql")),
            (2, "runs", include_str!("../../../migrations/postgres/0002_runs.sql")),
            (3, "endings", include_str!("../../../migrations/postgres/0003_endings.sql")),
            (4, "announced", include_str!("../../../migrations/postgres/0004_announced.sql")),
            (5, "breakers", include_str!("../../../migrations/postgres/0005_breakers.sql")),
        ])
    }

    async fn migrate(pool: &Pool<Self>) -> Result<()> {
        // A connection outside the pool reports the real connection error.
        let mut conn =
            sqlx::PgConnection::connect_with(&pool.connect_options()).await.map_err(Self::error)?;
        super::dialect::refuse_foreign::<Self>(
            &mut conn,
            "SELECT table_name::text AS name FROM information_schema.tables
        WHERE table_schema = current_schema()",
        )
        .await?;
        // sqlx takes an advisory lock, so two processes that start at once wait for each other.
        conn.close().await.map_err(Self::error)?;
        // The lock belongs to the session. The connection is closed afterwards, so that no failure
        // can leave the lock behind.
        let own = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_MAX)
            .connect_lazy_with((*pool.connect_options()).clone());
        let migrated =
            Self::migrator().run(&own).await.map_err(super::dialect::migration_error::<Self>);
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

    fn placeholder(out: &mut String, next: &mut usize) {
        out.push('$');
        out.push_str(&next.to_string());
        *next += 1;
    }

    fn rows(out: &mut String, columns: &[(&str, &str)], next: &mut usize) {
        // `UNNEST(…) AS alias(columns)`: the alias follows in the text, so the names go into a
        // subquery.
        out.push_str("(SELECT * FROM UNNEST(");
        for (at, (_, kind)) in columns.iter().enumerate() {
            out.push_str(if at > 0 { ", " } else { "" });
            Self::placeholder(out, next);
            out.push_str(match *kind {
                "int" => "::bigint[]",
                "bytes" => "::bytea[]",
                _ => "::text[]",
            });
        }
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        out.push_str(") AS r(");
        out.push_str(&names.join(", "));
        out.push_str("))");
    }

    fn bind_rows(args: &mut Self::Arguments, rows: Rows) -> sqlx::Result<()> {
        for column in rows.0 {
            match column {
                Column::Text(values) => <Self as seam::Binds<_>>::bind(args, values)?,
                Column::Int(values) => <Self as seam::Binds<_>>::bind(args, values)?,
                Column::Bytes(values) => <Self as seam::Binds<_>>::bind(args, values)?,
            }
        }
        Ok(())
    }

    fn list(out: &mut String, next: &mut usize) {
        out.push_str("= ANY(");
        Self::placeholder(out, next);
        out.push_str("::text[])");
    }

    fn bind_list(args: &mut Self::Arguments, words: Vec<String>) -> sqlx::Result<()> {
        <Self as seam::Binds<_>>::bind(args, words.into_iter().map(Some).collect::<Vec<_>>())
    }

    async fn take(
        conn: &mut Self::Connection,
        clock: Option<i64>,
        lease_ms: i64,
        wants: &[(String, i64)],
        of: &[String],
    ) -> sqlx::Result<Vec<DueRow>> {
        if wants.is_empty() {
            return Ok(Vec::new());
        }
        let rows =
            Rows::default().text(wants.iter().map(|w| w.0.clone())).int(wants.iter().map(|w| w.1));
        let take = match of {
            [] => sql::<Self>(TAKE).rows(rows),
            of => sql::<Self>(TAKE_OF).rows(rows).list(of),
        };
        take.bind(clock).bind(clock).bind(lease_ms).bind(clock).all(conn).await
    }

    async fn weaknesses(conn: &mut Self::Connection) -> sqlx::Result<Vec<String>> {
        let rows: Vec<NameRow> = sql::<Self>(
            "SELECT name::text AS name FROM pg_settings WHERE (name = 'fsync' AND setting = 'off')
        OR (name = 'full_page_writes' AND setting = 'off')",
        )
        .all(conn)
        .await?;
        let word = |name: String| {
            format!(
                "Postgres runs with {name}=off, so a power failure can lose acknowledged events: \
                 turn the setting on"
            )
        };
        let mut weak: Vec<String> = maintenance::names(rows).into_iter().map(word).collect();
        let long: Vec<NameRow> = sql::<Self>(
            "SELECT CAST(pid AS TEXT) AS name FROM pg_stat_activity
        WHERE datname = current_database() AND xact_start < now() - interval '5 minutes'",
        )
        .all(conn)
        .await?;
        let held = |pid: String| {
            format!(
                "the Postgres process {pid} has had a transaction open for more than 5 minutes, so \
                 dead rows cannot be removed: end that transaction"
            )
        };
        weak.extend(maintenance::names(long).into_iter().map(held));
        Ok(weak)
    }

    async fn unset(conn: &mut Self::Connection) -> sqlx::Result<Vec<String>> {
        let mut unset = Vec::new();
        for (name, value) in SETTINGS {
            let found = sql::<Self>("SELECT current_setting(?) AS name")
                .bind(name.to_owned())
                .first::<NameRow>(conn)
                .await?;
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

    fn is_busy(error: &sqlx::Error) -> bool {
        matches!(
            error,
            sqlx::Error::Database(e) if matches!(
                e.code().as_deref(), Some("40001" | "40P01" | "55P03"),
            ),
        )
    }

    fn error(error: sqlx::Error) -> Error {
        let code = match &error {
            sqlx::Error::Database(e) => e.code().map(|c| c.into_owned()),
            sqlx::Error::Encode(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_) => {
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
            // Connection, resource, operator, system; a conflict that did not pass.
            c if ["08", "53", "57", "58", "28", "3D"].iter().any(|class| c.starts_with(class)) => {
                Error::down(Cause::of(text, error))
            }
            "25006" => Error::read_only(Cause::of(text, error)),
            "40001" | "40P01" | "55P03" => Error::down(Cause::of(text, error)),
            _ => Error::permanent(Cause::of(text, error)),
        }
    }
}

/// The statements whose cost must not grow with the amount of stored data, as Postgres gets them. A
/// test checks their plans.
pub fn hot_statements() -> Vec<(&'static str, String)> {
    let text = |sql: &'static str| super::statement::expanded::<Postgres>(sql).to_owned();
    vec![
        ("look", text(super::work::PICK_LANES)),
        ("backlog", text(super::lanes::BACKLOG)),
        ("take", text(TAKE)),
        ("expired", text(super::work::EXPIRED)),
        ("old_events", text(maintenance::OLD_EVENTS)),
        ("extend", text(super::work::EXTEND)),
        ("record", text(RECORD)),
        ("events", text(super::query::EVENTS_BY_ID)),
        ("take_of", text(TAKE_OF)),
        ("unannounced", text(super::hints::UNANNOUNCED_LATERAL)),
        ("chores", text(maintenance::CHORES)),
    ]
}
