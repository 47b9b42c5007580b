//! GitLab: a plain token in `X-Gitlab-Token`; or, with a signing token (`whsec_…`), the three
//! `webhook-*` headers of Standard Webhooks, and then the plain token is not accepted.
//! Source: GitLab's documentation, "Webhooks", secret token and signing token.

use serde_json::json;

use super::standard;
use crate::config::CheckSecret;
use crate::ingress::check;
use crate::ingress::provider::{EventType, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;
use crate::model::Secret;

pub struct GitLab;

const HEADER: &str = "x-gitlab-token";

fn signs(secret: &Secret) -> bool {
    secret.expose().starts_with("whsec_")
}

impl Provider for GitLab {
    fn name(&self) -> &'static str {
        "gitlab"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        let signing: Vec<Secret> = scheme.secrets.iter().filter(|s| signs(s)).cloned().collect();
        let mut reason = Reason::Missing;
        if !signing.is_empty() {
            match standard::verify(request, &Scheme { secrets: &signing, ..*scheme }) {
                Ok(()) => return Ok(()),
                Err(why) => reason = why,
            }
        }
        if signing.len() == scheme.secrets.len() {
            return Err(reason);
        }
        let token = check::header(request, HEADER)?;
        match scheme.secrets.iter().filter(|s| !signs(s)).any(|s| s.matches(token)) {
            true => Ok(()),
            false => Err(Reason::Wrong),
        }
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        match scheme.secrets.first() {
            Some(secret) if signs(secret) => standard::sign(request, scheme),
            Some(secret) => check::set(request, HEADER, secret.expose()),
            None => {}
        }
    }

    fn kind(&self, request: &Raw) -> EventType {
        let header = request.header("x-gitlab-event").filter(|h| !h.is_empty()).map(str::to_owned);
        let Some(kind) = request.json_text("/object_kind") else {
            return match request.json_text("/event_name") {
                Some(name) => EventType { name, type_aliases: header.into_iter().collect() },
                None => EventType::plain(header.unwrap_or_else(|| "event".to_owned())),
            };
        };
        // Most events say it in their attributes; releases, milestones and some others at the top.
        match request
            .json_text("/object_attributes/action")
            .or_else(|| request.json_text("/action"))
        {
            Some(action) => EventType {
                name: format!("{kind}.{action}"),
                type_aliases: std::iter::once(kind).chain(header).collect(),
            },
            None => EventType { name: kind, type_aliases: header.into_iter().collect() },
        }
    }

    fn dedupe_key(&self, request: &Raw) -> Option<String> {
        // `X-Gitlab-Event-UUID` is shared by the events of recursive webhooks: two of them are no
        // repeat.
        ["webhook-id", "idempotency-key"]
            .into_iter()
            .find_map(|name| request.header(name).filter(|v| !v.is_empty()).map(str::to_owned))
    }

    fn kept_headers(&self) -> &'static [&'static str] {
        &[
            "x-gitlab-event",
            "x-gitlab-event-uuid",
            "x-gitlab-webhook-uuid",
            "x-gitlab-instance",
            "webhook-id",
        ]
    }

    fn secret_check(&self) -> CheckSecret {
        |secret| if secret.starts_with("whsec_") { standard::check_secret(secret) } else { Ok(()) }
    }

    fn sample(&self, kind: &str, id: &str) -> Sample {
        let (kind, action) = kind.split_once('.').map_or((kind, None), |(k, a)| (k, Some(a)));
        let body = json!({
            "object_kind": kind,
            "project": { "path_with_namespace": "fictional/harbour" },
            "object_attributes": { "iid": 7, "action": action },
        });
        Sample::json(&body).with("x-gitlab-event", "Sample Hook").with("idempotency-key", id)
    }
}
