//! What shared statements need from a database, as traits of the database type.
//!
//! sqlx states its bounds as where-clauses, which every generic function would have to repeat. As
//! supertraits of the database type they are implied, so shared statements need no where-clauses.

use futures::future::BoxFuture;
use sqlx::{Database, Encode, FromRow, SqlStr, Type};

/// The database can bind a value of this type.
pub trait Binds<T>: Database {
    /// Adds a value to a statement's arguments.
    ///
    /// # Errors
    /// The value cannot be encoded.
    fn bind(args: &mut Self::Arguments, value: T) -> sqlx::Result<()>;
}

impl<DB, T> Binds<T> for DB
where
    DB: Database,
    T: for<'t> Encode<'t, DB> + Type<DB>,
{
    fn bind(args: &mut Self::Arguments, value: T) -> sqlx::Result<()> {
        use sqlx::Arguments;
        args.add(value).map_err(sqlx::Error::Encode)
    }
}

/// The database's rows can be read as this type.
pub trait Reads<T>: Database {
    /// Reads a row.
    ///
    /// # Errors
    /// A column is missing or of another type.
    fn read(row: &Self::Row) -> sqlx::Result<T>;
}

impl<DB, T> Reads<T> for DB
where
    DB: Database,
    T: for<'r> FromRow<'r, DB::Row>,
{
    fn read(row: &Self::Row) -> sqlx::Result<T> {
        T::from_row(row)
    }
}

/// The database can run statements.
pub trait Executes: Database {
    /// Runs a statement and answers its rows.
    fn all(
        conn: &mut Self::Connection,
        sql: SqlStr,
        args: Self::Arguments,
    ) -> BoxFuture<'_, sqlx::Result<Vec<Self::Row>>>;
    /// Runs a statement and answers how many rows it changed.
    fn run(
        conn: &mut Self::Connection,
        sql: SqlStr,
        args: Self::Arguments,
    ) -> BoxFuture<'_, sqlx::Result<u64>>;
    /// Runs text without arguments and without preparing it.
    fn plain<'c>(
        conn: &'c mut Self::Connection,
        sql: &'static str,
    ) -> BoxFuture<'c, sqlx::Result<()>>;
}

/// Implements `Executes` for a database. It is a macro because each driver implements sqlx's
/// executor for its own connection type only.
#[macro_export]
macro_rules! impl_executes {
    ($db:ty) => {
        impl $crate::store::sql::seam::Executes for $db {
            fn all(
                conn: &mut Self::Connection,
                sql: sqlx::SqlStr,
                args: Self::Arguments,
            ) -> futures::future::BoxFuture<'_, sqlx::Result<Vec<Self::Row>>> {
                Box::pin(async move {
                    sqlx::query_with::<$db, _>(sql, args)
                        .persistent($crate::store::sql::retry::keeps_statements())
                        .fetch_all(conn)
                        .await
                })
            }

            fn run(
                conn: &mut Self::Connection,
                sql: sqlx::SqlStr,
                args: Self::Arguments,
            ) -> futures::future::BoxFuture<'_, sqlx::Result<u64>> {
                Box::pin(async move {
                    let query = sqlx::query_with::<$db, _>(sql, args)
                        .persistent($crate::store::sql::retry::keeps_statements());
                    Ok(query.execute(conn).await?.rows_affected())
                })
            }

            fn plain<'c>(
                conn: &'c mut Self::Connection,
                sql: &'static str,
            ) -> futures::future::BoxFuture<'c, sqlx::Result<()>> {
                Box::pin(async move { sqlx::raw_sql(sql).execute(conn).await.map(|_| ()) })
            }
        }
    };
}
