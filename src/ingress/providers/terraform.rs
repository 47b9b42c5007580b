//! HCP Terraform: `X-TFE-Notification-Signature`, HMAC-SHA512 in hexadecimal over the body.
//! Source: HashiCorp's documentation, "Notification configurations", notification authenticity.

use serde_json::json;

use crate::ingress::check::{self, Algorithm};
use crate::ingress::provider::{EventType, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;

pub struct Terraform;

const HEADER: &str = "x-tfe-notification-signature";

impl Provider for Terraform {
    fn name(&self) -> &'static str {
        "terraform"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        let signature = check::unhex(check::header(request, HEADER)?)?;
        match check::any_matches(scheme.secrets, Algorithm::Sha512, &[request.bytes()], &signature)
        {
            true => Ok(()),
            false => Err(Reason::Wrong),
        }
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        let signature =
            check::keyed_hash(Algorithm::Sha512, check::signing_key(scheme), &[request.bytes()]);
        check::set(request, HEADER, &hex::encode(signature));
    }

    fn kind(&self, request: &Raw) -> EventType {
        // Version 1 of the payload has a list of notifications, version 2 (assessments and others)
        // names its trigger itself.
        let trigger =
            request.json_text("/notifications/0/trigger").or_else(|| request.json_text("/trigger"));
        EventType::plain(trigger.unwrap_or_else(|| "event".to_owned()))
    }

    /// A notification has no id of its own. Run, trigger and instant together identify it.
    fn dedupe_key(&self, request: &Raw) -> Option<String> {
        let run = request.json_text("/run_id")?;
        let trigger = request.json_text("/notifications/0/trigger")?;
        let at = request.json_text("/notifications/0/run_updated_at")?;
        Some(format!("{run}/{trigger}/{at}"))
    }

    fn sample(&self, kind: &str, id: &str) -> Sample {
        Sample::json(&json!({
            "payload_version": 1, "run_id": format!("run-{id}"), "workspace_name": "harbour",
            "organization_name": "fictional",
            "notifications": [{
                "trigger": kind, "run_status": "applied",
                "run_updated_at": "2026-01-31T10:00:00.000Z",
            }]
        }))
    }
}
