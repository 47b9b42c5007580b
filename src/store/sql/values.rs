//! Tables of values, as they are bound to statements.

use std::collections::BTreeSet;
use std::fmt::Write;

/// One column of a table of values: its values, one per row.
#[derive(Debug, Clone)]
pub enum Column {
    /// Text values; `None` is SQL's null.
    Text(Vec<Option<String>>),
    /// Whole numbers, or null.
    Int(Vec<Option<i64>>),
    /// Byte strings, never null.
    Bytes(Vec<Vec<u8>>),
}

impl Column {
    fn len(&self) -> usize {
        match self {
            Self::Text(values) => values.len(),
            Self::Int(values) => values.len(),
            Self::Bytes(values) => values.len(),
        }
    }
}

/// A table of values: columns by name, every column with as many values as the others.
#[derive(Debug, Clone, Default)]
pub struct Rows(Vec<(&'static str, Column)>);

impl Rows {
    /// Adds a column of texts without nulls.
    pub fn text<I, S>(self, name: &'static str, values: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.maybe_text(name, values.into_iter().map(|value| Some(value.into())))
    }

    /// Adds a text column with nulls.
    pub fn maybe_text(
        mut self,
        name: &'static str,
        values: impl IntoIterator<Item = Option<String>>,
    ) -> Self {
        let values = values.into_iter().map(|value| value.map(storable)).collect();
        self.0.push((name, Column::Text(values)));
        self
    }

    /// Adds a column of whole numbers without nulls.
    pub fn int(self, name: &'static str, values: impl IntoIterator<Item = i64>) -> Self {
        self.maybe_int(name, values.into_iter().map(Some))
    }

    /// Adds a number column with nulls.
    pub fn maybe_int(
        mut self,
        name: &'static str,
        values: impl IntoIterator<Item = Option<i64>>,
    ) -> Self {
        self.0.push((name, Column::Int(values.into_iter().collect())));
        self
    }

    /// Adds a column of byte strings.
    pub fn blob(mut self, name: &'static str, values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.0.push((name, Column::Bytes(values.into_iter().collect())));
        self
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.0.first().map_or(0, |(_, column)| column.len())
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The texts of a column.
    pub fn texts(&self, name: &str) -> Vec<String> {
        match self.0.iter().find(|(known, _)| *known == name) {
            Some((_, Column::Text(values))) => values.iter().flatten().cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// How many bytes the texts and byte strings of the first rows have, at most so many rows.
    pub fn bytes(&self, rows: usize) -> usize {
        let of = |column: &Column| match column {
            Column::Text(values) => {
                values.iter().take(rows).flatten().map(String::len).sum::<usize>()
            }
            Column::Int(_) => 0,
            Column::Bytes(values) => values.iter().take(rows).map(Vec::len).sum(),
        };
        self.0.iter().map(|(_, column)| of(column)).sum()
    }

    /// Takes the first rows out, at most so many.
    pub fn split_first(&mut self, rows: usize) -> Self {
        let rows = rows.min(self.len());
        let first = |(name, column): &mut (&'static str, Column)| {
            let first = match column {
                Column::Text(values) => Column::Text(values.drain(..rows).collect()),
                Column::Int(values) => Column::Int(values.drain(..rows).collect()),
                Column::Bytes(values) => Column::Bytes(values.drain(..rows).collect()),
            };
            (*name, first)
        };
        Self(self.0.iter_mut().map(first).collect())
    }

    /// The rows whose text in this column is not one of these.
    pub fn without(mut self, name: &str, texts: &BTreeSet<String>) -> Self {
        let keep: Vec<bool> = self.texts(name).iter().map(|text| !texts.contains(text)).collect();
        for (_, column) in &mut self.0 {
            let mut kept = keep.iter().copied();
            match column {
                Column::Text(values) => values.retain(|_| kept.next().unwrap_or(true)),
                Column::Int(values) => values.retain(|_| kept.next().unwrap_or(true)),
                Column::Bytes(values) => values.retain(|_| kept.next().unwrap_or(true)),
            }
        }
        self
    }

    pub(super) fn column(&mut self, name: &str) -> Option<&mut Column> {
        self.0.iter_mut().find(|(known, _)| *known == name).map(|(_, column)| column)
    }

    /// Takes a column's values out.
    pub(super) fn take(&mut self, name: &str) -> Option<Column> {
        self.column(name).map(|column| std::mem::replace(column, Column::Int(Vec::new())))
    }

    /// The table as one JSON text: an array of objects, bytes in hexadecimal.
    ///
    /// # Errors
    /// A text cannot be written as JSON.
    pub fn json(&self) -> sqlx::Result<String> {
        let mut out = String::with_capacity(16 * self.0.len() * self.len() + 2);
        out.push('[');
        for row in 0..self.len() {
            out.push_str(if row > 0 { ",{" } else { "{" });
            for (n, (name, column)) in self.0.iter().enumerate() {
                // Writing to a string cannot fail.
                let _ = write!(out, "{}\"{name}\":", if n > 0 { "," } else { "" });
                match column {
                    Column::Text(values) => match values.get(row).and_then(Option::as_deref) {
                        Some(text) => {
                            let quoted = serde_json::to_string(text)
                                .map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
                            out.push_str(&quoted);
                        }
                        None => out.push_str("null"),
                    },
                    Column::Int(values) => match values.get(row).copied().flatten() {
                        Some(n) => {
                            let _ = write!(out, "{n}");
                        }
                        None => out.push_str("null"),
                    },
                    Column::Bytes(values) => {
                        let bytes = values.get(row).map_or(&[][..], Vec::as_slice);
                        out.push('"');
                        out.push_str(&hex::encode(bytes));
                        out.push('"');
                    }
                }
            }
            out.push('}');
        }
        out.push(']');
        Ok(out)
    }
}

/// A text without NUL, which Postgres cannot store in texts: it is replaced by U+FFFD in every
/// database. Keys, which must stay distinct, are made safe before (`model::key`).
pub(super) fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_an_array_of_objects() {
        let rows = Rows::default()
            .text("id", ["a\"b", "c"])
            .maybe_int("n", [Some(1), None])
            .blob("body", [b"x\0".to_vec(), Vec::new()]);
        assert_eq!(
            rows.json().unwrap(),
            r#"[{"id":"a\"b","n":1,"body":"7800"},{"id":"c","n":null,"body":""}]"#
        );
    }
}
