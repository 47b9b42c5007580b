//! Values in expressions: paths, literals and function calls. Conditions and templates share them.

use std::cell::Cell;

use serde_json::Value;

use super::foreign_syntax::check_path;
use super::function::{self, Function};
use crate::model::json::{self, Ref};
use crate::model::path::{Found, Root};
use crate::model::{Path, Timestamp};

/// Calls nest this deep at most.
const CALL_DEPTH_MAX: usize = 8;

/// What an expression can read. Time and randomness are passed in, so that a repeated evaluation
/// gives the same bytes.
#[derive(Debug)]
pub struct Scope<'a> {
    /// The payload, or why it cannot be read. In the second case every expression that needs it
    /// fails.
    pub payload: Result<Ref<'a>, &'a str>,
    /// The value behind `$$`: what surrounds the payload, such as the event, and in a workflow the
    /// run and its steps.
    pub context: &'a Value,
    /// The instant that `now()` returns: the same for every call in one evaluation.
    pub now: Timestamp,
    /// What `uuid()` and `random()` are derived from.
    pub seed: u128,
    /// How many values were drawn from the seed so far. This makes each call's value different.
    pub drawn: Cell<u64>,
}

impl<'a> Scope<'a> {
    /// A scope over a payload alone.
    pub fn of(payload: Result<Ref<'a>, &'a str>) -> Self {
        Self { payload, context: &Value::Null, now: Timestamp(0), seed: 0, drawn: Cell::new(0) }
    }

    /// A scope over a value alone.
    pub fn over(payload: &'a Value) -> Self {
        Self::of(Ok(Ref::Value(payload)))
    }
}

/// An expression that yields a value: one side of a comparison, an argument of a function, or a
/// template's placeholder.
#[derive(Debug, Clone)]
pub enum Operand {
    /// A path into the payload or the context.
    Path(Path),
    /// A constant, written in the expression itself: a string, a number, `true`, `false` or `null`.
    Literal(Value),
    /// A function of other operands.
    Call(&'static Function, Vec<Operand>),
}

/// The result of evaluating an operand. A function that returned no value is `Missing`, which
/// differs from a `null` that is there.
pub type Evaluated<'a> = Found<'a, Item<'a>>;

/// One value, borrowed from where it lies or computed.
#[derive(Debug, Clone)]
pub enum Item<'a> {
    /// Borrowed from the payload, the context or a literal.
    Ref(Ref<'a>),
    /// Computed by a function, so the item owns it.
    Made(Value),
}

impl Item<'_> {
    /// Borrows the value, whether it is computed or lies in the payload.
    pub fn get(&self) -> Ref<'_> {
        match self {
            Self::Ref(value) => *value,
            Self::Made(value) => Ref::Value(value),
        }
    }
}

impl Operand {
    /// Compiles an operand. `bare_is_path` says whether `order.id` without `$.` is a path.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the text.
    pub fn parse(text: &str, bare_is_path: bool) -> Result<Self, String> {
        parse(text.trim(), bare_is_path, 0)
    }

    /// Its value in a scope.
    ///
    /// # Errors
    /// A function refused its arguments, or the payload cannot be read.
    pub fn value<'a>(&'a self, scope: &Scope<'a>) -> Result<Evaluated<'a>, String> {
        Ok(match self {
            Self::Literal(value) => Found::One(Item::Ref(Ref::Value(value))),
            Self::Path(path) => {
                let root = match path.root() {
                    Root::Payload => scope
                        .payload
                        .map_err(|why| format!("the payload cannot be parsed: {why}"))?,
                    Root::Context => Ref::Value(scope.context),
                };
                path.find(root).map_one(Item::Ref)
            }
            Self::Call(function, args) => {
                let mut values = Vec::with_capacity(args.len());
                for arg in args {
                    values.push(arg.value(scope)?.into_value());
                }
                match (function.apply)(&values, scope)? {
                    Some(value) => Found::One(Item::Made(value)),
                    None => Found::Missing,
                }
            }
        })
    }

    /// Every path the operand reads.
    pub fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Path(path) => vec![path],
            Self::Literal(_) => Vec::new(),
            Self::Call(_, args) => args.iter().flat_map(Self::paths).collect(),
        }
    }
}

impl Evaluated<'_> {
    /// Converts the result to one value: several become an array, and a missing one becomes `None`.
    pub fn into_value(self) -> Option<Value> {
        match self {
            Self::Missing => None,
            Self::One(Item::Ref(value)) => Some(value.to_value()),
            Self::One(Item::Made(value)) => Some(value),
            Self::Many(values) => {
                Some(Value::Array(values.into_iter().map(Ref::to_value).collect()))
            }
        }
    }
}

fn parse(text: &str, bare_is_path: bool, depth: usize) -> Result<Operand, String> {
    if depth > CALL_DEPTH_MAX {
        return Err(format!(
            "function calls are nested too deeply: the limit is {CALL_DEPTH_MAX} levels"
        ));
    }
    if text.is_empty() {
        return Err("a value is missing here".into());
    }
    if text.starts_with('"') {
        return serde_json::from_str::<String>(text)
            .map(|s| Operand::Literal(Value::String(s)))
            .map_err(|_| format!("{text} is not a complete \"string\""));
    }
    if let Some(inner) = text.strip_prefix('\'') {
        let inner =
            inner.strip_suffix('\'').ok_or_else(|| format!("{text} has no closing quote"))?;
        return Ok(Operand::Literal(Value::String(inner.to_owned())));
    }
    if text.starts_with('$') {
        check_path(text)?;
        return Path::parse(text).map(Operand::Path);
    }
    if let Some((name, rest)) = text.split_once('(')
        && let Some(args) = rest.strip_suffix(')')
        && is_word(name.trim())
    {
        let function = function::find(name.trim())?;
        let mut operands = Vec::new();
        if !args.trim().is_empty() {
            for arg in split_top(args, ',') {
                operands.push(parse(arg.trim(), false, depth + 1)?);
            }
        }
        return call(function, operands);
    }
    match text {
        "true" => return Ok(Operand::Literal(Value::Bool(true))),
        "false" => return Ok(Operand::Literal(Value::Bool(false))),
        "null" => return Ok(Operand::Literal(Value::Null)),
        _ => {}
    }
    let may_be_number =
        !bare_is_path || text.contains(['.', '-']) || text.bytes().all(|b| b.is_ascii_digit());
    if may_be_number && let Ok(Value::Number(number)) = json::value_of(text) {
        return Ok(Operand::Literal(Value::Number(number)));
    }
    if bare_is_path {
        check_path(text)?;
        return Path::parse(text).map(Operand::Path);
    }
    Err(format!("`{text}` is neither a path (`$.…`), a number nor a quoted string"))
}

/// Builds a function call, after it has checked the number of arguments.
///
/// # Errors
/// A sentence for the author of the configuration.
pub fn call(function: &'static Function, args: Vec<Operand>) -> Result<Operand, String> {
    let (least, most) = function.args;
    if args.len() < least || args.len() > most {
        let expected =
            if least == most { format!("{least}") } else { format!("{least} to {most}") };
        return Err(format!(
            "`{}` takes {expected} argument(s), not {}",
            function.name,
            args.len()
        ));
    }
    check_constants(function.name, &args)?;
    Ok(Operand::Call(function, args))
}

/// Refuses constant arguments that only another language's function of the same name would take.
fn check_constants(function: &str, args: &[Operand]) -> Result<(), String> {
    let text = |at: usize| match args.get(at) {
        Some(Operand::Literal(Value::String(text))) => Some(text.as_str()),
        _ => None,
    };
    match (function, text(0)) {
        ("now", Some(pattern)) if !pattern.contains('%') => Err(format!(
            "`now(\"{pattern}\")` returns this text unchanged: write a strftime pattern like \
             \"%Y-%m-%d\""
        )),
        ("format", Some(pattern)) => {
            let (places, values) = (pattern.matches("{}").count(), args.len() - 1);
            match places == values {
                true => Ok(()),
                false => Err(format!(
                    "`format` needs one value for each `{{}}`: \"{pattern}\" has {places} of them, \
                     but {values} value(s) follow"
                )),
            }
        }
        _ => Ok(()),
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Splits at a separator outside quotes and brackets.
pub fn split_top(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' => quote = Some(c),
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                c if c == separator && depth == 0 => {
                    parts.push(&text[start..at]);
                    start = at + c.len_utf8();
                }
                _ => {}
            },
        }
    }
    parts.push(&text[start..]);
    parts
}
