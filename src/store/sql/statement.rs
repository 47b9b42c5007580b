//! A statement: a named text with named parameters, and the values bound to them.
//!
//! Texts are in `.sql` files, one file per topic and driver (`src/store/postgres/texts/work.sql`),
//! plus those that every driver can share (`src/store/sql/texts/`). Each begins with a line `--
//! name: …`. They are native SQL of their database, with these parameters:
//!
//! - `:now`, the database's clock in milliseconds since 1970, or the instant of a test's clock
//! - `:name`, a value. A table of values ([`Rows`]) is bound as a JSON array of objects, for
//!   `json_each` and `JSON_TABLE`. Byte strings in it are hexadecimal.
//! - `:table.column`, one column of a table of values as an array, for `unnest`
//! - `IN (:names...)`, a list of any length
//! - `(:table.a, :table.b)...`, the group once per row of a table, for `VALUES`
//! - `:for_update` and `:skip_locked`, row locks where a database has them; only shared texts need
//!   them
//!
//! Only static text can be added, so nothing can be injected.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{LazyLock, PoisonError, RwLock};

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use super::driver::{Driver, Lists};
use super::seam::Reads;
use super::values::{Column, Rows, storable};

/// The texts of one driver, by name.
pub struct Texts(BTreeMap<&'static str, Cow<'static, str>>);

impl Texts {
    /// Reads files of named texts. A text of a later file replaces one of the same name.
    pub fn read(files: &[&'static str]) -> Self {
        let mut texts = BTreeMap::new();
        for text in files.iter().flat_map(|file| file.split("-- name: ").skip(1)) {
            let (name, text) = text.split_once('\n').unwrap_or((text, ""));
            // Comments are for the reader of the file; the server need not parse them.
            let lines: Vec<&str> =
                text.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
            let text = lines.join("\n");
            texts.insert(name.trim(), Cow::Owned(text.trim().trim_end_matches(';').to_owned()));
        }
        Self(texts)
    }

    /// The names of all texts, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(AsRef::as_ref)
    }
}

/// What a parameter can be bound to.
#[derive(Debug, Clone)]
pub enum Value {
    /// A whole number, or null.
    Int(Option<i64>),
    /// A text, or null.
    Text(Option<String>),
    /// A list of texts.
    List(Vec<String>),
    /// A table of values.
    Table(Rows),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(Some(i64::from(value)))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(storable(value)))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        value.to_owned().into()
    }
}

impl From<Rows> for Value {
    fn from(value: Rows) -> Self {
        Self::Table(value)
    }
}

/// A statement under construction: its text and the values bound so far. Nothing runs before
/// `run`, `all` or `first`.
pub struct Sql<D: Driver> {
    name: &'static str,
    /// Static text behind the named one, such as further conditions.
    more: Vec<&'static str>,
    /// Begins and commits a transaction of its own.
    is_whole: bool,
    clock: Option<i64>,
    values: Vec<(&'static str, Value)>,
    driver: std::marker::PhantomData<fn() -> D>,
}

impl<D: Driver> Sql<D> {
    /// Starts a statement from the text of this name. `clock` is the instant of a test's clock.
    pub fn named(name: &'static str, clock: Option<i64>) -> Self {
        let driver = std::marker::PhantomData;
        Self { name, more: Vec::new(), is_whole: false, clock, values: Vec::new(), driver }
    }

    /// Binds a value to every `:name` of the text. Texts lose NUL characters, which Postgres cannot
    /// store.
    pub fn bind(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.values.push((name, value.into()));
        self
    }

    /// Binds a list to `IN (:name...)`.
    pub fn list<S: Into<String>>(
        self,
        name: &'static str,
        words: impl IntoIterator<Item = S>,
    ) -> Self {
        let words = words.into_iter().map(|word| storable(word.into())).collect();
        self.bind(name, Value::List(words))
    }

    /// Adds static text and the value of its parameter; nothing if there is no value.
    pub fn and<T: Into<Value>>(
        self,
        text: &'static str,
        name: &'static str,
        value: Option<T>,
    ) -> Self {
        match value {
            None => self,
            Some(value) => self.then(text).bind(name, value),
        }
    }

    /// Adds static text at the end, such as a further condition.
    pub fn then(mut self, text: &'static str) -> Self {
        self.more.push(text);
        self
    }

    /// Makes it a transaction of its own, for [`super::SqlStore::statement`]: where a text may have
    /// several statements, BEGIN and COMMIT are sent along with them.
    pub fn alone(mut self) -> Self {
        self.is_whole = D::SCRIPTS;
        self
    }

    fn finish(mut self) -> sqlx::Result<(SqlStr, D::Arguments)> {
        let how = How { is_whole: self.is_whole, has_clock: self.clock.is_some() };
        let rendered = rendered::<D>(self.name, &self.more, how, &self.values)?;
        let mut args = D::Arguments::default();
        for slot in &rendered.slots {
            match slot {
                Slot::Now => D::bind(&mut args, self.clock)?,
                Slot::Value(name) => bind::<D>(&mut args, self.value(name)?)?,
                Slot::Item(name, at) => {
                    let Value::List(words) = self.value(name)? else { return Err(wrong(name)) };
                    let word = words.get(*at).or_else(|| words.last()).cloned();
                    D::bind(&mut args, word)?;
                }
                Slot::Column(table, column) => {
                    let Value::Table(rows) = self.value(table)? else { return Err(wrong(table)) };
                    let column = rows.take(column).ok_or_else(|| wrong(column))?;
                    D::bind_array(&mut args, column)?;
                }
                Slot::Cell(table, column, row) => {
                    let Value::Table(rows) = self.value(table)? else { return Err(wrong(table)) };
                    match rows.column(column).ok_or_else(|| wrong(column))? {
                        Column::Int(all) => D::bind(&mut args, all.get(*row).copied().flatten())?,
                        Column::Text(all) => {
                            D::bind(&mut args, all.get_mut(*row).and_then(Option::take))?
                        }
                        Column::Bytes(all) => {
                            D::bind(&mut args, all.get_mut(*row).map(std::mem::take))?
                        }
                    }
                }
            }
        }
        Ok((rendered.text(), args))
    }

    fn value(&mut self, name: &str) -> sqlx::Result<&mut Value> {
        let found = self.values.iter_mut().rev().find(|(known, _)| *known == name);
        found.map(|(_, value)| value).ok_or_else(|| wrong(name))
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

fn wrong(name: &str) -> sqlx::Error {
    sqlx::Error::Configuration(format!("the statement has no value for `:{name}`").into())
}

fn bind<D: Driver>(args: &mut D::Arguments, value: &Value) -> sqlx::Result<()> {
    match value {
        Value::Int(value) => D::bind(args, *value),
        Value::Text(value) => D::bind(args, value.clone()),
        Value::List(words) if D::LISTS == Lists::Array => {
            D::bind_array(args, Column::Text(words.iter().cloned().map(Some).collect()))
        }
        Value::List(words) => {
            let json =
                serde_json::to_string(words).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
            D::bind(args, json)
        }
        Value::Table(rows) => D::bind(args, rows.json()?),
    }
}

/// A text with the database's own placeholders.
struct Rendered {
    text: String,
    slots: Vec<Slot>,
}

impl Rendered {
    fn text(&'static self) -> SqlStr {
        // Put together from static pieces only: `named`, `and` and `then` take nothing else.
        AssertSqlSafe(self.text.as_str()).into_sql_str()
    }
}

/// What is bound to one placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Slot {
    Now,
    Value(String),
    Item(String, usize),
    Column(String, String),
    Cell(String, String, usize),
}

/// What a text consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Parameter(String),
    Column(String, String),
    List(String),
    Group(Vec<Piece>),
}

/// What a text is rendered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct How {
    is_whole: bool,
    has_clock: bool,
}

/// One rendered text per driver, name, further text, kind of clock and size of lists. They are
/// kept for the life of the process: there are few of each.
type Known =
    HashMap<(&'static str, &'static str, Vec<&'static str>, How, Vec<usize>), &'static Rendered>;
static KNOWN: LazyLock<RwLock<Known>> = LazyLock::new(RwLock::default);

fn rendered<D: Driver>(
    name: &'static str,
    more: &[&'static str],
    how: How,
    values: &[(&'static str, Value)],
) -> sqlx::Result<&'static Rendered> {
    let sizes = match D::LISTS {
        Lists::Each => values.iter().filter_map(|(_, value)| size(value)).collect(),
        Lists::Array | Lists::Json => Vec::new(),
    };
    let key = (D::NAME, name, more.to_vec(), how, sizes);
    if let Some(found) = KNOWN.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(found);
    }
    let text = D::texts().get(name).ok_or_else(|| {
        sqlx::Error::Configuration(format!("there is no statement `{name}`").into())
    })?;
    let text = more.iter().fold(text.to_owned(), |text, more| text + more);
    let text = if how.is_whole { format!("{};\n{text};\nCOMMIT", D::BEGIN) } else { text };
    let mut made = Rendered { text: String::with_capacity(text.len() + 64), slots: Vec::new() };
    render::<D>(&mut made, &pieces(&text), how.has_clock, values, None);
    let made: &'static Rendered = Box::leak(Box::new(made));
    KNOWN.write().unwrap_or_else(PoisonError::into_inner).insert(key, made);
    Ok(made)
}

/// How many placeholders a list or a table of values takes. Lists are filled up to powers of two,
/// so that there are few texts.
fn size(value: &Value) -> Option<usize> {
    match value {
        Value::List(words) if words.is_empty() => Some(0),
        Value::List(words) => Some(words.len().next_power_of_two()),
        Value::Table(rows) => Some(rows.len()),
        Value::Int(_) | Value::Text(_) => None,
    }
}

fn render<D: Driver>(
    out: &mut Rendered,
    pieces: &[Piece],
    has_clock: bool,
    values: &[(&'static str, Value)],
    row: Option<usize>,
) {
    let sized = |name: &str| {
        let value = values.iter().rev().find(|(known, _)| *known == name);
        value.and_then(|(_, value)| size(value)).unwrap_or(0)
    };
    for piece in pieces {
        match (piece, row) {
            (Piece::Text(text), _) => out.text.push_str(text),
            (Piece::Parameter(name), _) if name == "now" && !has_clock => {
                out.text.push_str(D::NOW);
            }
            (Piece::Parameter(name), _) if name == "now" => placeholder::<D>(out, Slot::Now),
            (Piece::Parameter(name), _) if name == "for_update" => {
                out.text.push_str(D::FOR_UPDATE);
            }
            (Piece::Parameter(name), _) if name == "skip_locked" => {
                out.text.push_str(D::SKIP_LOCKED);
            }
            (Piece::Parameter(name), _) => placeholder::<D>(out, Slot::Value(name.clone())),
            (Piece::Column(table, column), None) => {
                placeholder::<D>(out, Slot::Column(table.clone(), column.clone()));
            }
            (Piece::Column(table, column), Some(row)) => {
                placeholder::<D>(out, Slot::Cell(table.clone(), column.clone(), row));
            }
            (Piece::List(name), _) => match D::LISTS {
                Lists::Array => {
                    out.text.push_str("= ANY(");
                    placeholder::<D>(out, Slot::Value(name.clone()));
                    out.text.push_str("::text[])");
                }
                Lists::Json => {
                    out.text.push_str("IN (SELECT value FROM json_each(");
                    placeholder::<D>(out, Slot::Value(name.clone()));
                    out.text.push_str("))");
                }
                Lists::Each if sized(name) == 0 => {
                    out.text.push_str("IN (SELECT NULL FROM DUAL WHERE FALSE)");
                }
                Lists::Each => {
                    out.text.push_str("IN (");
                    for at in 0..sized(name) {
                        out.text.push_str(if at > 0 { ", " } else { "" });
                        placeholder::<D>(out, Slot::Item(name.clone(), at));
                    }
                    out.text.push(')');
                }
            },
            (Piece::Group(group), _) => {
                let table = group.iter().find_map(|piece| match piece {
                    Piece::Column(table, _) => Some(table.as_str()),
                    _ => None,
                });
                for row in 0..table.map_or(0, sized) {
                    out.text.push_str(if row > 0 { ", (" } else { "(" });
                    render::<D>(out, group, has_clock, values, Some(row));
                    out.text.push(')');
                }
            }
        }
    }
}

/// Appends a placeholder. Numbered ones are used again for the same value.
fn placeholder<D: Driver>(out: &mut Rendered, slot: Slot) {
    let Some(sign) = D::NUMBERED else {
        out.text.push('?');
        out.slots.push(slot);
        return;
    };
    let known = out.slots.iter().position(|known| *known == slot);
    let number = known.unwrap_or_else(|| {
        out.slots.push(slot);
        out.slots.len() - 1
    });
    out.text.push(sign);
    out.text.push_str(&(number + 1).to_string());
}

/// Takes a text apart.
fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find([':', '\'', '(', 'I']) {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        // A literal, such as 'held:'.
        if let Some(inside) = rest.strip_prefix('\'') {
            let end = inside.find('\'').map_or(rest.len(), |end| end + 2);
            plain.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        // `::`, a cast of Postgres.
        if let Some(after) = rest.strip_prefix("::") {
            plain.push_str("::");
            rest = after;
            continue;
        }
        let taken = match rest.as_bytes().first() {
            Some(b':') => parameter(rest),
            Some(b'(') => group(rest),
            _ => list(rest),
        };
        match taken {
            Some((piece, after)) => {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
                pieces.push(piece);
                rest = after;
            }
            None => {
                plain.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
    }
    plain.push_str(rest);
    pieces.push(Piece::Text(plain));
    pieces
}

fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at(end)
}

/// `:name` or `:table.column`.
fn parameter(text: &str) -> Option<(Piece, &str)> {
    let (name, after) = word(text.strip_prefix(':')?);
    if name.is_empty() {
        return None;
    }
    if let Some((column, after)) = after.strip_prefix('.').map(word)
        && !column.is_empty()
    {
        return Some((Piece::Column(name.to_owned(), column.to_owned()), after));
    }
    Some((Piece::Parameter(name.to_owned()), after))
}

/// `IN (:names...)`.
fn list(text: &str) -> Option<(Piece, &str)> {
    let (name, after) = word(text.strip_prefix("IN (:")?);
    Some((Piece::List(name.to_owned()), after.strip_prefix("...)")?))
}

/// `(:table.a, :table.b)...`.
fn group(text: &str) -> Option<(Piece, &str)> {
    let mut depth = 0;
    let end = text.char_indices().find_map(|(at, c)| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        (depth == 0).then_some(at)
    })?;
    let after = text[end..].strip_prefix(")...")?;
    Some((Piece::Group(pieces(&text[1..end])), after))
}

/// A named text with the placeholders of its database, as it is sent when lists and tables have one
/// row, and the names of what is bound to them, in order. For the tests that prepare and explain
/// statements.
///
/// # Errors
/// There is no text of this name.
pub fn sent<D: Driver>(name: &'static str) -> sqlx::Result<(String, Vec<String>)> {
    let text = D::texts().get(name).ok_or_else(|| wrong(name))?;
    let pieces = pieces(text);
    let mut tables = Vec::new();
    for_each(&pieces, &mut |piece| match piece {
        Piece::Column(table, _) => {
            tables.push((leak(table), Value::Table(Rows::default().int("n", [0]))));
        }
        Piece::List(name) => tables.push((leak(name), Value::List(vec![String::new()]))),
        _ => {}
    });
    let mut made = Rendered { text: String::new(), slots: Vec::new() };
    render::<D>(&mut made, &pieces, false, &tables, None);
    let bound = |slot: Slot| match slot {
        Slot::Now => "now".to_owned(),
        Slot::Value(name) | Slot::Item(name, _) => name,
        Slot::Column(table, column) | Slot::Cell(table, column, _) => format!("{table}.{column}"),
    };
    Ok((made.text, made.slots.into_iter().map(bound).collect()))
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn for_each(pieces: &[Piece], see: &mut impl FnMut(&Piece)) {
    for piece in pieces {
        see(piece);
        if let Piece::Group(group) = piece {
            for_each(group, see);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_named_texts_and_later_ones_win() {
        let texts = Texts::read(&[
            "-- Head.\n\n-- name: one\n-- Why.\nSELECT 1;\n\n-- name: two\nSELECT 2",
            "-- name: two\nSELECT\n    3;\n",
        ]);
        assert_eq!(texts.names().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!((texts.get("one"), texts.get("two")), (Some("SELECT 1"), Some("SELECT\n    3")));
    }

    #[test]
    fn a_text_is_taken_apart() {
        let text = "SELECT 'a:b' || x::text FROM t WHERE id IN (:ids...) AND due <= :now + :by AND \
                    (a OR b) VALUES (:r.id, LOWER(:r.n))...";
        let found: Vec<Piece> =
            pieces(text).into_iter().filter(|piece| !matches!(piece, Piece::Text(_))).collect();
        let column = |name: &str| Piece::Column("r".to_owned(), name.to_owned());
        let Some(Piece::Group(group)) = found.last().cloned() else { panic!("{found:?}") };
        assert_eq!(found[0], Piece::List("ids".to_owned()));
        assert_eq!(found[1..3], ["now", "by"].map(|name| Piece::Parameter(name.to_owned())));
        assert!(group.contains(&column("id")) && group.contains(&column("n")), "{group:?}");
        assert_eq!(found.len(), 4);
    }
}
