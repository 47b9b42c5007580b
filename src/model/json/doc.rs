//! A parsed JSON text: its bytes, and eight bytes for each value in it. A tree of values would take
//! up to forty times the text. This takes four times at most, and needs one pass.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::{Map, Number, Value};

/// The length that texts must stay below, because a cell keeps lengths in 29 bits.
pub(super) const LENGTH_MAX: usize = 1 << 29;

/// The kind of one value, kept in three bits of its `Cell`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeKind {
    Null,
    True,
    False,
    Number,
    /// A string without escapes.
    Plain,
    /// A string with at least one escape, which must be decoded before use.
    Escaped,
    Array,
    Object,
}

const KINDS: [NodeKind; 8] = [
    NodeKind::Null,
    NodeKind::True,
    NodeKind::False,
    NodeKind::Number,
    NodeKind::Plain,
    NodeKind::Escaped,
    NodeKind::Array,
    NodeKind::Object,
];

/// One value. For a scalar it holds where its text begins and how long it is. For a container it
/// holds how many entries it has and how many cells follow for them. An entry of an object is a key
/// and a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    first: u32,
    second: u32,
}

impl Cell {
    pub(super) fn new(kind: NodeKind, first: usize, second: usize) -> Self {
        // The length of the text bounds all three.
        let narrow = |n: usize| u32::try_from(n.min(LENGTH_MAX - 1)).unwrap_or(0);
        Self { first: narrow(first), second: narrow(second) | ((kind as u32) << 29) }
    }

    pub(super) fn kind(self) -> NodeKind {
        KINDS[(self.second >> 29) as usize]
    }

    fn first(self) -> usize {
        self.first as usize
    }

    fn second(self) -> usize {
        (self.second & ((1 << 29) - 1)) as usize
    }

    /// Counts one more entry of a container whose content now takes `inside` cells.
    pub(super) fn count_one(&mut self, inside: usize) {
        *self = Self::new(self.kind(), self.first() + 1, inside);
    }
}

/// A parsed JSON text. It keeps the original bytes and points into them.
#[derive(Debug, Clone)]
pub struct Doc {
    text: Bytes,
    cells: Vec<Cell>,
}

impl Doc {
    pub(super) fn new(text: Bytes, cells: Vec<Cell>) -> Self {
        Self { text, cells }
    }

    /// The outermost value, from which every other one is reached.
    pub fn root(&self) -> Node<'_> {
        Node { doc: self, at: 0 }
    }

    /// How many bytes it holds beside its text.
    pub fn bytes(&self) -> usize {
        self.cells.len() * size_of::<Cell>()
    }
}

/// A value inside a parsed text.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    doc: &'a Doc,
    at: usize,
}

impl<'a> Node<'a> {
    fn cell(self) -> Cell {
        self.doc.cells.get(self.at).copied().unwrap_or(Cell::new(NodeKind::Null, 0, 0))
    }

    pub(super) fn kind(self) -> NodeKind {
        self.cell().kind()
    }

    /// The index of the first cell after this value.
    fn end(self) -> usize {
        let cell = self.cell();
        match cell.kind() {
            NodeKind::Array | NodeKind::Object => self.at + 1 + cell.second(),
            _ => self.at + 1,
        }
    }

    /// The text of a number, or of a string as it stands between its quotes.
    pub(super) fn raw(self) -> &'a str {
        let cell = self.cell();
        let bytes = self.doc.text.get(cell.first()..cell.first() + cell.second()).unwrap_or(&[]);
        // The text was checked when it was parsed.
        std::str::from_utf8(bytes).unwrap_or("")
    }

    /// A string with its escapes decoded. Borrowed when it has none.
    pub(super) fn text(self) -> Cow<'a, str> {
        match self.kind() {
            NodeKind::Escaped => Cow::Owned(unescaped(self.raw())),
            _ => Cow::Borrowed(self.raw()),
        }
    }

    /// How many entries a container has.
    pub(super) fn len(self) -> usize {
        self.cell().first()
    }

    /// The values of a list, in order. On any other type the result has no meaning.
    pub(super) fn items(self) -> impl Iterator<Item = Node<'a>> {
        let mut next = Node { doc: self.doc, at: self.at + 1 };
        (0..self.len()).map(move |_| {
            let this = next;
            next.at = this.end();
            this
        })
    }

    /// The entries of an object as written, repeated keys included.
    pub(super) fn entries(self) -> impl Iterator<Item = (Node<'a>, Node<'a>)> {
        let mut next = Node { doc: self.doc, at: self.at + 1 };
        (0..self.len()).map(move |_| {
            let (key, value) = (next, Node { doc: next.doc, at: next.at + 1 });
            next.at = value.end();
            (key, value)
        })
    }

    /// Copies the value out of the text, with everything inside it. Of repeated keys the last one
    /// wins.
    pub fn to_value(self) -> Value {
        match self.kind() {
            NodeKind::Null => Value::Null,
            NodeKind::True => Value::Bool(true),
            NodeKind::False => Value::Bool(false),
            NodeKind::Number => Value::Number(number(self.raw())),
            NodeKind::Plain | NodeKind::Escaped => Value::String(self.text().into_owned()),
            NodeKind::Array => Value::Array(self.items().map(Node::to_value).collect()),
            NodeKind::Object => {
                let mut map = Map::new();
                for (key, value) in self.entries() {
                    map.insert(key.text().into_owned(), value.to_value());
                }
                Value::Object(map)
            }
        }
    }
}

/// A number that keeps its text as written.
pub fn number(text: &str) -> Number {
    // What is called here has been found to be a number.
    text.parse().unwrap_or_else(|_| Number::from(0))
}

pub(super) fn unescaped(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        rest = rest.get(at + 2..).unwrap_or("");
        out.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => code_point(&mut rest),
            other => char::from(other),
        });
    }
    out.push_str(rest);
    out
}

/// Reads the four digits after a `\u`, and for a surrogate pair the second half too. Half a pair
/// becomes U+FFFD.
fn code_point(rest: &mut &str) -> char {
    let unit = |text: &str| text.get(..4).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let first = unit(rest).unwrap_or(0xfffd);
    *rest = rest.get(4..).unwrap_or("");
    if (0xd800..0xdc00).contains(&first)
        && let Some(low) = rest.strip_prefix("\\u").and_then(unit)
        && (0xdc00..0xe000).contains(&low)
    {
        *rest = rest.get(6..).unwrap_or("");
        return char::from_u32(0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00))
            .unwrap_or('\u{fffd}');
    }
    char::from_u32(first).unwrap_or('\u{fffd}')
}
