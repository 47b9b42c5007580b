//! GitHub: `X-Hub-Signature-256: sha256=…`, HMAC-SHA256 in hexadecimal over the body.
//! Source: GitHub's documentation, "Validating webhook deliveries".

use serde_json::json;

use crate::ingress::check::{self, Algorithm};
use crate::ingress::provider::{EventType, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;

pub struct GitHub;

const HEADER: &str = "x-hub-signature-256";

impl Provider for GitHub {
    fn name(&self) -> &'static str {
        "github"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        // `X-Hub-Signature` with SHA-1 is not accepted in its place.
        let header = check::header(request, HEADER)?;
        let signature = check::unhex(header.strip_prefix("sha256=").ok_or(Reason::Malformed)?)?;
        match check::any_matches(scheme.secrets, Algorithm::Sha256, &[request.bytes()], &signature)
        {
            true => Ok(()),
            false => Err(Reason::Wrong),
        }
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        let signature =
            check::keyed_hash(Algorithm::Sha256, check::signing_key(scheme), &[request.bytes()]);
        check::set(request, HEADER, &format!("sha256={}", hex::encode(signature)));
    }

    /// The event's name is in a header that is not signed; GitHub defines it so.
    fn kind(&self, request: &Raw) -> EventType {
        let action = request.json_text("/action");
        match (request.header("x-github-event").filter(|e| !e.is_empty()), action) {
            (Some(event), Some(action)) => EventType {
                name: format!("{event}.{action}"),
                type_aliases: vec![event.to_owned(), action],
            },
            (Some(event), None) => EventType::plain(event),
            (None, Some(action)) => EventType::plain(action),
            (None, None) => {
                let is_ping = request
                    .body
                    .parsed_unless_text()
                    .is_some_and(|b| b.get("zen").is_some() && b.get("hook_id").is_some());
                EventType::plain(if is_ping { "ping" } else { "push" })
            }
        }
    }

    fn dedupe_key(&self, request: &Raw) -> Option<String> {
        request.header("x-github-delivery").filter(|d| !d.is_empty()).map(str::to_owned)
    }

    fn kept_headers(&self) -> &'static [&'static str] {
        &["x-github-event", "x-github-delivery"]
    }

    fn sample(&self, kind: &str, id: &str) -> Sample {
        let (event, action) = kind.split_once('.').map_or((kind, None), |(e, a)| (e, Some(a)));
        let mut body = json!({
            "ref": "refs/heads/main", "repository": { "full_name": "fictional/harbour" },
            "pusher": { "name": "ada" }, "head_commit": { "message": "Raise the tide" }
        });
        if let (Some(action), Some(map)) = (action, body.as_object_mut()) {
            map.insert("action".into(), json!(action));
        }
        Sample::json(&body).with("x-github-event", event).with("x-github-delivery", id)
    }
}
