//! Payload templates: text with `{{ path | function }}` placeholders, or a mapping of such texts.
//!
//! A template is compiled when the configuration is read, and rendered in a single pass: a rendered
//! value is never searched for placeholders again. If the literal part is JSON, the result is
//! always valid JSON, because each placeholder is known to stand inside a JSON string or in the
//! place of a value.
//!
//! - `parse`: compiles texts and mappings into segments
//! - `render`: renders segments over a scope

mod parse;
mod render;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::operand::{Operand, Scope};
use crate::model::Path;

/// A rendered body that is larger than this is an error.
pub const OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A payload template, compiled when the configuration is read.
#[derive(Debug, Clone)]
pub struct Template {
    form: Form,
    is_json: bool,
}

#[derive(Debug, Clone)]
enum Form {
    Text(Vec<Segment>),
    Mapping(Node),
}

#[derive(Debug, Clone)]
enum Segment {
    Literal(String),
    Slot(Slot),
}

#[derive(Debug, Clone)]
struct Slot {
    operand: Operand,
    place: Place,
}

/// Where a placeholder stands, which decides how its value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between the quotes of a JSON string: escaped text without quotes.
    InString,
    /// Where a JSON value stands: complete JSON.
    Bare,
    /// The template is no JSON: plain text.
    Plain,
}

#[derive(Debug, Clone)]
enum Node {
    /// A scalar without placeholders.
    Constant(Value),
    /// A scalar that is exactly one placeholder keeps its type.
    Typed(Operand),
    /// A scalar with placeholders among text becomes a string.
    Mixed(Vec<Segment>),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// The result of rendering a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The rendered text, which is sent as the body.
    pub body: String,
    /// Placeholders that had no value and became `null`.
    pub missing: Vec<String>,
}

/// Why a template does not compile, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadTemplate {
    /// The byte offset of the error in the text.
    pub at: usize,
    /// One sentence for the author of the configuration: what is wrong at this place.
    pub message: String,
}

impl Template {
    /// Compiles the text form.
    ///
    /// # Errors
    /// A placeholder that is no expression.
    pub fn text(text: &str) -> Result<Self, BadTemplate> {
        parse::text(text)
    }

    /// Compiles the mapping form: every text in the value may hold placeholders.
    ///
    /// # Errors
    /// A placeholder that is no expression.
    pub fn mapping(value: &Value) -> Result<Self, BadTemplate> {
        Ok(Self { form: Form::Mapping(parse::mapping(value)?), is_json: true })
    }

    /// Whether every rendering is valid JSON.
    pub fn is_json(&self) -> bool {
        self.is_json
    }

    /// Renders plain text for a place that is no JSON, such as a URL. Each value passes through
    /// `fit`, which also gets whether the value begins the text.
    ///
    /// # Errors
    /// A function refused its arguments, a placeholder has no value, `fit` refuses it, or the text
    /// is too long.
    pub fn render_plain(
        &self,
        scope: &Scope<'_>,
        fit: impl Fn(&str, bool) -> Result<String, String>,
    ) -> Result<String, String> {
        render::plain(self, scope, &fit)
    }

    /// Returns every path that the placeholders read.
    pub fn paths(&self) -> Vec<&Path> {
        match &self.form {
            Form::Text(segments) => in_segments(segments),
            Form::Mapping(node) => in_node(node),
        }
    }

    /// The text with `filler` in place of every placeholder; `None` for a mapping.
    pub fn with_filler(&self, filler: &str) -> Option<String> {
        let Form::Text(segments) = &self.form else { return None };
        let text = |segment: &Segment| match segment {
            Segment::Literal(text) => text.clone(),
            Segment::Slot(_) => filler.to_owned(),
        };
        Some(segments.iter().map(text).collect())
    }

    /// Whether the template has no placeholder; false for a mapping.
    pub fn is_fixed(&self) -> bool {
        matches!(
            &self.form,
            Form::Text(segments) if segments.iter().all(|s| matches!(s, Segment::Literal(_))),
        )
    }

    /// Renders the template.
    ///
    /// # Errors
    /// A function refused its arguments, or the result is larger than [`OUTPUT_BYTES_MAX`].
    pub fn render(&self, scope: &Scope<'_>) -> Result<Rendered, String> {
        render::render(self, scope)
    }
}

fn in_segments(segments: &[Segment]) -> Vec<&Path> {
    let slots = segments.iter().filter_map(|segment| match segment {
        Segment::Slot(slot) => Some(slot),
        Segment::Literal(_) => None,
    });
    slots.flat_map(|slot| slot.operand.paths()).collect()
}

fn in_node(node: &Node) -> Vec<&Path> {
    match node {
        Node::Constant(_) => Vec::new(),
        Node::Typed(operand) => operand.paths(),
        Node::Mixed(segments) => in_segments(segments),
        Node::List(items) => items.iter().flat_map(in_node).collect(),
        Node::Object(entries) => entries.iter().flat_map(|(_, node)| in_node(node)).collect(),
    }
}
