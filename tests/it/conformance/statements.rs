//! Every statement prepares on its database, every driver has every statement that the store runs,
//! and the migrated schemas agree.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, Connection, Executor, SqlSafeStr};
use tidehook::store::sql::driver::Driver;
use tidehook::store::sql::statement::sent;

use crate::support::stores::{Kind, fresh};

/// Prepares every statement of a driver on a database with the schema.
async fn prepare_all<D: Driver>(conn: &mut D::Connection)
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    for name in D::texts().names() {
        let (text, _) = sent::<D>(name).unwrap();
        let shown = text.clone();
        conn.prepare(AssertSqlSafe(text).into_sql_str())
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}\n{shown}"));
    }
}

#[tokio::test]
async fn every_statement_prepares_on_sqlite() {
    let fresh = fresh(Kind::Sqlite).await.unwrap();
    let mut conn = sqlx::SqliteConnection::connect(&fresh.url).await.unwrap();
    prepare_all::<sqlx::Sqlite>(&mut conn).await;
}

#[tokio::test]
async fn every_statement_prepares_on_postgres() {
    let Some(fresh) = fresh(Kind::Postgres).await else { return };
    let mut conn = sqlx::PgConnection::connect(&fresh.url).await.unwrap();
    prepare_all::<sqlx::Postgres>(&mut conn).await;
}

#[tokio::test]
async fn every_statement_prepares_on_mariadb() {
    let Some(fresh) = fresh(Kind::Mariadb).await else { return };
    let mut conn = sqlx::MySqlConnection::connect(&fresh.url).await.unwrap();
    prepare_all::<sqlx::MySql>(&mut conn).await;
}

/// The sources of these folders.
fn sources(folders: &[&str]) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap());
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

/// Every literal of a source.
fn literals(source: &str) -> BTreeSet<String> {
    let plain = source.replace("\\\"", "").replace("'\"'", "");
    plain.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The literals that a source hands to `.sql(…)`.
fn named(source: &str) -> BTreeSet<&str> {
    source.split(".sql(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn every_driver_has_the_statements_that_run_and_no_others() {
    fn check<D: Driver>(folder: &str, replaced: &[&str]) {
        let known: BTreeSet<String> = D::texts().names().map(str::to_owned).collect();
        let own = sources(&["sql", folder]);
        let literals = literals(&own);
        let unused: Vec<_> =
            known.iter().filter(|name| !literals.contains(name.as_str())).collect();
        assert!(unused.is_empty(), "{folder}: no code runs {unused:?}");
        let missing: Vec<_> =
            named(&own).into_iter().filter(|name| !known.contains(*name)).collect();
        let missing: Vec<_> = missing.into_iter().filter(|name| !replaced.contains(name)).collect();
        assert!(missing.is_empty(), "{folder} lacks {missing:?}");
    }
    check::<sqlx::Sqlite>("sqlite", &[]);
    check::<sqlx::Postgres>("postgres", &[]);
    // It accepts and records in several statements of its own.
    check::<sqlx::MySql>("mysql", &["store", "record_delivered"]);
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
    let Some(mariadb) = fresh(Kind::Mariadb).await else { return };
    let mut conn = sqlx::MySqlConnection::connect(&mariadb.url).await.unwrap();
    let query =
        "SELECT CAST(CONCAT(table_name, '.', column_name) AS CHAR) FROM information_schema.columns
        WHERE table_schema = DATABASE() AND table_name NOT LIKE '%sqlx%'";
    let mut in_mariadb: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut conn).await.unwrap();
    in_mariadb.sort();
    assert_eq!(in_sqlite, in_mariadb);
}

/// MySQL came later: its first migration holds the schema that the others have after six.
#[test]
fn each_driver_has_the_same_migrations() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let names = |driver: &str| {
        let mut names: Vec<_> =
            std::fs::read_dir(root.join(driver)).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names.retain(|name| {
            !["0001", "0002", "0003", "0004", "0005", "0006"]
                .iter()
                .any(|n| name.to_string_lossy().starts_with(n))
        });
        names
    };
    assert_eq!(names("sqlite"), names("postgres"));
    assert_eq!(names("mysql"), names("postgres"));
}
