//! Shopify: `X-Shopify-Hmac-SHA256`, HMAC-SHA256 in base64 over the body.
//! Source: Shopify's documentation, "Verify webhook deliveries".

use serde_json::json;

use crate::ingress::check::{self, Algorithm};
use crate::ingress::provider::{EventType, Provider, Reason, Sample, Scheme};
use crate::ingress::raw::Raw;

pub struct Shopify;

const HEADER: &str = "x-shopify-hmac-sha256";

impl Provider for Shopify {
    fn name(&self) -> &'static str {
        "shopify"
    }

    fn verify(&self, request: &Raw, scheme: &Scheme<'_>) -> Result<(), Reason> {
        let header = match check::header(request, HEADER) {
            // The shorter spelling of newer API versions.
            Err(Reason::Missing) => check::header(request, "shopify-hmac-sha256")?,
            found => found?,
        };
        let signature = check::unbase64(header)?;
        match check::any_matches(scheme.secrets, Algorithm::Sha256, &[request.bytes()], &signature)
        {
            true => Ok(()),
            false => Err(Reason::Wrong),
        }
    }

    fn sign(&self, request: &mut Raw, scheme: &Scheme<'_>) {
        let signature =
            check::keyed_hash(Algorithm::Sha256, check::signing_key(scheme), &[request.bytes()]);
        check::set(request, HEADER, &check::base64(&signature));
    }

    fn kind(&self, request: &Raw) -> EventType {
        let in_body = request.json_text("/topic");
        let topic = request.header("x-shopify-topic").or_else(|| request.header("shopify-topic"));
        match topic.filter(|t| !t.is_empty()) {
            Some(topic) => {
                EventType { name: topic.to_owned(), type_aliases: in_body.into_iter().collect() }
            }
            None => EventType::plain(in_body.unwrap_or_else(|| "unknown".to_owned())),
        }
    }

    fn dedupe_key(&self, request: &Raw) -> Option<String> {
        request
            .header("x-shopify-webhook-id")
            .or_else(|| request.header("shopify-webhook-id"))
            .filter(|d| !d.is_empty())
            .map(str::to_owned)
    }

    /// The id of what happened. One action of a merchant can cause several deliveries of one topic,
    /// with different delivery ids but this id in common.
    fn event_key(&self, request: &Raw) -> Option<String> {
        let id =
            request.header("x-shopify-event-id").or_else(|| request.header("shopify-event-id"));
        id.filter(|id| !id.is_empty()).map(str::to_owned)
    }

    fn kept_headers(&self) -> &'static [&'static str] {
        &[
            "x-shopify-topic",
            "x-shopify-webhook-id",
            "x-shopify-shop-domain",
            "x-shopify-event-id",
            "x-shopify-api-version",
            "shopify-topic",
            "shopify-webhook-id",
            "shopify-shop-domain",
            "shopify-event-id",
        ]
    }

    fn sample(&self, kind: &str, id: &str) -> Sample {
        Sample::json(&json!({
            "id": 1001,
            "total_price": "42.00",
            "currency": "EUR",
            "email": "ada@shop.example",
        }))
        .with("x-shopify-topic", kind)
        .with("x-shopify-webhook-id", id)
    }
}
