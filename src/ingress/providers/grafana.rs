//! Grafana: `X-Grafana-Alerting-Signature`, HMAC-SHA256 in hexadecimal over the body; with a
//! timestamp header configured, over `timestamp:body`, 300 s. Source: Grafana's documentation,
//! "Configure the webhook notifier", HMAC signature.

use serde_json::json;

use crate::ingress::check::{self, Algorithm};
use crate::ingress::provider::{EventType, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;

pub struct Grafana;

const HEADER: &str = "x-grafana-alerting-signature";

impl Provider for Grafana {
    fn name(&self) -> &'static str {
        "grafana"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        let signature = check::unhex(check::header(request, HEADER)?)?;
        let Some(name) = &scheme.options.timestamp_header else {
            return match check::any_matches(
                scheme.secrets,
                Algorithm::Sha256,
                &[request.bytes()],
                &signature,
            ) {
                true => Ok(()),
                false => Err(Reason::Wrong),
            };
        };
        let time = check::header(request, name)?;
        let at = check::seconds(time)?;
        check::fresh(at, scheme, check::TOLERANCE)?;
        match check::any_matches(
            scheme.secrets,
            Algorithm::Sha256,
            &[time.as_bytes(), b":", request.bytes()],
            &signature,
        ) {
            true => Ok(()),
            false => Err(Reason::Wrong),
        }
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        let key = check::signing_key(scheme);
        let time = check::now_seconds(scheme.now);
        let signature = match &scheme.options.timestamp_header {
            Some(name) => {
                if let (Ok(name), Ok(value)) = (
                    http::HeaderName::from_bytes(name.as_bytes()),
                    http::HeaderValue::from_str(&time),
                ) {
                    request.headers.insert(name, value);
                }
                check::keyed_hash(Algorithm::Sha256, key, &[time.as_bytes(), b":", request.bytes()])
            }
            None => check::keyed_hash(Algorithm::Sha256, key, &[request.bytes()]),
        };
        check::set(request, HEADER, &hex::encode(signature));
    }

    fn kind(&self, request: &Raw) -> EventType {
        EventType::plain(request.json_text_or("/status", "event"))
    }

    fn sample(&self, kind: &str, _: &str) -> Sample {
        Sample::json(&json!({
            "status": kind,
            "title": "Water level",
            "alerts": [{ "labels": { "alertname": "WaterLevel", "severity": "warning" } }],
        }))
    }
}
