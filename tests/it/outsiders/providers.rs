//! What providers send that was read otherwise: batches, identities, second ids, requests without
//! one host.

use std::net::IpAddr;

use serde_json::json;
use tidehook::config::Config;
use tidehook::ingress::{self, AdmitError, Admitted, Raw, Scheme, provider};
use tidehook::model::Timestamp;

use crate::support::world::{World, config};

const NOW: Timestamp = Timestamp(1_770_000_000_000);

fn raw(body: &str, headers: &[(&str, &str)]) -> Raw {
    let mut map = http::HeaderMap::new();
    for (name, value) in headers {
        map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    Raw::new("/".parse().unwrap(), "http://x", map, body.as_bytes().to_vec())
}

fn admit(config: &Config, raw: &Raw) -> Result<Admitted, AdmitError> {
    ingress::admit(&config.sources[0], raw, IpAddr::from([127, 0, 0, 1]), NOW)
}

fn keys(admitted: Admitted) -> Vec<String> {
    let events = match admitted {
        Admitted::Event(event) => vec![*event],
        Admitted::Batch(events) => events,
        Admitted::Challenge(_) => panic!("a handshake"),
    };
    events.into_iter().map(|event| event.dedupe_key.unwrap_or_default()).collect()
}

const BATCH: (&str, &str) = ("content-type", "application/cloudevents-batch+json");

fn member(id: &str) -> serde_json::Value {
    json!({ "specversion": "1.0", "id": id, "source": "/pier", "type": "tide.turned", "data": {} })
}

#[test]
fn members_of_a_batch_have_identities_of_their_own_whatever_the_message_has() {
    let open = config("sources: { s: { type: webhook, verify: none } }");
    let body = json!([member("1"), member("2")]).to_string();
    for headers in [vec![BATCH], vec![BATCH, ("webhook-id", "msg_1")]] {
        let keys = keys(admit(&open, &raw(&body, &headers)).unwrap());
        assert!(
            keys.len() == 2 && keys[0] != keys[1] && keys.iter().all(|key| !key.contains("msg_1")),
            "{keys:?}"
        );
    }
    let signed = config(
        "sources: { s: { type: webhook, verify: standard-webhooks, secret: plainly-fictional } }",
    );
    let source = &signed.sources[0];
    let mut raw = raw(&body, &[BATCH, ("webhook-id", "msg_1")]);
    let scheme =
        Scheme { secrets: &source.secrets, tolerance: None, options: &source.signature, now: NOW };
    provider("standard-webhooks").unwrap().sign(&mut raw, &scheme);
    let keys = keys(admit(&signed, &raw).unwrap());
    assert!(keys.len() == 2 && keys[0] != keys[1], "{keys:?}");
}

#[test]
fn a_batch_of_one_or_none_is_a_batch_and_a_member_that_is_no_event_is_named() {
    let open = config("sources: { s: { type: webhook, verify: none } }");
    let batch = |body: serde_json::Value| admit(&open, &raw(&body.to_string(), &[BATCH]));
    assert!(matches!(batch(json!([])), Ok(Admitted::Batch(events)) if events.is_empty()));
    assert!(
        matches!(batch(json!([member("1")])), Ok(Admitted::Batch(events)) if events.len() == 1)
    );
    for lacks in ["specversion", "id", "source", "type"] {
        let mut other = member("2");
        other.as_object_mut().unwrap().remove(lacks);
        match batch(json!([member("1"), other])) {
            Err(AdmitError::Batch(why)) => {
                assert!(why.contains("item 1") && why.contains(lacks), "{why}")
            }
            admitted => panic!("{admitted:?}"),
        }
    }
    for body in [json!({}), json!([1]), json!([[]]), json!([null])] {
        assert!(matches!(batch(body.clone()), Err(AdmitError::Batch(_))), "{body}");
    }
}

#[test]
fn an_event_is_one_in_binary_and_in_structured_mode() {
    let open = config("sources: { s: { type: webhook, verify: none } }");
    let structured = json!({
        "specversion": "1.0",
        "id": "a b",
        "source": "/h\u{e4}fen/1",
        "type": "high water 100%",
    })
    .to_string();
    let structured = raw(&structured, &[("content-type", "application/cloudevents+json")]);
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "a%20b"),
        ("ce-source", "/h%C3%A4fen/1"),
        ("ce-type", "high%20water%20100%25"),
    ];
    let binary = raw("{}", &binary);
    let one = |raw: &Raw| match admit(&open, raw).unwrap() {
        Admitted::Event(event) => (event.kind, event.dedupe_key),
        admitted => panic!("{admitted:?}"),
    };
    assert_eq!(one(&structured), one(&binary));
    assert_eq!(one(&binary).0, "high water 100%");
    let quoted = raw("{}", &[("ce-id", "\"a \\\"b\\\"\""), ("ce-source", "/x"), ("ce-type", "t")]);
    assert_eq!(one(&quoted).1.as_deref(), Some("2:/x a \"b\""));
}

#[test]
fn shopify_has_an_id_of_the_delivery_and_one_of_the_event() {
    let text = |dedupe: &str| {
        format!(
            "sources: {{ s: {{ type: webhook, verify: shopify, secret: plainly-fictional{dedupe} \
             }} }}"
        )
    };
    let key = |config: &Config| {
        let source = &config.sources[0];
        let mut raw = raw(
            "{}",
            &[
                ("x-shopify-webhook-id", "w-1"),
                ("x-shopify-event-id", "e-1"),
                ("x-shopify-topic", "orders/paid"),
            ],
        );
        let scheme = Scheme {
            secrets: &source.secrets,
            tolerance: None,
            options: &source.signature,
            now: NOW,
        };
        provider("shopify").unwrap().sign(&mut raw, &scheme);
        keys(admit(config, &raw).unwrap()).remove(0)
    };
    assert_eq!(key(&config(&text(""))), "w-1");
    assert_eq!(key(&config(&text(", dedupe: event"))), "e-1");
    assert_eq!(key(&config(&text(", dedupe: off"))), "");
    let other = text(", dedupe: event").replace("shopify", "github");
    let mut problems = tidehook::config::problem::Problems::default();
    let read = vec![tidehook::config::problem::Text { name: "t".to_owned(), content: other }];
    assert!(
        tidehook::config::load::from_texts(
            read,
            &Default::default(),
            false,
            &ingress::known(),
            &mut problems
        )
        .is_none()
    );
    assert!(
        problems.render(false).contains("works with `verify: shopify` only"),
        "{}",
        problems.render(false)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_none_is_refused() {
    let world = World::container("sources: { app: { type: event } }\n").await;
    for (host, status) in [
        ("a.example.com", 202),
        ("[::1]:8080", 202),
        ("a, b", 400),
        ("a b", 400),
        ("user@a", 400),
        ("a/b", 400),
    ] {
        let request = format!(
            "POST /events/app/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\nConnection: \
             close\r\n\r\n{{}}"
        );
        let answer = super::raw_answer(&world, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_signed_here_carries_no_other_id() {
    let secret = "whsec_cGxhaW5seSBmaWN0aW9uYWwga2V5";
    let text = |signing: &str| {
        format!(
            "server: {{ allow_private_urls: true }}\n{signing}sources: {{ s: {{ type: webhook, verify: none, headers: [svix-id, X-Mine] }} }}
handlers: {{ h: {{ source: s, url: \"http://{{receiver}}/ok\" }} }}\n"
        )
    };
    for (signing, has_foreign) in
        [(format!("delivery: {{ signing_secret: {secret} }}\n"), false), (String::new(), true)]
    {
        let world = World::start(&text(&signing)).await;
        world.post("/webhooks/s", &[("svix-id", "msg_other"), ("x-mine", "1")], "{}").await;
        let got = world.receiver.until_count(1).await;
        assert_eq!(got[0].header("svix-id").is_some(), has_foreign);
        assert_eq!(got[0].header("webhook-id").is_some(), !has_foreign);
        assert_eq!(got[0].header("x-mine"), Some("1"));
    }
}
