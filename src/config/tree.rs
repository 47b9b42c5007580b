//! Text into nodes that know their place.
//!
//! Scalars keep their text and whether they were quoted; what type they have is decided by the key they
//! stand under. `${…}` is hidden from the YAML parser, character by character, so that it may stand
//! anywhere a scalar may, flow lists and mappings included, and every position stays true.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::problem::{Place, Problem, Severity};

/// The longest configuration text.
pub const TEXT_BYTES_MAX: usize = 4 << 20;
/// The deepest nesting.
pub const DEPTH_MAX: usize = 64;
/// The most nodes, aliases counted as often as they are used.
pub const NODES_MAX: usize = 200_000;

/// The tags that say what the text says anyway.
const CORE_TAGS: [&str; 7] = ["str", "int", "float", "bool", "null", "seq", "map"];

/// Hidden characters of `${…}` stand here, at their own offset.
const HIDDEN: u32 = 0x10_F000;

/// A value with its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it stands.
    pub place: Place,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text; its type depends on the key.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the text.
    Map(Vec<(Key, Node)>),
}

/// A scalar.
#[derive(Debug, Clone, Default)]
pub struct Scalar {
    /// The text, variables replaced once [`super::layers::expand`] has run.
    pub text: String,
    /// The same for people, where a variable's value stands in it: stars in place of the value, which may be a secret.
    pub shown: Option<String>,
    /// It stood without quotes.
    pub plain: bool,
    /// Variables in it that are not set.
    pub unset: Vec<String>,
}

/// The key of a mapping entry.
#[derive(Debug, Clone)]
pub struct Key {
    /// The key.
    pub text: String,
    /// Where it stands.
    pub place: Place,
}

impl Node {
    /// A node without content.
    pub fn null(place: Place) -> Self {
        Self { value: Value::Null, place }
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// The value of a key at the top of a node, if it is there.
pub fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(k, _)| k.text == key).map(|(_, value)| value)
}

/// Parses one YAML document.
///
/// # Errors
/// The problem that keeps the text from being read at all.
pub fn parse(text: &str, file: usize) -> Result<Node, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > TEXT_BYTES_MAX {
        return Err(problem("too_large", format!("a configuration may be {TEXT_BYTES_MAX} bytes long at most"), None, None));
    }
    if let Some(at) = text.find(|c: char| u32::from(c) >> 12 == HIDDEN >> 12) {
        let line = text[..at].matches('\n').count() + 1;
        let place = Place { file, line, column: 1, length: 1 };
        return Err(problem("bad_yaml", "a private-use character stands here".into(), Some(place), None));
    }
    let hidden = hide(text);
    let mut builder = Builder { parser: Parser::new_from_str(&hidden), file, anchors: Vec::new(), nodes: 0 };
    builder.document()
}

fn problem(code: &'static str, message: String, place: Option<Place>, help: Option<&str>) -> Problem {
    Problem { severity: Severity::Error, code, place, key: String::new(), message, help: help.map(str::to_owned) }
}

/// Moves the characters of each `${…}` out of YAML's sight; `$${` is left alone.
fn hide(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at + 2]);
            rest = &rest[at + 2..];
            continue;
        }
        let end = rest[at..].find(['}', '\n']).map(|e| at + e);
        let Some(end) = end.filter(|e| rest[*e..].starts_with('}')) else {
            out.push_str(&rest[..at + 2]);
            rest = &rest[at + 2..];
            continue;
        };
        out.push_str(&rest[..at]);
        out.extend(
            rest[at..=end].chars().map(|c| if c.is_ascii() { char::from_u32(HIDDEN + u32::from(c)).unwrap_or(c) } else { c }),
        );
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    out
}

/// Whether a text as it was written holds a `${…}`.
pub fn holds_variable(written: &str) -> bool {
    written.chars().any(|c| u32::from(c) >> 12 == HIDDEN >> 12)
}

/// Splits text into what was hidden (`${…}`) and what was not.
pub(super) fn pieces(text: &str) -> Vec<(bool, String)> {
    let mut pieces: Vec<(bool, String)> = Vec::new();
    let mut inside = false;
    for c in text.chars() {
        let code = u32::from(c);
        let hidden = code >> 12 == HIDDEN >> 12;
        let plain = if hidden { char::from_u32(code - HIDDEN).unwrap_or(c) } else { c };
        let starts = hidden && plain == '$' && !inside;
        if starts || (!inside && pieces.last().is_none_or(|(h, _)| *h)) {
            pieces.push((starts, String::new()));
        }
        inside = inside || starts;
        if let Some((_, text)) = pieces.last_mut() {
            text.push(plain);
        }
        if hidden && plain == '}' {
            inside = false;
        }
    }
    pieces
}

struct Builder<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    file: usize,
    anchors: Vec<(usize, Node)>,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn place(&self, span: Span) -> Place {
        let length = if span.start.line() == span.end.line() { span.end.col().saturating_sub(span.start.col()) } else { 1 };
        Place { file: self.file, line: span.start.line(), column: span.start.col() + 1, length }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let at = error.marker();
                let place = Place { file: self.file, line: at.line(), column: at.col() + 1, length: 1 };
                // The parser stops where it cannot go on, which is often after the place to mend.
                let help = "look here and just before: an open bracket or quote, a tab, a missing colon or space";
                Err(problem("bad_yaml", format!("this is not YAML: {}", error.info()), Some(place), Some(help)))
            }
            None => Err(problem("bad_yaml", "the text ends too early".into(), None, None)),
        }
    }

    fn document(&mut self) -> Result<Node, Problem> {
        let mut root: Option<Node> = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => {
                    let nothing = Node::null(Place { file: self.file, line: 1, column: 1, length: 1 });
                    return Ok(root.unwrap_or(nothing));
                }
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) => {
                    if root.is_some() {
                        let why = "a configuration is one YAML document; a second one starts here".to_owned();
                        return Err(problem("second_document", why, Some(self.place(span)), None));
                    }
                }
                other => root = Some(self.node(other, span, 0)?),
            }
        }
    }

    fn count(&mut self, more: usize, place: Place) -> Result<(), Problem> {
        self.nodes += more;
        if self.nodes > NODES_MAX {
            let why = format!("a configuration may hold {NODES_MAX} values at most, aliases counted as often as they are used");
            return Err(problem("too_large", why, Some(place), None));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Problem> {
        let place = self.place(span);
        self.count(1, place)?;
        if depth > DEPTH_MAX {
            return Err(problem("too_deep", format!("values may nest {DEPTH_MAX} deep at most"), Some(place), None));
        }
        if let Event::Scalar(_, _, _, Some(tag)) | Event::SequenceStart(_, Some(tag)) | Event::MappingStart(_, Some(tag)) = &event
            && !(tag.is_yaml_core_schema() && CORE_TAGS.contains(&tag.suffix.as_str()))
        {
            return Err(problem(
                "bad_yaml",
                format!("the tag `{}{}` has no meaning here", tag.handle, tag.suffix),
                Some(place),
                None,
            ));
        }
        let (anchor, value) = match event {
            Event::Alias(id) => {
                let found = self.anchors.iter().rev().find(|(anchor, _)| *anchor == id).map(|(_, node)| node.clone());
                let Some(node) = found else {
                    return Err(problem("bad_yaml", "an alias cannot stand inside its own anchor".into(), Some(place), None));
                };
                self.count(size(&node), place)?;
                return Ok(Node { place, ..node });
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let value = match plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    true => Value::Null,
                    false => Value::Scalar(Scalar { text: text.into_owned(), plain, ..Scalar::default() }),
                };
                (anchor, value)
            }
            Event::SequenceStart(anchor, ..) => (anchor, Value::List(self.list(depth)?)),
            Event::MappingStart(anchor, ..) => (anchor, Value::Map(self.map(depth)?)),
            _ => return Err(problem("bad_yaml", "a value is missing here".into(), Some(place), None)),
        };
        let node = Node { value, place };
        if anchor > 0 {
            self.anchors.push((anchor, node.clone()));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(items);
            }
            items.push(self.node(event, span, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Problem> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(entries);
            }
            let place = self.place(span);
            let Event::Scalar(text, ..) = &event else {
                return Err(problem("bad_yaml", "a key must be a single value".into(), Some(place), None));
            };
            let key = Key { text: pieces(text).into_iter().map(|(_, t)| t).collect(), place };
            if !seen.insert(key.text.clone()) {
                let why = format!("the key `{}` stands here twice", key.text);
                return Err(problem("duplicate_key", why, Some(place), Some("keep one of them")));
            }
            self.count(1, place)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            entries.push((key, value));
        }
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null | Value::Scalar(_) => 0,
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|(_, n)| 1 + size(n)).sum(),
    }
}
