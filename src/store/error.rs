//! The few ways in which a store verb can fail. The caller can wait, settle again, give the item up
//! or report.

/// Why a store verb failed. The variant tells the caller what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached. Whether the slice was committed is not known, but every verb
    /// is safe to repeat.
    #[error("database unavailable: {0}")]
    Down(String),
    /// The database has no room left; nothing was stored.
    #[error("database is full: {0}")]
    Full(String),
    /// The database answers but refuses writes; nothing was stored.
    #[error("database is read-only: {0}")]
    ReadOnly(String),
    /// Another process has the database open: SQLite files belong to one process.
    #[error("{0}")]
    InUse(String),
    /// The job was claimed again or finished meanwhile, so this lease is over; nothing was changed.
    #[error("the lease is lost")]
    LeaseLost,
    /// Another change to the run was committed first, so nothing was changed. The caller reads the
    /// run again and settles again.
    #[error("the run was changed by another process")]
    MovedOn,
    /// This item cannot be stored, or a stored row cannot be read. Trying again does not help.
    #[error("{0}")]
    Corrupt(String),
}

impl Error {
    /// Whether waiting may help: the database may come back, get room or accept writes again.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Down(_) | Self::Full(_) | Self::ReadOnly(_))
    }
}

/// The result of a store verb, with this module's error.
pub type Result<T> = std::result::Result<T, Error>;
