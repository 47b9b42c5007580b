//! Requests as gateways hand them over: the same rows as through the container's own port.

use serde_json::{Value, json};
use tidehook::store::{EventFilter, Page};

use crate::support::functions::install::{Install, answer, http};

const TEXT: &str = "server: { allow_private_urls: true }
database: { driver: postgres }
api: { auth_token: plainly-fictional }
sources:
  app: { type: webhook, verify: github, secret: plainly-fictional }
  near: { type: webhook, allowed_ips: [192.0.2.7] }
handlers:
  h: { source: app, url: \"http://{receiver}/ok\" }
";

const PAGE: Page = Page { limit: 100, newest_first: false };

/// The signature of a body under the secret of the file.
fn signature(body: &[u8]) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"plainly-fictional").unwrap();
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

/// The same request as each gateway writes it.
fn forms(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<(&'static str, Value)> {
    let text = String::from_utf8_lossy(body).into_owned();
    let mut v2 = http("POST", path, headers, &text);
    let mut in_base64 = v2.clone();
    (in_base64["body"], in_base64["isBase64Encoded"]) = (json!(base64(body)), json!(true));
    let mut staged = v2.clone();
    staged["requestContext"]["stage"] = json!("prod");
    staged["rawPath"] = json!(format!("/prod{path}"));
    staged["requestContext"]["http"]["path"] = json!(format!("/prod{path}"));
    if std::str::from_utf8(body).is_err() {
        v2 = in_base64.clone();
        staged["body"] = in_base64["body"].clone();
        staged["isBase64Encoded"] = json!(true);
    }
    let map: serde_json::Map<String, Value> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let many: serde_json::Map<String, Value> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), json!([value]))).collect();
    let rest = json!({
        "resource": "/{proxy+}", "path": path, "httpMethod": "POST", "headers": map,
        "multiValueHeaders": many,
        "queryStringParameters": null, "multiValueQueryStringParameters": null,
        "pathParameters": null, "stageVariables": null,
        "requestContext": {
            "accountId": "000000000000", "apiId": "a", "stage": "prod",
            "path": format!("/prod{path}"), "httpMethod": "POST",
            "resourcePath": "/{proxy+}", "resourceId": "r", "requestId": "r",
            "protocol": "HTTP/1.1",
            "identity": { "sourceIp": "192.0.2.7" }, "requestTimeEpoch": 1_767_225_600_000_i64,
        },
        "body": base64(body), "isBase64Encoded": true,
    });
    let mut of_balancer = map.clone();
    of_balancer.insert("x-forwarded-for".to_owned(), json!("6.6.6.6, 192.0.2.7"));
    let alb = json!({
        "requestContext": { "elb": { "targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:000000000000:targetgroup/t/1" } },
        "httpMethod": "POST", "path": path, "queryStringParameters": {}, "headers": of_balancer,
        "body": base64(body), "isBase64Encoded": true,
    });
    vec![
        ("HTTP API", v2),
        ("base64", in_base64),
        ("a stage", staged),
        ("REST API", rest),
        ("load balancer", alb),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_gateway_brings_the_exact_bytes_and_the_real_client() {
    let Some(install) = Install::new(TEXT).await else { return };
    let ingress = install.function("ingress").await;
    for (n, body) in
        ["{\"name\": \"Zoë 🌊\"}".as_bytes(), b"{\"a\":1}\n\n  "].into_iter().enumerate()
    {
        let signed = signature(body);
        let headers = [
            ("x-hub-signature-256", signed.as_str()),
            ("x-github-event", "push"),
            ("content-type", "application/json"),
        ];
        for (form, event) in forms("/webhooks/app", &headers, body) {
            let (status, said) = answer(&ingress.invoke(event).await.unwrap());
            assert_eq!(status, 200, "{n} by {form}: {said}");
        }
    }
    for (form, event) in forms("/webhooks/near", &[], b"{}") {
        assert_eq!(
            answer(&ingress.invoke(event).await.unwrap()).0,
            200,
            "{form} shows the client's address"
        );
    }
    let store = install.store().await;
    let filter = EventFilter { source: Some("app".to_owned()), ..EventFilter::default() };
    let ids: Vec<_> =
        store.events(&filter, PAGE).await.unwrap().into_iter().map(|event| event.id).collect();
    let events = store.events_by_id(&ids).await.unwrap();
    let bodies: Vec<&[u8]> = events.values().map(|event| &event.body.bytes()[..]).collect();
    assert_eq!(bodies.len(), 10);
    assert!(
        bodies[..5].iter().all(|body| *body == bodies[0])
            && bodies[5..].iter().all(|body| *body == b"{\"a\":1}\n\n  ")
    );
    assert!(events.values().all(|event| event.kind == "push"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_request_is_refused_and_counted() {
    let Some(install) = Install::new(TEXT).await else { return };
    let ingress = install.function("ingress").await;
    let headers = [("x-hub-signature-256", "sha256=00"), ("x-github-event", "push")];
    assert_eq!(
        answer(&ingress.invoke(http("POST", "/webhooks/app", &headers, "{}")).await.unwrap()).0,
        401
    );
    let rejections = install.store().await.rejections().await.unwrap();
    assert_eq!(
        rejections.iter().map(|rejection| rejection.count).sum::<u64>(),
        1,
        "{rejections:?}"
    );
    let mut elsewhere = http("POST", "/webhooks/near", &[], "{}");
    elsewhere["requestContext"]["http"]["sourceIp"] = json!("198.51.100.1");
    assert_eq!(answer(&ingress.invoke(elsewhere).await.unwrap()).0, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_is_an_error_and_the_function_lives() {
    let Some(install) = Install::new(TEXT).await else { return };
    let ingress = install.function("ingress").await;
    for event in [json!({}), json!(null), json!({ "Records": [] }), json!("x")] {
        ingress.invoke(event).await.unwrap_err();
    }
    let mut odd = http("GET", "/livez", &[], "");
    odd["headers"]["host"] = json!("x.execute-api.127.0.0.1");
    assert_eq!(answer(&ingress.invoke(odd).await.unwrap()).0, 200);
    let bearer = [("authorization", "Bearer plainly-fictional")];
    let (status, body) =
        answer(&ingress.invoke(http("GET", "/api/tail", &bearer, "")).await.unwrap());
    assert_eq!((status, &body["code"]), (501, &json!("not_here")));
    assert_eq!(answer(&ingress.invoke(http("GET", "/api/events", &[], "")).await.unwrap()).0, 401);
    let large = "x".repeat(1_100_000);
    assert_eq!(
        answer(&ingress.invoke(http("POST", "/webhooks/app", &[], &large)).await.unwrap()).0,
        413
    );
}
