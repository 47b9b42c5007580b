//! Clauses over a payload.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::{Clause, Expr, Literal, Order, Refused, Right, Test};
use crate::decide::function::text_of;
use crate::decide::operand::{Got, Scope};

pub(super) fn holds(expr: &Expr, scope: &Scope<'_>) -> bool {
    match expr {
        Expr::All(terms) => terms.iter().all(|t| holds(t, scope)),
        Expr::Any(terms) => terms.iter().any(|t| holds(t, scope)),
        Expr::Not(_, inner) => !holds(inner, scope),
        Expr::Clause(clause) => clause_holds(clause, scope),
    }
}

pub(super) fn refused_by(expr: &Expr, scope: &Scope<'_>) -> Option<Refused> {
    match expr {
        Expr::All(terms) => terms.iter().find_map(|t| refused_by(t, scope)),
        Expr::Any(terms) => {
            if terms.iter().any(|t| holds(t, scope)) {
                return None;
            }
            terms.first().and_then(|t| refused_by(t, scope))
        }
        Expr::Not(text, inner) => {
            let saw = match inner.as_ref() {
                Expr::Clause(clause) => seen(clause, scope),
                _ => None,
            };
            holds(inner, scope).then(|| Refused { clause: text.clone(), saw })
        }
        Expr::Clause(clause) if clause_holds(clause, scope) => None,
        Expr::Clause(clause) => Some(Refused { clause: clause.text.clone(), saw: seen(clause, scope) }),
    }
}

fn seen(clause: &Clause, scope: &Scope<'_>) -> Option<Value> {
    clause.left.value(scope).ok().and_then(Got::into_value)
}

/// A function that refuses its arguments makes its operand missing, never the whole filter an error.
fn clause_holds(clause: &Clause, scope: &Scope<'_>) -> bool {
    let left = clause.left.value(scope).unwrap_or(Got::Missing);
    match &clause.test {
        Test::Exists => !matches!(left, Got::Missing),
        Test::Truthy => any(&left, truthy),
        Test::Equal(right) => equal(&left, right, scope),
        Test::Unequal(right) => !equal(&left, right, scope),
        Test::Order(order, right) => any(&left, |value| ordered(value, *order, right, scope)),
        Test::Contains(right) => with_text(right, scope, |text| any(&left, |value| contains(value, text))),
        Test::StartsWith(right) => {
            with_text(right, scope, |text| any(&left, |v| v.as_str().is_some_and(|s| s.starts_with(text))))
        }
        Test::EndsWith(right) => with_text(right, scope, |text| any(&left, |v| v.as_str().is_some_and(|s| s.ends_with(text)))),
        Test::Matches(Some(regex)) => any(&left, |v| v.as_str().is_some_and(|s| regex.is_match(s))),
        Test::Matches(None) => false,
        Test::In(items) => any(&left, |value| {
            matches!(value, Value::String(_) | Value::Number(_)) && items.iter().any(|item| equals_literal(value, item))
        }),
    }
}

/// A path with several values is true if any of them satisfies.
fn any(got: &Got<'_>, mut test: impl FnMut(&Value) -> bool) -> bool {
    match got {
        Got::Missing => false,
        Got::One(value) => test(value),
        Got::Many(values) => values.iter().any(|v| test(v)),
    }
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::String(text) => !text.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Array(_) | Value::Object(_) => true,
    }
}

fn equal(left: &Got<'_>, right: &Right, scope: &Scope<'_>) -> bool {
    match right {
        Right::Literal(literal) if literal.is_null() => match left {
            Got::Missing => true,
            other => any(other, Value::is_null),
        },
        Right::Literal(literal) => any(left, |value| equals_literal(value, literal)),
        Right::Value(operand) => {
            let right = operand.value(scope).unwrap_or(Got::Missing);
            match (left, &right) {
                (Got::Missing, Got::Missing) => true,
                (Got::Missing, other) | (other, Got::Missing) => any(other, Value::is_null),
                _ => any(left, |a| any(&right, |b| equal_values(a, b))),
            }
        }
    }
}

fn equals_literal(value: &Value, literal: &Literal) -> bool {
    match value {
        Value::String(text) => *text == literal.text,
        Value::Bool(yes) => literal.text == if *yes { "true" } else { "false" },
        Value::Number(number) => {
            number.to_string() == literal.text
                || literal.number.as_ref().is_some_and(|n| compare(number, n) == Some(Ordering::Equal))
        }
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

fn equal_values(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Number(x), Value::Number(y)) => compare(x, y) == Some(Ordering::Equal),
        (Value::Null | Value::Array(_) | Value::Object(_), _) | (_, Value::Null | Value::Array(_) | Value::Object(_)) => false,
        _ => text_of(a) == text_of(b),
    }
}

fn ordered(value: &Value, order: Order, right: &Right, scope: &Scope<'_>) -> bool {
    let Value::Number(number) = value else { return false };
    let against = |other: &Number| {
        matches!(
            (compare(number, other), order),
            (Some(Ordering::Less), Order::Less | Order::LessOrEqual)
                | (Some(Ordering::Greater), Order::Greater | Order::GreaterOrEqual)
                | (Some(Ordering::Equal), Order::LessOrEqual | Order::GreaterOrEqual)
        )
    };
    match right {
        Right::Literal(literal) => literal.number.as_ref().is_some_and(against),
        Right::Value(operand) => {
            let right = operand.value(scope).unwrap_or(Got::Missing);
            any(&right, |v| matches!(v, Value::Number(n) if against(n)))
        }
    }
}

/// Whole numbers are compared exactly, others as doubles.
fn compare(a: &Number, b: &Number) -> Option<Ordering> {
    let whole = |n: &Number| n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
    match (whole(a), whole(b)) {
        (Some(x), Some(y)) => Some(x.cmp(&y)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

fn contains(value: &Value, text: &str) -> bool {
    match value {
        Value::String(haystack) => haystack.contains(text),
        Value::Array(items) => items.iter().any(|item| match item {
            Value::String(s) => s == text,
            Value::Number(n) => equals_literal(&Value::Number(n.clone()), &Literal::new(text, true)),
            _ => false,
        }),
        _ => false,
    }
}

fn with_text(right: &Right, scope: &Scope<'_>, test: impl Fn(&str) -> bool) -> bool {
    match right {
        Right::Literal(literal) => test(&literal.text),
        Right::Value(operand) => {
            let right = operand.value(scope).unwrap_or(Got::Missing);
            any(&right, |v| test(&text_of(v)))
        }
    }
}
