//! The plans of the hot statements at a size where a scan would show: an index, whatever the kept
//! rows and the backlog of lanes that cannot run.

use sqlx::{Connection, MySqlConnection, PgConnection, Row};
use tidehook::store::{self, Address};

use super::build::*;
use crate::support::stores::{Kind, postgres, url};

/// Ended jobs that are kept; a backlog behind a pause, and as many that are due in a far future.
const KEPT: i64 = 1_000_000;
const BACKLOG: i64 = 100_000;

/// A million kept events and their jobs, a backlog behind a paused lane, one of later retries, and
/// one lane with a little work.
async fn fill(conn: &mut PgConnection) {
    let columns = "id, event_id, target_kind, target_name, lane, state, attempt, lost, claim, \
        due_at, created_at, finished_at";
    const LATER: &str = "8000000000000 + n";
    let events = format!(
        "INSERT INTO events (id, source, kind, headers, body, created_at) SELECT LPAD(n::text, 26, '0'), 'app', 'x', '[]', ''::bytea, 9000000000000
         FROM generate_series(0, {}) AS n",
        KEPT - 1
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(events)).execute(&mut *conn).await.unwrap();
    for (from, count, lane, state, due, finished) in [
        (0, KEPT, "handler:free", "done", "n", "n"),
        (KEPT, BACKLOG, "handler:paused", "pending", "n", "NULL"),
        (KEPT + BACKLOG, BACKLOG, "handler:later", "pending", LATER, "NULL"),
        (KEPT + 2 * BACKLOG, 100, "handler:free", "pending", "n", "NULL"),
    ] {
        let sql = format!(
            "INSERT INTO jobs ({columns}) SELECT LPAD(n::text, 26, '0'), LPAD(n::text, 26, '0'), 'handler', 'x', '{lane}', '{state}', 1, 0, 1, {due}, n, {finished}
             FROM generate_series({from}, {from} + {count} - 1) AS n"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *conn).await.unwrap();
    }
    // As many lanes again, half of them of one tenant and half each of its own: ready, or to be
    // looked at later.
    let lanes = "INSERT INTO lanes (id, tenant, paused, failures, ramp, tokens, refilled_at, turn, ready, look_at)
        SELECT 'handler:x' || n, CASE WHEN n % 2 = 0 THEN 'crowd' ELSE 'of' || n END, 0, 0, 0, 0, 0, 0,
            CASE WHEN n % 4 < 2 THEN 1 ELSE 0 END, CASE WHEN n % 4 < 2 THEN 0 ELSE 8000000000000 + n END
        FROM generate_series(1, 100000) AS n";
    sqlx::raw_sql(lanes).execute(&mut *conn).await.unwrap();
    let work = format!(
        "INSERT INTO jobs ({columns}) SELECT LPAD((5000000 + n)::text, 26, '0'), LPAD(n::text, 26, '0'), 'handler', 'x',
            'handler:x' || n, 'pending', 1, 0, 1, n, n, NULL FROM generate_series(1, 100000) AS n WHERE n % 4 < 2"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(work)).execute(&mut *conn).await.unwrap();
    sqlx::raw_sql("UPDATE lanes SET paused = 1 WHERE id = 'handler:paused'")
        .execute(&mut *conn)
        .await
        .unwrap();
}

async fn run(conn: &mut PgConnection, sql: String) -> Vec<String> {
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(conn).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect()
}

/// The plan of a prepared statement as Postgres runs it.
async fn plan(conn: &mut PgConnection, name: &str, values: &[&str]) -> String {
    let values = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
    run(conn, format!("EXPLAIN (ANALYZE, BUFFERS) EXECUTE {name}{values}")).await.join("\n")
}

/// The buffers a plan touched, in its first line that counts them.
fn buffers(plan: &str) -> u64 {
    let line = plan.lines().find(|l| l.contains("Buffers: shared")).unwrap_or("");
    let numbers = line
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(what, _)| *what != "dirtied");
    numbers.filter_map(|(_, n)| n.parse::<u64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_statements_use_an_index_at_a_million_kept_rows() {
    if postgres().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let url = url(Kind::Postgres, &dir).await.unwrap();
    let store = store::connect(Address::new(tidehook::model::Secret::new(&url), 4)).await.unwrap();
    store.migrate().await.unwrap();
    store.upsert_lanes(&[spec("free"), spec("paused"), spec("later")]).await.unwrap();
    // As the store connects, and with the plans it may have made while the tables were empty.
    let options = tidehook::store::postgres::options(&url).unwrap();
    let mut conn = PgConnection::connect_with(&options).await.unwrap();
    run(&mut conn, "ANALYZE".to_owned()).await;
    run(
        &mut conn,
        "SET plan_cache_mode = force_generic_plan; SET statement_timeout = 0".to_owned(),
    )
    .await;

    const JOB: &str = "ARRAY['00000000000000000001234567']";
    // What is bound to the statements, by name. Now is the database's own clock.
    let values = |statement: &str, name: &str| -> &str {
        match (statement, name) {
            ("take" | "take_of", "rows.lane") => "ARRAY['handler:free', 'handler:later']",
            ("take" | "take_of", "rows.most") => "ARRAY[10, 10]",
            ("unannounced", "most") => "500",
            ("pick", "behind") => "'of5'",
            ("next_due", "ids") => "ARRAY['handler:free', 'handler:later']",
            (_, "skip") => "'{}'",
            (_, "only" | "ids" | "rows.job") => JOB,
            (_, "rows.claim" | "rows.sent" | "rows.took") => "ARRAY[1]",
            (_, "rows.next") => "ARRAY['done']",
            (_, "rows.after" | "rows.lost" | "rows.ended") => "ARRAY[0]",
            (_, "rows.error") => "ARRAY[NULL::text]",
            (_, "rows.status") => "ARRAY[200]",
            (_, "rows.response") => "ARRAY[''::bytea]",
            (_, "shard") => "0",
            (_, "lease" | "by") => "1000",
            (_, "most") => "10",
            (_, "from" | "before") => "''",
            (_, "counts") => "0",
            (_, "empty") => "'{}'",
            (_, "age") => "259200000",
            (_, "ahead") => "60000",
            (_, "overdue") => "5000",
            other => panic!("no value for {other:?}"),
        }
    };
    let hot: Vec<(&str, String, Vec<&str>)> = tidehook::store::postgres::HOT
        .into_iter()
        .map(|name| {
            let (text, bound) =
                tidehook::store::sql::statement::sent::<sqlx::Postgres>(name).unwrap();
            let values = bound.iter().map(|of| values(name, of)).collect();
            (name, text, values)
        })
        .collect();
    for (name, sql, _) in &hot {
        run(&mut conn, format!("PREPARE {name} AS {sql}")).await;
    }
    for (when, is_filled) in
        [("while the tables were empty", false), ("and kept", true), ("with new statistics", true)]
    {
        match (when, is_filled) {
            (_, false) => {}
            ("and kept", _) => fill(&mut conn).await,
            _ => drop(run(&mut conn, "ANALYZE".to_owned()).await),
        }
        for (name, _, values) in &hot {
            let plan = plan(&mut conn, name, values).await;
            assert!(
                !plan.contains("Seq Scan on jobs") && !plan.contains("Seq Scan on events"),
                "{name}, {when}:\n{plan}"
            );
            // A few pages, where a scan would touch tens of thousands.
            let touched = buffers(&plan);
            assert!(touched < 2_000, "{name}, {when}, touches {touched} pages:\n{plan}");
        }
    }
    // And the verb itself takes what is due, past the backlog that cannot run.
    assert_eq!(store.claim(&claim_request(10)).await.unwrap().len(), 10);
}

/// How many rows a statement of MariaDB reads, by its own count.
async fn rows_read(conn: &mut MySqlConnection, name: &'static str) -> i64 {
    let (text, bound) = tidehook::store::sql::statement::sent::<sqlx::MySql>(name).unwrap();
    sqlx::raw_sql("FLUSH STATUS").execute(&mut *conn).await.unwrap();
    let mut query = sqlx::query(sqlx::AssertSqlSafe(text));
    for of in &bound {
        query = match of.as_str() {
            "behind" | "tenant" => query.bind("tenant500"),
            "skip" => query.bind(""),
            "most" => query.bind(11_i64),
            other => panic!("no value for {other}"),
        };
    }
    assert!(!query.fetch_all(&mut *conn).await.unwrap().is_empty(), "{name}");
    let counts = sqlx::raw_sql("SHOW SESSION STATUS LIKE 'Handler_read%'").fetch_all(conn).await;
    let count = |row: &sqlx::mysql::MySqlRow| row.get::<String, _>(1).parse::<i64>().unwrap();
    counts.unwrap().iter().map(count).sum()
}

#[tokio::test]
async fn a_claim_on_mariadb_steps_from_tenant_to_tenant_whatever_their_number() {
    let dir = tempfile::tempdir().unwrap();
    let Some(url) = url(Kind::Mariadb, &dir).await else { return };
    let store = store::connect(Address::new(tidehook::model::Secret::new(&url), 4)).await.unwrap();
    store.migrate().await.unwrap();
    let mut conn = MySqlConnection::connect(&url).await.unwrap();
    for (prefix, ready, look_at) in [("ready", 1, "n"), ("timed", 0, "n")] {
        let lanes = format!(
            "INSERT INTO lanes (id, tenant, paused, failures, ramp, tokens, refilled_at, turn, ready, look_at)
             SELECT CONCAT('{prefix}', n), CONCAT('tenant', n % 1000), 0, 0, 0, 0, 0, 0, {ready}, {look_at}
             FROM (SELECT seq AS n FROM seq_1_to_20000) AS s"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(lanes)).execute(&mut conn).await.unwrap();
    }
    sqlx::raw_sql("ANALYZE TABLE lanes").execute(&mut conn).await.unwrap();
    for name in ["ready_tenants", "ready_lanes", "timed_lanes"] {
        let read = rows_read(&mut conn, name).await;
        assert!(read < 100, "{name} reads {read} rows");
    }
}
