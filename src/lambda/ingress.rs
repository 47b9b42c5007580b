//! The function `ingress`: serves the same HTTP routes as the container.
//!
//! It reads the payloads of API Gateway (HTTP and REST), of function URLs and of load balancers:
//! <https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html> and the pages beside it
//! describe them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::response::Response;
use http::Uri;
use lambda_http::request::{LambdaRequest, RequestContext};
use lambda_http::{Adapter, LambdaEvent, Request};
use lambda_runtime::{Error, Service};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tower::ServiceExt;

use super::Function;
use crate::http::client::Peer;

/// Answers one HTTP request of a gateway, a function URL or a load balancer, by the container's
/// routes.
pub(super) async fn invoke(
    function: &Function,
    event: LambdaEvent<Box<RawValue>>,
) -> Result<Box<RawValue>, Error> {
    let request = read(event.payload.get())?;
    let mut adapter =
        Adapter::from(lambda_http::service_fn(|request: Request| answer(function, request)));
    let answer = adapter.call(LambdaEvent { payload: request, context: event.context }).await?;
    Ok(serde_json::value::to_raw_value(&answer)?)
}

/// Reads a payload as a request. An invalid `Host` is left out, so that the routes can refuse or
/// ignore it.
fn read(payload: &str) -> Result<LambdaRequest, serde_json::Error> {
    #[derive(Deserialize)]
    struct Headers {
        #[serde(default)]
        headers: BTreeMap<String, Value>,
    }
    let host = |headers: &BTreeMap<String, Value>| {
        headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("host"))
            .any(|(_, host)| !is_host(host.as_str().unwrap_or("")))
    };
    if !serde_json::from_str::<Headers>(payload).is_ok_and(|found| host(&found.headers)) {
        return serde_json::from_str(payload);
    }
    let mut event: Value = serde_json::from_str(payload)?;
    for key in ["headers", "multiValueHeaders"] {
        if let Some(Value::Object(headers)) = event.get_mut(key) {
            headers.retain(|name, _| !name.eq_ignore_ascii_case("host"));
        }
    }
    serde_json::from_str(&event.to_string())
}

fn is_host(host: &str) -> bool {
    url::Url::parse(&format!("https://{host}/")).is_ok()
}

async fn answer(function: &Function, request: Request) -> Result<Response, Infallible> {
    if let Err(error) = function.ready().await {
        // Probes and routes answer for themselves; whatever needs the store says 503.
        tracing::error!(%error, "The database is unavailable.");
    }
    let request = localized(request);
    let answer = function.routes.clone().oneshot(request).await;
    if let Err(error) = function.engine.flush().await {
        tracing::warn!(%error, "The counts of refused requests could not be stored. The next \
            invocation tries again.");
    }
    answer
}

/// The request as the container would see it: its path without the gateway's stage, its peer the
/// client.
fn localized(request: Request) -> http::Request<Body> {
    let (mut parts, body) = request.into_parts();
    let (stage, client) = match parts.extensions.get::<RequestContext>() {
        Some(RequestContext::ApiGatewayV2(context)) => {
            (context.stage.clone(), context.http.source_ip.clone())
        }
        Some(RequestContext::ApiGatewayV1(context)) => {
            (context.stage.clone(), context.identity.source_ip.clone())
        }
        // A load balancer appends the client's address.
        _ => {
            let list = parts
                .headers
                .get_all("x-forwarded-for")
                .iter()
                .next_back()
                .and_then(|value| value.to_str().ok());
            (None, list.and_then(|list| list.rsplit(',').next()).map(|last| last.trim().to_owned()))
        }
    };
    if let Some(uri) = stage.as_deref().and_then(|stage| without_stage(&parts.uri, stage)) {
        parts.uri = uri;
    }
    if let Some(address) = client.and_then(|text| text.parse::<IpAddr>().ok()) {
        parts.extensions.insert(Peer(SocketAddr::new(address, 0)));
    }
    http::Request::from_parts(parts, Body::new(body))
}

/// The URI without the stage that a gateway puts before its path; `None` when there is no stage to
/// remove.
fn without_stage(uri: &Uri, stage: &str) -> Option<Uri> {
    let path = uri.path().strip_prefix('/')?.strip_prefix(stage)?;
    if stage == "$default" || !(path.is_empty() || path.starts_with('/')) {
        return None;
    }
    let path = if path.is_empty() { "/" } else { path };
    let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{path}{query}").parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_is_taken_from_the_path_and_nothing_else_is() {
        let stripped = |uri: &str, stage: &str| {
            without_stage(&uri.parse().unwrap(), stage).map(|uri| uri.to_string())
        };
        assert_eq!(
            stripped("https://h/prod/webhooks/a?x=1", "prod").as_deref(),
            Some("https://h/webhooks/a?x=1")
        );
        assert_eq!(stripped("https://h/prod", "prod").as_deref(), Some("https://h/"));
        assert_eq!(stripped("https://h/production/x", "prod"), None);
        assert_eq!(stripped("https://h/webhooks/a", "prod"), None);
        assert_eq!(stripped("https://h/$default/a", "$default"), None);
    }

    #[test]
    fn a_host_that_is_none_is_left_out() {
        for (host, kept) in [
            ("example.com", true),
            ("x.execute-api.127.0.0.1", false),
            ("a b", false),
            ("[::1", false),
        ] {
            let event = serde_json::json!({
                "version": "2.0", "rawPath": "/livez", "rawQueryString": "", "headers": {
                    "host": host, "x": "1",
                },
                "requestContext": {
                    "stage": "$default",
                    "http": { "method": "GET", "path": "/livez", "sourceIp": "192.0.2.7" },
                },
                "isBase64Encoded": false,
            });
            let request: Request = read(&event.to_string()).unwrap().into();
            assert_eq!(request.headers().contains_key("host"), kept, "{host}");
            assert_eq!(request.uri().path(), "/livez");
        }
    }
}
