//! A time machine for servers with real clocks: time passes for everything that is stored, because
//! every stored instant moves back. For who looks at the rows, that is the same. It moves only a
//! server at rest: nothing due, nothing under way.

use std::time::Duration;

use serde_json::{Number, Value};
use sqlx::{AssertSqlSafe, MySqlPool, PgPool, Row, SqlitePool};

/// Every stored instant, in milliseconds since 1970. A lease is of the process that holds it, and
/// none is held at rest.
const INSTANTS: [(&str, &[&str]); 9] = [
    ("events", &["created_at"]),
    ("jobs", &["due_at", "created_at", "expires_at", "finished_at"]),
    ("attempts", &["at"]),
    ("keys", &["expires_at"]),
    ("lanes", &["open_until", "probe_until", "refilled_at", "look_at"]),
    ("rejections", &["first_at", "last_at"]),
    ("runs", &["created_at", "finished_at", "prune_at"]),
    ("history", &["at"]),
    ("gates", &["changed_at"]),
];
/// Documents with instants inside.
const DOCUMENTS: [&str; 2] = ["runs", "gates"];
/// A number between these is an instant: from 2020 to 2050.
const IS_INSTANT: std::ops::Range<i64> = 1_577_836_800_000..2_524_608_000_000;

/// A database and the clocks that look at it.
pub enum Machine {
    Sqlite(SqlitePool),
    Postgres(PgPool),
    Mariadb(MySqlPool),
}

/// The same on any database.
macro_rules! on {
    ($machine:expr, $pool:ident => $what:expr) => {
        match $machine {
            Machine::Sqlite($pool) => $what,
            Machine::Postgres($pool) => $what,
            Machine::Mariadb($pool) => $what,
        }
    };
}

impl Machine {
    pub async fn over(database: &str) -> Self {
        match database.split(':').next() {
            Some("sqlite") => Self::Sqlite(SqlitePool::connect(database).await.unwrap()),
            Some("mysql") => Self::Mariadb(MySqlPool::connect(database).await.unwrap()),
            _ => Self::Postgres(PgPool::connect(database).await.unwrap()),
        }
    }

    /// Jobs that are due or under way.
    pub async fn open(&self) -> i64 {
        // The clock of this machine is that of the database's.
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let text = format!(
            "SELECT COUNT(*) FROM jobs WHERE state = 'leased' OR (state = 'pending' AND due_at <= \
             {now})"
        );
        on!(self, pool => sqlx::query(AssertSqlSafe(text)).fetch_one(pool).await.unwrap().get(0))
    }

    /// Lets time pass. Whoever was to be told of work later has not been: hints may be lost, and
    /// ticks find it.
    pub async fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap();
        let mut moves = vec!["BEGIN".to_owned(), "UPDATE jobs SET woken_until = NULL".to_owned()];
        for (table, columns) in INSTANTS {
            let columns: Vec<String> =
                columns.iter().map(|column| format!("{column} = {column} - {by}")).collect();
            let table = self.quoted(table);
            moves.push(format!("UPDATE {table} SET {}", columns.join(", ")));
        }
        for table in DOCUMENTS {
            for (id, text) in self.documents(table).await {
                let mut state: Value = serde_json::from_str(&text).unwrap();
                back(&mut state, by);
                let quoted = |text: &str| text.replace('\'', "''");
                moves.push(format!(
                    "UPDATE {table} SET state = '{}' WHERE id = '{}'",
                    quoted(&state.to_string()),
                    quoted(&id)
                ));
            }
        }
        moves.push("COMMIT".to_owned());
        if matches!(self, Self::Mariadb(_)) {
            moves.insert(0, "SET sql_mode = 'NO_BACKSLASH_ESCAPES'".to_owned());
        }
        let text = moves.join(";\n");
        on!(self, pool => {
            sqlx::raw_sql(AssertSqlSafe(text)).execute(pool).await.unwrap();
        });
    }

    /// The ids and states of a table.
    async fn documents(&self, table: &str) -> Vec<(String, String)> {
        let id = if matches!(self, Self::Mariadb(_)) { "CAST(id AS CHAR)" } else { "id" };
        let text = format!("SELECT {id}, state FROM {table}");
        on!(self, pool => {
            let rows = sqlx::query(AssertSqlSafe(text)).fetch_all(pool).await.unwrap();
            rows.iter().map(|row| (row.get(0), row.get(1))).collect()
        })
    }

    /// A table's name; `keys` is a word of MySQL's.
    fn quoted(&self, table: &str) -> String {
        if matches!(self, Self::Mariadb(_)) { format!("`{table}`") } else { table.to_owned() }
    }
}

fn back(value: &mut Value, by: i64) {
    match value {
        Value::Number(number) => {
            if let Some(at) = number.as_i64().filter(|at| IS_INSTANT.contains(at)) {
                *number = Number::from(at - by);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| back(item, by)),
        Value::Object(fields) => fields.iter_mut().for_each(|(_, field)| back(field, by)),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
