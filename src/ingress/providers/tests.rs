use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::config::source::SignatureOptions;
use crate::decide::signature::signature;
use crate::ingress::provider::{Reason, Scheme};
use crate::ingress::raw::Raw;
use crate::model::{Secret, Timestamp};

const NOW: Timestamp = Timestamp(1_769_853_600_000);
const ORIGIN: &str = "https://hooks.example.com";

/// A secret each scheme can sign with, and the one it verifies with.
fn secrets(name: &str) -> (Secret, Secret) {
    use ring::signature::{Ed25519KeyPair, KeyPair};
    let seed = [7u8; 32];
    match name {
        "discord" => {
            let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
            (Secret::new(hex::encode(seed)), Secret::new(hex::encode(pair.public_key())))
        }
        "standard-webhooks" => {
            let secret =
                format!("whsec_{}", crate::ingress::check::base64(b"plainly fictional key"));
            (Secret::new(secret.clone()), Secret::new(secret))
        }
        _ => (Secret::new("plainly-fictional"), Secret::new("plainly-fictional")),
    }
}

fn scheme<'a>(secrets: &'a [Secret], options: &'a SignatureOptions, now: Timestamp) -> Scheme<'a> {
    Scheme { secrets, tolerance: None, options, now }
}

fn sample(provider: &dyn Provider) -> Raw {
    let sample = provider.sample("order.paid", "7");
    let mut headers = HeaderMap::new();
    for (name, value) in sample.headers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
    }
    Raw::new("/webhooks/x?a=1".parse().unwrap(), ORIGIN, headers, sample.body)
}

fn signed(provider: &dyn Provider) -> (Raw, Vec<Secret>) {
    let (signs, verifies) = secrets(provider.name());
    let mut request = sample(provider);
    provider.sign(&mut request, &scheme(&[signs], &SignatureOptions::default(), NOW));
    (request, vec![verifies])
}

fn verify(
    provider: &dyn Provider,
    request: &Raw,
    secrets: &[Secret],
    now: Timestamp,
) -> Result<(), Reason> {
    provider.verify(request, &scheme(secrets, &SignatureOptions::default(), now))
}

/// The headers that hold the proof.
fn proof(provider: &dyn Provider) -> Vec<HeaderName> {
    let (request, _) = signed(provider);
    let before = sample(provider);
    request.headers.keys().filter(|k| !before.headers.contains_key(*k)).cloned().collect()
}

#[test]
fn what_a_provider_signs_it_verifies() {
    for provider in PROVIDERS {
        let (request, secrets) = signed(*provider);
        assert_eq!(verify(*provider, &request, &secrets, NOW), Ok(()), "{}", provider.name());
    }
}

#[test]
fn a_changed_body_another_secret_or_no_signature_is_refused() {
    for provider in PROVIDERS {
        let name = provider.name();
        let (request, secrets) = signed(*provider);
        // A token proves the sender, not the body.
        if !matches!(name, "bearer" | "gitlab") {
            let mut body = request.bytes().to_vec();
            body[3] ^= 1;
            let changed = Raw::new(request.uri.clone(), ORIGIN, request.headers.clone(), body);
            assert_eq!(verify(*provider, &changed, &secrets, NOW), Err(Reason::Wrong), "{name}");
        }
        let other = match name {
            "discord" => Secret::new("11".repeat(32)),
            _ => Secret::new("another"),
        };
        assert_eq!(verify(*provider, &request, &[other], NOW), Err(Reason::Wrong), "{name}");
        assert_eq!(
            verify(*provider, &sample(*provider), &secrets, NOW),
            Err(Reason::Missing),
            "{name}"
        );
    }
}

#[test]
fn doubled_empty_cut_and_long_signatures_are_refused() {
    for provider in PROVIDERS {
        let (request, secrets) = signed(*provider);
        for header in proof(*provider) {
            let value = request.headers[&header].to_str().unwrap().to_owned();
            let mut doubled = request.clone();
            doubled.headers.append(header.clone(), HeaderValue::from_str(&value).unwrap());
            assert!(
                verify(*provider, &doubled, &secrets, NOW).is_err(),
                "{} {header} twice",
                provider.name()
            );
            for bad in [
                String::new(),
                value[..value.len() - 1].to_owned(),
                format!("{value}0"),
                "é".to_owned(),
                "a".repeat(100_000),
            ] {
                let mut changed = request.clone();
                changed
                    .headers
                    .insert(header.clone(), HeaderValue::from_bytes(bad.as_bytes()).unwrap());
                // A Standard Webhooks id is not the proof, but it is signed.
                assert!(
                    verify(*provider, &changed, &secrets, NOW).is_err(),
                    "{} {header}: {bad:.40}",
                    provider.name()
                );
            }
        }
    }
}

#[test]
fn either_secret_is_accepted_while_one_replaces_the_other() {
    for provider in PROVIDERS {
        let (request, secrets) = signed(*provider);
        let other = if provider.name() == "discord" {
            Secret::new("11".repeat(32))
        } else {
            Secret::new("another")
        };
        let both = [other, secrets[0].clone()];
        assert_eq!(verify(*provider, &request, &both, NOW), Ok(()), "{}", provider.name());
    }
}

#[test]
fn replay_windows_include_both_ends() {
    for name in ["stripe", "standard-webhooks", "paddle", "slack", "discord"] {
        let provider = provider(name).unwrap();
        let (request, secrets) = signed(provider);
        for (shift, ok) in
            [(-301, false), (-300, true), (-299, true), (299, true), (300, true), (301, false)]
        {
            let now = Timestamp(NOW.0 + shift * 1000);
            assert_eq!(verify(provider, &request, &secrets, now).is_ok(), ok, "{name} {shift}");
        }
        for extreme in [i64::MIN, i64::MAX, 0] {
            assert_eq!(
                verify(provider, &request, &secrets, Timestamp(extreme)),
                Err(Reason::Stale),
                "{name}"
            );
        }
        let options = SignatureOptions::default();
        let off =
            Scheme { tolerance: Some(Duration::ZERO), ..scheme(&secrets, &options, Timestamp(0)) };
        assert_eq!(provider.verify(&request, &off), Ok(()), "{name}");
    }
}

fn with(
    provider: &str,
    headers: &[(&'static str, &str)],
    body: &str,
    secret: &str,
) -> Result<(), Reason> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    let request = Raw::new("/webhooks/x".parse().unwrap(), ORIGIN, map, body.to_owned());
    verify(super::provider(provider).unwrap(), &request, &[Secret::new(secret)], NOW)
}

fn stripe_v1(time: &str, body: &str) -> String {
    use crate::ingress::check::{Algorithm, keyed_hash};
    hex::encode(keyed_hash(Algorithm::Sha256, b"s", &[time.as_bytes(), b".", body.as_bytes()]))
}

#[test]
fn stripe_headers_are_read_strictly() {
    let t = NOW.seconds().to_string();
    let good = stripe_v1(&t, "{}");
    let bad = "00".repeat(32);
    let ok = |header: &str| with("stripe", &[("stripe-signature", header)], "{}", "s").is_ok();
    assert!(ok(&format!("t={t},v1={good},v1={bad}")));
    assert!(ok(&format!("t={t},v1={bad},v1={good}")));
    assert!(ok(&format!("t={t}, v1={good}")));
    assert!(ok(&format!("v0={bad},v1={},t={t}", good.to_uppercase())));
    assert!(!ok(&format!("t={t},v0={good}")));
    assert!(!ok(&format!("t={t},t={t},v1={good}")));
    assert!(!ok(&format!("v1={good}")));
    for time in [format!("+{t}"), "1e9".to_owned(), format!("-{t}"), "9".repeat(30)] {
        let signature = stripe_v1(&time, "{}");
        assert!(!ok(&format!("t={time},v1={signature}")), "{time}");
    }
}

#[test]
fn standard_webhooks_lists_are_read_strictly() {
    let key = b"plainly fictional key";
    let secret = format!("whsec_{}", crate::ingress::check::base64(key));
    let time = NOW.seconds().to_string();
    let good = signature(key, "msg_1", &time, b"{}");
    let ok = |id: &str, time: &str, signatures: &str| {
        let headers =
            [("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", signatures)];
        with("standard-webhooks", &headers, "{}", &secret).is_ok()
    };
    assert!(ok("msg_1", &time, &good));
    assert!(ok("msg_1", &time, &format!("v1,AAAA v2,AAAA {good}")));
    for bad in [
        "v1,",
        "v1",
        "v2,",
        "v1a,",
        &good[..46],
        &good.replace("v1,", "v2,"),
        &good.replace("v1,", "v1a,"),
        &good[3..],
    ] {
        assert!(!ok("msg_1", &time, bad), "{bad}");
    }
    // Of a list only the first thirty-two are read.
    assert!(ok("msg_1", &time, &format!("{}{good}", "v1,AAAA ".repeat(31))));
    assert!(!ok("msg_1", &time, &format!("{}{good}", "v1,AAAA ".repeat(200))));
    assert!(!ok("msg_2", &time, &good));
    let dotted = signature(key, &format!("msg_1.{time}"), "5", b"{}");
    assert!(!ok(&format!("msg_1.{time}"), "5", &dotted));
    let svix = [
        ("svix-id", "msg_1"),
        ("svix-timestamp", time.as_str()),
        ("svix-signature", good.as_str()),
    ];
    assert!(with("standard-webhooks", &svix, "{}", &secret).is_ok());
}

#[test]
fn standard_webhooks_take_ed25519_keys_too() {
    use ring::signature::{Ed25519KeyPair, KeyPair};
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
    let public =
        Secret::new(format!("whpk_{}", crate::ingress::check::base64(pair.public_key().as_ref())));
    let private = Secret::new(format!("whsk_{}", crate::ingress::check::base64(&[9; 32])));
    let provider = provider("standard-webhooks").unwrap();
    let mut request = sample(provider);
    provider.sign(&mut request, &scheme(&[private], &SignatureOptions::default(), NOW));
    assert!(request.header("webhook-signature").unwrap().starts_with("v1a,"));
    assert_eq!(verify(provider, &request, &[public], NOW), Ok(()));
}

#[test]
fn secrets_that_cannot_work_are_found_when_they_are_read() {
    let check = |name: &str, secret: &str| provider(name).unwrap().secret_check()(secret);
    assert!(check("standard-webhooks", "whsec_not base64!").is_err());
    assert!(check("standard-webhooks", "whsec_").is_err());
    assert!(check("standard-webhooks", "plain").is_ok());
    assert!(check("gitlab", "whsec_%%").is_err());
    assert!(check("discord", "abc").is_err());
    assert!(check("stripe", "whsec_anything").is_ok());
}

#[test]
fn a_gitlab_signing_token_shuts_the_plain_token_out() {
    let secret = format!("whsec_{}", crate::ingress::check::base64(b"plainly fictional"));
    assert!(with("gitlab", &[("x-gitlab-token", &secret)], "{}", &secret).is_err());
    assert!(with("gitlab", &[("x-gitlab-token", "token")], "{}", "token").is_ok());
    for wrong in ["tok", "tokenx", "Token", "tоken"] {
        assert!(with("gitlab", &[("x-gitlab-token", wrong)], "{}", "token").is_err(), "{wrong}");
    }
}

#[test]
fn github_sha1_proves_nothing() {
    let sha1 = hex::encode(crate::ingress::check::keyed_hash(
        crate::ingress::check::Algorithm::Sha1,
        b"s",
        &[b"{}"],
    ));
    assert!(with("github", &[("x-hub-signature", &format!("sha1={sha1}"))], "{}", "s").is_err());
    assert!(
        with("github", &[("x-hub-signature-256", &format!("sha1={sha1}"))], "{}", "s").is_err()
    );
}

#[test]
fn hmac_takes_its_header_prefix_algorithm_and_encoding_from_the_source() {
    let provider = provider("hmac").unwrap();
    let some = |s: &str| Some(s.to_owned());
    for options in [
        SignatureOptions::default(),
        SignatureOptions {
            header: some("x-my-sig"),
            prefix: some("sig="),
            algorithm: some("sha512"),
            ..SignatureOptions::default()
        },
        SignatureOptions {
            algorithm: some("sha1"),
            encoding: some("base64"),
            ..SignatureOptions::default()
        },
    ] {
        let secrets = [Secret::new("plainly-fictional")];
        let mut request = sample(provider);
        provider.sign(&mut request, &scheme(&secrets, &options, NOW));
        assert_eq!(
            provider.verify(&request, &scheme(&secrets, &options, NOW)),
            Ok(()),
            "{options:?}"
        );
    }
}

#[test]
fn types_and_their_other_names_follow_the_table() {
    let kind = |name: &str, headers: &[(&'static str, &str)], body: &str| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let kind = provider(name).unwrap().kind(&Raw::new(
            "/".parse().unwrap(),
            ORIGIN,
            map,
            body.to_owned(),
        ));
        std::iter::once(kind.name).chain(kind.type_aliases).collect::<Vec<_>>().join(" ")
    };
    for (provider, headers, body, expected) in [
        ("stripe", &[][..], r#"{"type":"invoice.paid"}"#, "invoice.paid"),
        ("stripe", &[], "{}", "unknown"),
        ("github", &[("x-github-event", "push")], "{}", "push"),
        ("github", &[("x-github-event", "ping")], r#"{"zen":"x","hook_id":1}"#, "ping"),
        (
            "github",
            &[("x-github-event", "pull_request")],
            r#"{"action":"opened"}"#,
            "pull_request.opened pull_request opened",
        ),
        ("github", &[], r#"{"zen":"x","hook_id":1}"#, "ping"),
        ("github", &[], r#"{"action":"opened"}"#, "opened"),
        ("github", &[], "{}", "push"),
        ("shopify", &[("x-shopify-topic", "orders/create")], r#"{"topic":"t"}"#, "orders/create t"),
        (
            "pagerduty",
            &[],
            r#"{"event":{"event_type":"incident.triggered"}}"#,
            "incident.triggered",
        ),
        ("terraform", &[], r#"{"notifications":[{"trigger":"run:completed"}]}"#, "run:completed"),
        (
            "gitlab",
            &[("x-gitlab-event", "Merge Request Hook")],
            r#"{"object_kind":"merge_request","object_attributes":{"action":"open"}}"#,
            "merge_request.open merge_request Merge Request Hook",
        ),
        ("gitlab", &[("x-gitlab-event", "Push Hook")], "{}", "Push Hook"),
        ("grafana", &[], r#"{"status":"firing"}"#, "firing"),
        ("linear", &[], r#"{"type":"Issue","action":"create"}"#, "Issue.create Issue create"),
        ("paddle", &[], r#"{"event_type":"transaction.completed"}"#, "transaction.completed"),
        ("slack", &[], r#"{"type":"event_callback","event":{"type":"message"}}"#, "message"),
        ("discord", &[], r#"{"type":9}"#, "interaction"),
        ("twilio", &[], "Body=x", "event"),
        (
            "twilio",
            &[("content-type", "application/x-www-form-urlencoded")],
            "MessageStatus=delivered&To=x",
            "message.delivered",
        ),
        (
            "twilio",
            &[("content-type", "application/x-www-form-urlencoded")],
            "CallStatus=completed",
            "call.completed",
        ),
        (
            "terraform",
            &[],
            r#"{"payload_version":2,"trigger":"assessment:drifted"}"#,
            "assessment:drifted",
        ),
        ("gitlab", &[], r#"{"object_kind":"release","action":"create"}"#, "release.create release"),
        ("discord", &[], r#"{"type":2,"data":{}}"#, "application_command interaction"),
        (
            "slack",
            &[("content-type", "application/x-www-form-urlencoded")],
            "command=%2Ftide&text=now",
            "slash_command /tide",
        ),
        (
            "slack",
            &[("content-type", "application/x-www-form-urlencoded")],
            "payload=%7B%22type%22%3A%22block_actions%22%7D",
            "block_actions",
        ),
        (
            "github",
            &[("x-github-event", "issues"), ("content-type", "application/x-www-form-urlencoded")],
            "payload=%7B%22action%22%3A%22opened%22%7D",
            "issues.opened issues opened",
        ),
        ("hmac", &[], r#"{"type":"x"}"#, "event"),
    ] {
        assert_eq!(kind(provider, headers, body), expected, "{provider}");
    }
}

#[test]
fn handshakes_are_answered() {
    let challenge = |name: &str, body: &str| {
        provider(name).unwrap().challenge(&Raw::new(
            "/".parse().unwrap(),
            ORIGIN,
            HeaderMap::new(),
            body.to_owned(),
        ))
    };
    let slack = challenge("slack", r#"{"type":"url_verification","challenge":"abc"}"#).unwrap();
    assert_eq!((slack.status, slack.body.unwrap().1), (200, "abc".to_owned()));
    assert_eq!(challenge("discord", r#"{"type":0}"#).unwrap().status, 204);
    assert_eq!(challenge("discord", r#"{"type":1}"#).unwrap().body.unwrap().1, r#"{"type":1}"#);
    assert_eq!(challenge("discord", r#"{"type":1,"event":{"type":"X"}}"#), None);
}

proptest! {
    #[test]
    fn no_header_and_no_body_panics(
        value in "[ -~]{0,80}",
        body in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        for provider in PROVIDERS {
            let (request, secrets) = signed(*provider);
            let mut hostile = Raw::new(
                request.uri.clone(), ORIGIN, request.headers.clone(), body.clone(),
            );
            for name in proof(*provider) {
                hostile.headers.insert(name, HeaderValue::from_str(&value).unwrap());
            }
            prop_assert!(verify(*provider, &hostile, &secrets, NOW).is_err());
            provider.kind(&hostile);
            provider.dedupe_key(&hostile);
            provider.challenge(&hostile);
        }
    }
}
