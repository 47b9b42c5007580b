//! A queue that speaks as much of SQS as is spoken to it, and a poller that does with messages what
//! Lambda does.
//!
//! The protocol is AWS JSON 1.0:
//! <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-making-api-requests-json.html>.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tidehook::model::{Clock, ManualClock};
use tidehook::wake::sqs::queue::Queue as Client;

/// A message.
#[derive(Debug, Clone)]
pub struct Message {
    pub id: String,
    pub body: String,
    /// The delay that it was sent with.
    pub delay: Duration,
    /// Since the queue's own beginning.
    visible_at: Duration,
    pub received: u32,
}

/// What may happen to messages on their way, by the number of the message.
pub type Runtime = Arc<dyn Fn(u64) -> Vec<Duration> + Send + Sync>;

/// A queue. Cheap to clone.
#[derive(Clone)]
pub struct Queue(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    time: Time,
    messages: Mutex<Vec<Message>>,
    /// Everything that was ever sent.
    sent: Mutex<Vec<Message>>,
    refuses: AtomicBool,
    next: AtomicU64,
    way: Mutex<Option<Runtime>>,
}

/// The clock of a queue.
enum Time {
    Real(Instant),
    Manual(ManualClock),
}

impl Time {
    fn now(&self) -> Duration {
        match self {
            Self::Real(began) => began.elapsed(),
            Self::Manual(clock) => Duration::from_millis(u64::try_from(clock.now().0).unwrap()),
        }
    }
}

impl Queue {
    pub async fn start() -> Self {
        Self::start_with(Time::Real(Instant::now())).await
    }

    /// One whose messages are delayed on a clock that the test moves.
    pub async fn start_on(clock: ManualClock) -> Self {
        Self::start_with(Time::Manual(clock)).await
    }

    /// A client of it, in this process.
    pub fn client(&self) -> Client {
        let address = self.0.address;
        let sdk = aws_config::SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .region(aws_config::Region::from_static("eu-west-1"))
            .endpoint_url(format!("http://{address}"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                "test", "test", None, None, "test",
            )))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Client::new(format!("http://{address}/000000000000/tidehook"), &sdk)
    }

    async fn start_with(time: Time) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let queue = Self(Arc::new(Inner {
            address: listener.local_addr().unwrap(),
            time,
            messages: Mutex::default(),
            sent: Mutex::default(),
            refuses: AtomicBool::new(false),
            next: AtomicU64::new(0),
            way: Mutex::default(),
        }));
        let routes = Router::new().route("/", post(serve)).with_state(queue.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        queue
    }

    /// The variables with which the SDK finds it.
    pub fn variables(&self) -> Vec<(String, String)> {
        let base = format!("http://{}", self.0.address);
        let pairs = [
            ("TIDEHOOK_QUEUE_URL", format!("{base}/000000000000/tidehook")),
            ("AWS_ENDPOINT_URL_SQS", base),
            ("AWS_REGION", "eu-west-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Refuses what is sent, or no longer.
    pub fn refuse(&self, refuses: bool) {
        self.0.refuses.store(refuses, Ordering::SeqCst);
    }

    /// What happens to messages from now on: one copy after each delay; none is a message that is
    /// lost.
    pub fn lead(&self, way: impl Fn(u64) -> Vec<Duration> + Send + Sync + 'static) {
        *self.0.way.lock().unwrap() = Some(Arc::new(way));
    }

    /// Everything that was sent.
    pub fn sent(&self) -> Vec<Message> {
        self.0.sent.lock().unwrap().clone()
    }

    /// Messages that are there, visible or not.
    pub fn len(&self) -> usize {
        self.0.messages.lock().unwrap().len()
    }

    /// Puts a message there that nobody sent.
    pub fn put(&self, body: &str) {
        self.take_in(body.to_owned(), Duration::ZERO);
    }

    fn take_in(&self, body: String, delay: Duration) -> String {
        let number = self.0.next.fetch_add(1, Ordering::SeqCst);
        let id = format!("m-{number}");
        let message = Message {
            id: id.clone(),
            body,
            delay,
            visible_at: self.0.time.now() + delay,
            received: 0,
        };
        self.0.sent.lock().unwrap().push(message.clone());
        let way = self.0.way.lock().unwrap().clone();
        let copies = way.map_or_else(|| vec![Duration::ZERO], |way| way(number));
        let copy = |more| Message { visible_at: message.visible_at + more, ..message.clone() };
        self.0.messages.lock().unwrap().extend(copies.into_iter().map(copy));
        id
    }

    /// Up to ten visible messages, as the event that a worker gets; they are invisible for this
    /// long.
    pub fn receive(&self, visibility: Duration) -> Option<(Vec<Message>, Value)> {
        let now = self.0.time.now();
        let mut messages = self.0.messages.lock().unwrap();
        let mut batch = Vec::new();
        for message in messages.iter_mut().filter(|message| message.visible_at <= now).take(10) {
            message.visible_at = now + visibility;
            message.received += 1;
            batch.push(message.clone());
        }
        let event = json!({ "Records": batch.iter().map(record).collect::<Vec<_>>() });
        (!batch.is_empty()).then_some((batch, event))
    }

    /// Deletes what a worker has not reported as failed.
    pub fn delete(&self, batch: &[Message], answer: &Value) {
        let failed: Vec<&str> = answer["batchItemFailures"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|f| f["itemIdentifier"].as_str())
            .collect();
        self.0.messages.lock().unwrap().retain(|message| {
            let is_of_batch = |m: &&Message| {
                m.id == message.id
                    && m.received == message.received
                    && m.visible_at == message.visible_at
            };
            !batch.iter().any(|m| is_of_batch(&m) && !failed.contains(&m.id.as_str()))
                || failed.contains(&message.id.as_str())
        });
    }
}

fn record(message: &Message) -> Value {
    json!({
        "messageId": message.id, "receiptHandle": "r", "body": message.body, "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-west-1:000000000000:tidehook", "awsRegion": "eu-west-1",
        "messageAttributes": {},
        "attributes": { "ApproximateReceiveCount": message.received.to_string() },
    })
}

async fn serve(State(queue): State<Queue>, headers: HeaderMap, body: Bytes) -> Response {
    if queue.0.refuses.load(Ordering::SeqCst) {
        return (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "__type": "InternalError" })))
            .into_response();
    }
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or("");
    let asked: Value = serde_json::from_slice(&body).unwrap();
    match target {
        "AmazonSQS.SendMessageBatch" => {
            let entries = asked["Entries"].as_array().unwrap();
            assert!((1..=10).contains(&entries.len()), "a batch has one to ten entries");
            let taken = entries.iter().map(|entry| {
                let delay = entry["DelaySeconds"].as_u64().unwrap_or(0);
                assert!(delay <= 900, "SQS delays no longer than 15 minutes");
                let id = queue.take_in(
                    entry["MessageBody"].as_str().unwrap().to_owned(),
                    Duration::from_secs(delay),
                );
                json!({ "Id": entry["Id"], "MessageId": id, "MD5OfMessageBody": "" })
            });
            Json(json!({ "Successful": taken.collect::<Vec<_>>(), "Failed": [] })).into_response()
        }
        "AmazonSQS.SendMessage" => {
            let id =
                queue.take_in(asked["MessageBody"].as_str().unwrap().to_owned(), Duration::ZERO);
            Json(json!({ "MessageId": id, "MD5OfMessageBody": "" })).into_response()
        }
        "AmazonSQS.GetQueueAttributes" => {
            Json(json!({ "Attributes": { "VisibilityTimeout": "300", "RedrivePolicy": "{}" } }))
                .into_response()
        }
        other => panic!("nobody asks for {other}"),
    }
}
