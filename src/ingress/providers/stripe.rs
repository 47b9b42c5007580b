//! Stripe: `Stripe-Signature: t=…,v1=…`, HMAC-SHA256 in hexadecimal over `t.body`, 300 s.
//! Source: Stripe's documentation, "Verify webhook signatures manually".

use serde_json::json;

use crate::ingress::check::{self, Algorithm};
use crate::ingress::provider::{Kind, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;

pub struct Stripe;

const HEADER: &str = "stripe-signature";

impl Provider for Stripe {
    fn name(&self) -> &'static str {
        "stripe"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        let header = check::header(request, HEADER)?;
        let mut times = check::items(header, ',').filter(|(k, _)| *k == "t").map(|(_, v)| v);
        // Two timestamps would leave open which one was signed.
        let (Some(time), None) = (times.next(), times.next()) else { return Err(Reason::Malformed) };
        let at = check::seconds(time)?;
        check::fresh(at, scheme, check::TOLERANCE)?;
        // Other schemes (`v0`) are test signatures and prove nothing.
        let offered = check::items(header, ',').filter(|(k, _)| *k == "v1").map(|(_, v)| v);
        let offered = check::offered(offered, check::unhex, Reason::Missing)?;
        // The whole secret is the key, its `whsec_` included.
        match check::any_of_matches(scheme.secrets, Algorithm::Sha256, &[time.as_bytes(), b".", request.bytes()], &offered) {
            true => Ok(()),
            false => Err(Reason::Wrong),
        }
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        let time = check::now_seconds(scheme.now);
        let signature =
            check::keyed_hash(Algorithm::Sha256, check::signing_key(scheme), &[time.as_bytes(), b".", request.bytes()]);
        check::set(request, HEADER, &format!("t={time},v1={}", hex::encode(signature)));
    }

    fn kind(&self, request: &Raw) -> Kind {
        Kind::plain(request.json_text_or("/type", "unknown"))
    }

    fn dedupe_key(&self, request: &Raw) -> Option<String> {
        request.json_text("/id")
    }

    fn sample(&self, kind: &str, id: &str) -> Sample {
        Sample::json(&json!({
            "id": format!("evt_sample_{id}"), "object": "event", "type": kind,
            "data": { "object": { "id": format!("in_sample_{id}"), "amount_paid": 4200, "currency": "eur", "customer": "cus_fictional" } }
        }))
    }
}
