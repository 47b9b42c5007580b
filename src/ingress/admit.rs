//! Decides whether an incoming request is genuine, and turns it into events.

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

/// What an accepted request turned out to be.
#[derive(Debug)]
pub enum Admitted {
    /// One event, with its type, kept headers and keys, to be stored.
    Event(Box<Inbound>),
    /// The events of a batch, which may be none.
    Batch(Vec<Inbound>),
    /// A handshake of the provider. It is answered at once and not stored.
    Challenge(Challenge),
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmitError {
    /// The client's address is not on the source's list.
    Address,
    /// The signature is missing, cannot be read, does not match or is too old.
    Signature(Reason),
    /// The source has a schema, and the body is not UTF-8.
    NotUtf8,
    /// An API call has more than one `Idempotency-Key` with different values.
    ManyKeys,
    /// The content type says that it is a batch of CloudEvents, and it is not.
    Batch(String),
    /// The event type is one of tidehook's own.
    Reserved,
    /// The payload violates the source's schema: one sentence per violation.
    Schema(Vec<String>),
}

impl AdmitError {
    /// The stable word for logs and counters.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Address => "address_not_allowed",
            Self::Signature(reason) => reason.as_str(),
            Self::NotUtf8 => "not_utf8",
            Self::ManyKeys => "many_keys",
            Self::Batch(_) => "bad_batch",
            Self::Reserved => "reserved_type",
            Self::Schema(_) => "schema",
        }
    }
}

/// Admits a provider's webhook. Checks address, signature, handshake and schema, in this order.
///
/// # Errors
/// The first check that failed.
pub fn admit(
    source: &Source,
    request: &Raw,
    client: IpAddr,
    now: Timestamp,
) -> Result<Admitted, AdmitError> {
    admit_address(source, client)?;
    let scheme = source.verify.as_deref().and_then(provider);
    if let Some(provider) = scheme {
        let with = Scheme {
            secrets: &source.secrets,
            tolerance: source.tolerance,
            options: &source.signature,
            now,
        };
        provider.verify(request, &with).map_err(AdmitError::Signature)?;
        if let Some(challenge) = provider.challenge(request) {
            return Ok(Admitted::Challenge(challenge));
        }
    }
    let one = |request: &Raw, identity: fn(&Source, &Raw) -> Option<String>| {
        check_schema(source, &request.body)?;
        let kind = webhook_kind(source, request);
        let dedupe_key =
            if source.dedupe == Dedupe::Off { None } else { identity(source, request) };
        Ok(inbound(source, request, kind, dedupe_key, None))
    };
    match cloudevents::batch(request)? {
        // The message has an id, and so has each event in it: only the latter tells them apart.
        Some(batch) => {
            let events = batch
                .iter()
                .map(|request| one(request, |_, request| cloudevents::identity(request)));
            events.collect::<Result<_, _>>().map(Admitted::Batch)
        }
        None => Ok(Admitted::Event(Box::new(one(request, dedupe_key)?))),
    }
}

/// Checks the client's address against the source's list. It needs no body, so it runs before one
/// is read.
///
/// # Errors
/// The address is not on the list.
pub fn admit_address(source: &Source, client: IpAddr) -> Result<(), AdmitError> {
    if source.allowed.is_empty() || source.allowed.contains(client) {
        Ok(())
    } else {
        Err(AdmitError::Address)
    }
}

/// Admits an API call. The type comes from the path; a CloudEvents type overrides it.
///
/// # Errors
/// The payload does not satisfy the source's schema, or the request is no valid batch, or it has
/// several idempotency keys.
pub fn call(source: &Source, request: &Raw, kind: &str) -> Result<Admitted, AdmitError> {
    let one = |request: &Raw, key: Option<String>| {
        check_schema(source, &request.body)?;
        let kind = cloudevents::event_type(request).unwrap_or_else(|| kind.to_owned());
        let dedupe_key =
            if source.dedupe == Dedupe::Off { None } else { cloudevents::identity(request) };
        Ok(inbound(source, request, EventType::plain(kind), dedupe_key, key))
    };
    match cloudevents::batch(request)? {
        // Each event of a batch has an identity of its own; a key of the request would make one of
        // all.
        Some(batch) => batch
            .iter()
            .map(|request| one(request, None))
            .collect::<Result<_, _>>()
            .map(Admitted::Batch),
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

/// A stored event as if it came in again, with the aliases that its provider gives it today. It has
/// no keys, so nothing is taken for a duplicate.
pub fn again(source: &Source, kind: &str, headers: Vec<(String, String)>, body: Body) -> Inbound {
    let mut request =
        Raw::new(http::Uri::from_static("/"), "", http::HeaderMap::new(), body.bytes().clone());
    for (name, value) in &headers {
        if let (Ok(name), Ok(value)) =
            (http::HeaderName::from_bytes(name.as_bytes()), http::HeaderValue::from_str(value))
        {
            request.headers.append(name, value);
        }
    }
    let named = webhook_kind(source, &request);
    // A type that was given by hand has no other names than qhook's.
    let type_aliases = match (source.kind, named.name == kind) {
        (SourceKind::Webhook, true) => named.type_aliases,
        (SourceKind::Webhook, false) => {
            with_event_alias(source, EventType::plain(kind)).type_aliases
        }
        _ => Vec::new(),
    };
    Inbound {
        source: source.name.clone(),
        kind: kind.to_owned(),
        type_aliases,
        headers,
        body,
        dedupe_key: None,
        idempotency_key: None,
    }
}

/// Checks a payload against the schema of its source, if it has one.
///
/// # Errors
/// The payload violates the schema, or is not JSON.
pub fn check_schema(source: &Source, body: &Body) -> Result<(), AdmitError> {
    let Some(schema) = &source.schema else { return Ok(()) };
    let violations = match (body.parsed_unless_text(), body.view()) {
        (Some(payload), _) => schema.violations(payload),
        (None, Ok(_)) => vec!["the payload is not JSON".to_owned()],
        (None, Err(why)) if why.word == "not_utf8" => return Err(AdmitError::NotUtf8),
        (None, Err(why)) => vec![format!("the payload is not JSON: {why}")],
    };
    if violations.is_empty() { Ok(()) } else { Err(AdmitError::Schema(violations)) }
}

/// The type of a webhook. An unsigned `ce-type` header counts only if the source verifies nothing,
/// or if the operator trusts it.
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

/// Adds the alias `event`. qhook 0.6 called every event `event`, except from sources of three
/// names.
fn with_event_alias(source: &Source, mut kind: EventType) -> EventType {
    let has_types = ["stripe", "github", "shopify"].contains(&source.name.as_str());
    if !has_types && kind.name != "event" {
        kind.type_aliases.push("event".to_owned());
    }
    kind
}

/// The provider's id of the event. Without verification only `webhook-id` and the CloudEvents
/// identity count.
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
        type_aliases: kind.type_aliases.iter().map(|a| clean(a)).collect(),
        headers: kept_headers(source, request),
        body: request.body.clone(),
        dedupe_key,
        idempotency_key,
    }
}

/// A foreign text as the name of an event type: control characters are replaced, it is cut at
/// `KIND_CHARS_MAX`, and an empty one is `event`.
fn clean(name: &str) -> String {
    let clean: String = name
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(KIND_CHARS_MAX)
        .collect();
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
