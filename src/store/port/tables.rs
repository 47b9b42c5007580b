//! The tables as they are, for copies from one database to another.

use async_trait::async_trait;

use crate::store::error::{Error, Result};

/// What a column holds, which decides how it is bound and sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text of ASCII characters without blanks at its end, such as an id: every database sorts it
    /// alike.
    Id,
    /// Any other text, sorted byte by byte.
    Text,
    /// Text from outside that must be told apart to its last byte; bytes on MySQL.
    Exact,
    /// A whole number of 64 bits, or null.
    Int,
    /// A floating-point number.
    Real,
    /// A byte string, or null.
    Bytes,
}

/// A table that copies carry over.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// How many of its first columns are its key.
    pub key: usize,
    /// Every column, those of the key first.
    pub columns: &'static [(&'static str, Kind)],
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// No value: SQL's null, in a column of any kind.
    Null,
    /// The value of a number column.
    Int(i64),
    /// A floating-point number.
    Real(f64),
    /// The value of any text column.
    Text(String),
    /// The value of a byte column.
    Bytes(Vec<u8>),
}

/// A row: one value per column of its table.
pub type Row = Vec<Cell>;

/// A copy that a database takes part in, from the moment it may not be worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// It was copied to this other database, which has its work now.
    Source {
        /// The other database, without a password.
        to: String,
    },
    /// It is being filled with what this other database has.
    Target {
        /// The other database, without a password.
        from: String,
    },
}

/// Reads and writes whole tables. A store that has none to copy, such as the one in memory,
/// refuses.
#[async_trait]
pub trait Tables: Send + Sync {
    /// Rows of a table in the order of their keys, text byte by byte, behind a key. `fenced` reads
    /// what [`Tables::fence`] has put away.
    async fn rows(
        &self,
        table: &'static Table,
        behind: Option<&[Cell]>,
        fenced: bool,
        most: u32,
    ) -> Result<Vec<Row>> {
        let _ = (table, behind, fenced, most);
        Err(cannot())
    }
    /// Deletes the rows with these keys, then inserts rows, in one transaction.
    async fn put(&self, table: &'static Table, gone: Vec<Row>, rows: Vec<Row>) -> Result<()> {
        let _ = (table, gone, rows);
        Err(cannot())
    }
    /// How many rows a table has.
    async fn size(&self, table: &'static Table, fenced: bool) -> Result<u64> {
        let _ = (table, fenced);
        Err(cannot())
    }
    /// The copy that this database takes part in; `None` for one that may be worked on.
    async fn moved(&self) -> Result<Option<Move>> {
        Ok(None)
    }
    /// Marks this database as one that is being filled; `None` ends that.
    async fn set_target(&self, from: Option<&str>) -> Result<()> {
        let _ = from;
        Err(cannot())
    }
    /// Marks this database as one that was copied, and puts its tables away, so that processes that
    /// still run on it can neither accept nor claim. Safe to repeat.
    async fn fence(&self, to: &str) -> Result<()> {
        let _ = to;
        Err(cannot())
    }
    /// Undoes [`Tables::fence`].
    async fn unfence(&self) -> Result<()> {
        Err(cannot())
    }
}

fn cannot() -> Error {
    Error::permanent("this store cannot be copied: it keeps nothing")
}

use Kind::{Bytes, Exact, Id, Int, Real, Text};

/// Every table that a copy carries over. A test compares the list with the schema.
pub static TABLES: &[Table] = &[
    Table {
        name: "definitions",
        key: 1,
        columns: &[("hash", Id), ("name", Text), ("body", Text), ("created_at", Int)],
    },
    Table {
        name: "lanes",
        key: 1,
        columns: &[
            ("id", Text),
            ("tenant", Text),
            ("paused", Int),
            ("failures", Int),
            ("open_until", Int),
            ("probe_until", Int),
            ("ramp", Int),
            ("rate", Int),
            ("tokens", Real),
            ("refilled_at", Int),
            ("turn", Int),
            ("rules", Text),
            ("ready", Int),
            ("look_at", Int),
            ("rest", Int),
        ],
    },
    Table {
        name: "events",
        key: 1,
        columns: &[
            ("id", Id),
            ("source", Text),
            ("kind", Text),
            ("headers", Text),
            ("body", Bytes),
            ("unique_key", Text),
            ("created_at", Int),
        ],
    },
    Table {
        name: "jobs",
        key: 1,
        columns: &[
            ("id", Id),
            ("event_id", Id),
            ("target_kind", Text),
            ("target_name", Text),
            ("lane", Text),
            ("state", Text),
            ("attempt", Int),
            ("lost", Int),
            ("claim", Int),
            ("due_at", Int),
            ("created_at", Int),
            ("expires_at", Int),
            ("finished_at", Int),
            ("last_error", Text),
            ("woken_until", Int),
            ("begun", Int),
            ("deaths", Int),
            ("took_ms", Int),
            ("status", Int),
            ("response", Bytes),
        ],
    },
    Table {
        name: "attempts",
        key: 2,
        columns: &[
            ("job_id", Id),
            ("claim", Int),
            ("number", Int),
            ("ending", Text),
            ("code", Text),
            ("status", Int),
            ("error", Text),
            ("duration_ms", Int),
            ("response", Bytes),
            ("at", Int),
        ],
    },
    Table {
        name: "keys",
        key: 2,
        columns: &[
            ("scope", Exact),
            ("word", Exact),
            ("event_id", Text),
            ("fingerprint", Text),
            ("expires_at", Int),
        ],
    },
    Table {
        name: "runs",
        key: 1,
        columns: &[
            ("id", Id),
            ("workflow", Text),
            ("definition", Text),
            ("event_id", Id),
            ("parent_run", Id),
            ("parent_visit", Int),
            ("status", Text),
            ("error", Text),
            ("version", Int),
            ("noted", Int),
            ("state", Text),
            ("created_at", Int),
            ("finished_at", Int),
            ("prune_at", Int),
        ],
    },
    Table {
        name: "history",
        key: 2,
        columns: &[
            ("run_id", Id),
            ("seq", Int),
            ("at", Int),
            ("kind", Text),
            ("step", Text),
            ("visit", Int),
            ("data", Text),
        ],
    },
    Table {
        name: "tokens",
        key: 1,
        columns: &[("hash", Id), ("run_id", Id), ("visit", Int), ("answer", Text)],
    },
    Table {
        name: "gates",
        key: 1,
        columns: &[("id", Exact), ("version", Int), ("state", Text), ("changed_at", Int)],
    },
    Table { name: "counters", key: 2, columns: &[("name", Text), ("shard", Int), ("value", Int)] },
    Table {
        name: "rejections",
        key: 2,
        columns: &[
            ("source", Text),
            ("reason", Text),
            ("count", Int),
            ("first_at", Int),
            ("last_at", Int),
        ],
    },
];
