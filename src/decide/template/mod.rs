//! Payload templates: text with `{{ path | function }}` placeholders, or a mapping of such texts.
//!
//! Compiled at load, rendered in a single pass: what a placeholder yields is never scanned again. A
//! template whose literal part is JSON yields valid JSON by construction, because each placeholder is
//! classified once as inside a JSON string or in the place of a value.
//!
//! - `parse`: text and mappings into segments
//! - `render`: segments over a scope

mod parse;
mod render;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::operand::{Operand, Scope};

/// No rendered body is larger.
pub const OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A compiled template.
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

/// What stands around a placeholder.
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

/// What a template came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The body.
    pub body: String,
    /// Placeholders that had no value and became `null`.
    pub missing: Vec<String>,
}

/// Why a template does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadTemplate {
    /// Byte offset in the text.
    pub at: usize,
    /// What is wrong.
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

    /// Renders the template.
    ///
    /// # Errors
    /// A function refused its arguments, or the result is larger than [`OUTPUT_BYTES_MAX`].
    pub fn render(&self, scope: &Scope<'_>) -> Result<Rendered, String> {
        render::render(self, scope)
    }
}
