//! Parses YAML into nodes that know their place in the file.
//!
//! A scalar keeps its text and whether it was quoted; the key it stands under decides its type.
//! `${…}` is hidden from the YAML parser, character by character, so that it may stand wherever a
//! scalar may, also in flow lists and mappings, and every place stays true.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::problem::{Place, Problem, Severity};

/// The largest configuration text, in bytes.
pub const TEXT_BYTES_MAX: usize = 4 << 20;
/// The deepest nesting of lists and mappings; deeper values are refused before they are built.
pub const DEPTH_MAX: usize = 64;
/// The most nodes of a configuration. An alias counts as many as it stands for, so that nested
/// aliases cannot exhaust the memory.
pub const NODES_MAX: usize = 200_000;

/// The tags that are accepted, because they change nothing: types are decided by keys.
const CORE_TAGS: [&str; 7] = ["str", "int", "float", "bool", "null", "seq", "map"];

/// The start of the private-use characters in which the characters of `${…}` are hidden: each is
/// moved up by this.
const HIDDEN: u32 = 0x10_F000;

/// A YAML value with its place in the file.
#[derive(Debug, Clone)]
pub struct Node {
    /// What stands in the text: a scalar, a list, a mapping or nothing.
    pub value: Value,
    /// The place in the file that problems about it point to.
    pub place: Place,
}

/// The content of a node, before its key decides what type it has.
#[derive(Debug, Clone)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text; its type depends on the key.
    Scalar(Scalar),
    /// A list, in the order of the text.
    List(Vec<Node>),
    /// A mapping, in the order of the text.
    Map(Vec<(Key, Node)>),
}

/// A scalar as text, with what the readers need to know of its quotes and variables.
#[derive(Debug, Clone, Default)]
pub struct Scalar {
    /// The text; after [`super::layers::expand`] its variables are replaced.
    pub text: String,
    /// The text with stars in place of variables' values, which may be secret; `None` when it holds
    /// none.
    pub shown: Option<String>,
    /// Whether it was written without quotes.
    pub plain: bool,
    /// The variables in it that are not set and have no default.
    pub unset: Vec<String>,
}

/// The key of an entry of a mapping, with its place.
#[derive(Debug, Clone)]
pub struct Key {
    /// The key as written; variables are never replaced in keys.
    pub text: String,
    /// The place in the file that problems about it point to.
    pub place: Place,
}

impl Node {
    /// A node without content.
    pub fn null(place: Place) -> Self {
        Self { value: Value::Null, place }
    }

    /// The kind of value in words, for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// The value of a key of a mapping; `None` for other nodes.
pub fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(k, _)| k.text == key).map(|(_, value)| value)
}

/// Parses one YAML document. `file` is its index in `Problems::texts`.
///
/// # Errors
/// The first mistake; the text cannot be read beyond it.
pub fn parse(text: &str, file: usize) -> Result<Node, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > TEXT_BYTES_MAX {
        return Err(problem(
            "too_large",
            format!("the configuration is too large: the limit is {TEXT_BYTES_MAX} bytes"),
            None,
            None,
        ));
    }
    if let Some(at) = text.find(|c: char| u32::from(c) >> 12 == HIDDEN >> 12) {
        let line = text[..at].matches('\n').count() + 1;
        let place = Place { file, line, column: 1, length: 1 };
        return Err(problem(
            "bad_yaml",
            "this is a private-use Unicode character, which is not allowed: remove it".into(),
            Some(place),
            None,
        ));
    }
    let hidden = hide(text);
    let mut builder =
        Builder { parser: Parser::new_from_str(&hidden), file, anchors: Vec::new(), nodes: 0 };
    builder.document()
}

fn problem(
    code: &'static str,
    message: String,
    place: Option<Place>,
    help: Option<&str>,
) -> Problem {
    Problem {
        severity: Severity::Error,
        code,
        place,
        key: String::new(),
        message,
        help: help.map(str::to_owned),
    }
}

/// Replaces the ASCII characters of each `${…}` by private-use ones that mean nothing to YAML;
/// `$${` stays as it is.
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
        out.extend(rest[at..=end].chars().map(|c| {
            if c.is_ascii() { char::from_u32(HIDDEN + u32::from(c)).unwrap_or(c) } else { c }
        }));
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    out
}

/// Whether a text that was not expanded yet holds a `${…}`.
pub fn holds_variable(written: &str) -> bool {
    written.chars().any(|c| u32::from(c) >> 12 == HIDDEN >> 12)
}

/// Splits a text into its hidden pieces (`${…}`, true) and the others, all of them readable again.
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
        let length = if span.start.line() == span.end.line() {
            span.end.col().saturating_sub(span.start.col())
        } else {
            1
        };
        Place { file: self.file, line: span.start.line(), column: span.start.col() + 1, length }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let at = error.marker();
                let place =
                    Place { file: self.file, line: at.line(), column: at.col() + 1, length: 1 };
                // The parser stops where it cannot go on, which is often after the place to mend.
                let help = "check here and just before for an open bracket or quote, a tab, or a \
                    missing colon or space";
                Err(problem(
                    "bad_yaml",
                    format!("this is not valid YAML: {}", error.info()),
                    Some(place),
                    Some(help),
                ))
            }
            None => Err(problem(
                "bad_yaml",
                "this is not valid YAML: the file ends too early".into(),
                None,
                None,
            )),
        }
    }

    fn document(&mut self) -> Result<Node, Problem> {
        let mut root: Option<Node> = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => {
                    let nothing =
                        Node::null(Place { file: self.file, line: 1, column: 1, length: 1 });
                    return Ok(root.unwrap_or(nothing));
                }
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) => {
                    if root.is_some() {
                        let why = "a second YAML document starts here, but a configuration is a \
                            single document: remove the `---`"
                            .to_owned();
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
            let why = format!(
                "the configuration has too many values: the limit is {NODES_MAX}, and an alias \
                 counts each time it is used"
            );
            return Err(problem("too_large", why, Some(place), None));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Problem> {
        let place = self.place(span);
        self.count(1, place)?;
        if depth > DEPTH_MAX {
            return Err(problem(
                "too_deep",
                format!("values are nested too deeply: the limit is {DEPTH_MAX} levels"),
                Some(place),
                None,
            ));
        }
        if let Event::Scalar(_, _, _, Some(tag))
        | Event::SequenceStart(_, Some(tag))
        | Event::MappingStart(_, Some(tag)) = &event
            && !(tag.is_yaml_core_schema() && CORE_TAGS.contains(&tag.suffix.as_str()))
        {
            return Err(problem(
                "bad_yaml",
                format!("the YAML tag `{}{}` is not supported: remove it", tag.handle, tag.suffix),
                Some(place),
                None,
            ));
        }
        let (anchor, value) = match event {
            Event::Alias(id) => {
                let found = self
                    .anchors
                    .iter()
                    .rev()
                    .find(|(anchor, _)| *anchor == id)
                    .map(|(_, node)| node.clone());
                let Some(node) = found else {
                    return Err(problem(
                        "bad_yaml",
                        "an alias cannot refer to the anchor that contains it".into(),
                        Some(place),
                        None,
                    ));
                };
                self.count(size(&node), place)?;
                return Ok(Node { place, ..node });
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let value = match plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    true => Value::Null,
                    false => Value::Scalar(Scalar {
                        text: text.into_owned(),
                        plain,
                        ..Scalar::default()
                    }),
                };
                (anchor, value)
            }
            Event::SequenceStart(anchor, ..) => (anchor, Value::List(self.list(depth)?)),
            Event::MappingStart(anchor, ..) => (anchor, Value::Map(self.map(depth)?)),
            _ => {
                return Err(problem(
                    "bad_yaml",
                    "a value is missing here".into(),
                    Some(place),
                    None,
                ));
            }
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
                return Err(problem(
                    "bad_yaml",
                    "a key must be a string, not a list or mapping".into(),
                    Some(place),
                    None,
                ));
            };
            let key = Key { text: pieces(text).into_iter().map(|(_, t)| t).collect(), place };
            if !seen.insert(key.text.clone()) {
                let why = format!("duplicate key `{}`", key.text);
                return Err(problem("duplicate_key", why, Some(place), Some("remove one of them")));
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
