//! The few ways a store verb can fail; callers can wait, ask the other process, settle again, drop or report.

/// A store error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The database is away; whether the slice was committed is not known. Every verb is safe to repeat.
    #[error("database unavailable: {0}")]
    Down(String),
    /// The database has no room left; nothing was stored.
    #[error("database is full: {0}")]
    Full(String),
    /// The database answers and takes no writes; nothing was stored.
    #[error("database is read-only: {0}")]
    ReadOnly(String),
    /// The database belongs to another process.
    #[error("{0}")]
    InUse(String),
    /// The lease belongs to someone else by now; nothing was changed.
    #[error("the lease is lost")]
    LeaseLost,
    /// The run was changed by someone else meanwhile; nothing was changed. It is to be settled again.
    #[error("the run has moved on")]
    MovedOn,
    /// This item cannot be stored, whatever is tried; or what is stored cannot be read.
    #[error("{0}")]
    Corrupt(String),
}

impl Error {
    /// Whether waiting may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Down(_) | Self::Full(_) | Self::ReadOnly(_))
    }
}

/// A result of a store verb.
pub type Result<T> = std::result::Result<T, Error>;
