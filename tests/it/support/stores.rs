//! A fresh store per test, on a clock the test moves.
//!
//! `TIDEHOOK_TEST_POSTGRES` and `TIDEHOOK_TEST_MYSQL` name servers (`scripts/test.sh` finds or
//! starts them and sets both). Plain `cargo test` runs without; with `TIDEHOOK_TEST_ALL` a missing
//! server is a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tidehook::model::{ManualClock, Pooler, Secret, Timestamp};
use tidehook::store::{self, Address, Store};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Sqlite,
    Postgres,
    /// Postgres behind a pooler that hands out a connection for one transaction at a time.
    Pooled,
    /// MySQL or MariaDB, whichever the variable names.
    Mariadb,
}

/// A store of its own, which goes when the test ends.
pub struct Fresh {
    pub store: Arc<dyn Store>,
    pub clock: ManualClock,
    pub url: String,
    _dir: tempfile::TempDir,
}

pub const START: Timestamp = Timestamp(1_769_853_600_000);

pub fn postgres() -> Option<String> {
    let server = std::env::var("TIDEHOOK_TEST_POSTGRES").ok().filter(|s| !s.is_empty());
    assert!(
        server.is_some() || std::env::var_os("TIDEHOOK_TEST_ALL").is_none(),
        "TIDEHOOK_TEST_ALL is set but TIDEHOOK_TEST_POSTGRES names no server; run scripts/test.sh"
    );
    server
}

pub fn mariadb() -> Option<String> {
    let server = std::env::var("TIDEHOOK_TEST_MYSQL").ok().filter(|s| !s.is_empty());
    assert!(
        server.is_some() || std::env::var_os("TIDEHOOK_TEST_ALL").is_none(),
        "TIDEHOOK_TEST_ALL is set but TIDEHOOK_TEST_MYSQL names no server; run scripts/test.sh"
    );
    server
}

pub fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The URL of an empty database; `None` when there is no server for it.
pub async fn url(kind: Kind, dir: &tempfile::TempDir) -> Option<String> {
    Some(match kind {
        Kind::Memory => "memory:".to_owned(),
        Kind::Sqlite => format!("sqlite:{}", dir.path().join("test.db").display()),
        Kind::Postgres | Kind::Pooled => {
            let server = postgres()?;
            super::database::create(&server, &unique_name()).await
        }
        Kind::Mariadb => super::database::create_mariadb(&mariadb()?, &unique_name()).await,
    })
}

pub async fn fresh(kind: Kind) -> Option<Fresh> {
    let dir = tempfile::tempdir().unwrap();
    let url = url(kind, &dir).await?;
    let clock = ManualClock::at(START);
    let store = open(&url, Some(clock.clone())).await;
    // Migrations lock the session, which a pooler does not let through: they go the direct way.
    store.migrate().await.unwrap();
    let store = match kind {
        Kind::Pooled => open_pooled(&url, clock.clone()).await?,
        _ => store,
    };
    Some(Fresh { store, clock, url, _dir: dir })
}

/// The same database through the pooler that `TIDEHOOK_TEST_POOLER` names.
async fn open_pooled(direct: &str, clock: ManualClock) -> Option<Arc<dyn Store>> {
    let pooler = std::env::var("TIDEHOOK_TEST_POOLER").ok().filter(|s| !s.is_empty());
    assert!(
        pooler.is_some() || std::env::var_os("TIDEHOOK_TEST_ALL").is_none(),
        "TIDEHOOK_TEST_ALL is set but TIDEHOOK_TEST_POOLER names no pooler; run scripts/test.sh"
    );
    let mut url = url::Url::parse(&pooler?).unwrap();
    url.set_path(url::Url::parse(direct).unwrap().path());
    let address =
        Address { pooler: Pooler::Transaction, ..Address::new(Secret::new(url.as_str()), 8) };
    Some(store::connect_with_clock(address, Some(clock)).await.unwrap())
}

/// An empty database through the pooler.
pub async fn pooled_without_schema() -> Option<Arc<dyn Store>> {
    let dir = tempfile::tempdir().unwrap();
    let url = url(Kind::Pooled, &dir).await?;
    open_pooled(&url, ManualClock::at(START)).await
}

pub async fn open(url: &str, clock: Option<ManualClock>) -> Arc<dyn Store> {
    store::connect_with_clock(Address::new(Secret::new(url), 8), clock).await.unwrap()
}

/// Runs a statement on a database directly.
pub async fn execute(url: &str, sql: &'static str) {
    match url.split(':').next() {
        Some("sqlite") => {
            let pool = sqlx::SqlitePool::connect(url).await.unwrap();
            sqlx::raw_sql(sql).execute(&pool).await.unwrap();
        }
        Some("mysql") => {
            let pool = sqlx::MySqlPool::connect(url).await.unwrap();
            sqlx::raw_sql(sql).execute(&pool).await.unwrap();
        }
        _ => {
            let pool = sqlx::PgPool::connect(url).await.unwrap();
            sqlx::raw_sql(sql).execute(&pool).await.unwrap();
        }
    }
}
