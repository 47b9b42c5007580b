//! An HTTP request as received, before anything in it is trusted.

use bytes::Bytes;
use http::{HeaderMap, Uri};

use crate::model::Body;
use crate::model::body::Declared;

/// A request to a source, with everything that signature schemes may look at.
#[derive(Debug, Clone)]
pub struct Raw {
    /// The request target: path and query.
    pub uri: Uri,
    /// `https://host` as the sender saw it, for schemes that sign the URL.
    pub origin: String,
    /// All headers as received, repeats included. Nothing in them is verified yet.
    pub headers: HeaderMap,
    /// The body exactly as received. Signatures are computed over these bytes.
    pub body: Body,
}

impl Raw {
    /// A request with these parts.
    pub fn new(
        uri: Uri,
        origin: impl Into<String>,
        headers: HeaderMap,
        body: impl Into<Bytes>,
    ) -> Self {
        let declared = Declared::of_headers(&headers);
        Self { uri, origin: origin.into(), headers, body: Body::declared(body, declared) }
    }

    /// A header's value if it stands there exactly once and is readable text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        if values.next().is_some() {
            return None;
        }
        first.to_str().ok()
    }

    /// The body's bytes, exactly as received, for hashing.
    pub fn bytes(&self) -> &[u8] {
        self.body.bytes()
    }

    /// A text in the body by a JSON pointer, such as `/event/type`. Forms work too. `None` when it
    /// is missing, empty or not a text.
    pub fn json_text(&self, pointer: &str) -> Option<String> {
        self.body.text_at(pointer).map(std::borrow::Cow::into_owned)
    }

    /// A text in the body by a JSON pointer, or `otherwise` if there is none.
    pub fn json_text_or(&self, pointer: &str, otherwise: &str) -> String {
        self.json_text(pointer).unwrap_or_else(|| otherwise.to_owned())
    }
}
