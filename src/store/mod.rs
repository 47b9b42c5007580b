//! First floor: the store, which keeps events, jobs, lanes and runs in a database.
//!
//! The store is a set of verbs over slices. Each call is one transaction that no caller can cancel
//! half way. Each answer is per item, in the order of the slice. The store makes no decisions of
//! its own: where a state is read and changed under a lock (breaker, rate limit), it applies the
//! pure functions of [`crate::decide`].
//!
//! - [`port`]: the verbs, and the types they speak; [`error`]: the few ways a verb can fail
//! - [`postgres`], [`mysql`], [`sqlite`]: one driver per database, with its own statements
//! - [`sql`]: what the drivers share: the runner of transactions, rows, cold reads
//! - [`copy`]: moves a database to another one, whatever their drivers
//! - [`memory`]: the reference store, for tests and simulation

pub mod copy;
pub mod error;
pub mod memory;
#[cfg(feature = "mysql")]
pub mod mysql;
pub mod port;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;

#[cfg(not(any(feature = "sqlite", feature = "postgres", feature = "mysql")))]
compile_error!("choose at least one database: the features `sqlite`, `postgres` and `mysql`");

use std::sync::Arc;

use futures::future::BoxFuture;

pub use error::{Error, Result};
pub use port::*;

use crate::model::{AwsIdentity, ManualClock, Pooler, Secret};

/// How to reach a database.
#[derive(Debug, Clone)]
pub struct Address {
    /// `sqlite:…`, `postgres://…`, `mysql://…` or `memory:`. Secret, because it can hold a
    /// password.
    pub url: Secret,
    /// The most connections of the pool. SQLite uses 1 to 4 of them, for reading only.
    pub connections: u32,
    /// What stands between this process and the database. Behind a pooler every access is a
    /// transaction.
    pub pooler: Pooler,
    /// Idle connections are checked before use. For processes that are frozen between invocations:
    /// their connections may have died meanwhile.
    pub tests_idle: bool,
    /// Open a SQLite file although a server uses it. Only for what reads, and for copies.
    pub beside: bool,
    /// Sign passwords with these AWS credentials (IAM database authentication), again whenever the
    /// last one gets old.
    pub iam: Option<AwsIdentity>,
}

impl Address {
    /// An address without pooler or IAM authentication.
    pub fn new(url: Secret, connections: u32) -> Self {
        Self { url, connections, pooler: Pooler::None, tests_idle: false, beside: false, iam: None }
    }
}

/// Opens the store of one driver.
pub type Open = fn(Address, Option<ManualClock>) -> BoxFuture<'static, Result<Arc<dyn Store>>>;

/// The drivers of this build: the URL schemes and how to open them.
pub static DRIVERS: &[(&[&str], Open)] = &[
    #[cfg(feature = "sqlite")]
    (&["sqlite"], |address, clock| Box::pin(sqlite::open(address, clock))),
    #[cfg(feature = "postgres")]
    (&["postgres", "postgresql"], |address, clock| Box::pin(postgres::open(address, clock))),
    #[cfg(feature = "mysql")]
    (&["mysql", "mariadb"], |address, clock| Box::pin(mysql::open(address, clock))),
];

/// Opens the store that a URL names. `memory:` is the reference store.
///
/// # Errors
/// The URL's scheme is not known, or the database cannot be opened.
pub async fn connect(address: Address) -> Result<Arc<dyn Store>> {
    connect_with_clock(address, None).await
}

/// Opens a store that takes the time from `clock` instead of its database, so that simulations and
/// the scenarios of `tidehook test` decide when work is due.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with_clock(
    address: Address,
    clock: Option<ManualClock>,
) -> Result<Arc<dyn Store>> {
    let scheme = address.url.expose().split(':').next().unwrap_or("").to_owned();
    if scheme == "memory" {
        return Ok(Arc::new(memory::Memory::new(clock)));
    }
    let open = DRIVERS
        .iter()
        .find(|(schemes, _)| schemes.contains(&scheme.as_str()))
        .map(|(_, open)| open);
    let Some(open) = open else {
        let known: Vec<&str> =
            DRIVERS.iter().flat_map(|(schemes, _)| schemes.iter().copied()).collect();
        return Err(Error::permanent(format!(
            "the database URL starts with `{scheme}:`; this build supports {}",
            known.join(", ")
        )));
    };
    open(address, clock).await
}
