//! Event types from CloudEvents 1.0 (HTTP binding): `ce-*` headers in binary mode, the body in structured mode.

use super::raw::Raw;

/// The type in the `ce-type` header (binary mode).
pub fn binary_type(request: &Raw) -> Option<String> {
    request.header("ce-type").filter(|t| !t.trim().is_empty()).map(|t| t.trim().to_owned())
}

/// The type in the body, when its content type says that it is a CloudEvent (structured mode).
pub fn structured_type(request: &Raw) -> Option<String> {
    let content_type = request.header("content-type")?.to_ascii_lowercase();
    if !content_type.contains("application/cloudevents+json") {
        return None;
    }
    request.json_text("/type").map(str::to_owned)
}
