//! Paddle: `Paddle-Signature: ts=…;h1=…[;h1=…]`, HMAC-SHA256 in hexadecimal over `ts:body`, 300 s;
//! any matches. Source: Paddle's documentation, "Verify webhook signatures".

use serde_json::json;

use crate::ingress::check::Timed;
use crate::ingress::provider::{EventType, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;

pub struct Paddle;

/// Paddle's layout of the header that holds the time and the signatures.
const SIGNATURE: Timed = Timed {
    header: "paddle-signature",
    separator: ';',
    time: "ts",
    signature: "h1",
    joint: ":",
    none: Reason::Malformed,
};

impl Provider for Paddle {
    fn name(&self) -> &'static str {
        "paddle"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        SIGNATURE.verify(request, scheme)
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        SIGNATURE.sign(request, scheme);
    }

    fn kind(&self, request: &Raw) -> EventType {
        EventType::plain(request.json_text_or("/event_type", "event"))
    }

    fn dedupe_key(&self, request: &Raw) -> Option<String> {
        request.json_text("/event_id")
    }

    fn sample(&self, kind: &str, id: &str) -> Sample {
        Sample::json(&json!({
            "event_id": format!("evt_{id}"),
            "event_type": kind,
            "data": { "id": format!("txn_{id}"), "status": "completed" },
        }))
    }
}
