//! The body of a request or response: its bytes, the type that its sender declared, and one parsed
//! view. Provider types and keys, schemas, filters, templates, step answers and callbacks all read
//! that view.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::{Map, Value};

use super::json::{self, Doc, Ref, Unreadable};

/// The most fields of a form; a form with more is unreadable.
pub const FORM_FIELDS_MAX: usize = 10_000;

/// A body as received. Cheap to clone. It is parsed at most once, and only when something asks for
/// its view.
#[derive(Debug, Clone, Default)]
pub struct Body(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bytes: Bytes,
    declared: Declared,
    view: OnceLock<View>,
}

/// The type that a sender declares for its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Declared {
    /// No type, or one that does not tell how to parse the body.
    #[default]
    Unknown,
    /// JSON: `application/json` and all types that end in `+json`.
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
    /// Any `text/*` type except `text/json`. Valid JSON is still read as JSON; any other UTF-8 is
    /// text.
    Text,
}

impl Declared {
    /// What the headers of a request declare.
    pub fn of_headers(headers: &http::HeaderMap) -> Self {
        Self::of(headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()))
    }

    /// What a `Content-Type` header declares.
    pub fn of(content_type: Option<&str>) -> Self {
        let essence =
            content_type.unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/x-www-form-urlencoded" => Self::Form,
            "application/json" | "text/json" | "application/csp-report" => Self::Json,
            other if other.ends_with("+json") || other.starts_with("application/cloudevents") => {
                Self::Json
            }
            other if other.starts_with("text/") => Self::Text,
            _ => Self::Unknown,
        }
    }
}

/// What reading the body has given. It is computed once, when something first asks for it.
#[derive(Debug)]
enum View {
    /// The body is JSON. The parsed form borrows from the received bytes.
    Doc(Doc),
    /// A form: an object of its fields, or the JSON that its only field holds.
    Form(Value),
    /// Text that is not JSON. Where JSON is wanted it is a string.
    Text(String),
    /// An empty body. Where JSON is wanted it is `null`.
    Empty,
    /// Neither JSON, a form nor text; the reason says what is wrong and where.
    Unreadable(Unreadable),
}

impl Body {
    /// Wraps bytes without a declared type.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self::declared(bytes, Declared::Unknown)
    }

    /// Wraps bytes with a declared type.
    pub fn declared(bytes: impl Into<Bytes>, declared: Declared) -> Self {
        Self(Arc::new(Inner { bytes: bytes.into(), declared, view: OnceLock::new() }))
    }

    /// The bytes as they came; cheap to clone.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// The same body without its parsed view, which frees that memory.
    #[must_use]
    pub fn unread(&self) -> Self {
        Self::declared(self.0.bytes.clone(), self.0.declared)
    }

    /// The value that the body stands for.
    ///
    /// # Errors
    /// It cannot be read: why, and where.
    pub fn view(&self) -> Result<Ref<'_>, &Unreadable> {
        static NULL: Value = Value::Null;
        match self.0.view.get_or_init(|| read(&self.0.bytes, self.0.declared)) {
            View::Doc(doc) => Ok(Ref::Node(doc.root())),
            View::Form(value) => Ok(Ref::Value(value)),
            View::Text(text) => Ok(Ref::Text(text)),
            View::Empty => Ok(Ref::Value(&NULL)),
            View::Unreadable(why) => Err(why),
        }
    }

    /// The view, if it was computed already.
    pub fn parsed_if_cached(&self) -> Option<Result<Ref<'_>, &Unreadable>> {
        self.0.view.get().map(|_| self.view())
    }

    /// The value, unless the body is plain text or empty.
    pub fn parsed_unless_text(&self) -> Option<Ref<'_>> {
        let view = self.view().ok()?;
        match self.0.view.get() {
            Some(View::Doc(_) | View::Form(_)) => Some(view),
            _ => None,
        }
    }

    /// Whether the bytes themselves are JSON, so that they can be sent as such.
    pub fn is_json(&self) -> bool {
        let _ = self.view();
        matches!(self.0.view.get(), Some(View::Doc(_)))
    }

    /// Whether it is JSON or empty.
    pub fn is_json_or_empty(&self) -> bool {
        self.is_json() || matches!(self.0.view.get(), Some(View::Empty))
    }

    /// A text inside the body, by a JSON pointer (RFC 6901). An empty text counts as missing.
    pub fn text_at(&self, pointer: &str) -> Option<Cow<'_, str>> {
        self.view().ok()?.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
    }
}

fn read(bytes: &Bytes, declared: Declared) -> View {
    if declared == Declared::Form && !is_mislabelled(bytes) {
        return form(bytes).map_or_else(View::Unreadable, View::Form);
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return View::Empty;
    }
    let why = match json::parse(bytes.clone()) {
        Ok(doc) => return View::Doc(doc),
        Err(why) => why,
    };
    // What was meant to be JSON is not taken for a text when it is broken.
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let is_meant = match declared {
        Declared::Json => true,
        Declared::Text => false,
        Declared::Unknown | Declared::Form => matches!(first, Some(b'{' | b'[')),
    };
    match std::str::from_utf8(bytes) {
        Ok(text) if !is_meant => View::Text(text.to_owned()),
        _ => View::Unreadable(why),
    }
}

/// Whether a body that is declared as a form is something else: many clients send JSON or plain
/// text under this type, which is their default. A form's first field does not begin with a
/// bracket, and a form with fields has at least one `=`.
fn is_mislabelled(bytes: &[u8]) -> bool {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        Some(b'{' | b'[') => true,
        Some(_) => !bytes.contains(&b'=') && !bytes.contains(&b'&'),
        None => false,
    }
}

/// Reads a form as an object; repeated fields become lists. A form whose only field is `payload`,
/// as GitHub and Slack send it, stands for the JSON in that field.
fn form(bytes: &[u8]) -> Result<Value, Unreadable> {
    let mut fields: Map<String, Value> = Map::new();
    for (count, (name, value)) in url::form_urlencoded::parse(bytes).enumerate() {
        if count == FORM_FIELDS_MAX {
            let why = format!("the form has more than {FORM_FIELDS_MAX} fields");
            return Err(Unreadable { word: "too_many_fields", why });
        }
        if name.starts_with(json::RESERVED) {
            let why = format!("field names that start with `{}` are reserved", json::RESERVED);
            return Err(Unreadable { word: Unreadable::RESERVED_KEY, why });
        }
        let value = Value::String(value.into_owned());
        match fields.get_mut(name.as_ref()) {
            None => {
                fields.insert(name.into_owned(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    let text = fields.get("payload").and_then(Value::as_str);
    let read = text.map(json::value_of);
    let is_meant = text.is_some_and(|text| text.trim_start().starts_with(['{', '[']));
    if let (1, true, Some(Err(why))) = (fields.len(), is_meant, &read) {
        return Err(Unreadable {
            word: why.word,
            why: format!("the field `payload`: {}", why.why),
        });
    }
    match read.and_then(std::result::Result::ok) {
        Some(payload @ Value::Object(_)) if fields.len() == 1 => Ok(payload),
        Some(payload @ Value::Object(_)) => {
            fields.insert("payload".to_owned(), payload);
            Ok(Value::Object(fields))
        }
        _ => Ok(Value::Object(fields)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(declared: &str, bytes: &'static [u8]) -> Result<Value, &'static str> {
        let body = Body::declared(bytes, Declared::of(Some(declared)));
        body.view().map(Ref::to_value).map_err(|why| why.word)
    }

    #[test]
    fn a_body_is_what_it_says_and_what_it_can_be_read_as() {
        for (declared, bytes, expected) in [
            ("application/json", &br#"{"a":1}"#[..], Ok(json!({"a": 1}))),
            ("application/cloudevents+json; charset=utf-8", b"[1]", Ok(json!([1]))),
            ("text/plain", br#"{"a":1}"#, Ok(json!({"a": 1}))),
            ("text/plain", b"hello", Ok(json!("hello"))),
            ("", b"hello", Ok(json!("hello"))),
            ("", b"42", Ok(json!(42))),
            ("", b" ", Ok(Value::Null)),
            ("", b"{\"a\":", Err("not_json")),
            ("application/json", b"hello", Err("not_json")),
            ("text/plain", b"{a}", Ok(json!("{a}"))),
            ("application/octet-stream", b"\xff\x00", Err("not_utf8")),
            (
                "application/x-www-form-urlencoded",
                b"a=1&b=x+y&a=2",
                Ok(json!({"a": ["1", "2"], "b": "x y"})),
            ),
            (
                "application/x-www-form-urlencoded",
                b"payload=%7B%22action%22%3A%22opened%22%7D",
                Ok(json!({"action": "opened"})),
            ),
            (
                "application/x-www-form-urlencoded",
                b"payload=%7B%7D&x=1",
                Ok(json!({"payload": {}, "x": "1"})),
            ),
            ("application/x-www-form-urlencoded", b"payload=%7B%22a%22", Err("not_json")),
            (
                "application/x-www-form-urlencoded",
                b"{\"a\": 1, \"b\": \"x=y&z\"}",
                Ok(json!({"a": 1, "b": "x=y&z"})),
            ),
            ("application/x-www-form-urlencoded", b"[1]", Ok(json!([1]))),
            ("application/x-www-form-urlencoded", b"{\"a\":", Err("not_json")),
            ("application/x-www-form-urlencoded", b"hello", Ok(json!("hello"))),
            ("application/x-www-form-urlencoded", b"42", Ok(json!(42))),
            ("application/x-www-form-urlencoded", b"", Ok(json!({}))),
        ] {
            assert_eq!(
                view(declared, bytes),
                expected,
                "{declared} {}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn a_form_has_no_reserved_field() {
        let body = Body::declared("%24serde_json::private::Number=17", Declared::Form);
        assert_eq!(body.view().unwrap_err().word, "reserved_key");
    }

    #[test]
    fn a_form_has_a_bound() {
        let body = Body::declared("a=1&".repeat(100_000), Declared::Form);
        assert_eq!(body.view().unwrap_err().word, "too_many_fields");
    }
}
