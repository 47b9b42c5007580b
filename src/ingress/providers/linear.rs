//! Linear: `Linear-Signature`, HMAC-SHA256 in hexadecimal over the body; `webhookTimestamp` in the
//! body, 60 s. Source: Linear's documentation, "Webhooks", securing webhooks.

use std::time::Duration;

use serde_json::json;

use crate::ingress::check::{self, Algorithm};
use crate::ingress::provider::{EventType, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;
use crate::model::json::Ref;

pub struct Linear;

const HEADER: &str = "linear-signature";
const WINDOW: Duration = Duration::from_secs(60);

impl Provider for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        let signature = check::unhex(check::header(request, HEADER)?)?;
        if !check::any_matches(scheme.secrets, Algorithm::Sha256, &[request.bytes()], &signature) {
            return Err(Reason::Wrong);
        }
        // Genuine, so its timestamp may be read.
        let time = request
            .body
            .parsed_unless_text()
            .and_then(|body| body.get("webhookTimestamp"))
            .and_then(Ref::as_number);
        match time.and_then(|ms| ms.parse::<i64>().ok()) {
            Some(ms) => check::fresh(ms.div_euclid(1000), scheme, WINDOW),
            None => Ok(()),
        }
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        let signature =
            check::keyed_hash(Algorithm::Sha256, check::signing_key(scheme), &[request.bytes()]);
        check::set(request, HEADER, &hex::encode(signature));
    }

    fn kind(&self, request: &Raw) -> EventType {
        match (request.json_text("/type"), request.json_text("/action")) {
            (Some(kind), Some(action)) => {
                EventType { name: format!("{kind}.{action}"), type_aliases: vec![kind, action] }
            }
            (Some(one), None) | (None, Some(one)) => EventType::plain(one),
            (None, None) => EventType::plain("event"),
        }
    }

    fn dedupe_key(&self, request: &Raw) -> Option<String> {
        request.header("linear-delivery").filter(|d| !d.is_empty()).map(str::to_owned)
    }

    fn kept_headers(&self) -> &'static [&'static str] {
        &["linear-delivery", "linear-event"]
    }

    fn sample(&self, kind: &str, id: &str) -> Sample {
        let (kind, action) = kind.split_once('.').unwrap_or((kind, "create"));
        Sample::json(&json!({
            "type": kind,
            "action": action,
            "data": { "id": id, "title": "Mend the sluice" },
        }))
        .with("linear-delivery", id)
    }
}
