//! Twilio: `X-Twilio-Signature`, HMAC-SHA1 in base64, or HMAC-SHA256 where
//! `X-Twilio-Webhooks-Signature-Settings` says so. Form posts sign the full URL and every
//! parameter, sorted, names and values without separators. JSON posts sign the URL alone, whose
//! `bodySHA256` must be the hexadecimal SHA-256 of the body. Source: Twilio's documentation,
//! "Webhooks security".

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
use url::Url;

use crate::ingress::check::{self, Algorithm};
use crate::ingress::provider::{EventType, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;

pub struct Twilio;

const HEADER: &str = "x-twilio-signature";

/// Which key and algorithm a webhook was signed with: `key=…,algorithm=HMAC_SHA256`.
const SETTINGS: &str = "x-twilio-webhooks-signature-settings";

/// The algorithm that the request names. Both use the same secret as key, so it is safe to let the
/// request choose.
fn algorithm(request: &Raw) -> Result<Algorithm, Reason> {
    let settings = request.header(SETTINGS).unwrap_or("");
    let named = settings
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| name.trim() == "algorithm");
    match named.map(|(_, algorithm)| algorithm.trim()) {
        None | Some("HMAC_SHA1") => Ok(Algorithm::Sha1),
        Some("HMAC_SHA256") => Ok(Algorithm::Sha256),
        Some(_) => Err(Reason::Malformed),
    }
}

/// The URLs that Twilio may have signed: as it is, with its port, and without. Its own libraries
/// try the same.
fn urls(request: &Raw) -> Vec<String> {
    let target = request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut urls = vec![format!("{}{target}", request.origin)];
    if let Ok(origin) = Url::parse(&request.origin) {
        let (scheme, host) = (origin.scheme(), origin.host_str().unwrap_or(""));
        let standard = if scheme == "https" { 443 } else { 80 };
        let port = origin.port_or_known_default().unwrap_or(standard);
        for with_port in
            [format!("{scheme}://{host}:{port}{target}"), format!("{scheme}://{host}{target}")]
        {
            if !urls.contains(&with_port) {
                urls.push(with_port);
            }
        }
    }
    urls
}

/// The parameters of a form body, sorted by name, repeated values unique and sorted.
fn form_text(request: &Raw) -> String {
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(request.bytes()) {
        values.entry(name.into_owned()).or_default().insert(value.into_owned());
    }
    values
        .into_iter()
        .flat_map(|(name, values)| values.into_iter().map(move |v| format!("{name}{v}")))
        .collect()
}

fn body_hash(request: &Raw) -> Option<String> {
    let query = request.uri.query()?;
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(k, _)| k == "bodySHA256")
        .map(|(_, v)| v.into_owned())
}

impl Provider for Twilio {
    fn name(&self) -> &'static str {
        "twilio"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        let signature = check::unbase64(check::header(request, HEADER)?)?;
        let algorithm = algorithm(request)?;
        let parameters = match body_hash(request) {
            Some(expected) => {
                let ours = Sha256::digest(request.bytes());
                if !check::same(&ours, &check::unhex(&expected)?) {
                    return Err(Reason::Wrong);
                }
                String::new()
            }
            None => form_text(request),
        };
        let matches = |url: &String| {
            check::any_matches(
                scheme.secrets,
                algorithm,
                &[url.as_bytes(), parameters.as_bytes()],
                &signature,
            )
        };
        if urls(request).iter().any(matches) { Ok(()) } else { Err(Reason::Wrong) }
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        let is_form = request
            .header("content-type")
            .is_some_and(|c| c.starts_with("application/x-www-form-urlencoded"));
        if !is_form && body_hash(request).is_none() {
            let hash = hex::encode(Sha256::digest(request.bytes()));
            let mark = if request.uri.query().is_some() { '&' } else { '?' };
            let target = request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            if let Ok(uri) = format!("{target}{mark}bodySHA256={hash}").parse() {
                request.uri = uri;
            }
        }
        let parameters =
            if body_hash(request).is_some() { String::new() } else { form_text(request) };
        let url = urls(request).into_iter().next().unwrap_or_default();
        let algorithm = algorithm(request).unwrap_or(Algorithm::Sha1);
        let signature = check::keyed_hash(
            algorithm,
            check::signing_key(scheme),
            &[url.as_bytes(), parameters.as_bytes()],
        );
        check::set(request, HEADER, &check::base64(&signature));
    }

    /// The type by status: callbacks of messages and calls have one in the form, an incoming
    /// message has none.
    fn kind(&self, request: &Raw) -> EventType {
        let status = |name: &str, field: &str| {
            request.json_text(field).map(|status| format!("{name}.{status}"))
        };
        let named = status("message", "/MessageStatus").or_else(|| status("call", "/CallStatus"));
        let named = named.or_else(|| status("message", "/SmsStatus"));
        EventType::plain(named.unwrap_or_else(|| "event".to_owned()))
    }

    fn dedupe_key(&self, request: &Raw) -> Option<String> {
        request.header("i-twilio-idempotency-token").filter(|t| !t.is_empty()).map(str::to_owned)
    }

    fn kept_headers(&self) -> &'static [&'static str] {
        &["i-twilio-idempotency-token"]
    }

    fn sample(&self, _: &str, id: &str) -> Sample {
        let body =
            "From=%2B15550100&To=%2B15550199&Body=Hello+from+the+harbour&MessageStatus=received";
        Sample {
            body: body.to_owned(),
            headers: vec![
                ("content-type", "application/x-www-form-urlencoded".to_owned()),
                ("i-twilio-idempotency-token", id.to_owned()),
            ],
        }
    }
}
