//! Any sender with a keyed hash over the body: header, prefix, algorithm and encoding are
//! configurable.

use serde_json::json;

use crate::ingress::check::{self, Algorithm};
use crate::ingress::provider::{Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;

pub struct CustomHmac;

fn algorithm(scheme: &Scheme<'_>) -> Algorithm {
    match scheme.options.algorithm.as_deref() {
        Some("sha512") => Algorithm::Sha512,
        Some("sha1") => Algorithm::Sha1,
        _ => Algorithm::Sha256,
    }
}

fn header<'a>(scheme: &Scheme<'a>) -> &'a str {
    scheme.options.header.as_deref().unwrap_or("x-webhook-signature")
}

fn is_base64(scheme: &Scheme<'_>) -> bool {
    scheme.options.encoding.as_deref() == Some("base64")
}

impl Provider for CustomHmac {
    fn name(&self) -> &'static str {
        "hmac"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        let text = check::header(request, header(scheme))?;
        let read = if is_base64(scheme) { check::unbase64 } else { check::unhex };
        let offered = match &scheme.options.prefix {
            // Some senders offer several in one header: `v1=…,v2=…`.
            Some(prefix) => {
                let offered =
                    text.split(',').filter_map(|item| item.trim().strip_prefix(prefix.as_str()));
                check::offered(offered, read, Reason::Malformed)?
            }
            // A bare signature, or the prefix many senders copy from GitHub.
            None => vec![read(text.strip_prefix("sha256=").unwrap_or(text))?],
        };
        match check::any_of_matches(scheme.secrets, algorithm(scheme), &[request.bytes()], &offered)
        {
            true => Ok(()),
            false => Err(Reason::Wrong),
        }
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        let signature =
            check::keyed_hash(algorithm(scheme), check::signing_key(scheme), &[request.bytes()]);
        let text =
            if is_base64(scheme) { check::base64(&signature) } else { hex::encode(signature) };
        let text = format!("{}{text}", scheme.options.prefix.as_deref().unwrap_or(""));
        if let (Ok(name), Ok(value)) = (
            http::HeaderName::from_bytes(header(scheme).as_bytes()),
            http::HeaderValue::from_str(&text),
        ) {
            request.headers.insert(name, value);
        }
    }

    fn sample(&self, kind: &str, id: &str) -> Sample {
        Sample::json(&json!({ "id": id, "type": kind, "level_cm": 412 }))
    }
}
