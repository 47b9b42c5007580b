//! The few ways in which a store verb can fail. The caller can wait, settle again, give the item up
//! or report.

use std::sync::Arc;

/// What a database, or the store itself, says about a failure: a sentence for people, and the
/// driver's error where there is one, so that logs and callers can follow it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct Cause {
    text: String,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Cause {
    /// A sentence about an error of the driver.
    pub fn of(
        text: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self { text: text.into(), source: Some(Arc::new(source)) }
    }

    /// Whether the sentence contains a text.
    pub fn contains(&self, part: &str) -> bool {
        self.text.contains(part)
    }
}

impl<T: Into<String>> From<T> for Cause {
    fn from(text: T) -> Self {
        Self { text: text.into(), source: None }
    }
}

/// Two causes are equal when they say the same.
impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cause {}

/// Why a store verb failed. The variant tells the caller what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached. Whether the slice was committed is not known, but every verb
    /// is safe to repeat.
    #[error("database unavailable: {0}")]
    Down(#[source] Cause),
    /// The database has no room left; nothing was stored.
    #[error("database is full: {0}")]
    Full(#[source] Cause),
    /// The database answers but refuses writes; nothing was stored.
    #[error("database is read-only: {0}")]
    ReadOnly(#[source] Cause),
    /// Others were first, again and again, for as long as the verb could be repeated; nothing was
    /// stored. The database itself is well.
    #[error("the database is contended: {0}")]
    Conflict(#[source] Cause),
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
    Permanent(#[source] Cause),
}

impl Error {
    /// [`Error::Down`], for this reason.
    pub fn down(cause: impl Into<Cause>) -> Self {
        Self::Down(cause.into())
    }

    /// [`Error::Full`], for this reason.
    pub fn full(cause: impl Into<Cause>) -> Self {
        Self::Full(cause.into())
    }

    /// [`Error::ReadOnly`], for this reason.
    pub fn read_only(cause: impl Into<Cause>) -> Self {
        Self::ReadOnly(cause.into())
    }

    /// [`Error::Conflict`], for this reason.
    pub fn conflict(cause: impl Into<Cause>) -> Self {
        Self::Conflict(cause.into())
    }

    /// [`Error::Permanent`], for this reason.
    pub fn permanent(cause: impl Into<Cause>) -> Self {
        Self::Permanent(cause.into())
    }

    /// Whether waiting may help: the database may come back, get room, accept writes again or be
    /// less contended.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Down(_) | Self::Full(_) | Self::ReadOnly(_) | Self::Conflict(_))
    }
}

/// The result of a store verb, with this module's error.
pub type Result<T> = std::result::Result<T, Error>;
