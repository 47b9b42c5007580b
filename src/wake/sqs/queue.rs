//! A queue of SQS, called through AWS's own client.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

/// The most time for one call, over all tries. The sender of an event waits for it, since wake-ups
/// are sent before the answer.
const CALL_MAX: Duration = Duration::from_secs(2);
const TRY_MAX: Duration = Duration::from_millis(900);
/// How often a call is tried. A message that is sent twice does no harm: it is a repeated hint.
const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(80);

/// A queue and the client that calls it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    client: Client,
    url: String,
}

impl Queue {
    /// The queue at a URL, as SQS gives it.
    pub fn new(url: String, sdk: &SdkConfig) -> Self {
        let times = TimeoutConfig::builder()
            .operation_timeout(CALL_MAX)
            .operation_attempt_timeout(TRY_MAX)
            .build();
        let tries =
            RetryConfig::standard().with_max_attempts(TRIES).with_initial_backoff(FIRST_PAUSE);
        let config = aws_sdk_sqs::config::Builder::from(sdk)
            .timeout_config(times)
            .retry_config(tries)
            .build();
        Self { client: Client::from_conf(config), url }
    }

    /// The queue's URL, as requests name it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The client, for calls to the queue.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// One sentence from an error of the client, whose own text says next to nothing.
pub fn sentence<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    match error.code() {
        Some(code) => format!("{code}: {}", error.message().unwrap_or("no reason given")),
        None => DisplayErrorContext(error).to_string(),
    }
}
