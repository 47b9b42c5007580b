//! Paddle: `Paddle-Signature: ts=…;h1=…[;h1=…]`, HMAC-SHA256 in hexadecimal over `ts:body`, 300 s; any matches.
//! Source: Paddle's documentation, "Verify webhook signatures".

use serde_json::json;

use crate::ingress::check::{self, Algorithm};
use crate::ingress::provider::{Kind, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;

pub struct Paddle;

const HEADER: &str = "paddle-signature";

impl Provider for Paddle {
    fn name(&self) -> &'static str {
        "paddle"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        let header = check::header(request, HEADER)?;
        let mut times = check::items(header, ';').filter(|(k, _)| *k == "ts").map(|(_, v)| v);
        let (Some(time), None) = (times.next(), times.next()) else { return Err(Reason::Malformed) };
        let at = check::seconds(time)?;
        check::fresh(at, scheme, check::TOLERANCE)?;
        let offered = check::items(header, ';').filter(|(k, _)| *k == "h1").map(|(_, v)| v);
        let offered = check::offered(offered, check::unhex, Reason::Malformed)?;
        match check::any_of_matches(scheme.secrets, Algorithm::Sha256, &[time.as_bytes(), b":", request.bytes()], &offered) {
            true => Ok(()),
            false => Err(Reason::Wrong),
        }
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        let time = check::now_seconds(scheme.now);
        let signature =
            check::keyed_hash(Algorithm::Sha256, check::signing_key(scheme), &[time.as_bytes(), b":", request.bytes()]);
        check::set(request, HEADER, &format!("ts={time};h1={}", hex::encode(signature)));
    }

    fn kind(&self, request: &Raw) -> Kind {
        Kind::plain(request.json_text_or("/event_type", "event"))
    }

    fn dedupe_key(&self, request: &Raw) -> Option<String> {
        request.json_text("/event_id")
    }

    fn sample(&self, kind: &str, id: &str) -> Sample {
        Sample::json(
            &json!({ "event_id": format!("evt_{id}"), "event_type": kind, "data": { "id": format!("txn_{id}"), "status": "completed" } }),
        )
    }
}
