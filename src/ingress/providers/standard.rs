//! Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`; HMAC-SHA256 (`v1,`) or
//! Ed25519 (`v1a,`) in base64 over `id.timestamp.body`, 300 s. The `svix-` spelling of the headers is read too.
//! Source: the Standard Webhooks specification 1.0.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::config::CheckSecret;
use crate::decide::signature::{key, signature};
use crate::ingress::check::{self, Algorithm, SIGNATURES_MAX};
use crate::ingress::provider::{Kind, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;

pub struct StandardWebhooks;

/// What a secret is.
enum Key {
    Shared(Vec<u8>),
    Public(Vec<u8>),
    Private(Vec<u8>),
}

fn key_of(secret: &str) -> Result<Key, String> {
    let decode = |rest: &str| STANDARD.decode(rest).ok().filter(|k| k.len() == 32);
    if let Some(rest) = secret.strip_prefix("whpk_") {
        return decode(rest)
            .map(Key::Public)
            .ok_or_else(|| "a public key that starts with whpk_ must go on in base64 of 32 bytes".to_owned());
    }
    if let Some(rest) = secret.strip_prefix("whsk_") {
        // Some tools keep seed and public key in one text; the seed comes first.
        let seed = STANDARD.decode(rest).ok().filter(|k| k.len() == 32 || k.len() == 64).map(|k| k[..32].to_vec());
        return seed
            .map(Key::Private)
            .ok_or_else(|| "a private key that starts with whsk_ must go on in base64 of 32 bytes".to_owned());
    }
    key(secret).map(Key::Shared)
}

/// A check of the secret's form.
pub(super) fn check_secret(secret: &str) -> Result<(), String> {
    match key_of(secret)? {
        Key::Private(_) => Err("a private key (whsk_…) only signs; give the public key (whpk_…) to verify".to_owned()),
        Key::Shared(_) | Key::Public(_) => Ok(()),
    }
}

fn named<'a>(request: &'a Raw, name: &str) -> Result<&'a str, Reason> {
    match check::header(request, &format!("webhook-{name}")) {
        Err(Reason::Missing) => check::header(request, &format!("svix-{name}")),
        found => found,
    }
}

/// Verifies the three headers.
pub(super) fn verify(request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
    let id = named(request, "id")?;
    let time = named(request, "timestamp")?;
    let signatures = named(request, "signature")?;
    // A dot would let the boundary between id and timestamp move.
    if id.is_empty() || id.contains('.') {
        return Err(Reason::Malformed);
    }
    let at = check::seconds(time)?;
    let keys: Vec<Key> = scheme.secrets.iter().filter_map(|s| key_of(s.expose()).ok()).collect();
    let message = [id.as_bytes(), b".", time.as_bytes(), b".", request.bytes()];
    let mut any = false;
    for candidate in signatures.split(' ').filter(|s| !s.is_empty()).take(SIGNATURES_MAX) {
        let Some((version, text)) = candidate.split_once(',') else { continue };
        let Ok(bytes) = check::unbase64(text) else { continue };
        any = true;
        let matches = |key: &Key| match (version, key) {
            ("v1", Key::Shared(key)) => check::same(&check::keyed_hash(Algorithm::Sha256, key, &message), &bytes),
            ("v1a", Key::Public(key)) => check::ed25519_matches(key, &message.concat(), &bytes),
            _ => false,
        };
        if keys.iter().any(matches) {
            return check::fresh(at, scheme, check::TOLERANCE);
        }
    }
    Err(if any { Reason::Wrong } else { Reason::Malformed })
}

/// Signs with the first secret; the id is taken from the request if it has one.
pub(super) fn sign(request: &mut Raw, scheme: &Scheme<'_>) {
    let id = request.header("webhook-id").map_or_else(|| format!("msg_{}", scheme.now.0), str::to_owned);
    let time = check::now_seconds(scheme.now);
    let Some(Ok(key)) = scheme.secrets.first().map(|s| key_of(s.expose())) else { return };
    let signature = match key {
        Key::Shared(key) => signature(&key, &id, &time, request.bytes()),
        Key::Private(seed) => {
            let message = [id.as_bytes(), b".", time.as_bytes(), b".", request.bytes()].concat();
            let Some(signature) = check::ed25519_sign(&seed, &message) else { return };
            format!("v1a,{}", check::base64(&signature))
        }
        // A public key cannot sign.
        Key::Public(_) => return,
    };
    check::set(request, "webhook-id", &id);
    check::set(request, "webhook-timestamp", &time);
    check::set(request, "webhook-signature", &signature);
}

impl Provider for StandardWebhooks {
    fn name(&self) -> &'static str {
        "standard-webhooks"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        verify(request, scheme)
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        sign(request, scheme);
    }

    fn kind(&self, request: &Raw) -> Kind {
        Kind::plain(request.json_text_or("/type", "event"))
    }

    fn dedupe_key(&self, request: &Raw) -> Option<String> {
        named(request, "id").ok().map(str::to_owned)
    }

    fn kept_headers(&self) -> &'static [&'static str] {
        &["webhook-id", "svix-id"]
    }

    fn secret_check(&self) -> CheckSecret {
        check_secret
    }

    fn sample(&self, kind: &str, id: &str) -> Sample {
        let body = json!({ "type": kind, "timestamp": "2026-01-31T10:00:00Z", "data": { "id": id, "name": "Ada" } });
        Sample::json(&body).with("webhook-id", format!("msg_{id}"))
    }
}
