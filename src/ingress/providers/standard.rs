//! Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`; HMAC-SHA256 (`v1,`)
//! or Ed25519 (`v1a,`) in base64 over `id.timestamp.body`, 300 s. The `svix-` spelling of the
//! headers is read too. Source: the Standard Webhooks specification 1.0.

use base64::Engine as _;
use serde_json::json;

use crate::config::CheckSecret;
use crate::decide::signature::{LENIENT, key, signature};
use crate::ingress::check::{self, Algorithm, PUBLIC_KEY_SIGNATURES_MAX, SIGNATURES_MAX};
use crate::ingress::provider::{EventType, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;

pub struct StandardWebhooks;

/// A secret of Standard Webhooks after decoding. Its prefix (`whsec_`, `whpk_`, `whsk_`) decides
/// which kind it is.
enum Key {
    Shared(Vec<u8>),
    Public(Vec<u8>),
    Private(Vec<u8>),
}

fn key_of(secret: &str) -> Result<Key, String> {
    let decode = |rest: &str| LENIENT.decode(rest).ok().filter(|k| k.len() == 32);
    if let Some(rest) = secret.strip_prefix("whpk_") {
        return decode(rest).map(Key::Public).ok_or_else(|| {
            "a public key that starts with whpk_ must continue with 32 bytes in base64".to_owned()
        });
    }
    if let Some(rest) = secret.strip_prefix("whsk_") {
        // Some tools keep seed and public key in one text; the seed comes first.
        let seed = LENIENT
            .decode(rest)
            .ok()
            .filter(|k| k.len() == 32 || k.len() == 64)
            .map(|k| k[..32].to_vec());
        return seed.map(Key::Private).ok_or_else(|| {
            "a private key that starts with whsk_ must continue with 32 bytes in base64".to_owned()
        });
    }
    key(secret).map(Key::Shared)
}

/// The keys that a secret may stand for. Without a prefix these are the text itself and what it
/// decodes to as base64, because the official libraries accept bare base64 as a key.
fn keys_of(secret: &str) -> Vec<Key> {
    let secret = bare(secret);
    let has_prefix = ["whsec_", "whpk_", "whsk_"].iter().any(|prefix| secret.starts_with(prefix));
    let decoded =
        LENIENT.decode(secret).ok().filter(|key| !has_prefix && !key.is_empty()).map(Key::Shared);
    key_of(secret).ok().into_iter().chain(decoded).collect()
}

/// A secret without the `v1,` that some providers show in front of `whsec_…`.
fn bare(secret: &str) -> &str {
    let secret = secret.trim();
    secret.strip_prefix("v1,").unwrap_or(secret)
}

/// A check of the secret's form.
pub(super) fn check_secret(secret: &str) -> Result<(), String> {
    match key_of(bare(secret))? {
        Key::Private(_) => {
            Err("a private key (whsk_…) can only sign: use the public key (whpk_…) to verify"
                .to_owned())
        }
        Key::Shared(_) | Key::Public(_) => Ok(()),
    }
}

fn named<'a>(request: &'a Raw, name: &str) -> Result<&'a str, Reason> {
    match check::header(request, &format!("webhook-{name}")) {
        Err(Reason::Missing) => check::header(request, &format!("svix-{name}")),
        found => found,
    }
}

/// Verifies id, timestamp and signature, in the `webhook-` or the `svix-` spelling.
pub(super) fn verify(request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
    let id = named(request, "id")?;
    let time = named(request, "timestamp")?;
    let signatures = named(request, "signature")?;
    // A dot would let the boundary between id and timestamp move.
    if id.is_empty() || id.contains('.') {
        return Err(Reason::Malformed);
    }
    let at = check::seconds(time)?;
    check::fresh(at, scheme, check::TOLERANCE)?;
    let keys: Vec<Key> = scheme.secrets.iter().flat_map(|s| keys_of(s.expose())).collect();
    let message = [id.as_bytes(), b".", time.as_bytes(), b".", request.bytes()];
    let candidates = signatures
        .split(' ')
        .filter_map(|candidate| candidate.split_once(','))
        .take(SIGNATURES_MAX);
    let of_version = |wanted: &str| -> Vec<Vec<u8>> {
        candidates
            .clone()
            .filter(|(version, _)| *version == wanted)
            .filter_map(|(_, text)| check::unbase64(text).ok())
            .collect()
    };
    let (shared, mut public) = (of_version("v1"), of_version("v1a"));
    if shared.is_empty() && public.is_empty() {
        return Err(Reason::Malformed);
    }
    // One hash for each key, however many signatures are offered; and few of those that cost more.
    public.truncate(PUBLIC_KEY_SIGNATURES_MAX);
    let matches = |key: &Key| match key {
        Key::Shared(_) if shared.is_empty() => false,
        Key::Shared(key) => {
            let ours = check::keyed_hash(Algorithm::Sha256, key, &message);
            shared.iter().any(|signature| check::same(&ours, signature))
        }
        Key::Public(_) if public.is_empty() => false,
        Key::Public(key) => {
            let message = message.concat();
            public.iter().any(|signature| check::ed25519_matches(key, &message, signature))
        }
        Key::Private(_) => false,
    };
    if keys.iter().any(matches) { Ok(()) } else { Err(Reason::Wrong) }
}

/// Signs with the first secret; the id is taken from the request if it has one.
pub(super) fn sign(request: &mut Raw, scheme: &Scheme<'_>) {
    let id =
        request.header("webhook-id").map_or_else(|| format!("msg_{}", scheme.now.0), str::to_owned);
    let time = check::now_seconds(scheme.now);
    let Some(Ok(key)) = scheme.secrets.first().map(|s| key_of(bare(s.expose()))) else { return };
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

    fn kind(&self, request: &Raw) -> EventType {
        EventType::plain(request.json_text_or("/type", "event"))
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
        let body = json!({
            "type": kind,
            "timestamp": "2026-01-31T10:00:00Z",
            "data": { "id": id, "name": "Ada" },
        });
        Sample::json(&body).with("webhook-id", format!("msg_{id}"))
    }
}
