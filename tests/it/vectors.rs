//! Published vectors, read from `../shared/vectors`; without that folder these tests say so and
//! pass.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tidehook::config::source::SignatureOptions;
use tidehook::ingress::{Raw, Reason, Scheme, provider};
use tidehook::model::json::Ref;
use tidehook::model::{Path, Secret, Timestamp};

use crate::support::shared;

fn read(name: &str) -> Option<Value> {
    let path = shared("vectors")?.join(name);
    Some(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
}

#[test]
fn the_rfc_9535_compliance_suite_passes_through_the_path_type() {
    let Some(suite) = read("jsonpath-cts.json") else { return };
    let tests = suite["tests"].as_array().unwrap();
    assert_eq!(tests.len(), 703);
    let mut wrong = Vec::new();
    for test in tests {
        let (name, selector) = (test["name"].as_str().unwrap(), test["selector"].as_str().unwrap());
        let path = Path::rfc9535(selector);
        if test["invalid_selector"] == true {
            if path.is_ok() {
                wrong.push(format!("{name}: `{selector}` compiles"));
            }
            continue;
        }
        let Ok(path) = path else {
            wrong.push(format!("{name}: `{selector}` does not compile: {}", path.unwrap_err()));
            continue;
        };
        let located = path.located(Ref::Value(&test["document"]));
        let values = Value::Array(located.iter().map(|(_, v)| v.to_value()).collect());
        let paths = Value::Array(located.iter().map(|(p, _)| p.clone().into()).collect());
        let one_of = |one: &str, several: &str, got: &Value| match (&test[one], &test[several]) {
            (Value::Null, Value::Null) => true,
            (expected, Value::Null) => expected == got,
            (_, expected) => expected.as_array().unwrap().contains(got),
        };
        if !one_of("result", "results", &values) {
            wrong.push(format!("{name}: `{selector}` selects {values}"));
        }
        if !one_of("result_paths", "results_paths", &paths) {
            wrong.push(format!("{name}: `{selector}` names {paths}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), tests.len(), wrong.join("\n"));
}

#[test]
fn published_signatures_verify_and_forgeries_do_not() {
    let Some(vectors) = read("signature-vectors.json") else { return };
    let vectors = vectors.as_array().unwrap();
    assert_eq!(vectors.len(), 6);
    for vector in vectors {
        let text = |field: &str| vector[field].as_str().unwrap_or("");
        let provider = provider(text("provider")).unwrap();
        let form = vector["form"].as_object().map(|form| {
            let pairs = form.iter().map(|(k, v)| (k.as_str(), v.as_str().unwrap()));
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
        });
        let url: url::Url = if text("url").is_empty() {
            "https://x/".parse().unwrap()
        } else {
            text("url").parse().unwrap()
        };
        let uri: http::Uri = format!("{}?{}", url.path(), url.query().unwrap_or(""))
            .trim_end_matches('?')
            .parse()
            .unwrap();
        let headers = |signature: Option<&str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in vector["headers"].as_object().unwrap() {
                let value = match signature {
                    Some(other) if name.to_lowercase().contains("signature") => other,
                    _ => value.as_str().unwrap(),
                };
                headers.insert(
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                );
            }
            headers
        };
        let body = form.unwrap_or_else(|| text("body").to_owned());
        let request = |signature: Option<&str>, body: &str| {
            Raw::new(
                uri.clone(),
                url.origin().ascii_serialization(),
                headers(signature),
                body.to_owned(),
            )
        };
        let at = ["X-Slack-Request-Timestamp", "webhook-timestamp"]
            .iter()
            .find_map(|h| vector["headers"][*h].as_str());
        let now = Timestamp::from_seconds(at.map_or(0, |t| t.parse().unwrap())).unwrap();
        let (secrets, options) = ([Secret::new(text("secret"))], SignatureOptions::default());
        let scheme = Scheme { secrets: &secrets, tolerance: None, options: &options, now };
        assert_eq!(provider.verify(&request(None, &body), &scheme), Ok(()), "{}", text("origin"));
        let changed = body.replacen(|c: char| c.is_ascii_digit(), "x", 1);
        if changed != body {
            assert_eq!(
                provider.verify(&request(None, &changed), &scheme),
                Err(Reason::Wrong),
                "{}",
                text("origin")
            );
        }
        for forged in vector["must_reject"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(_, forged)| forged.as_str().unwrap())
        {
            assert_eq!(
                provider.verify(&request(Some(forged), &body), &scheme),
                Err(Reason::Wrong),
                "{}",
                text("origin")
            );
        }
    }
}
