//! What a run cost: processor time and memory of the engine, and what the database did.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};

/// Wall time in microseconds.
#[expect(
    clippy::disallowed_methods,
    reason = "events carry the time they were posted over process borders"
)]
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Processor seconds that a process has used.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    // Fields 14 and 15, counted from the one after the name; a hundred ticks make a second on
    // Linux.
    (ticks(11) + ticks(12)) / 100.0
}

/// Resident memory in megabytes: now, and at its highest.
pub fn memory_mb(pid: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap_or("");
        line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// What Postgres did so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Database {
    wal_bytes: i64,
    transactions: i64,
    /// Statements, where the server counts them (`pg_stat_statements`).
    statements: Option<i64>,
    /// Rows that were deleted or replaced, and are not vacuumed yet.
    pub dead_rows: i64,
}

impl Database {
    /// Reads the counters of a database; `None` for a store that is no server.
    pub async fn read(url: Option<&str>) -> Option<Self> {
        let mut conn = PgConnection::connect(url?).await.ok()?;
        let sql = "SELECT pg_stat_force_next_flush(), (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint AS wal,
            (SELECT (xact_commit + xact_rollback)::bigint FROM pg_stat_database WHERE datname = current_database()) AS xacts,
            (SELECT COALESCE(SUM(n_dead_tup), 0)::bigint FROM pg_stat_user_tables) AS dead";
        let row = sqlx::query(sql).fetch_one(&mut conn).await.ok()?;
        let counted = "SELECT COALESCE(SUM(calls), 0)::bigint AS n FROM pg_stat_statements AS s
            JOIN pg_database AS d ON d.oid = s.dbid WHERE d.datname = current_database()";
        // A server that does not count statements is no failure: the figure is left out.
        let _ = sqlx::query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            .execute(&mut conn)
            .await;
        let statements =
            sqlx::query(counted).fetch_one(&mut conn).await.ok().map(|row| row.get("n"));
        Some(Self {
            wal_bytes: row.get("wal"),
            transactions: row.get("xacts"),
            statements,
            dead_rows: row.get("dead"),
        })
    }

    /// What was done since, per event.
    pub fn since(&self, before: &Self, events: u64, seconds: f64) -> Value {
        let per_event = |n: i64| ((n as f64 / events.max(1) as f64) * 100.0).round() / 100.0;
        let statements =
            self.statements.zip(before.statements).map(|(after, before)| after - before);
        json!({
            "statements_per_s": statements.map(|n| (n as f64 / seconds.max(0.001) * 10.0).round() / 10.0),
            "wal_bytes_per_event": per_event(self.wal_bytes - before.wal_bytes).round(),
            "transactions_per_event": per_event(self.transactions - before.transactions),
            "transactions_per_s": ((self.transactions - before.transactions) as f64 / seconds.max(0.001)).round(),
            "dead_rows": self.dead_rows,
        })
    }
}

/// Seconds that the machine's processors have spent doing nothing, added up.
pub fn machine_idle() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.lines().next().unwrap_or("").split_whitespace().collect();
    fields.get(4).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 100.0
}
