//! Building blocks of signatures: keyed hashes, encodings, replay windows. Comparisons take
//! constant time.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::provider::{Reason, Scheme};
use super::raw::Raw;
use crate::model::{Secret, Timestamp};

/// How many signatures of one header are read; further ones are ignored.
pub const SIGNATURES_MAX: usize = 32;
/// How many public-key signatures are checked per request. Each costs a pass over the whole
/// message, and two are enough for a key rotation.
pub const PUBLIC_KEY_SIGNATURES_MAX: usize = 2;
/// The replay window for schemes that define none.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// The hash function of an HMAC signature. The provider's scheme chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA256, which most providers use.
    Sha256,
    /// HMAC-SHA512, as HCP Terraform signs.
    Sha512,
    /// HMAC-SHA1, where a provider still uses it.
    Sha1,
}

/// The HMAC of several parts in a row.
pub fn keyed_hash(algorithm: Algorithm, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    fn run<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        // HMAC takes keys of every length, so this cannot fail.
        let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return Vec::new() };
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().to_vec()
    }
    match algorithm {
        Algorithm::Sha256 => run::<Hmac<Sha256>>(key, parts),
        Algorithm::Sha512 => run::<Hmac<Sha512>>(key, parts),
        Algorithm::Sha1 => run::<Hmac<Sha1>>(key, parts),
    }
}

/// Whether any accepted secret produces this signature for these parts.
pub fn any_matches(
    secrets: &[Secret],
    algorithm: Algorithm,
    parts: &[&[u8]],
    signature: &[u8],
) -> bool {
    any_of_matches(secrets, algorithm, parts, &[signature.to_vec()])
}

/// Whether any accepted secret produces any of these signatures. One hash per secret is computed,
/// however many signatures a sender offers.
pub fn any_of_matches(
    secrets: &[Secret],
    algorithm: Algorithm,
    parts: &[&[u8]],
    signatures: &[Vec<u8>],
) -> bool {
    secrets.iter().any(|secret| {
        let ours = keyed_hash(algorithm, secret.expose().as_bytes(), parts);
        signatures.iter().any(|signature| same(&ours, signature))
    })
}

/// The offered signatures that can be decoded, at most [`SIGNATURES_MAX`].
///
/// # Errors
/// `none` when nothing is offered, `Malformed` when nothing can be decoded.
pub fn offered<'a>(
    texts: impl Iterator<Item = &'a str>,
    read: impl Fn(&str) -> Result<Vec<u8>, Reason>,
    none: Reason,
) -> Result<Vec<Vec<u8>>, Reason> {
    let mut texts = texts.take(SIGNATURES_MAX).peekable();
    if texts.peek().is_none() {
        return Err(none);
    }
    let read: Vec<Vec<u8>> = texts.filter_map(|text| read(text).ok()).collect();
    if read.is_empty() { Err(Reason::Malformed) } else { Ok(read) }
}

/// Equality in constant time. Empty input is never equal.
pub fn same(ours: &[u8], theirs: &[u8]) -> bool {
    !ours.is_empty() && bool::from(ours.ct_eq(theirs))
}

/// Hexadecimal of either case.
///
/// # Errors
/// `Malformed`.
pub fn unhex(text: &str) -> Result<Vec<u8>, Reason> {
    if text.is_empty() || text.len() > 1024 {
        return Err(Reason::Malformed);
    }
    hex::decode(text).map_err(|_| Reason::Malformed)
}

/// Standard base64.
///
/// # Errors
/// `Malformed`.
pub fn unbase64(text: &str) -> Result<Vec<u8>, Reason> {
    if text.is_empty() || text.len() > 1024 {
        return Err(Reason::Malformed);
    }
    STANDARD.decode(text).map_err(|_| Reason::Malformed)
}

/// Standard base64 of bytes.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The value of a header that must stand there once.
///
/// # Errors
/// `Missing`, or `Malformed` when it is repeated or not text.
pub fn header<'a>(request: &'a Raw, name: &str) -> Result<&'a str, Reason> {
    if !request.headers.contains_key(name) {
        return Err(Reason::Missing);
    }
    request.header(name).ok_or(Reason::Malformed)
}

/// Sets a header on a request that is being signed. A value that cannot be a header is left out, so
/// verification will fail.
pub fn set(request: &mut Raw, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        request.headers.insert(HeaderName::from_static(name), value);
    }
}

/// Reads seconds since 1970 from plain digits: no sign, blank or exponent.
///
/// # Errors
/// `Malformed`.
pub fn seconds(text: &str) -> Result<i64, Reason> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Reason::Malformed);
    }
    text.parse().map_err(|_| Reason::Malformed)
}

/// Checks that an instant is inside the replay window, both ends included. A window of zero accepts
/// every instant.
///
/// # Errors
/// `Stale`.
pub fn fresh(at_seconds: i64, scheme: &Scheme<'_>, default: Duration) -> Result<(), Reason> {
    let window = scheme.tolerance.unwrap_or(default);
    if window.is_zero() {
        return Ok(());
    }
    let far = i128::from(scheme.now.seconds()) - i128::from(at_seconds);
    if far.unsigned_abs() <= u128::from(window.as_secs()) { Ok(()) } else { Err(Reason::Stale) }
}

/// Seconds since 1970 as text, for signing.
pub fn now_seconds(now: Timestamp) -> String {
    now.seconds().to_string()
}

/// The bytes of the first secret, which is the one that signs; empty without secrets.
pub fn signing_key<'a>(scheme: &Scheme<'a>) -> &'a [u8] {
    scheme.secrets.first().map_or(&[], |s| s.expose().as_bytes())
}

/// An Ed25519 signature over a message.
pub fn ed25519_matches(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key).verify(message, signature).is_ok()
}

/// Signs with an Ed25519 seed of 32 bytes; `None` for any other length.
pub fn ed25519_sign(seed: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
    Some(pair.sign(message).as_ref().to_vec())
}

/// The values of one name in a header of `name=value` items, in order.
pub fn values<'a>(text: &'a str, separator: char, name: &'a str) -> impl Iterator<Item = &'a str> {
    let items = text.split(separator).filter_map(|item| item.trim().split_once('='));
    items.filter(move |(k, _)| k.trim() == name).map(|(_, v)| v.trim())
}

/// A signature scheme with the time in the same header: `t=…,v1=…`, HMAC-SHA256 in hexadecimal over
/// time and body. The whole secret text is the key. One matching signature of several is enough.
pub struct Timed {
    /// The name of the header that holds time and signatures, in lower case.
    pub header: &'static str,
    /// The character between the items of the header.
    pub separator: char,
    /// The name of the item with the time, in seconds since 1970.
    pub time: &'static str,
    /// The name of the items with signatures.
    pub signature: &'static str,
    /// The text between time and body in the signed message.
    pub joint: &'static str,
    /// The reason to report when the header holds no signature.
    pub none: Reason,
}

impl Timed {
    /// Checks that a signature matches and that its time is inside the replay window.
    ///
    /// # Errors
    /// Why the request is not genuine.
    pub fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        let header = header(request, self.header)?;
        let mut times = values(header, self.separator, self.time);
        // Two timestamps would leave open which one was signed.
        let (Some(time), None) = (times.next(), times.next()) else {
            return Err(Reason::Malformed);
        };
        fresh(seconds(time)?, scheme, TOLERANCE)?;
        let offered = offered(values(header, self.separator, self.signature), unhex, self.none)?;
        let parts = [time.as_bytes(), self.joint.as_bytes(), request.bytes()];
        match any_of_matches(scheme.secrets, Algorithm::Sha256, &parts, &offered) {
            true => Ok(()),
            false => Err(Reason::Wrong),
        }
    }

    /// Signs as the provider does.
    pub fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        let time = now_seconds(scheme.now);
        let parts = [time.as_bytes(), self.joint.as_bytes(), request.bytes()];
        let signature = hex::encode(keyed_hash(Algorithm::Sha256, signing_key(scheme), &parts));
        let value = format!("{}={time}{}{}={signature}", self.time, self.separator, self.signature);
        set(request, self.header, &value);
    }
}
