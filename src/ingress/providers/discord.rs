//! Discord: `X-Signature-Ed25519` and `X-Signature-Timestamp`, Ed25519 in hexadecimal over
//! timestamp and body, 300 s. The secret is the application's public key in hexadecimal. Verified
//! pings are answered. Source: Discord's documentation, "Webhook events" and "Interactions",
//! preparing for requests.

use serde_json::json;

use crate::config::CheckSecret;
use crate::ingress::check;
use crate::ingress::provider::{Challenge, EventType, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;
use crate::model::json::Ref;

pub struct Discord;

const HEADER: &str = "x-signature-ed25519";
const TIME: &str = "x-signature-timestamp";

impl Provider for Discord {
    fn name(&self) -> &'static str {
        "discord"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        let signature = check::unhex(check::header(request, HEADER)?)?;
        let time = check::header(request, TIME)?;
        let at = check::seconds(time)?;
        check::fresh(at, scheme, check::TOLERANCE)?;
        let message = [time.as_bytes(), request.bytes()].concat();
        let matches = |key: Vec<u8>| check::ed25519_matches(&key, &message, &signature);
        let keys = scheme.secrets.iter().filter_map(|s| hex::decode(s.expose()).ok());
        match keys.take(check::PUBLIC_KEY_SIGNATURES_MAX).any(matches) {
            true => Ok(()),
            false => Err(Reason::Wrong),
        }
    }

    /// Signs with a private seed in hexadecimal; the public key that verifies cannot sign.
    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        let time = check::now_seconds(scheme.now);
        let message = [time.as_bytes(), request.bytes()].concat();
        let seed = scheme.secrets.first().and_then(|s| hex::decode(s.expose()).ok());
        if let Some(signature) = seed.and_then(|seed| check::ed25519_sign(&seed, &message)) {
            check::set(request, TIME, &time);
            check::set(request, HEADER, &hex::encode(signature));
        }
    }

    fn kind(&self, request: &Raw) -> EventType {
        if let Some(event) = request.json_text("/event/type") {
            return EventType::plain(event);
        }
        // Interactions carry a number: Discord's documentation, "Receiving and responding",
        // interaction type.
        let number = request
            .body
            .parsed_unless_text()
            .and_then(|body| body.get("type"))
            .and_then(Ref::as_number);
        let name = match number.as_deref() {
            Some("1") => "ping",
            Some("2") => "application_command",
            Some("3") => "message_component",
            Some("4") => "application_command_autocomplete",
            Some("5") => "modal_submit",
            _ => return EventType::plain("interaction"),
        };
        EventType { name: name.to_owned(), type_aliases: vec!["interaction".to_owned()] }
    }

    fn dedupe_key(&self, request: &Raw) -> Option<String> {
        request.json_text("/id")
    }

    fn challenge(&self, request: &Raw) -> Option<Challenge> {
        let body = request.body.parsed_unless_text()?;
        match body.get("type")?.as_number()?.as_ref() {
            "0" => Some(Challenge { status: 204, body: None }),
            "1" if body.get("event").is_none() => Some(Challenge {
                status: 200,
                body: Some(("application/json", json!({ "type": 1 }).to_string())),
            }),
            _ => None,
        }
    }

    fn secret_check(&self) -> CheckSecret {
        |secret| match hex::decode(secret) {
            Ok(key) if key.len() == 32 => Ok(()),
            _ => {
                Err("the secret of a discord source must be the public key of the application: 64 \
                hexadecimal digits"
                    .to_owned())
            }
        }
    }

    fn sample(&self, kind: &str, id: &str) -> Sample {
        Sample::json(&json!({
            "type": 1,
            "id": id,
            "event": { "type": kind, "data": { "user": { "username": "ada" } } },
        }))
    }
}
