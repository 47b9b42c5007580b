//! Conditions: `$.amount > 100 && $.currency in [EUR, USD]`.
//!
//! - `parse`: text into clauses, checked once at load
//! - `eval`: clauses over a payload, and the first clause that was false
//!
//! The grammar is a superset of qhook's single comparison; [`Filter::parse_qhook`] keeps the four
//! readings that differ (`== null`, single quotes, operators inside quotes, the first operator of a
//! fixed order).

mod eval;
mod parse;
#[cfg(test)]
mod tests;

use regex_lite::Regex;
use serde_json::Value;

use super::operand::{Operand, Scope};
use crate::model::Path;

/// The longest condition.
pub const TEXT_BYTES_MAX: usize = 2048;
/// Parentheses and negations nest this deep at most.
pub const NESTING_MAX: usize = 16;
/// The longest list after `in`.
pub const LIST_MAX: usize = 1000;

/// A compiled condition.
#[derive(Debug, Clone)]
pub struct Filter {
    text: String,
    root: Expr,
}

/// Why a condition does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadFilter {
    /// Byte offset in the text.
    pub at: usize,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
}

/// The clause that decided, and what it saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The clause as written.
    pub clause: String,
    /// The value on its left; `None` when it was missing.
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
    /// `None` never matches: a pattern that qhook would not have compiled either.
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

/// A literal is text; quotes do not make a type. Only the bare word `null` means null.
#[derive(Debug, Clone, PartialEq)]
struct Literal {
    text: String,
    bare: bool,
    number: Option<String>,
}

impl Literal {
    fn new(text: &str, bare: bool) -> Self {
        // `+5` and `05` are numbers to qhook's parser of floats; words that it takes for numbers are none here.
        let is_number =
            text.parse::<f64>().is_ok() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
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
    /// Where the text is no condition, and why.
    pub fn parse(text: &str) -> Result<Self, BadFilter> {
        Ok(Self { text: text.to_owned(), root: parse::parse(text)? })
    }

    /// Compiles a condition with qhook's reading.
    ///
    /// # Errors
    /// Where the text is no condition, and why.
    pub fn parse_qhook(text: &str) -> Result<Self, BadFilter> {
        Ok(Self { text: text.to_owned(), root: parse::parse_qhook(text)? })
    }

    /// The condition as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Every path it reads.
    pub fn paths(&self) -> Vec<&Path> {
        in_expr(&self.root)
    }

    /// Whether the condition holds.
    pub fn holds(&self, scope: &Scope<'_>) -> bool {
        eval::holds(&self.root, scope)
    }

    /// The first clause that kept the condition from holding; `None` when it holds.
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
