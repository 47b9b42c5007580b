//! A statement: static text, its bound values and optional conditions.
//!
//! The text is the same for every dialect. It may contain:
//!
//! - `?`, a value
//! - `{now}`, the database's clock (or the instant that a test binds); it binds one value too
//! - `{rows: id text, n int, body bytes}`, a table of values with these columns and any number of
//!   rows, under the alias that follows; it binds one [`Rows`]
//! - `{any}` after a column: the column equals one of a list of any length; it binds one list
//! - `{only jobs.id}` beside a join with a table of values: the same condition, for planners that
//!   might start the join at the wrong table; it is `true` for the others
//! - `{lock}` and `{skip locked}`, row locks where the database has them
//!
//! Only static text can be added, so nothing can be injected.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{OnceLock, RwLock};

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use super::dialect::Dialect;
use super::seam::{Binds, Reads};

/// One column of a [`Rows`] table: its values, one per row.
#[derive(Debug, Clone)]
pub enum Column {
    /// Text values; `None` is SQL's null.
    Text(Vec<Option<String>>),
    /// A whole number, or null.
    Int(Vec<Option<i64>>),
    /// Byte strings, never null.
    Bytes(Vec<Vec<u8>>),
}

/// Values for a `{rows: …}` table, column by column.
#[derive(Debug, Clone, Default)]
pub struct Rows(pub Vec<Column>);

impl Rows {
    /// Adds a column of texts without nulls. Every column must have as many values as the others.
    pub fn text<I, S>(mut self, values: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.0.push(Column::Text(values.into_iter().map(|v| Some(v.into())).collect()));
        self
    }

    /// Adds a text column with nulls.
    pub fn maybe_text(mut self, values: impl IntoIterator<Item = Option<String>>) -> Self {
        self.0.push(Column::Text(values.into_iter().collect()));
        self
    }

    /// Adds a column of whole numbers without nulls.
    pub fn int(mut self, values: impl IntoIterator<Item = i64>) -> Self {
        self.0.push(Column::Int(values.into_iter().map(Some).collect()));
        self
    }

    /// Adds a number column with nulls.
    pub fn maybe_int(mut self, values: impl IntoIterator<Item = Option<i64>>) -> Self {
        self.0.push(Column::Int(values.into_iter().collect()));
        self
    }

    /// Adds a column of bytes.
    pub fn bytes(mut self, values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.0.push(Column::Bytes(values.into_iter().collect()));
        self
    }
}

impl Rows {
    fn storable(mut self) -> Self {
        for column in &mut self.0 {
            if let Column::Text(values) = column {
                values
                    .iter_mut()
                    .flatten()
                    .filter(|text| text.contains('\0'))
                    .for_each(|text| *text = storable(std::mem::take(text)));
            }
        }
        self
    }
}

/// A text without NUL, which Postgres cannot store in texts: it is replaced by U+FFFD in every
/// database. Keys, which must stay distinct, are made safe before (`model::key`).
fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// A value that can be bound, in a form that every database can store.
pub trait Bindable: Sized {
    /// The value in that form. Texts lose NUL characters; every other type stays as it is.
    fn storable(self) -> Self {
        self
    }
}

impl Bindable for String {
    fn storable(self) -> Self {
        storable(self)
    }
}

impl Bindable for Option<String> {
    fn storable(self) -> Self {
        self.map(storable)
    }
}

impl Bindable for i64 {}
impl Bindable for Option<i64> {}

/// A statement under construction: its text and the values bound so far.
pub struct Sql<D: Dialect> {
    text: Cow<'static, str>,
    args: sqlx::Result<D::Arguments>,
}

/// Starts a statement from static text in the notation of this module. Nothing runs before `run`,
/// `all` or `first`.
pub fn sql<D: Dialect>(text: &'static str) -> Sql<D> {
    Sql { text: Cow::Borrowed(text), args: Ok(D::Arguments::default()) }
}

impl<D: Dialect> Sql<D> {
    /// Binds a value to the next `?` or `{now}`, in the order of the text. A value that cannot be
    /// encoded fails the statement when it runs.
    pub fn bind<T: Bindable>(mut self, value: T) -> Self
    where
        D: Binds<T>,
    {
        if let Ok(args) = &mut self.args
            && let Err(error) = D::bind(args, value.storable())
        {
            self.args = Err(error);
        }
        self
    }

    /// Binds the values of the next `{rows: …}`.
    pub fn rows(mut self, rows: Rows) -> Self {
        let rows = rows.storable();
        if let Ok(args) = &mut self.args
            && let Err(error) = D::bind_rows(args, rows)
        {
            self.args = Err(error);
        }
        self
    }

    /// Binds the list of the next `{any}`.
    pub fn list<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        if let Ok(args) = &mut self.args
            && let Err(error) =
                D::bind_list(args, words.into_iter().map(|word| storable(word.into())).collect())
        {
            self.args = Err(error);
        }
        self
    }

    /// Binds the list of the next `{only …}`; nothing where the dialect does not use it.
    pub fn only<S: Into<String>>(self, words: impl IntoIterator<Item = S>) -> Self {
        if D::GUIDES_JOINS { self.list(words) } else { self }
    }

    /// Adds static text and its value; nothing if there is no value.
    pub fn and<T: Bindable>(mut self, text: &'static str, value: Option<T>) -> Self
    where
        D: Binds<T>,
    {
        match value {
            None => self,
            Some(value) => {
                self.text.to_mut().push_str(text);
                self.bind(value)
            }
        }
    }

    /// Adds static text at the end, such as a further condition. Its placeholders are bound after
    /// those before it.
    pub fn then(mut self, text: &'static str) -> Self {
        self.text.to_mut().push_str(text);
        self
    }

    fn finish(self) -> sqlx::Result<(SqlStr, D::Arguments)> {
        let text = match self.text {
            Cow::Borrowed(text) => expanded::<D>(text).into_sql_str(),
            // Put together from static pieces only: `and` and `then` take nothing else.
            Cow::Owned(text) => AssertSqlSafe(expand::<D>(&text)).into_sql_str(),
        };
        Ok((text, self.args?))
    }

    /// Runs it and answers how many rows it changed.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn run(self, conn: &mut D::Connection) -> sqlx::Result<u64> {
        let (text, args) = self.finish()?;
        D::run(conn, text, args).await
    }

    /// Runs it and reads every row.
    ///
    /// # Errors
    /// Those of the database, and rows that cannot be read.
    pub async fn all<T>(self, conn: &mut D::Connection) -> sqlx::Result<Vec<T>>
    where
        D: Reads<T>,
    {
        let (text, args) = self.finish()?;
        D::all(conn, text, args).await?.iter().map(D::read).collect()
    }

    /// Runs it and reads the first row.
    ///
    /// # Errors
    /// As [`Sql::all`].
    pub async fn first<T>(self, conn: &mut D::Connection) -> sqlx::Result<Option<T>>
    where
        D: Reads<T>,
    {
        Ok(self.all(conn).await?.into_iter().next())
    }
}

/// A static text in the dialect's form. Made once per text and kept for the life of the process.
pub fn expanded<D: Dialect>(text: &'static str) -> &'static str {
    type Rendered = RwLock<HashMap<(&'static str, &'static str), &'static str>>;
    static KNOWN: OnceLock<Rendered> = OnceLock::new();
    let known = KNOWN.get_or_init(Rendered::default);
    let key = (D::DIALECT_NAME, text);
    if let Some(found) = known.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&key) {
        return found;
    }
    let made: &'static str = Box::leak(expand::<D>(text).into_boxed_str());
    known.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key, made);
    made
}

fn expand<D: Dialect>(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    let mut next = 1;
    let mut rest = text;
    while let Some(at) = rest.find(['?', '{']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix('?') {
            D::placeholder(&mut out, &mut next);
            rest = after;
            continue;
        }
        let end = rest.find('}').map_or(rest.len(), |e| e + 1);
        let token = rest[..end].trim_matches(['{', '}']);
        match token {
            "now" => {
                out.push_str("COALESCE(");
                D::placeholder(&mut out, &mut next);
                // Writing to a string cannot fail.
                let _ = write!(out, ", {})", D::NOW);
            }
            "any" => D::list(&mut out, &mut next),
            other if other.starts_with("only ") => {
                D::only(&mut out, other.trim_start_matches("only "), &mut next)
            }
            "lock" => out.push_str(D::LOCK),
            "skip locked" => out.push_str(D::SKIP_LOCKED),
            other => {
                let columns = other.trim_start_matches("rows:");
                let columns: Vec<(&str, &str)> =
                    columns.split(',').filter_map(|c| c.trim().split_once(' ')).collect();
                D::rows(&mut out, &columns, &mut next);
            }
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{Postgres, Sqlite};

    #[test]
    fn a_text_takes_the_form_of_each_dialect() {
        let text = "SELECT r.id FROM {rows: id text, n int} AS r WHERE x = ? AND y {any} \
                    AND {only x.id} AND due <= {now} {skip locked}";
        let postgres = expanded::<Postgres>(text);
        assert!(postgres.contains("UNNEST($1::text[], $2::bigint[]) AS r(id, n)"), "{postgres}");
        assert!(
            postgres.contains(
                "x = $3 AND y = ANY($4::text[]) AND x.id = ANY($5::text[]) AND due <= COALESCE($6, "
            ),
            "{postgres}"
        );
        assert!(postgres.ends_with("FOR UPDATE SKIP LOCKED"));
        let sqlite = expanded::<Sqlite>(text);
        assert!(sqlite.contains("json_each(?)"), "{sqlite}");
        assert!(
            sqlite.contains("y IN (SELECT value FROM json_each(?)) AND true AND due"),
            "{sqlite}"
        );
        assert!(!sqlite.contains("LOCKED"));
    }
}
