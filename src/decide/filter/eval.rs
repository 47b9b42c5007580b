//! Evaluates a compiled condition over a payload.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Clause, Expr, Literal, Order, Refused, Right, Test};
use crate::decide::operand::{Evaluated, Item, Scope};
use crate::model::json::{Ref, Type, decimal};
use crate::model::path::Found;

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
        Expr::Clause(clause) => {
            Some(Refused { clause: clause.text.clone(), saw: seen(clause, scope) })
        }
    }
}

/// A list or object with more entries than this is described instead of copied into a near miss.
const SEEN_ENTRIES_MAX: usize = 100;

fn seen(clause: &Clause, scope: &Scope<'_>) -> Option<Value> {
    let got = clause.left.value(scope).ok()?;
    if let Found::One(Item::Ref(value)) = &got
        && let Some(length) = value.length().filter(|length| *length > SEEN_ENTRIES_MAX)
        && value.as_str().is_none()
    {
        return Some(Value::String(format!("a value with {length} entries")));
    }
    got.into_value()
}

/// Whether one comparison holds. If a function refuses its arguments, or the payload cannot be
/// read, the operand counts as missing; it is no error of the whole condition.
fn clause_holds(clause: &Clause, scope: &Scope<'_>) -> bool {
    let left = clause.left.value(scope).unwrap_or(Found::Missing);
    match &clause.test {
        Test::Exists => match &left {
            Found::Missing => false,
            Found::One(_) => true,
            Found::Many(values) => !values.is_empty(),
        },
        Test::Truthy => any(&left, truthy),
        Test::Equal(right) => equal(&left, right, scope),
        Test::Unequal(right) => !equal(&left, right, scope),
        Test::Order(order, right) => any(&left, |value| ordered(value, *order, right, scope)),
        Test::Contains(right) => {
            with_text(right, scope, |text| any(&left, |value| contains(value, text)))
        }
        Test::StartsWith(right) => {
            with_text(right, scope, |text| any(&left, |v| text_is(v, |s| s.starts_with(text))))
        }
        Test::EndsWith(right) => {
            with_text(right, scope, |text| any(&left, |v| text_is(v, |s| s.ends_with(text))))
        }
        Test::Matches(Some(regex)) => any(&left, |v| text_is(v, |s| regex.is_match(s))),
        Test::Matches(None) => false,
        Test::In(items) => any(&left, |value| {
            matches!(value.kind(), Type::String | Type::Number)
                && items.iter().any(|item| equals_literal(value, item))
        }),
    }
}

fn text_is(value: Ref<'_>, test: impl Fn(&str) -> bool) -> bool {
    value.as_str().is_some_and(|text| test(&text))
}

/// Whether a test holds for a value. Of a path with several values, one that satisfies it is
/// enough.
fn any(got: &Evaluated<'_>, mut test: impl FnMut(Ref<'_>) -> bool) -> bool {
    match got {
        Found::Missing => false,
        Found::One(value) => test(value.get()),
        Found::Many(values) => values.iter().any(|v| test(*v)),
    }
}

fn truthy(value: Ref<'_>) -> bool {
    match value.kind() {
        Type::Null => false,
        Type::Bool(yes) => yes,
        Type::String => text_is(value, |text| !text.is_empty()),
        Type::Number => value.as_number().is_some_and(|number| !decimal::is_zero(&number)),
        Type::Array | Type::Object => true,
    }
}

fn equal(left: &Evaluated<'_>, right: &Right, scope: &Scope<'_>) -> bool {
    match right {
        Right::Literal(literal) if literal.is_null() => match left {
            Found::Missing => true,
            other => any(other, |value| value.is_null()),
        },
        Right::Literal(literal) => any(left, |value| equals_literal(value, literal)),
        Right::Value(operand) => {
            let right = operand.value(scope).unwrap_or(Found::Missing);
            match (left, &right) {
                (Found::Missing, Found::Missing) => true,
                (Found::Missing, other) | (other, Found::Missing) => {
                    any(other, |value| value.is_null())
                }
                _ => any(left, |a| any(&right, |b| equal_values(a, b))),
            }
        }
    }
}

fn equals_literal(value: Ref<'_>, literal: &Literal) -> bool {
    match value.kind() {
        Type::String => text_is(value, |text| text == literal.text),
        Type::Bool(yes) => literal.text == if yes { "true" } else { "false" },
        Type::Number => value.as_number().is_some_and(|number| {
            number == literal.text
                || literal
                    .number
                    .as_ref()
                    .is_some_and(|n| decimal::compare(&number, n) == Ordering::Equal)
        }),
        Type::Null | Type::Array | Type::Object => false,
    }
}

fn equal_values(a: Ref<'_>, b: Ref<'_>) -> bool {
    match (a.kind(), b.kind()) {
        (Type::Null, Type::Null) => true,
        (Type::Number, Type::Number) => a.compared_to(b) == Some(Ordering::Equal),
        (Type::Null | Type::Array | Type::Object, _)
        | (_, Type::Null | Type::Array | Type::Object) => false,
        _ => a.plain_text() == b.plain_text(),
    }
}

fn ordered(value: Ref<'_>, order: Order, right: &Right, scope: &Scope<'_>) -> bool {
    let Some(number) = value.as_number() else { return false };
    let against = |other: &str| {
        matches!(
            (decimal::compare(&number, other), order),
            (Ordering::Less, Order::Less | Order::LessOrEqual)
                | (Ordering::Greater, Order::Greater | Order::GreaterOrEqual)
                | (Ordering::Equal, Order::LessOrEqual | Order::GreaterOrEqual)
        )
    };
    match right {
        Right::Literal(literal) => literal.number.as_deref().is_some_and(against),
        Right::Value(operand) => {
            let right = operand.value(scope).unwrap_or(Found::Missing);
            any(&right, |v| v.as_number().is_some_and(|n| against(&n)))
        }
    }
}

fn contains(value: Ref<'_>, text: &str) -> bool {
    match value.kind() {
        Type::String => text_is(value, |haystack| haystack.contains(text)),
        Type::Array => value.items().into_iter().any(|item| match item.kind() {
            Type::String => text_is(item, |s| s == text),
            Type::Number => equals_literal(item, &Literal::new(text, true)),
            _ => false,
        }),
        _ => false,
    }
}

fn with_text(right: &Right, scope: &Scope<'_>, test: impl Fn(&str) -> bool) -> bool {
    match right {
        Right::Literal(literal) => test(&literal.text),
        Right::Value(operand) => {
            let right = operand.value(scope).unwrap_or(Found::Missing);
            any(&right, |v| test(&v.plain_text()))
        }
    }
}
