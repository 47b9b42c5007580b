//! CloudEvents 1.0 over HTTP: types and identities from `ce-*` headers in binary mode, from the
//! body in structured mode, and batches. Source: the CloudEvents specification 1.0, and its HTTP
//! protocol binding and JSON format.

use std::borrow::Cow;

use super::admit::AdmitError;
use super::raw::Raw;
use crate::model::body::{Body, Declared};
use crate::model::json::{Ref, Type};

/// The most events in one batch.
pub const BATCH_MAX: usize = 1_000;

/// The type in the `ce-type` header (binary mode).
pub fn binary_type(request: &Raw) -> Option<String> {
    let kind = decoded(request.header("ce-type")?);
    Some(kind.trim()).filter(|kind| !kind.is_empty()).map(str::to_owned)
}

/// The decoded value of a `ce-*` header: quotes are removed, and percent-encoding is resolved, in
/// which senders write what a header cannot hold (HTTP binding, 3.1.3.2).
fn decoded(value: &str) -> Cow<'_, str> {
    let value = value.trim();
    let unquoted = match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) if inner.contains('\\') => Cow::Owned(unescaped(inner)),
        Some(inner) => Cow::Borrowed(inner),
        None => Cow::Borrowed(value),
    };
    match percent_encoding::percent_decode_str(&unquoted).decode_utf8_lossy() {
        Cow::Borrowed(_) => unquoted,
        Cow::Owned(decoded) => Cow::Owned(decoded),
    }
}

/// The content of a quoted string. A backslash escapes the character after it.
fn unescaped(text: &str) -> String {
    let mut chars = text.chars();
    std::iter::from_fn(|| match chars.next()? {
        '\\' => chars.next(),
        other => Some(other),
    })
    .collect()
}

/// The type in the body, when its content type says that it is a CloudEvent (structured mode).
pub fn structured_type(request: &Raw) -> Option<String> {
    is_structured(request).then(|| request.json_text("/type")).flatten()
}

/// The type in either mode.
pub fn event_type(request: &Raw) -> Option<String> {
    binary_type(request).or_else(|| structured_type(request))
}

/// What identifies a CloudEvent: source and id together.
pub fn identity(request: &Raw) -> Option<String> {
    let (source, id) = match is_structured(request) {
        true => (request.json_text("/source")?, request.json_text("/id")?),
        false => (
            decoded(request.header("ce-source")?).into_owned(),
            decoded(request.header("ce-id")?).into_owned(),
        ),
    };
    if id.is_empty() {
        return None;
    }
    Some(format!("{}:{source} {id}", source.len()))
}

/// The attributes that every CloudEvent must have.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// The events of a batch, each as a request in structured mode; `None` if the request is no batch.
/// A batch may be empty.
///
/// # Errors
/// The content type says that it is a batch, but it is not, or one of its members is no CloudEvent.
pub fn batch(request: &Raw) -> Result<Option<Vec<Raw>>, AdmitError> {
    if essence(request).as_deref() != Some("application/cloudevents-batch+json") {
        return Ok(None);
    }
    let view = request.body.view().map_err(|why| AdmitError::Batch(why.to_string()))?;
    if view.kind() != Type::Array {
        return Err(AdmitError::Batch("a batch of CloudEvents must be a JSON array".to_owned()));
    }
    let items = view.items();
    if items.len() > BATCH_MAX {
        return Err(AdmitError::Batch(format!(
            "a batch may have at most {BATCH_MAX} events, but this one has {}",
            items.len()
        )));
    }
    for (at, item) in items.iter().enumerate() {
        let has =
            |name: &&str| item.get(name).and_then(Ref::as_str).is_some_and(|text| !text.is_empty());
        if let Some(lacks) = REQUIRED.iter().find(|name| !has(name)) {
            return Err(AdmitError::Batch(format!(
                "item {at} of the batch is not a valid CloudEvent: the string `{lacks}` is missing"
            )));
        }
    }
    let one = |item: Ref<'_>| {
        let mut headers = request.headers.clone();
        headers.insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/cloudevents+json"),
        );
        let body = Body::declared(item.to_value().to_string(), Declared::Json);
        Raw { uri: request.uri.clone(), origin: request.origin.clone(), headers, body }
    };
    Ok(Some(items.into_iter().map(one).collect()))
}

fn is_structured(request: &Raw) -> bool {
    essence(request).as_deref() == Some("application/cloudevents+json")
}

fn essence(request: &Raw) -> Option<String> {
    let content_type = request.header("content-type")?;
    Some(content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase())
}
