//! JSON as senders write it: read tolerantly, kept exactly.
//!
//! - `parse`: text into a [`Doc`], without recursion; [`doc`]: a parsed text, which borrows from
//!   its bytes
//! - [`decimal`]: numbers by value, at any precision
//! - [`query`]: RFC 9535 paths over any of them; `query_parse`: their text

pub mod decimal;
pub mod doc;
mod parse;
pub mod query;
mod query_parse;

use std::borrow::Cow;
use std::cmp::Ordering;

use bytes::Bytes;
use serde_json::Value;

pub use doc::{Doc, Node};
pub use parse::parse;

use doc::NodeKind;

/// Nesting beyond this makes a text unreadable.
pub const DEPTH_MAX: usize = 512;

/// The prefix of keys with which `serde_json` marks its own numbers and raw texts. An object with
/// such a key would be misread when a stored run is loaded, so no body may contain one.
pub const RESERVED: &str = "$serde_json::private::";

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The stable word for counters.
    pub word: &'static str,
    /// What is wrong and where, for people.
    pub why: String,
}

impl Unreadable {
    /// A key begins with the reserved prefix.
    pub(in crate::model) const RESERVED_KEY: &'static str = "reserved_key";
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

/// A JSON value by reference: in a tree, in a parsed text, or a text that stands for a string.
#[derive(Debug, Clone, Copy)]
pub enum Ref<'a> {
    /// In a tree of values, such as the state of a run.
    Value(&'a Value),
    /// In a parsed text, such as the body of an event.
    Node(Node<'a>),
    /// Plain text that stands for a JSON string, such as a `text/plain` body.
    Text(&'a str),
}

/// The JSON type of a value, wherever the value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// The literal `null`. An empty body counts as this too.
    Null,
    /// The literals `true` and `false`, with which of the two it is.
    Bool(bool),
    /// A number, of any size and precision.
    Number,
    /// A string, or a text that stands for one.
    String,
    /// A list of values, in order.
    Array,
    /// An object: keys with values. The last of repeated keys counts.
    Object,
}

impl<'a> Ref<'a> {
    /// The JSON type of the value. Cheap: nothing is decoded or copied.
    pub fn kind(self) -> Type {
        match self {
            Self::Text(_) | Self::Value(Value::String(_)) => Type::String,
            Self::Value(Value::Null) => Type::Null,
            Self::Value(Value::Bool(yes)) => Type::Bool(*yes),
            Self::Value(Value::Number(_)) => Type::Number,
            Self::Value(Value::Array(_)) => Type::Array,
            Self::Value(Value::Object(_)) => Type::Object,
            Self::Node(node) => match node.kind() {
                NodeKind::Null => Type::Null,
                NodeKind::True => Type::Bool(true),
                NodeKind::False => Type::Bool(false),
                NodeKind::Number => Type::Number,
                NodeKind::Plain | NodeKind::Escaped => Type::String,
                NodeKind::Array => Type::Array,
                NodeKind::Object => Type::Object,
            },
        }
    }

    /// Whether it is the literal `null`. A missing field is not `null`, but `None` from `get`.
    pub fn is_null(self) -> bool {
        self.kind() == Type::Null
    }

    /// The text of a string, decoded; `None` for every other type.
    pub fn as_str(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Value(Value::String(text)) => Some(Cow::Borrowed(text)),
            Self::Node(node) if self.kind() == Type::String => Some(node.text()),
            _ => None,
        }
    }

    /// A number as it is written.
    pub fn as_number(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Value(Value::Number(number)) => Some(Cow::Owned(number.to_string())),
            Self::Node(node) if self.kind() == Type::Number => Some(Cow::Borrowed(node.raw())),
            _ => None,
        }
    }

    /// How many characters, items or entries it has; `None` for what has no length.
    pub fn length(self) -> Option<usize> {
        match self.kind() {
            Type::String => self.as_str().map(|text| text.chars().count()),
            Type::Array => Some(match self {
                Self::Value(value) => value.as_array().map_or(0, Vec::len),
                Self::Node(node) => node.len(),
                Self::Text(_) => 0,
            }),
            Type::Object => Some(self.entries().len()),
            Type::Null | Type::Bool(_) | Type::Number => None,
        }
    }

    /// A field of an object; `None` if it is missing. Of repeated keys the last one counts, as
    /// everywhere.
    pub fn get(self, key: &str) -> Option<Ref<'a>> {
        match self {
            Self::Value(value) => value.as_object()?.get(key).map(Ref::Value),
            Self::Node(node) if self.kind() == Type::Object => node
                .entries()
                .filter(|(name, _)| name.text() == key)
                .last()
                .map(|(_, value)| Ref::Node(value)),
            _ => None,
        }
    }

    /// An item of a list, counted from 0; `None` beyond the end, and for anything but a list.
    pub fn at(self, index: usize) -> Option<Ref<'a>> {
        match self {
            Self::Value(value) => value.as_array()?.get(index).map(Ref::Value),
            Self::Node(node) if self.kind() == Type::Array => {
                node.items().nth(index).map(Ref::Node)
            }
            _ => None,
        }
    }

    /// The items of a list; empty for every other type.
    pub fn items(self) -> Vec<Ref<'a>> {
        match self {
            Self::Value(Value::Array(items)) => items.iter().map(Ref::Value).collect(),
            Self::Node(node) if self.kind() == Type::Array => node.items().map(Ref::Node).collect(),
            _ => Vec::new(),
        }
    }

    /// The entries of an object, in the order in which their keys first appear; empty for every
    /// other type.
    pub fn entries(self) -> Vec<(Cow<'a, str>, Ref<'a>)> {
        match self {
            Self::Value(Value::Object(map)) => map
                .iter()
                .map(|(key, value)| (Cow::Borrowed(key.as_str()), Ref::Value(value)))
                .collect(),
            Self::Node(node) if self.kind() == Type::Object => {
                let mut entries: Vec<(Cow<'a, str>, Ref<'a>)> = Vec::with_capacity(node.len());
                let mut places = std::collections::HashMap::with_capacity(node.len());
                for (key, value) in node.entries() {
                    match places.entry(key.text()) {
                        std::collections::hash_map::Entry::Occupied(place) => {
                            let place: &usize = place.get();
                            entries[*place].1 = Ref::Node(value);
                        }
                        std::collections::hash_map::Entry::Vacant(place) => {
                            entries.push((place.key().clone(), Ref::Node(value)));
                            place.insert(entries.len() - 1);
                        }
                    }
                }
                entries
            }
            _ => Vec::new(),
        }
    }

    /// The first key that an object repeats.
    pub fn repeated_key(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Node(node) if self.kind() == Type::Object => {
                let mut seen = std::collections::HashSet::with_capacity(node.len());
                node.entries().map(|(key, _)| key.text()).find(|key| !seen.insert(key.clone()))
            }
            _ => None,
        }
    }

    /// The value that a JSON pointer (RFC 6901) leads to. Escapes (`~0`, `~1`) are not supported.
    pub fn pointer(self, pointer: &str) -> Option<Ref<'a>> {
        pointer.split('/').skip(1).try_fold(self, |at, key| match at.kind() {
            Type::Array => at.at(key.parse().ok()?),
            _ => at.get(key),
        })
    }

    /// A copy that borrows nothing, for storing or changing.
    pub fn to_value(self) -> Value {
        match self {
            Self::Value(value) => value.clone(),
            Self::Node(node) => node.to_value(),
            Self::Text(text) => Value::String(text.to_owned()),
        }
    }

    /// A scalar as plain text, anything else as JSON.
    pub fn plain_text(self) -> Cow<'a, str> {
        self.as_str()
            .or_else(|| self.as_number())
            .unwrap_or_else(|| Cow::Owned(self.to_value().to_string()))
    }

    /// A text that is the same for equal values: numbers by value, objects in any order of keys.
    pub fn canonical(self) -> String {
        match self.kind() {
            Type::Number => {
                self.as_number().map_or_else(String::new, |text| decimal::canonical(&text))
            }
            Type::Array => {
                let items: Vec<String> = self.items().into_iter().map(Ref::canonical).collect();
                format!("[{}]", items.join(","))
            }
            Type::Object => {
                let entries = self.entries().into_iter();
                let mut entries: Vec<String> = entries
                    .map(|(key, value)| {
                        format!("{}:{}", Value::String(key.into_owned()), value.canonical())
                    })
                    .collect();
                entries.sort_unstable();
                format!("{{{}}}", entries.join(","))
            }
            Type::Null | Type::Bool(_) | Type::String => self.to_value().to_string(),
        }
    }

    /// Whether two values are equal: numbers by value, objects in any order of keys.
    pub fn equals(self, other: Ref<'_>) -> bool {
        match (self.kind(), other.kind()) {
            (Type::Number, Type::Number) => self.compared_to(other) == Some(Ordering::Equal),
            (Type::String, Type::String) => self.as_str() == other.as_str(),
            (Type::Array, Type::Array) => {
                let (ours, theirs) = (self.items(), other.items());
                ours.len() == theirs.len() && ours.into_iter().zip(theirs).all(|(a, b)| a.equals(b))
            }
            (Type::Object, Type::Object) => {
                let (ours, theirs) = (self.entries(), other.entries());
                ours.len() == theirs.len() && {
                    let theirs: std::collections::HashMap<_, _> = theirs.into_iter().collect();
                    ours.into_iter().all(|(key, value)| {
                        theirs.get(&key).is_some_and(|other| value.equals(*other))
                    })
                }
            }
            (a, b) => a == b,
        }
    }

    /// The order of two numbers, by value at any precision; `None` unless both are numbers.
    pub fn compared_to(self, other: Ref<'_>) -> Option<Ordering> {
        Some(decimal::compare(&self.as_number()?, &other.as_number()?))
    }
}

/// Parses a text as JSON, with the tolerance that bodies get, into a value that borrows nothing.
///
/// # Errors
/// As [`parse()`].
pub fn value_of(text: impl AsRef<[u8]>) -> Result<Value, Unreadable> {
    parse(Bytes::copy_from_slice(text.as_ref())).map(|doc| doc.root().to_value())
}

/// Reads JSON that tidehook itself has stored. There is no limit on nesting: what was stored was
/// checked before.
///
/// # Errors
/// It is not of the expected form.
pub fn stored<'a, T: serde::Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.disable_recursion_limit();
    let value = T::deserialize(&mut reader)?;
    reader.end().map(|()| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, Unreadable> {
        value_of(text)
    }

    #[test]
    fn what_is_unambiguous_is_read() {
        assert_eq!(read("\u{feff} {\"a\": 1}").unwrap(), json!({"a": 1}));
        assert_eq!(
            read(r#"["cut \ud83d", "\ude00x", "\ud83d\ude00", "\ud83d\u0041"]"#).unwrap(),
            json!(["cut \u{fffd}", "\u{fffd}x", "\u{1f600}", "\u{fffd}A"])
        );
        assert_eq!(read("12345678901234567890123").unwrap().to_string(), "12345678901234567890123");
        assert_eq!(read("[1e999,-0.0,1E400]").unwrap().to_string(), "[1e+999,-0.0,1e+400]");
        assert_eq!(read(r#"{"a":1,"b":2,"a":3}"#).unwrap(), json!({"a": 3, "b": 2}));
        let digits = "9".repeat(1_000_000);
        assert_eq!(read(&digits).unwrap().to_string(), digits);
    }

    #[test]
    fn what_is_no_json_says_where_it_stops_being_it() {
        for (text, word, place) in [
            ("", "not_json", "line 1, column 1"),
            ("{\"a\": 1", "not_json", "column 8"),
            ("{\"a\": 1}\n x", "not_json", "line 2, column 2"),
            ("[1,]", "not_json", "column 4"),
            ("{\"a\" 1}", "not_json", "column 6"),
            ("[01]", "not_json", "column 3"),
            ("NaN", "not_json", "column 1"),
            ("\"\\x\"", "not_json", "column 2"),
            ("\"\u{1}\"", "not_json", "column 2"),
        ] {
            let wrong = read(text).unwrap_err();
            assert_eq!(wrong.word, word, "{text}");
            assert!(wrong.why.contains(place), "{text}: {wrong}");
        }
        assert_eq!(value_of([b'"', 0xff, b'"']).unwrap_err().word, "not_utf8");
        assert_eq!(value_of([0xff, 0xfe, b'1', 0]).unwrap_err().word, "not_utf8");
    }

    #[test]
    fn keys_that_a_stored_value_cannot_have_are_refused_however_they_are_written() {
        for key in [
            "$serde_json::private::Number",
            "$serde_json::private::RawValue",
            r"\u0024serde_json::private::x",
        ] {
            for text in [
                format!("{{\"{key}\": \"1\"}}"),
                format!("{{\"a\": [1, {{\"b\": 1, \"{key}\": 1}}]}}"),
            ] {
                assert_eq!(read(&text).unwrap_err().word, "reserved_key", "{text}");
            }
            assert!(read(&format!("[\"{key}\"]")).is_ok(), "a value may be anything");
        }
        assert!(read(r#"{"$serde_json": 1, "\u0024": 2}"#).is_ok());
    }

    #[test]
    fn nesting_has_a_bound_and_costs_no_stack() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(read(&nested(DEPTH_MAX + 1)).unwrap_err().word, "too_deep");
        assert_eq!(read(&"[".repeat(1_000_000)).unwrap_err().word, "too_deep");
        let text = format!("{{\"a\":{}}}", nested(DEPTH_MAX - 1));
        assert_eq!(stored::<Value>(&text).unwrap(), read(&text).unwrap());
    }

    #[test]
    fn a_parsed_text_takes_four_times_its_bytes_at_most() {
        for text in [
            "[0,0,0,0,0,0,0,0,0,0,0,0]",
            "[[],[],[],[],[],[],[]]",
            "[{\"a\":0},{\"a\":0},{\"a\":0}]",
            "[\"\",\"\",\"\",\"\"]",
        ] {
            let doc = parse(Bytes::from_static(text.as_bytes())).unwrap();
            assert!(doc.bytes() <= 4 * text.len() + 8, "{text}: {}", doc.bytes());
        }
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads(text in "[\\[\\]{}\",:0-9a-u\\\\ .eE+-]{0,24}") {
            if let Ok(theirs) = serde_json::from_str::<Value>(&text) {
                prop_assert_eq!(read(&text).ok(), Some(theirs));
            }
        }

        #[test]
        fn every_text_survives_a_round_trip(text in "\\PC{0,20}", number: i64) {
            let value = json!({ text.clone(): [text, number, null, true] });
            prop_assert_eq!(read(&value.to_string()).unwrap(), value);
        }
    }
}
