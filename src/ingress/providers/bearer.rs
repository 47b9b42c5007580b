//! A plain bearer token in `Authorization`, for senders that cannot sign.

use serde_json::json;

use crate::ingress::check;
use crate::ingress::provider::{Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;

pub struct Bearer;

impl Provider for Bearer {
    fn name(&self) -> &'static str {
        "bearer"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        let token = check::header(request, "authorization")?;
        let token =
            token.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, token) = token.ok_or(Reason::Malformed)?;
        match scheme.secrets.iter().any(|s| s.matches(token)) {
            true => Ok(()),
            false => Err(Reason::Wrong),
        }
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        if let Some(secret) = scheme.secrets.first() {
            check::set(request, "authorization", &format!("Bearer {}", secret.expose()));
        }
    }

    fn sample(&self, kind: &str, id: &str) -> Sample {
        Sample::json(&json!({ "id": id, "type": kind, "level_cm": 412 }))
    }
}
