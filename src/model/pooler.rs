//! The connection pooler between this process and its database, if there is one.

/// The kind of pooler. A pooler in transaction mode hands out a connection for one transaction at a
/// time, so nothing may outlive a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooler {
    /// No pooler: connections go to the server itself.
    #[default]
    None,
    /// A pooler that does not know tidehook's settings, such as PgBouncer. Each transaction sets
    /// them.
    Transaction,
    /// RDS Proxy, whose init query sets each connection up. Setting it again in transactions could
    /// pin sessions.
    RdsProxy,
}

impl Pooler {
    /// Whether a pooler stands in front. If so, every access must be a transaction, and nothing may
    /// rely on the session.
    pub fn is_there(self) -> bool {
        self != Self::None
    }
}
