//! Slack: `X-Slack-Signature: v0=…` and `X-Slack-Request-Timestamp`, HMAC-SHA256 in hexadecimal
//! over `v0:timestamp:body`, 300 s. A verified `url_verification` is answered with its challenge.
//! Source: Slack's documentation, "Verifying requests from Slack".

use serde_json::json;

use crate::ingress::check::{self, Algorithm};
use crate::ingress::provider::{Challenge, EventType, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;

pub struct Slack;

const HEADER: &str = "x-slack-signature";
const TIME: &str = "x-slack-request-timestamp";

impl Provider for Slack {
    fn name(&self) -> &'static str {
        "slack"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        let header = check::header(request, HEADER)?;
        let time = check::header(request, TIME)?;
        let signature = check::unhex(header.strip_prefix("v0=").ok_or(Reason::Malformed)?)?;
        let at = check::seconds(time)?;
        check::fresh(at, scheme, check::TOLERANCE)?;
        match check::any_matches(
            scheme.secrets,
            Algorithm::Sha256,
            &[b"v0:", time.as_bytes(), b":", request.bytes()],
            &signature,
        ) {
            true => Ok(()),
            false => Err(Reason::Wrong),
        }
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        let time = check::now_seconds(scheme.now);
        let parts = [b"v0:", time.as_bytes(), b":", request.bytes()];
        let signature = check::keyed_hash(Algorithm::Sha256, check::signing_key(scheme), &parts);
        check::set(request, TIME, &time);
        check::set(request, HEADER, &format!("v0={}", hex::encode(signature)));
    }

    fn kind(&self, request: &Raw) -> EventType {
        match request.json_text("/type").as_deref() {
            Some("event_callback") => {
                EventType::plain(request.json_text_or("/event/type", "event"))
            }
            Some(kind) => EventType::plain(kind),
            // A slash command comes as a form with the command in it.
            None => match request.json_text("/command") {
                Some(command) => {
                    EventType { name: "slash_command".to_owned(), type_aliases: vec![command] }
                }
                None => EventType::plain("event"),
            },
        }
    }

    fn dedupe_key(&self, request: &Raw) -> Option<String> {
        request.json_text("/event_id")
    }

    fn challenge(&self, request: &Raw) -> Option<Challenge> {
        if request.json_text("/type").as_deref() != Some("url_verification") {
            return None;
        }
        let challenge = request.json_text("/challenge")?;
        Some(Challenge { status: 200, body: Some(("text/plain; charset=utf-8", challenge)) })
    }

    fn sample(&self, kind: &str, id: &str) -> Sample {
        Sample::json(&json!({
            "type": "event_callback",
            "event_id": format!("Ev{id}"),
            "event": { "type": kind, "text": "high water at noon" },
        }))
    }
}
