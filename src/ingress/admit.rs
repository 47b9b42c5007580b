//! Genuine or not, and what it is.

use std::net::IpAddr;

use super::cloudevents;
use super::provider::{Challenge, EventType, Reason, Scheme};
use super::providers::provider;
use super::raw::Raw;
use crate::config::source::Dedupe;
use crate::config::{Source, SourceKind};
use crate::model::{Body, trace};
use crate::model::{Inbound, Timestamp};

/// The longest event type; longer ones are cut.
pub const KIND_CHARS_MAX: usize = 255;
/// The longest kept header value.
const HEADER_BYTES_MAX: usize = 1024;
/// The most `ce-*` headers that are kept.
const CE_HEADERS_MAX: usize = 32;

/// What a request is.
#[derive(Debug)]
pub enum Admitted {
    /// An event.
    Event(Box<Inbound>),
    /// The events of a batch, which may be none.
    Batch(Vec<Inbound>),
    /// A handshake of the provider, to be answered at once.
    Challenge(Challenge),
}

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmitError {
    /// The client's address is not on the source's list.
    Address,
    /// The signature.
    Signature(Reason),
    /// A source with a schema takes UTF-8 only.
    NotUtf8,
    /// A call with more than one `Idempotency-Key`.
    ManyKeys,
    /// A batch of CloudEvents that is none.
    Batch(String),
    /// The payload does not satisfy the schema.
    Schema(Vec<String>),
}

impl AdmitError {
    /// A stable word for counting.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Address => "address_not_allowed",
            Self::Signature(reason) => reason.word(),
            Self::NotUtf8 => "not_utf8",
            Self::ManyKeys => "many_keys",
            Self::Batch(_) => "bad_batch",
            Self::Schema(_) => "schema",
        }
    }
}

/// Takes a provider's webhook in: address, signature, handshake, schema, in this order.
///
/// # Errors
/// Why not.
pub fn admit(source: &Source, request: &Raw, client: IpAddr, now: Timestamp) -> Result<Admitted, AdmitError> {
    admit_address(source, client)?;
    let scheme = source.verify.as_deref().and_then(provider);
    if let Some(provider) = scheme {
        let with = Scheme { secrets: &source.secrets, tolerance: source.tolerance, options: &source.signature, now };
        provider.verify(request, &with).map_err(AdmitError::Signature)?;
        if let Some(challenge) = provider.challenge(request) {
            return Ok(Admitted::Challenge(challenge));
        }
    }
    let one = |request: &Raw, identity: fn(&Source, &Raw) -> Option<String>| {
        check_schema(source, &request.body)?;
        let kind = webhook_kind(source, request);
        let dedupe_key = if source.dedupe == Dedupe::Off { None } else { identity(source, request) };
        Ok(inbound(source, request, kind, dedupe_key, None))
    };
    match cloudevents::batch(request)? {
        // The message has an id, and so has each event in it: only the latter tells them apart.
        Some(batch) => {
            let events = batch.iter().map(|request| one(request, |_, request| cloudevents::identity(request)));
            events.collect::<Result<_, _>>().map(Admitted::Batch)
        }
        None => Ok(Admitted::Event(Box::new(one(request, dedupe_key)?))),
    }
}

/// Whether a client may send to a source at all, by its address: known before a body is read.
///
/// # Errors
/// It may not.
pub fn admit_address(source: &Source, client: IpAddr) -> Result<(), AdmitError> {
    if source.allowed.is_empty() || source.allowed.contains(client) { Ok(()) } else { Err(AdmitError::Address) }
}

/// Takes an API call in. The type comes with the path; `ce-type` overrides it.
///
/// # Errors
/// The payload does not satisfy the source's schema.
pub fn call(source: &Source, request: &Raw, kind: &str) -> Result<Admitted, AdmitError> {
    let one = |request: &Raw, key: Option<String>| {
        check_schema(source, &request.body)?;
        let kind = cloudevents::event_type(request).unwrap_or_else(|| kind.to_owned());
        let dedupe_key = if source.dedupe == Dedupe::Off { None } else { cloudevents::identity(request) };
        Ok(inbound(source, request, EventType::plain(kind), dedupe_key, key))
    };
    match cloudevents::batch(request)? {
        // Each event of a batch has an identity of its own; a key of the request would make one of all.
        Some(batch) => batch.iter().map(|request| one(request, None)).collect::<Result<_, _>>().map(Admitted::Batch),
        None => {
            let mut keys = request.headers.get_all("idempotency-key").iter();
            let key = keys.next();
            // Which of them counts is anybody's guess, and a proxy's may be another.
            if keys.any(|other| Some(other) != key) {
                return Err(AdmitError::ManyKeys);
            }
            // A key is a key whatever bytes it has.
            let key = key.map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
            let key = key.filter(|key| !key.is_empty());
            Ok(Admitted::Event(Box::new(one(request, key)?)))
        }
    }
}

/// An event as it would come in again: its type, and the other names its provider gives it.
pub fn again(source: &Source, kind: &str, headers: Vec<(String, String)>, body: Body) -> Inbound {
    let mut request = Raw::new(http::Uri::from_static("/"), "", http::HeaderMap::new(), body.bytes().clone());
    for (name, value) in &headers {
        if let (Ok(name), Ok(value)) = (http::HeaderName::from_bytes(name.as_bytes()), http::HeaderValue::from_str(value)) {
            request.headers.append(name, value);
        }
    }
    let named = webhook_kind(source, &request);
    // A type that was given by hand has no other names than qhook's.
    let aliases = match (source.kind, named.name == kind) {
        (SourceKind::Webhook, true) => named.aliases,
        (SourceKind::Webhook, false) => with_event_alias(source, EventType::plain(kind)).aliases,
        _ => Vec::new(),
    };
    Inbound {
        source: source.name.clone(),
        kind: kind.to_owned(),
        aliases,
        headers,
        body,
        dedupe_key: None,
        idempotency_key: None,
    }
}

/// Whether a payload satisfies the schema of its source.
///
/// # Errors
/// It does not.
pub fn check_schema(source: &Source, body: &Body) -> Result<(), AdmitError> {
    let Some(schema) = &source.schema else { return Ok(()) };
    let violations = match (body.structured(), body.view()) {
        (Some(payload), _) => schema.violations(payload),
        (None, Ok(_)) => vec!["the payload is not JSON".to_owned()],
        (None, Err(why)) if why.word == "not_utf8" => return Err(AdmitError::NotUtf8),
        (None, Err(why)) => vec![format!("the payload is not JSON: {why}")],
    };
    if violations.is_empty() { Ok(()) } else { Err(AdmitError::Schema(violations)) }
}

/// An unsigned header may name the type only where nothing is signed, or where the operator trusts it.
fn webhook_kind(source: &Source, request: &Raw) -> EventType {
    let is_open = source.verify.is_none() || source.ce_type_trusted;
    if let Some(kind) = is_open.then(|| cloudevents::binary_type(request)).flatten() {
        return with_event_alias(source, EventType::plain(kind));
    }
    if let Some(kind) = cloudevents::structured_type(request) {
        return with_event_alias(source, EventType::plain(kind));
    }
    let named_after = ["stripe", "github", "shopify"].into_iter().find(|n| *n == source.name);
    let scheme = source.verify.as_deref().or(named_after).and_then(provider);
    with_event_alias(source, scheme.map_or_else(|| EventType::plain("event"), |p| p.kind(request)))
}

/// qhook 0.6 called everything `event` but what came through sources of three names.
fn with_event_alias(source: &Source, mut kind: EventType) -> EventType {
    let has_types = ["stripe", "github", "shopify"].contains(&source.name.as_str());
    if !has_types && kind.name != "event" {
        kind.aliases.push("event".to_owned());
    }
    kind
}

/// Only a verified source's own id counts; `webhook-id` is the standard spelling.
fn dedupe_key(source: &Source, request: &Raw) -> Option<String> {
    match source.verify.as_deref().and_then(provider) {
        Some(provider) => {
            let own = match source.dedupe {
                Dedupe::Event => provider.event_key(request),
                Dedupe::Provider | Dedupe::Off => None,
            };
            own.or_else(|| provider.dedupe_key(request)).or_else(|| cloudevents::identity(request))
        }
        None => {
            let id = request.header("webhook-id").filter(|id| !id.is_empty()).map(str::to_owned);
            id.or_else(|| cloudevents::identity(request))
        }
    }
}

fn inbound(
    source: &Source,
    request: &Raw,
    kind: EventType,
    dedupe_key: Option<String>,
    idempotency_key: Option<String>,
) -> Inbound {
    Inbound {
        source: source.name.clone(),
        kind: clean(&kind.name),
        aliases: kind.aliases.iter().map(|a| clean(a)).collect(),
        headers: kept_headers(source, request),
        body: request.body.clone(),
        dedupe_key,
        idempotency_key,
    }
}

/// A foreign name as a name: no control characters, not empty, not endless.
fn clean(name: &str) -> String {
    let clean: String = name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(KIND_CHARS_MAX).collect();
    if clean.trim().is_empty() { "event".to_owned() } else { clean }
}

fn kept_headers(source: &Source, request: &Raw) -> Vec<(String, String)> {
    let extra = source.verify.as_deref().and_then(provider).map_or(&[][..], |p| p.kept_headers());
    let mut kept = Vec::new();
    let mut ce = 0;
    for (name, value) in &request.headers {
        let name = name.as_str();
        let is_ce = name.starts_with("ce-");
        ce += usize::from(is_ce);
        let wanted = name == "content-type"
            || (is_ce && ce <= CE_HEADERS_MAX)
            || extra.contains(&name)
            || source.headers.iter().any(|wanted| wanted == name);
        if let Ok(value) = value.to_str()
            && (wanted || trace::is_kept(name, value))
            && value.len() <= HEADER_BYTES_MAX
        {
            kept.push((name.to_owned(), value.to_owned()));
        }
    }
    kept
}
