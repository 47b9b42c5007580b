//! Empty databases for tests and benchmarks.

use sqlx::Connection;

/// Creates an empty Postgres database and returns its URL.
pub async fn create(server: &str, name: &str) -> String {
    let mut conn = sqlx::PgConnection::connect(server).await.unwrap();
    let statement = sqlx::AssertSqlSafe(format!("CREATE DATABASE \"{name}\""));
    sqlx::raw_sql(statement).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let mut url = url::Url::parse(server).unwrap();
    url.set_path(name);
    url.to_string()
}

/// Creates an empty database of MySQL or MariaDB, with a collation that ignores case, and returns
/// its URL.
pub async fn create_mariadb(server: &str, name: &str) -> String {
    let mut conn = sqlx::MySqlConnection::connect(server).await.unwrap();
    let statement =
        format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci");
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let mut url = url::Url::parse(server).unwrap();
    url.set_path(name);
    url.to_string()
}
