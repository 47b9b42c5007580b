//! PagerDuty: `X-PagerDuty-Signature: v1=…[,v1=…]`, HMAC-SHA256 in hexadecimal over the body; any
//! matches. Source: PagerDuty's documentation, "Verifying webhook signatures".

use serde_json::json;

use crate::ingress::check::{self, Algorithm};
use crate::ingress::provider::{EventType, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;

pub struct PagerDuty;

const HEADER: &str = "x-pagerduty-signature";

impl Provider for PagerDuty {
    fn name(&self) -> &'static str {
        "pagerduty"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        let header = check::header(request, HEADER)?;
        let offered = check::values(header, ',', "v1");
        let offered = check::offered(offered, check::unhex, Reason::Malformed)?;
        match check::any_of_matches(scheme.secrets, Algorithm::Sha256, &[request.bytes()], &offered)
        {
            true => Ok(()),
            false => Err(Reason::Wrong),
        }
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        let signature =
            check::keyed_hash(Algorithm::Sha256, check::signing_key(scheme), &[request.bytes()]);
        check::set(request, HEADER, &format!("v1={}", hex::encode(signature)));
    }

    fn kind(&self, request: &Raw) -> EventType {
        EventType::plain(request.json_text_or("/event/event_type", "event"))
    }

    fn dedupe_key(&self, request: &Raw) -> Option<String> {
        request.json_text("/event/id")
    }

    fn sample(&self, kind: &str, id: &str) -> Sample {
        Sample::json(&json!({
            "severity": "critical",
            "event": {
                "id": id, "event_type": kind, "resource_type": "incident",
                "data": { "title": "The tide gauge is silent", "urgency": "high" },
            }
        }))
    }
}
