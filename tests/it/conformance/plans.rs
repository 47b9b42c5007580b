//! The plans of the hot statements at a size where a scan would show: an index, whatever the kept rows and the
//! backlog of lanes that cannot run.

use sqlx::{Connection, PgConnection, Row};
use tidehook::store::{self, Address};

use super::build::*;
use crate::support::stores::{Kind, postgres, url};

/// Ended jobs that are kept; a backlog behind a pause, and as many that are due in a far future.
const KEPT: i64 = 1_000_000;
const BACKLOG: i64 = 100_000;

/// A million kept rows, a backlog behind a paused lane, one of later retries, and one lane with a little work.
async fn fill(conn: &mut PgConnection) {
    let columns = "id, event_id, target_kind, target_name, lane, state, attempt, lost, claim, due_at, created_at, finished_at";
    const LATER: &str = "8000000000000 + n";
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
    sqlx::raw_sql("UPDATE lanes SET paused = 1 WHERE id = 'handler:paused'; ANALYZE").execute(&mut *conn).await.unwrap();
}

/// The plan of a statement as Postgres runs it, its placeholders filled by `values`.
async fn plan(conn: &mut PgConnection, sql: &str, values: &[&str]) -> String {
    let mut sql = sql.to_owned();
    for (at, value) in values.iter().enumerate().rev() {
        sql = sql.replace(&format!("${}", at + 1), value);
    }
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("EXPLAIN (ANALYZE, BUFFERS) {sql}"))).fetch_all(conn).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
}

/// The buffers a plan touched, in its first line that counts them.
fn buffers(plan: &str) -> u64 {
    let line = plan.lines().find(|l| l.contains("Buffers: shared")).unwrap_or("");
    let numbers = line.split_whitespace().filter_map(|word| word.split_once('=')).filter(|(what, _)| *what != "dirtied");
    numbers.filter_map(|(_, n)| n.parse::<u64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_statements_use_an_index_at_a_million_kept_rows() {
    if postgres().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let url = url(Kind::Postgres, &dir).await.unwrap();
    let store = store::connect(Address { url: tidehook::model::Secret::new(&url), connections: 4, clock: None }).await.unwrap();
    store.migrate().await.unwrap();
    store.tune(&[spec("free"), spec("paused"), spec("later")]).await.unwrap();
    let mut conn = PgConnection::connect(&url).await.unwrap();
    fill(&mut conn).await;

    // The statements as they stand in the source, with values for their placeholders in order.
    let hot = tidehook::store::sql::postgres::hot_statements();
    let values: [&[&str]; 3] = [
        // Which lanes have due work: now, now, lanes to skip, now, how many.
        &["NULL::bigint", "NULL::bigint", "'{}'", "NULL::bigint", "10"],
        // Since when: now.
        &["NULL::bigint"],
        // Take: now, the lease, lanes and how many, now, now.
        &["NULL::bigint", "1000", "ARRAY['handler:free', 'handler:later']", "ARRAY[10, 10]", "NULL::bigint", "NULL::bigint"],
    ];
    assert_eq!(hot.len(), values.len());
    for ((name, sql), values) in hot.into_iter().zip(values) {
        let plan = plan(&mut conn, &sql, values).await;
        assert!(!plan.contains("Seq Scan on jobs"), "{name}:\n{plan}");
        assert!(plan.contains("jobs_due"), "{name} does not use the index of open jobs:\n{plan}");
        // A few pages, where a scan would touch tens of thousands.
        let touched = buffers(&plan);
        assert!(touched < 1_000, "{name} touches {touched} pages:\n{plan}");
    }
    // And the verb itself takes what is due, past the backlog that cannot run.
    assert_eq!(store.claim(&ask(10)).await.unwrap().len(), 10);
}
