//! A queue of SQS, asked by AWS's own client.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

/// An answer is waited for no longer than this, over all tries: what is announced holds up an answer of ours meanwhile.
const CALL_MAX: Duration = Duration::from_secs(2);
const TRY_MAX: Duration = Duration::from_millis(900);
/// A message that is sent twice is a hint that is given twice.
const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(80);

/// A queue, and the client that asks it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    client: Client,
    url: String,
}

impl Queue {
    /// The queue at a URL, as SQS gives it.
    pub fn new(url: String, sdk: &SdkConfig) -> Self {
        let times = TimeoutConfig::builder().operation_timeout(CALL_MAX).operation_attempt_timeout(TRY_MAX).build();
        let tries = RetryConfig::standard().with_max_attempts(TRIES).with_initial_backoff(FIRST_PAUSE);
        let config = aws_sdk_sqs::config::Builder::from(sdk).timeout_config(times).retry_config(tries).build();
        Self { client: Client::from_conf(config), url }
    }

    /// Its URL, as inputs name it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The client, for whatever is asked of the queue.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// A sentence from an error of the client, whose own text says next to nothing.
pub fn sentence<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    match error.code() {
        Some(code) => format!("{code}: {}", error.message().unwrap_or("no reason is given")),
        None => DisplayErrorContext(error).to_string(),
    }
}
