//! CloudEvents 1.0 over HTTP: types and identities from `ce-*` headers in binary mode, from the body in structured mode, and
//! batches. Source: the CloudEvents specification 1.0, and its HTTP protocol binding and JSON format.

use super::admit::Refusal;
use super::raw::Raw;
use crate::model::body::{Body, Declared};

/// No batch has more events.
pub const BATCH_MAX: usize = 1_000;

/// The type in the `ce-type` header (binary mode).
pub fn binary_type(request: &Raw) -> Option<String> {
    request.header("ce-type").filter(|t| !t.trim().is_empty()).map(|t| t.trim().to_owned())
}

/// The type in the body, when its content type says that it is a CloudEvent (structured mode).
pub fn structured_type(request: &Raw) -> Option<String> {
    is_structured(request).then(|| request.json_text("/type")).flatten()
}

/// The type in either mode.
pub fn event_type(request: &Raw) -> Option<String> {
    binary_type(request).or_else(|| structured_type(request))
}

/// What makes two CloudEvents the same one: source and id together.
pub fn identity(request: &Raw) -> Option<String> {
    let (source, id) = match is_structured(request) {
        true => (request.json_text("/source")?, request.json_text("/id")?),
        false => (request.header("ce-source")?.to_owned(), request.header("ce-id").filter(|id| !id.is_empty())?.to_owned()),
    };
    Some(format!("{}:{source} {id}", source.len()))
}

/// The events of a batch, each as a request in structured mode; `None` where the request is no batch.
///
/// # Errors
/// The content type says that it is one, and it is not.
pub fn batch(request: &Raw) -> Result<Option<Vec<Raw>>, Refusal> {
    if essence(request).as_deref() != Some("application/cloudevents-batch+json") {
        return Ok(None);
    }
    let view = request.body.view().map_err(|why| Refusal::Batch(why.to_string()))?;
    if view.kind() != crate::model::json::Type::Array {
        return Err(Refusal::Batch("a batch of CloudEvents is a list".to_owned()));
    }
    let items = view.items();
    if items.is_empty() || items.len() > BATCH_MAX {
        return Err(Refusal::Batch(format!("a batch has 1 to {BATCH_MAX} events, this one has {}", items.len())));
    }
    let one = |item: crate::model::json::Ref<'_>| {
        let mut headers = request.headers.clone();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/cloudevents+json"));
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
