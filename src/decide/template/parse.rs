//! Compiles texts and mappings into the segments of a template.

use serde_json::Value;

use super::{BadTemplate, Form, Node, Place, Segment, Slot, Template};
use crate::decide::foreign_syntax::check_template;
use crate::decide::function;
use crate::decide::operand::{self, Operand, split_top};

pub(super) fn text(text: &str) -> Result<Template, BadTemplate> {
    let pieces = pieces(text)?;
    let has_slots = pieces.iter().any(|p| matches!(p, Piece::Slot(..)));
    if !has_slots {
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        return Ok(Template { form: Form::Text(vec![Segment::Literal(text.to_owned())]), is_json });
    }
    let is_json = stands_for_json(&pieces);
    let mut in_string = false;
    let mut segments = Vec::with_capacity(pieces.len());
    for piece in pieces {
        segments.push(match piece {
            Piece::Literal(text) => {
                in_string = string_state(text, in_string);
                Segment::Literal(text.to_owned())
            }
            Piece::Slot(operand) => {
                let place = match (is_json, in_string) {
                    (false, _) => Place::Plain,
                    (true, true) => Place::InString,
                    (true, false) => Place::Bare,
                };
                Segment::Slot(Slot { operand, place })
            }
        });
    }
    Ok(Template { form: Form::Text(segments), is_json })
}

pub(super) fn mapping(value: &Value) -> Result<Node, BadTemplate> {
    Ok(match value {
        Value::Array(items) => Node::List(items.iter().map(mapping).collect::<Result<_, _>>()?),
        Value::Object(map) => {
            let entries = map.iter().map(|(k, v)| Ok((k.clone(), mapping(v)?)));
            Node::Object(entries.collect::<Result<_, BadTemplate>>()?)
        }
        Value::String(text) => scalar(text)?,
        other => Node::Constant(other.clone()),
    })
}

fn scalar(text: &str) -> Result<Node, BadTemplate> {
    let mut pieces = pieces(text)?;
    if pieces.len() == 1 {
        return Ok(match pieces.remove(0) {
            Piece::Literal(text) => Node::Constant(Value::String(text.to_owned())),
            Piece::Slot(operand) => Node::Typed(operand),
        });
    }
    if pieces.is_empty() {
        return Ok(Node::Constant(Value::String(String::new())));
    }
    let segments = pieces.into_iter().map(|piece| match piece {
        Piece::Literal(text) => Segment::Literal(text.to_owned()),
        Piece::Slot(operand) => Segment::Slot(Slot { operand, place: Place::Plain }),
    });
    Ok(Node::Mixed(segments.collect()))
}

enum Piece<'a> {
    Literal(&'a str),
    Slot(Operand),
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, BadTemplate> {
    check_template(text).map_err(|message| BadTemplate { at: 0, message })?;
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        // An unclosed `{{` is literal text.
        if !rest[open + 2..].contains("}}") {
            break;
        }
        // `{"a":{{{$.x}}}` : of several braces the last two open the placeholder.
        let mut start = open;
        while rest[start + 1..].starts_with("{{") {
            start += 1;
        }
        let Some(len) = closing(&rest[start + 2..]) else { break };
        let close = start + 2 + len;
        if start > 0 {
            pieces.push(Piece::Literal(&rest[..start]));
        }
        let inner = &rest[start + 2..close];
        let at = text.len() - rest.len() + start;
        pieces.push(Piece::Slot(expression(inner).map_err(|message| BadTemplate { at, message })?));
        rest = &rest[close + 2..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    Ok(pieces)
}

/// Finds the end of a placeholder: the first `}}` outside quotes, or the first one at all where
/// quotes are never closed.
fn closing(text: &str) -> Option<usize> {
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            // A quote inside a key is part of it: `$.it's`.
            None if matches!(c, '"' | '\'')
                && !text[..at].ends_with(|c: char| c.is_alphanumeric()) =>
            {
                quote = Some(c)
            }
            None if text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    text.find("}}")
}

/// Parses the text of a placeholder: `path | function | function(arg)`.
fn expression(text: &str) -> Result<Operand, String> {
    let mut stages = split_top(text, '|').into_iter().map(str::trim);
    let mut operand = Operand::parse(stages.next().unwrap_or(""), true)?;
    for stage in stages {
        let (name, args) = match stage.split_once('(') {
            Some((name, rest)) => {
                let args = rest
                    .strip_suffix(')')
                    .ok_or_else(|| format!("`{stage}` has no closing parenthesis"))?;
                (name.trim(), args)
            }
            None => (stage, ""),
        };
        let mut operands = vec![operand];
        if !args.trim().is_empty() {
            for arg in split_top(args, ',') {
                operands.push(Operand::parse(arg, false)?);
            }
        }
        operand = operand::call(function::find(name)?, operands)?;
    }
    Ok(operand)
}

/// Whether the literal parts are JSON when every placeholder stands for a value.
fn stands_for_json(pieces: &[Piece<'_>]) -> bool {
    let mut probe = String::new();
    let mut in_string = false;
    for piece in pieces {
        match piece {
            Piece::Literal(text) => {
                in_string = string_state(text, in_string);
                probe.push_str(text);
            }
            Piece::Slot(_) => probe.push(if in_string { 'x' } else { '0' }),
        }
    }
    serde_json::from_str::<serde::de::IgnoredAny>(&probe).is_ok()
}

/// Whether the end of `text` lies inside a JSON string. `in_string` says whether its start does.
fn string_state(text: &str, mut in_string: bool) -> bool {
    let mut escaped = false;
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
    }
    in_string
}
