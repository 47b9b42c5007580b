//! A queue of SQS, asked in its JSON protocol: an action and a document there, a document or an error back, every request signed.
//! A whole SDK would weigh more than the engine, and a cold start reads all of it.
//!
//! The protocol: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-making-api-requests-json.html>.

use std::time::Duration;

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings};
use serde_json::Value;
use url::Url;

use crate::model::{AwsIdentity, Clock, SystemClock, Timestamp};

/// An answer is waited for no longer than this, over all tries: what is announced holds up an answer of ours meanwhile.
const CALL_MAX: Duration = Duration::from_secs(2);
const TRY_MAX: Duration = Duration::from_millis(900);
/// Before a second and a third try.
const PAUSES: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(120)];

/// A queue, and who asks it. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    http: reqwest::Client,
    endpoint: Url,
    url: String,
    who: AwsIdentity,
}

/// Why a call came to nothing.
struct Failed {
    why: String,
    /// It may be another time.
    passes: bool,
}

impl Queue {
    /// The queue at a URL. Where SQS itself is, that URL says too, unless `endpoint` does.
    ///
    /// # Errors
    /// One of them is no URL, or the HTTP client cannot be set up.
    pub fn new(url: String, endpoint: Option<&str>, who: &AwsIdentity, mut tls: rustls::ClientConfig) -> Result<Self, String> {
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut at = Url::parse(endpoint.unwrap_or(&url)).map_err(|error| format!("the queue's URL `{url}` is none: {error}"))?;
        at.set_path("/");
        #[expect(clippy::disallowed_methods, reason = "asks the queue that the installation names, and nobody else")]
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .http1_only()
            .timeout(TRY_MAX)
            .user_agent(concat!("tidehook/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("the HTTP client of the queue cannot be set up: {error}"))?;
        Ok(Self { http, endpoint: at, url, who: who.clone() })
    }

    /// Its URL, as inputs name it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for an action with its input, both under the names of the API reference, and answers its output. Tried again where that
    /// may help: a message that is sent twice is a hint that is given twice.
    ///
    /// # Errors
    /// A sentence: it is refused, or there is no answer in time.
    pub async fn call(&self, action: &str, input: &Value) -> Result<Value, String> {
        let body = input.to_string();
        let tries = async {
            let mut pauses = PAUSES.into_iter();
            loop {
                let failed = match self.ask(action, &body).await {
                    Ok(output) => return Ok(output),
                    Err(failed) => failed,
                };
                match pauses.next().filter(|_| failed.passes) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(format!("{action}: {}", failed.why)),
                }
            }
        };
        match tokio::time::timeout(CALL_MAX, tries).await {
            Ok(output) => output,
            Err(_) => Err(format!("{action}: no answer within {} s", CALL_MAX.as_secs())),
        }
    }

    async fn ask(&self, action: &str, body: &str) -> Result<Value, Failed> {
        let stays = |why: String| Failed { why, passes: false };
        let passes = |error: reqwest::Error| Failed { why: chain(&error), passes: true };
        let mut request = self.http.post(self.endpoint.clone()).body(body.to_owned());
        let target = format!("AmazonSQS.{action}");
        let headers = [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", target.as_str())];
        for (name, value) in headers {
            request = request.header(name, value);
        }
        for (name, value) in self.signature(&headers, body, SystemClock.now()).map_err(stays)? {
            request = request.header(name, value);
        }
        let answer = request.send().await.map_err(passes)?;
        let status = answer.status();
        let text = answer.text().await.map_err(passes)?;
        if status.is_success() {
            return serde_json::from_str(&text).map_err(|error| stays(format!("its answer cannot be read: {error}")));
        }
        // `com.amazonaws.sqs#QueueDoesNotExist` and a message, unless something before SQS answers.
        let said: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let kind = said["__type"].as_str().map_or("", |kind| kind.rsplit('#').next().unwrap_or(kind));
        let message = said["message"].as_str().or(said["Message"].as_str()).unwrap_or("");
        let passes = status.is_server_error() || status.as_u16() == 429 || kind.contains("Throttl");
        Err(Failed { why: format!("{status} {kind} {message}").trim_end().to_owned(), passes })
    }

    /// The headers of a signature made at a time.
    fn signature(&self, headers: &[(&str, &str)], body: &str, at: Timestamp) -> Result<Vec<(String, String)>, String> {
        let body = SignableBody::Bytes(body.as_bytes());
        let request = SignableRequest::new("POST", self.endpoint.as_str(), headers.iter().copied(), body);
        let request = request.map_err(|error| error.to_string())?;
        let (headers, _) = self.who.sign("sqs", at, SigningSettings::default(), request)?.into_parts();
        Ok(headers.iter().map(|header| (header.name().to_owned(), header.value().to_owned())).collect())
    }
}

/// An error with what is behind it: the cause says more than "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    #[test]
    fn a_request_is_signed_as_another_signer_does() {
        let who = AwsIdentity {
            region: "eu-west-1".to_owned(),
            key: "AKIDEXAMPLE".to_owned(),
            secret: Secret::new("plainly-fictional"),
            session: Some(Secret::new("session/token")),
        };
        let url = "https://sqs.eu-west-1.amazonaws.com/000000000000/tidehook".to_owned();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let queue = Queue::new(url, None, &who, tls).unwrap();
        let headers = [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", "AmazonSQS.SendMessageBatch")];
        let made = queue.signature(&headers, "{\"Entries\":[]}", Timestamp(1_795_624_429_000)).unwrap();
        let header = |name: &str| made.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(header("x-amz-date"), Some("20261125T163349Z"));
        assert_eq!(header("x-amz-security-token"), Some("session/token"));
        // What botocore 1.43 makes of the same.
        let expected = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261125/eu-west-1/sqs/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature=70a250a66b27973bf4bd5fbf2540c1600b60e916c27b987b8417ca7908e29211";
        assert_eq!(header("authorization"), Some(expected));
    }
}
