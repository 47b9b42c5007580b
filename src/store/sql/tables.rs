//! The `Tables` verbs in SQL: statements made from the list of tables, whose names are static.

use std::fmt::Write;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, ColumnIndex, Decode, FromRow, SqlSafeStr, Type, ValueRef};

use super::driver::Driver;
use super::pool::SqlStore;
use super::rows::{CountRow, MoveRow};
use crate::store::error::{Error, Result};
use crate::store::port::tables::{Cell, Kind, Move, Row, Table, Tables};

/// The most values and bytes of one INSERT.
const VALUES_MAX: usize = 4_000;
const BYTES_MAX: usize = 512 << 10;
/// The tables that a fence puts away, under the names beside them: everything that a server changes
/// that still runs there, its checks and its counts of refused requests included.
const PUT_AWAY: [(&str, &str); 4] = [
    ("jobs", "moved_jobs"),
    ("keys", "moved_keys"),
    ("lanes", "moved_lanes"),
    ("rejections", "moved_rejections"),
];

/// A row of any table, value by value.
pub struct CellsRow(Row);

impl<'r, R: sqlx::Row> FromRow<'r, R> for CellsRow
where
    usize: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    f64: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        let cell = |at: usize| {
            if row.try_get_raw(at)?.is_null() {
                return Ok(Cell::Null);
            }
            row.try_get::<i64, _>(at)
                .map(Cell::Int)
                .or_else(|_| row.try_get::<f64, _>(at).map(Cell::Real))
                .or_else(|_| row.try_get::<String, _>(at).map(Cell::Text))
                .or_else(|_| row.try_get::<Vec<u8>, _>(at).map(Cell::Bytes))
        };
        (0..row.len()).map(cell).collect::<sqlx::Result<Row>>().map(Self)
    }
}

/// A statement under construction.
struct Built<D: Driver> {
    text: String,
    args: D::Arguments,
    bound: usize,
}

impl<D: Driver> Built<D> {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), args: D::Arguments::default(), bound: 0 }
    }

    fn name(name: &str) -> String {
        format!("{0}{name}{0}", D::QUOTE)
    }

    /// The table's name in this database.
    fn of(table: &Table, fenced: bool) -> String {
        let away = PUT_AWAY.iter().find(|(name, _)| fenced && *name == table.name);
        Self::name(away.map_or(table.name, |(_, away)| away))
    }

    fn value(&mut self, kind: Kind, cell: Cell) -> sqlx::Result<()> {
        self.bound += 1;
        match D::NUMBERED {
            Some(sign) => {
                let _ = write!(self.text, "{sign}{}", self.bound);
            }
            None => self.text.push('?'),
        }
        let args = &mut self.args;
        match (kind, cell) {
            (Kind::Int, Cell::Int(n)) => D::bind(args, Some(n)),
            (Kind::Int, _) => D::bind(args, None::<i64>),
            (Kind::Real, Cell::Real(n)) => D::bind(args, Some(n)),
            (Kind::Real, _) => D::bind(args, None::<f64>),
            (Kind::Bytes, Cell::Bytes(bytes)) => D::bind(args, Some(bytes)),
            (Kind::Bytes, _) => D::bind(args, None::<Vec<u8>>),
            (Kind::Id | Kind::Text | Kind::Exact, Cell::Text(text)) => D::bind(args, Some(text)),
            (Kind::Id | Kind::Text | Kind::Exact, _) => D::bind(args, None::<String>),
        }
    }

    async fn run(self, conn: &mut D::Connection) -> sqlx::Result<u64> {
        D::run(conn, AssertSqlSafe(self.text).into_sql_str(), self.args).await
    }

    async fn all<T>(self, conn: &mut D::Connection) -> sqlx::Result<Vec<T>>
    where
        D: super::seam::Reads<T>,
    {
        let rows = D::all(conn, AssertSqlSafe(self.text).into_sql_str(), self.args).await?;
        rows.iter().map(D::read).collect()
    }
}

/// A column of the key as it is compared: byte by byte.
fn compared<D: Driver>(name: &str, kind: Kind) -> String {
    let name = Built::<D>::name(name);
    if kind == Kind::Text { D::by_bytes(&name) } else { name }
}

fn page<D: Driver>(
    table: &Table,
    behind: Option<&[Cell]>,
    fenced: bool,
    most: u32,
) -> sqlx::Result<Built<D>> {
    let columns = table.columns.iter().map(|(name, kind)| {
        let name = Built::<D>::name(name);
        if *kind == Kind::Exact { D::as_text(&name) } else { name }
    });
    let columns: Vec<String> = columns.collect();
    let of = Built::<D>::of(table, fenced);
    let mut built = Built::<D>::new(format!("SELECT {} FROM {of}", columns.join(", ")));
    let key = &table.columns[..table.key];
    if let Some(behind) = behind {
        // One index range on the first column, whatever the database makes of row values.
        let compare = |built: &mut Built<D>, at: usize, sign: &str| {
            let (name, kind) = key[at];
            built.text.push_str(&compared::<D>(name, kind));
            built.text.push_str(sign);
            built.value(kind, behind[at].clone())
        };
        built.text.push_str(" WHERE ");
        match key.len() {
            1 => compare(&mut built, 0, " > ")?,
            _ => {
                compare(&mut built, 0, " >= ")?;
                built.text.push_str(" AND (");
                compare(&mut built, 0, " > ")?;
                built.text.push_str(" OR ");
                compare(&mut built, 1, " > ")?;
                built.text.push(')');
            }
        }
    }
    let order: Vec<String> = key.iter().map(|(name, kind)| compared::<D>(name, *kind)).collect();
    let _ = write!(built.text, " ORDER BY {} LIMIT {most}", order.join(", "));
    Ok(built)
}

fn delete<D: Driver>(table: &Table, key: Row) -> sqlx::Result<Built<D>> {
    let mut built = Built::<D>::new(format!("DELETE FROM {} WHERE ", Built::<D>::of(table, false)));
    for (at, (cell, (name, kind))) in key.into_iter().zip(table.columns).enumerate() {
        built.text.push_str(if at > 0 { " AND " } else { "" });
        built.text.push_str(&Built::<D>::name(name));
        built.text.push_str(" = ");
        built.value(*kind, cell)?;
    }
    Ok(built)
}

fn insert<D: Driver>(table: &Table, rows: Vec<Row>) -> sqlx::Result<Built<D>> {
    let names: Vec<String> = table.columns.iter().map(|(name, _)| Built::<D>::name(name)).collect();
    let of = Built::<D>::of(table, false);
    let mut built = Built::<D>::new(format!("INSERT INTO {of} ({}) VALUES ", names.join(", ")));
    for (at, row) in rows.into_iter().enumerate() {
        built.text.push_str(if at > 0 { ", (" } else { "(" });
        for (at, (cell, (_, kind))) in row.into_iter().zip(table.columns).enumerate() {
            built.text.push_str(if at > 0 { ", " } else { "" });
            built.value(*kind, cell)?;
        }
        built.text.push(')');
    }
    Ok(built)
}

/// Rows in portions that one statement holds.
fn portions(table: &Table, rows: Vec<Row>) -> Vec<Vec<Row>> {
    let weight = |row: &Row| -> usize {
        row.iter()
            .map(|cell| match cell {
                Cell::Text(text) => text.len(),
                Cell::Bytes(bytes) => bytes.len(),
                Cell::Null | Cell::Int(_) | Cell::Real(_) => 8,
            })
            .sum()
    };
    let most = (VALUES_MAX / table.columns.len()).max(1);
    let mut portions: Vec<Vec<Row>> = Vec::new();
    let mut bytes = 0;
    for row in rows {
        bytes += weight(&row);
        match portions.last_mut() {
            Some(last) if last.len() < most && bytes <= BYTES_MAX => last.push(row),
            _ => {
                bytes = weight(&row);
                portions.push(vec![row]);
            }
        }
    }
    portions
}

#[async_trait]
impl<D: Driver> Tables for SqlStore<D> {
    async fn rows(
        &self,
        table: &'static Table,
        behind: Option<&[Cell]>,
        fenced: bool,
        most: u32,
    ) -> Result<Vec<Row>> {
        let behind = behind.map(<[Cell]>::to_vec);
        let rows: Vec<CellsRow> = self
            .read(move |_, conn| {
                let page = page::<D>(table, behind.as_deref(), fenced, most);
                Box::pin(async move { page?.all(conn).await })
            })
            .await?;
        Ok(rows.into_iter().map(|CellsRow(row)| row).collect())
    }

    async fn put(&self, table: &'static Table, gone: Vec<Row>, rows: Vec<Row>) -> Result<()> {
        if gone.is_empty() && rows.is_empty() {
            return Ok(());
        }
        self.write(move |_, conn| {
            let (gone, rows) = (gone.clone(), rows.clone());
            Box::pin(async move {
                for key in gone {
                    delete::<D>(table, key)?.run(conn).await?;
                }
                for portion in portions(table, rows) {
                    insert::<D>(table, portion)?.run(conn).await?;
                }
                Ok(())
            })
        })
        .await
    }

    async fn size(&self, table: &'static Table, fenced: bool) -> Result<u64> {
        let rows: Vec<CountRow> = self
            .read(move |_, conn| {
                let of = Built::<D>::of(table, fenced);
                let count = Built::<D>::new(format!("SELECT COUNT(*) AS n FROM {of}"));
                Box::pin(async move { count.all(conn).await })
            })
            .await?;
        Ok(rows.first().map_or(0, |row| u64::try_from(row.n).unwrap_or(0)))
    }

    async fn moved(&self) -> Result<Option<Move>> {
        let found = self
            .read(|store, conn| {
                Box::pin(async move { store.sql("moves").first::<MoveRow>(conn).await })
            })
            .await;
        match found {
            Ok(row) => Ok(row.map(|row| match row.role.as_str() {
                "source" => Move::Source { to: row.other },
                _ => Move::Target { from: row.other },
            })),
            // A schema without the table is older than copies are.
            Err(Error::Down(why) | Error::Permanent(why)) if why.contains("moves") => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn set_target(&self, from: Option<&str>) -> Result<()> {
        let from = from.map(str::to_owned);
        self.run(move |store| match &from {
            Some(from) => {
                let mark = store.sql("set_move").bind("role", "target");
                mark.bind("other", from.as_str())
            }
            None => store.sql("end_move").bind("role", "target"),
        })
        .await
        .map(|_| ())
    }

    async fn fence(&self, to: &str) -> Result<()> {
        // The mark first: a process that starts now is told why, and a fence that was interrupted
        // is finished by the next one.
        if self.moved().await?.is_none() {
            let to = to.to_owned();
            self.run(move |store| {
                store.sql("set_move").bind("role", "source").bind("other", to.as_str())
            })
            .await?;
        }
        self.put_away(true).await
    }

    async fn unfence(&self) -> Result<()> {
        self.put_away(false).await?;
        self.run(|store| store.sql("end_move").bind("role", "source")).await.map(|_| ())
    }
}

impl<D: Driver> SqlStore<D> {
    /// Renames these tables, or renames them back. Does nothing where that is done.
    async fn put_away(&self, away: bool) -> Result<()> {
        for (name, put_away) in PUT_AWAY {
            let (from, to) = if away { (name, put_away) } else { (put_away, name) };
            self.rename_table(from, to).await?;
        }
        Ok(())
    }

    async fn rename_table(&self, from: &'static str, to: &'static str) -> Result<()> {
        self.write(move |store, conn| {
            Box::pin(async move {
                let tables = super::maintenance::names(store.sql("tables").all(conn).await?);
                if tables.iter().any(|table| table == to) {
                    return Ok(());
                }
                let (from, to) = (Built::<D>::name(from), Built::<D>::name(to));
                Built::<D>::new(format!("ALTER TABLE {from} RENAME TO {to}")).run(conn).await?;
                Ok(())
            })
        })
        .await
    }
}
