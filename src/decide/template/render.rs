//! Renders a compiled template over a scope.

use serde_json::{Map, Value};

use super::{Form, Node, OUTPUT_BYTES_MAX, Place, Rendered, Segment, Slot, Template};
use crate::decide::function::text_of;
use crate::decide::operand::{Operand, Scope};

pub(super) fn render(template: &Template, scope: &Scope<'_>) -> Result<Rendered, String> {
    let mut missing = Vec::new();
    let body = match &template.form {
        Form::Text(segments) => text(segments, scope, &mut missing)?,
        Form::Mapping(node) => value(node, scope, &mut missing)?.to_string(),
    };
    bounded(body.len())?;
    Ok(Rendered { body, missing })
}

pub(super) fn plain(
    template: &Template,
    scope: &Scope<'_>,
    fit: &dyn Fn(&str, bool) -> Result<String, String>,
) -> Result<String, String> {
    let Form::Text(segments) = &template.form else {
        return Err("a string is needed here, not a mapping".to_owned());
    };
    let mut out = String::new();
    for segment in segments {
        match segment {
            Segment::Literal(text) => out.push_str(text),
            Segment::Slot(slot) => {
                let mut missing = Vec::new();
                let value = resolve(&slot.operand, scope, &mut missing)?;
                if let (Value::Null, path) = (&value, missing.first()) {
                    let what = path.map_or("a placeholder", String::as_str);
                    return Err(format!("`{what}` has no value"));
                }
                out.push_str(&fit(&text_of(&value), out.is_empty())?);
            }
        }
        bounded(out.len())?;
    }
    Ok(out)
}

fn text(
    segments: &[Segment],
    scope: &Scope<'_>,
    missing: &mut Vec<String>,
) -> Result<String, String> {
    let mut out = String::new();
    for segment in segments {
        match segment {
            Segment::Literal(text) => out.push_str(text),
            Segment::Slot(slot) => fill(&mut out, slot, scope, missing)?,
        }
        bounded(out.len())?;
    }
    Ok(out)
}

fn fill(
    out: &mut String,
    slot: &Slot,
    scope: &Scope<'_>,
    missing: &mut Vec<String>,
) -> Result<(), String> {
    let value = resolve(&slot.operand, scope, missing)?;
    match (slot.place, value) {
        (Place::Bare, value) => out.push_str(&value.to_string()),
        (Place::InString, value) => {
            let quoted = Value::String(text_of(&value)).to_string();
            // JSON text of a string always has its two quotes.
            out.push_str(&quoted[1..quoted.len() - 1]);
        }
        (Place::Plain, value) => out.push_str(&text_of(&value)),
    }
    Ok(())
}

fn resolve(
    operand: &Operand,
    scope: &Scope<'_>,
    missing: &mut Vec<String>,
) -> Result<Value, String> {
    match operand.value(scope)?.into_value() {
        Some(value) => Ok(value),
        None => {
            missing.push(
                operand
                    .paths()
                    .first()
                    .map_or_else(|| "a function".to_owned(), |p| p.text().to_owned()),
            );
            Ok(Value::Null)
        }
    }
}

fn value(node: &Node, scope: &Scope<'_>, missing: &mut Vec<String>) -> Result<Value, String> {
    Ok(match node {
        Node::Constant(value) => value.clone(),
        Node::Typed(operand) => resolve(operand, scope, missing)?,
        Node::Mixed(segments) => Value::String(text(segments, scope, missing)?),
        Node::List(items) => {
            Value::Array(items.iter().map(|n| value(n, scope, missing)).collect::<Result<_, _>>()?)
        }
        Node::Object(entries) => {
            let mut map = Map::new();
            for (key, node) in entries {
                map.insert(key.clone(), value(node, scope, missing)?);
            }
            Value::Object(map)
        }
    })
}

fn bounded(bytes: usize) -> Result<(), String> {
    if bytes > OUTPUT_BYTES_MAX {
        return Err(format!("the rendered body would be larger than {OUTPUT_BYTES_MAX} bytes"));
    }
    Ok(())
}
