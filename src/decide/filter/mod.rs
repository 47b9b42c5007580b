//! Conditions in the configuration, such as `$.amount > 100 && $.currency in [EUR, USD]`.
//!
//! - `parse`: compiles the text into clauses, when the configuration is read
//! - `eval`: evaluates clauses over a payload, and finds the first one that is false
//!
//! The grammar extends qhook's single comparison. [`Filter::parse_qhook`] keeps the four readings
//! that differ (`== null`, single quotes, operators inside quotes, the first operator of a fixed
//! order).

mod eval;
mod parse;
#[cfg(test)]
mod tests;

use regex_lite::Regex;
use serde_json::Value;

use super::operand::{Operand, Scope};
use crate::model::Path;

/// A condition longer than this many bytes does not compile.
pub const TEXT_BYTES_MAX: usize = 2048;
/// Parentheses and negations nest this deep at most.
pub const NESTING_MAX: usize = 16;
/// The longest list after `in`.
pub const LIST_MAX: usize = 1000;

/// A condition on a payload and its context, compiled and checked before it is used.
#[derive(Debug, Clone)]
pub struct Filter {
    text: String,
    root: Expr,
}

/// Why a condition does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadFilter {
    /// The byte offset of the error in the text.
    pub at: usize,
    /// One sentence for the author of the configuration: what is wrong at this place.
    pub message: String,
    /// A suggestion of what to write instead, where there is one.
    pub help: Option<String>,
}

/// The clause that made a condition false, and the value it saw. Near misses and dry runs show it.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The text of the clause, as the author wrote it.
    pub clause: String,
    /// The value on the clause's left side; `None` when it was missing.
    pub saw: Option<Value>,
}

#[derive(Debug, Clone)]
enum Expr {
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Not(String, Box<Expr>),
    Clause(Clause),
}

#[derive(Debug, Clone)]
struct Clause {
    text: String,
    left: Operand,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Truthy,
    Exists,
    Equal(Right),
    Unequal(Right),
    Order(Order, Right),
    Contains(Right),
    StartsWith(Right),
    EndsWith(Right),
    /// `None` never matches. It stands for a pattern that does not compile, which only a condition
    /// with qhook's reading may have.
    Matches(Option<Regex>),
    In(Vec<Literal>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The right side of a comparison.
#[derive(Debug, Clone)]
enum Right {
    Literal(Literal),
    Value(Operand),
}

/// A literal on the right side of a comparison. It is a text: quotes do not make a type, and only
/// the bare word `null` means null.
#[derive(Debug, Clone, PartialEq)]
struct Literal {
    text: String,
    bare: bool,
    number: Option<String>,
}

impl Literal {
    fn new(text: &str, bare: bool) -> Self {
        // `+5` and `05` are numbers to qhook's parser of floats; words that it takes for numbers
        // are none here.
        let is_number = text.parse::<f64>().is_ok()
            && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
        let number = is_number.then(|| text.to_owned());
        Self { text: text.to_owned(), bare, number }
    }

    fn is_null(&self) -> bool {
        self.bare && self.text == "null"
    }
}

impl Filter {
    /// Compiles a condition.
    ///
    /// # Errors
    /// Where the text is not a valid condition, and why.
    pub fn parse(text: &str) -> Result<Self, BadFilter> {
        Ok(Self { text: text.to_owned(), root: parse::parse(text)? })
    }

    /// Compiles a condition as qhook reads it.
    ///
    /// # Errors
    /// Where the text is not a valid condition, and why.
    pub fn parse_qhook(text: &str) -> Result<Self, BadFilter> {
        Ok(Self { text: text.to_owned(), root: parse::parse_qhook(text)? })
    }

    /// The condition as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns every path that the condition reads, on both sides of its comparisons.
    pub fn paths(&self) -> Vec<&Path> {
        in_expr(&self.root)
    }

    /// Whether the condition holds.
    pub fn holds(&self, scope: &Scope<'_>) -> bool {
        eval::holds(&self.root, scope)
    }

    /// Finds the first clause that made the condition false; `None` when the condition holds.
    pub fn refused_by(&self, scope: &Scope<'_>) -> Option<Refused> {
        eval::refused_by(&self.root, scope)
    }
}

fn in_expr(expr: &Expr) -> Vec<&Path> {
    match expr {
        Expr::All(parts) | Expr::Any(parts) => parts.iter().flat_map(in_expr).collect(),
        Expr::Not(_, inner) => in_expr(inner),
        Expr::Clause(clause) => {
            let right = match &clause.test {
                Test::Equal(Right::Value(operand))
                | Test::Unequal(Right::Value(operand))
                | Test::Order(_, Right::Value(operand))
                | Test::Contains(Right::Value(operand))
                | Test::StartsWith(Right::Value(operand))
                | Test::EndsWith(Right::Value(operand)) => operand.paths(),
                _ => Vec::new(),
            };
            clause.left.paths().into_iter().chain(right).collect()
        }
    }
}
