//! RFC 9535 (JSONPath) queries: compiled once, evaluated over any value. Numbers are compared by
//! value at any precision.

use std::rc::Rc;

use regex::Regex;
use serde_json::Value;

use super::{Ref, Type};

/// A compiled JSONPath query. Compile it once; it can be evaluated any number of times.
#[derive(Debug, Clone)]
pub struct Query {
    pub(super) segments: Vec<Segment>,
}

/// One segment of a query: what it selects from each value found so far.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    /// Whether it selects from all descendants instead of children only.
    pub(super) descends: bool,
    pub(super) selectors: Vec<Selector>,
}

#[derive(Debug, Clone)]
pub(super) enum Selector {
    Name(String),
    Wildcard,
    Index(i64),
    Slice { start: Option<i64>, end: Option<i64>, step: i64 },
    Filter(Test),
}

/// A query inside a filter. It starts at the whole document or at the node that is tested.
#[derive(Debug, Clone)]
pub(super) struct Inner {
    pub(super) is_absolute: bool,
    pub(super) query: Query,
}

#[derive(Debug, Clone)]
pub(super) enum Test {
    Any(Vec<Test>),
    All(Vec<Test>),
    Not(Box<Test>),
    Exists(Inner),
    Compare(Operand, Order, Operand),
    Matches { text: Operand, pattern: Pattern },
}

#[derive(Debug, Clone)]
pub(super) enum Pattern {
    Fixed(Option<Regex>),
    Computed { of: Operand, is_whole: bool },
}

#[derive(Debug, Clone)]
pub(super) enum Operand {
    Literal(Value),
    Singular(Inner),
    Length(Box<Operand>),
    Count(Inner),
    OnlyValue(Inner),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Where a selected value stands, from the root.
#[derive(Debug)]
struct Place {
    parent: Option<Rc<Place>>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Root,
    Name(String),
    Index(usize),
}

/// A selected value, with its place if paths were asked for.
#[derive(Debug, Clone)]
struct Hit<'a> {
    value: Ref<'a>,
    place: Option<Rc<Place>>,
}

impl<'a> Hit<'a> {
    fn child(&self, value: Ref<'a>, step: impl FnOnce() -> Step) -> Self {
        let place = self
            .place
            .as_ref()
            .map(|parent| Rc::new(Place { parent: Some(Rc::clone(parent)), step: step() }));
        Self { value, place }
    }

    fn children(&self) -> Vec<Hit<'a>> {
        match self.value.kind() {
            Type::Array => {
                let items = self.value.items().into_iter().enumerate();
                items.map(|(at, item)| self.child(item, || Step::Index(at))).collect()
            }
            Type::Object => {
                let entries = self.value.entries().into_iter();
                entries
                    .map(|(key, value)| self.child(value, || Step::Name(key.into_owned())))
                    .collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Query {
    /// Compiles a query.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        super::query_parse::parse(text)
    }

    /// Whether it can select one value at most, by its form: names and indexes only.
    pub fn is_singular(&self) -> bool {
        self.segments.iter().all(|segment| {
            !segment.descends
                && matches!(segment.selectors.as_slice(), [Selector::Name(_) | Selector::Index(_)])
        })
    }

    /// The selected values, in the order of the document.
    pub fn select<'a>(&self, root: Ref<'a>) -> Vec<Ref<'a>> {
        self.run(root, Hit { value: root, place: None }).into_iter().map(|hit| hit.value).collect()
    }

    /// The selected values with their normalized paths (RFC 9535, section 2.7).
    pub fn locate<'a>(&self, root: Ref<'a>) -> Vec<(String, Ref<'a>)> {
        let place = Some(Rc::new(Place { parent: None, step: Step::Root }));
        let hits = self.run(root, Hit { value: root, place });
        hits.into_iter()
            .map(|hit| (hit.place.as_deref().map_or_else(String::new, normalized), hit.value))
            .collect()
    }

    fn run<'a>(&self, root: Ref<'a>, start: Hit<'a>) -> Vec<Hit<'a>> {
        let mut hits = vec![start];
        for segment in &self.segments {
            let mut found = Vec::new();
            for hit in &hits {
                if segment.descends {
                    // Each node before its descendants, children in their order.
                    let mut open = vec![hit.clone()];
                    while let Some(next) = open.pop() {
                        segment
                            .selectors
                            .iter()
                            .for_each(|selector| selector.select(root, &next, &mut found));
                        open.extend(next.children().into_iter().rev());
                    }
                } else {
                    segment
                        .selectors
                        .iter()
                        .for_each(|selector| selector.select(root, hit, &mut found));
                }
            }
            hits = found;
        }
        hits
    }
}

impl Selector {
    fn select<'a>(&self, root: Ref<'a>, hit: &Hit<'a>, found: &mut Vec<Hit<'a>>) {
        match self {
            Self::Name(name) => {
                found.extend(
                    hit.value.get(name).map(|value| hit.child(value, || Step::Name(name.clone()))),
                );
            }
            Self::Wildcard => found.extend(hit.children()),
            Self::Index(at) => {
                let Some(at) = absolute(*at, hit.value) else { return };
                found.extend(hit.value.at(at).map(|value| hit.child(value, || Step::Index(at))));
            }
            Self::Slice { start, end, step } => {
                let items = hit.value.items();
                for at in sliced(items.len(), *start, *end, *step) {
                    found.extend(items.get(at).map(|value| hit.child(*value, || Step::Index(at))));
                }
            }
            Self::Filter(test) => found
                .extend(hit.children().into_iter().filter(|child| test.holds(root, child.value))),
        }
    }
}

/// An index from the front; a negative one counts from the end of a list.
fn absolute(at: i64, list: Ref<'_>) -> Option<usize> {
    if at >= 0 {
        return usize::try_from(at).ok();
    }
    if list.kind() != Type::Array {
        return None;
    }
    list.length()?.checked_sub(usize::try_from(at.unsigned_abs()).ok()?)
}

/// The indexes of a slice (RFC 9535, section 2.3.4.2.2).
fn sliced(length: usize, start: Option<i64>, end: Option<i64>, step: i64) -> Vec<usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let normal = |at: i64| if at >= 0 { at } else { length.saturating_add(at) };
    let mut found = Vec::new();
    if step > 0 {
        let mut at = normal(start.unwrap_or(0)).clamp(0, length);
        let end = normal(end.unwrap_or(length)).clamp(0, length);
        while at < end {
            found.extend(usize::try_from(at));
            at = at.saturating_add(step);
        }
    } else if step < 0 {
        let mut at = start.map_or(length - 1, normal).clamp(-1, length - 1);
        let end = end.map_or(-1, normal).clamp(-1, length - 1);
        while at > end {
            found.extend(usize::try_from(at));
            at = at.saturating_add(step);
        }
    }
    found
}

impl Inner {
    fn select<'a>(&self, root: Ref<'a>, here: Ref<'a>) -> Vec<Ref<'a>> {
        let start = if self.is_absolute { root } else { here };
        self.query
            .run(root, Hit { value: start, place: None })
            .into_iter()
            .map(|hit| hit.value)
            .collect()
    }
}

/// The value of an operand in a comparison.
enum Resolved<'a> {
    Nothing,
    Ref(Ref<'a>),
    Count(Value),
}

impl Resolved<'_> {
    fn value(&self) -> Option<Ref<'_>> {
        match self {
            Resolved::Nothing => None,
            Resolved::Ref(value) => Some(*value),
            Resolved::Count(count) => Some(Ref::Value(count)),
        }
    }
}

impl Operand {
    fn value<'a>(&'a self, root: Ref<'a>, here: Ref<'a>) -> Resolved<'a> {
        let only = |inner: &Inner| match inner.select(root, here).as_slice() {
            [one] => Resolved::Ref(*one),
            _ => Resolved::Nothing,
        };
        match self {
            Self::Literal(value) => Resolved::Ref(Ref::Value(value)),
            Self::Singular(inner) | Self::OnlyValue(inner) => only(inner),
            Self::Count(inner) => Resolved::Count(Value::from(inner.select(root, here).len())),
            Self::Length(operand) => {
                match operand.value(root, here).value().and_then(Ref::length) {
                    Some(length) => Resolved::Count(Value::from(length)),
                    None => Resolved::Nothing,
                }
            }
        }
    }
}

impl Test {
    fn holds(&self, root: Ref<'_>, here: Ref<'_>) -> bool {
        match self {
            Self::Any(tests) => tests.iter().any(|test| test.holds(root, here)),
            Self::All(tests) => tests.iter().all(|test| test.holds(root, here)),
            Self::Not(test) => !test.holds(root, here),
            Self::Exists(inner) => !inner.select(root, here).is_empty(),
            Self::Compare(left, order, right) => {
                let (left, right) = (left.value(root, here), right.value(root, here));
                compare(left.value(), *order, right.value())
            }
            Self::Matches { text, pattern } => {
                let text = text.value(root, here);
                let Some(text) = text.value().and_then(Ref::as_str) else { return false };
                match pattern {
                    Pattern::Fixed(regex) => {
                        regex.as_ref().is_some_and(|regex| regex.is_match(&text))
                    }
                    Pattern::Computed { of, is_whole } => {
                        let of = of.value(root, here);
                        let regex = of
                            .value()
                            .and_then(Ref::as_str)
                            .and_then(|pattern| regex(&pattern, *is_whole));
                        regex.is_some_and(|regex| regex.is_match(&text))
                    }
                }
            }
        }
    }
}

fn compare(left: Option<Ref<'_>>, order: Order, right: Option<Ref<'_>>) -> bool {
    let equal = || match (left, right) {
        (Some(a), Some(b)) => a.equals(b),
        (None, None) => true,
        _ => false,
    };
    let less = |a: Option<Ref<'_>>, b: Option<Ref<'_>>| match (a, b) {
        (Some(a), Some(b)) => match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => a < b,
            _ => a.compared_to(b) == Some(std::cmp::Ordering::Less),
        },
        _ => false,
    };
    match order {
        Order::Equal => equal(),
        Order::Unequal => !equal(),
        Order::Less => less(left, right),
        Order::LessOrEqual => less(left, right) || equal(),
        Order::Greater => less(right, left),
        Order::GreaterOrEqual => less(right, left) || equal(),
    }
}

/// Compiles an RFC 9485 pattern; `None` if it is invalid, and then it matches nothing.
pub(super) fn regex(pattern: &str, is_whole: bool) -> Option<Regex> {
    const BYTES_MAX: usize = 1 << 20;
    // There a dot stands for everything but line breaks of both kinds.
    let (mut text, mut in_class, mut chars) =
        (String::with_capacity(pattern.len() + 8), false, pattern.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                text.push(c);
                text.extend(chars.next());
                continue;
            }
            '[' => in_class = true,
            ']' => in_class = false,
            '.' if !in_class => {
                text.push_str("[^\\n\\r]");
                continue;
            }
            _ => {}
        }
        text.push(c);
    }
    let text = if is_whole { format!("^(?:{text})$") } else { text };
    regex::RegexBuilder::new(&text).size_limit(BYTES_MAX).build().ok()
}

fn normalized(place: &Place) -> String {
    use std::fmt::Write;
    let mut steps = Vec::new();
    let mut at = Some(place);
    while let Some(place) = at {
        steps.push(&place.step);
        at = place.parent.as_deref();
    }
    let mut path = String::new();
    for step in steps.into_iter().rev() {
        match step {
            Step::Root => path.push('$'),
            Step::Name(name) => {
                path.push_str("['");
                name.chars().for_each(|c| escape(&mut path, c));
                path.push_str("']");
            }
            Step::Index(index) => {
                // Writing to a string cannot fail.
                let _ = write!(path, "[{index}]");
            }
        }
    }
    path
}

fn escape(path: &mut String, c: char) {
    use std::fmt::Write;
    match c {
        '\u{8}' => path.push_str("\\b"),
        '\t' => path.push_str("\\t"),
        '\n' => path.push_str("\\n"),
        '\u{c}' => path.push_str("\\f"),
        '\r' => path.push_str("\\r"),
        '\'' => path.push_str("\\'"),
        '\\' => path.push_str("\\\\"),
        c if c < ' ' => {
            let _ = write!(path, "\\u{:04x}", u32::from(c));
        }
        c => path.push(c),
    }
}
