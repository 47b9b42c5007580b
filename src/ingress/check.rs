//! Building blocks of signatures: keyed hashes, encodings, replay windows. Comparisons take constant time.

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

/// No list of signatures is read further.
pub const SIGNATURES_MAX: usize = 32;
/// So many signatures by public keys are checked, each against the whole message: enough for a rotation.
pub const PUBLIC_KEY_SIGNATURES_MAX: usize = 2;
/// The replay window of schemes that name none.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// A keyed hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA256
    Sha256,
    /// HMAC-SHA512
    Sha512,
    /// HMAC-SHA1, where a provider still uses it.
    Sha1,
}

/// The keyed hash of some parts, one after the other.
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

/// Whether any secret gives this signature for these parts.
pub fn any_matches(secrets: &[Secret], algorithm: Algorithm, parts: &[&[u8]], signature: &[u8]) -> bool {
    any_of_matches(secrets, algorithm, parts, &[signature.to_vec()])
}

/// Whether any secret gives any of these signatures: one hash for each secret, however many signatures a sender offers.
pub fn any_of_matches(secrets: &[Secret], algorithm: Algorithm, parts: &[&[u8]], signatures: &[Vec<u8>]) -> bool {
    secrets.iter().any(|secret| {
        let ours = keyed_hash(algorithm, secret.expose().as_bytes(), parts);
        signatures.iter().any(|signature| same(&ours, signature))
    })
}

/// The readable ones of offered signatures, at most [`SIGNATURES_MAX`].
///
/// # Errors
/// `none` when there is none at all, `Malformed` when none is readable.
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

/// Equality in constant time; never true of nothing.
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

/// The one value of a header.
///
/// # Errors
/// `Missing`, or `Malformed` when it stands there twice or is not text.
pub fn header<'a>(request: &'a Raw, name: &str) -> Result<&'a str, Reason> {
    if !request.headers.contains_key(name) {
        return Err(Reason::Missing);
    }
    request.header(name).ok_or(Reason::Malformed)
}

/// Sets a header of a request that is being signed. Text that cannot be one is left out, and so the
/// signature will be missed.
pub fn set(request: &mut Raw, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        request.headers.insert(HeaderName::from_static(name), value);
    }
}

/// Seconds since 1970 as plain digits: no sign, no blank, no exponent.
///
/// # Errors
/// `Malformed`.
pub fn seconds(text: &str) -> Result<i64, Reason> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Reason::Malformed);
    }
    text.parse().map_err(|_| Reason::Malformed)
}

/// Whether an instant is inside the replay window, both ends included.
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

/// The first secret's bytes, which sign.
pub fn signing_key<'a>(scheme: &Scheme<'a>) -> &'a [u8] {
    scheme.secrets.first().map_or(&[], |s| s.expose().as_bytes())
}

/// An Ed25519 signature over a message.
pub fn ed25519_matches(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key).verify(message, signature).is_ok()
}

/// Signs with an Ed25519 seed of 32 bytes; `None` when it is none.
pub fn ed25519_sign(seed: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
    Some(pair.sign(message).as_ref().to_vec())
}

/// A header of `name=value` items: the values of one name, in order.
pub fn values<'a>(text: &'a str, separator: char, name: &'a str) -> impl Iterator<Item = &'a str> {
    let items = text.split(separator).filter_map(|item| item.trim().split_once('='));
    items.filter(move |(k, _)| k.trim() == name).map(|(_, v)| v.trim())
}

/// A signature that signs its time as well, both in one header: `t=…,v1=…`, HMAC-SHA256 in hexadecimal over time and body.
/// The whole secret is the key; any of several signatures may match.
pub struct Timed {
    /// The header.
    pub header: &'static str,
    /// What stands between its items.
    pub separator: char,
    /// The item with the time, in seconds since 1970.
    pub time: &'static str,
    /// The items with signatures.
    pub signature: &'static str,
    /// What stands between time and body where they are signed.
    pub joint: &'static str,
    /// What it is if no signature is there.
    pub none: Reason,
}

impl Timed {
    /// Whether the signature is right and fresh.
    ///
    /// # Errors
    /// Why not.
    pub fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        let header = header(request, self.header)?;
        let mut times = values(header, self.separator, self.time);
        // Two timestamps would leave open which one was signed.
        let (Some(time), None) = (times.next(), times.next()) else { return Err(Reason::Malformed) };
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
