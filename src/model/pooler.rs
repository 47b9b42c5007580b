//! What stands between a process and its database.

/// A pooler that hands out a connection for one transaction at a time; nothing may outlive one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooler {
    /// None: connections are the server's own.
    #[default]
    None,
    /// One that knows nothing of what tidehook needs, PgBouncer for instance: each transaction says what its connection is set to.
    Transaction,
    /// One whose connections are set up when they are made, by the init query of RDS Proxy: saying it again in each transaction could pin
    /// sessions.
    RdsProxy,
}

impl Pooler {
    /// Whether there is one.
    pub fn is_there(self) -> bool {
        self != Self::None
    }
}
