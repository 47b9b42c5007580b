//! Every shared statement prepares on every dialect, and the migrated schemas agree.

use sqlx::{Connection, Executor, SqlSafeStr};
use tidehook::store::sql::statement::expanded;
use tidehook::store::sql::statements;

use crate::support::stores::{Kind, fresh};

#[tokio::test]
async fn every_shared_statement_prepares_on_sqlite() {
    let fresh = fresh(Kind::Sqlite).await.unwrap();
    let mut conn = sqlx::SqliteConnection::connect(&fresh.url).await.unwrap();
    for text in statements() {
        conn.prepare(expanded::<sqlx::Sqlite>(text).into_sql_str())
            .await
            .unwrap_or_else(|e| panic!("{text}\n{e}"));
    }
}

#[tokio::test]
async fn every_shared_statement_prepares_on_postgres() {
    let Some(fresh) = fresh(Kind::Postgres).await else { return };
    let mut conn = sqlx::PgConnection::connect(&fresh.url).await.unwrap();
    for text in statements() {
        let text = expanded::<sqlx::Postgres>(text);
        conn.prepare(text.into_sql_str()).await.unwrap_or_else(|e| panic!("{text}\n{e}"));
    }
}

#[tokio::test]
async fn the_migrated_schemas_agree() {
    let sqlite = fresh(Kind::Sqlite).await.unwrap();
    let mut conn = sqlx::SqliteConnection::connect(&sqlite.url).await.unwrap();
    let query = "SELECT m.name || '.' || c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
        WHERE m.type = 'table' AND m.name NOT LIKE '%sqlx%' AND m.name NOT LIKE 'sqlite%' ORDER BY 1";
    let in_sqlite: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut conn).await.unwrap();
    assert!(in_sqlite.len() > 40);
    let Some(postgres) = fresh(Kind::Postgres).await else { return };
    let mut conn = sqlx::PgConnection::connect(&postgres.url).await.unwrap();
    let query = "SELECT table_name || '.' || column_name FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name NOT LIKE '%sqlx%' ORDER BY (table_name || '.' || column_name) COLLATE \"C\"";
    let in_postgres: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut conn).await.unwrap();
    assert_eq!(in_sqlite, in_postgres);
}

#[test]
fn each_dialect_has_the_same_migrations() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let names = |dialect: &str| {
        let mut names: Vec<_> = std::fs::read_dir(root.join(dialect))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("sqlite"), names("postgres"));
}
