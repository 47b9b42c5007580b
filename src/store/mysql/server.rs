//! What a server must be, and which of its settings put durability or progress at risk.

use std::collections::HashMap;

use sqlx::{MySql, MySqlConnection};

use crate::store::sql::SqlStore;

/// The settings of a server, by name in lower case.
struct Settings(HashMap<String, String>);

impl Settings {
    async fn read(store: &SqlStore<MySql>, conn: &mut MySqlConnection) -> sqlx::Result<Self> {
        let rows: Vec<(String, String)> = store.sql("settings").all(conn).await?;
        Ok(Self(rows.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect()))
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name).parse().ok()
    }

    fn is_on(&self, name: &str) -> bool {
        matches!(self.get(name).to_ascii_uppercase().as_str(), "ON" | "1")
    }

    fn is_mariadb(&self) -> bool {
        self.get("version").contains("MariaDB")
    }

    /// Major and minor version.
    fn version(&self) -> Option<(u32, u32)> {
        // MariaDB behind a replication prefix says 5.5.5-10.6.1-MariaDB.
        let text = self.get("version").trim_start_matches("5.5.5-");
        let mut numbers = text.split(['.', '-']).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

/// Why this server cannot keep the store's promises; `None` if it can.
pub(super) async fn refuse(
    store: &SqlStore<MySql>,
    conn: &mut MySqlConnection,
) -> sqlx::Result<Option<String>> {
    Ok(refusal(&Settings::read(store, conn).await?))
}

fn refusal(settings: &Settings) -> Option<String> {
    let version = settings.get("version");
    if version.contains("TiDB") {
        return Some(format!(
            "this server is TiDB ({version}), which ignores FOR UPDATE beside SKIP LOCKED: two \
             workers could get one job. Use MySQL 8.0, MariaDB 10.6 or Postgres"
        ));
    }
    let least = if settings.is_mariadb() { (10, 6) } else { (8, 0) };
    (settings.version()? < least).then(|| {
        format!(
            "this server is version {version}, which lacks SKIP LOCKED or JSON_TABLE: use MySQL \
             8.0 or MariaDB 10.6, or later"
        )
    })
}

/// Settings that put durability or progress at risk, one sentence each.
pub(super) async fn weaknesses(
    store: &SqlStore<MySql>,
    conn: &mut MySqlConnection,
) -> sqlx::Result<Vec<String>> {
    Ok(risks(&Settings::read(store, conn).await?))
}

/// The least packet that holds a slice of new events.
const PACKET_MIN: u64 = 16 << 20;

fn risks(settings: &Settings) -> Vec<String> {
    let mut risks = Vec::new();
    let flush = settings.get("innodb_flush_log_at_trx_commit");
    if !flush.is_empty() && flush != "1" {
        risks.push(format!(
            "the server runs with innodb_flush_log_at_trx_commit={flush}, so a power failure can \
             lose acknowledged events: set it to 1"
        ));
    }
    if settings.is_on("log_bin") && settings.number("sync_binlog").is_some_and(|n| n != 1) {
        risks.push(format!(
            "the server runs with sync_binlog={}, so a power failure can lose acknowledged events \
             on its replicas: set it to 1",
            settings.get("sync_binlog")
        ));
    }
    if settings.get("innodb_doublewrite").eq_ignore_ascii_case("off") {
        risks.push(
            "the server runs with innodb_doublewrite=OFF, so a power failure can tear pages: turn \
             the setting on"
                .to_owned(),
        );
    }
    if settings.number("max_allowed_packet").is_some_and(|bytes| bytes < PACKET_MIN) {
        risks.push(format!(
            "the server accepts packets of at most {} bytes, and larger events cannot be stored: \
             set max_allowed_packet to 16M or more",
            settings.get("max_allowed_packet")
        ));
    }
    if settings.is_on("wsrep_on") {
        risks.push(
            "the server is part of a Galera cluster: commits on several nodes conflict, and \
             committed transactions have been lost in public tests. Send all of tidehook's \
             connections to one node"
                .to_owned(),
        );
    }
    if !settings.get("group_replication_group_name").is_empty() {
        risks.push(
            "the server uses group replication: in multi-primary mode commits conflict. Use \
             single-primary mode, and send all of tidehook's connections to the primary"
                .to_owned(),
        );
    }
    risks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn servers_that_cannot_keep_the_promises_are_refused_by_name() {
        let refused = |version| refusal(&settings(&[("version", version)]));
        for good in [
            "8.0.36",
            "8.4.0",
            "9.1.0",
            "10.6.1-MariaDB",
            "5.5.5-10.11.6-MariaDB",
            "11.4.2-MariaDB-log",
        ] {
            assert_eq!(refused(good), None, "{good}");
        }
        assert!(refused("8.0.11-TiDB-v7.5.0").unwrap().contains("is TiDB"));
        for old in ["5.7.44", "10.5.9-MariaDB", "5.5.5-10.4.1-MariaDB"] {
            assert!(refused(old).unwrap().contains("or later"), "{old}");
        }
    }

    #[test]
    fn what_puts_events_at_risk_is_named() {
        let durable = [
            ("innodb_flush_log_at_trx_commit", "1"),
            ("sync_binlog", "0"),
            ("log_bin", "OFF"),
            ("innodb_doublewrite", "ON"),
            ("max_allowed_packet", "16777216"),
            ("wsrep_on", "OFF"),
            ("group_replication_group_name", ""),
        ];
        assert_eq!(risks(&settings(&durable)), [""; 0]);
        let weak = [
            ("innodb_flush_log_at_trx_commit", "2"),
            ("sync_binlog", "0"),
            ("log_bin", "ON"),
            ("innodb_doublewrite", "OFF"),
            ("max_allowed_packet", "1048576"),
            ("wsrep_on", "ON"),
            ("group_replication_group_name", "9b1deb4d-aaaa"),
        ];
        let found = risks(&settings(&weak)).join("\n");
        for word in [
            "trx_commit=2",
            "sync_binlog=0",
            "doublewrite",
            "1048576",
            "Galera",
            "group replication",
        ] {
            assert!(found.contains(word), "{word} in {found}");
        }
    }
}
