//! Stripe: `Stripe-Signature: t=…,v1=…`, HMAC-SHA256 in hexadecimal over `t.body`, 300 s; the
//! secret with its `whsec_`. Source: Stripe's documentation, "Verify webhook signatures manually".

use serde_json::json;

use crate::ingress::check::Timed;
use crate::ingress::provider::{EventType, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;

pub struct Stripe;

/// `Stripe-Signature`. Other schemes in it (`v0`) are test signatures and prove nothing.
const SIGNATURE: Timed = Timed {
    header: "stripe-signature",
    separator: ',',
    time: "t",
    signature: "v1",
    joint: ".",
    none: Reason::Missing,
};

impl Provider for Stripe {
    fn name(&self) -> &'static str {
        "stripe"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        SIGNATURE.verify(request, scheme)
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        SIGNATURE.sign(request, scheme);
    }

    fn kind(&self, request: &Raw) -> EventType {
        EventType::plain(request.json_text_or("/type", "unknown"))
    }

    fn dedupe_key(&self, request: &Raw) -> Option<String> {
        request.json_text("/id")
    }

    fn sample(&self, kind: &str, id: &str) -> Sample {
        Sample::json(&json!({
            "id": format!("evt_sample_{id}"), "object": "event", "type": kind,
            "data": { "object": {
                "id": format!("in_sample_{id}"), "amount_paid": 4200, "currency": "eur",
                "customer": "cus_fictional",
            } }
        }))
    }
}
