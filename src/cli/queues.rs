//! `tidehook queues`: shows what pull queues hold, receives and acknowledges messages, drains, and
//! tries dead messages again.

use anyhow::{anyhow, bail};
use clap::Subcommand;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::{Client, encode, value};
use super::{Done, Global, print};

/// How many messages of a queue `peek` and `dlq` show at most.
const SHOWN: u32 = 20;

#[derive(Debug, Subcommand)]
pub(super) enum Queues {
    /// List the queues with the number of their messages
    List,
    /// Show the first messages of a queue without receiving them
    Peek {
        /// The queue, as the configuration names it
        queue: String,
        /// How many messages to show, at most 100
        #[arg(short, long, default_value_t = SHOWN)]
        limit: u32,
    },
    /// Receive messages; they are hidden from other consumers until they are acknowledged or their
    /// visibility timeout is over
    Receive {
        /// The queue, as the configuration names it
        queue: String,
        /// How many messages to receive, at most 100
        #[arg(short, long, default_value_t = 1)]
        batch: u32,
        /// How long to wait for the first message, at most 30s
        #[arg(short, long, default_value = "0s")]
        wait: String,
        /// Acknowledge the messages at once
        #[arg(long)]
        ack: bool,
    },
    /// Acknowledge messages: the consumer is done with them
    Ack {
        /// The queue, as the configuration names it
        queue: String,
        /// Receipts of the messages, as receiving them gave
        #[arg(required = true)]
        receipts: Vec<String>,
    },
    /// Give messages back, to be received again
    Nack {
        /// The queue, as the configuration names it
        queue: String,
        /// Receipts of the messages, as receiving them gave
        #[arg(required = true)]
        receipts: Vec<String>,
        /// How long until they are visible again
        #[arg(short, long, default_value = "0s")]
        delay: String,
        /// Why, for whoever reads the dead messages
        #[arg(long)]
        reason: Option<String>,
    },
    /// Show the oldest dead messages of a queue
    Dlq {
        /// The queue, as the configuration names it
        queue: String,
        /// How many messages to show, at most 100
        #[arg(short, long, default_value_t = SHOWN)]
        limit: u32,
    },
    /// Make all dead messages of a queue visible again, with fresh attempts
    Retry {
        /// The queue, as the configuration names it
        queue: String,
    },
    /// Cancel all open messages of a queue
    Drain {
        /// The queue, as the configuration names it
        queue: String,
        /// Confirm that the messages are to be cancelled
        #[arg(long)]
        yes: bool,
    },
}

const RECEIVED: [(&str, &str); 5] = [
    ("MESSAGE", "id"),
    ("TYPE", "event_type"),
    ("ATTEMPT", "attempt"),
    ("RECEIPT", "receipt"),
    ("PAYLOAD", "payload"),
];

/// What a receive answers. Payloads stay text: consumers may send what this program cannot read.
#[derive(serde::Deserialize)]
struct Received {
    messages: Vec<Message>,
}

#[derive(serde::Deserialize)]
struct Message {
    id: String,
    event_type: String,
    attempt: u32,
    receipt: String,
    payload: Box<RawValue>,
}

impl Received {
    fn shown(&self) -> Value {
        let shown = |m: &Message| {
            json!({
                "id": m.id, "event_type": m.event_type, "attempt": m.attempt,
                "receipt": m.receipt, "payload": m.payload.get(),
            })
        };
        self.messages.iter().map(shown).collect()
    }
}

const MESSAGES: [(&str, &str); 6] = [
    ("MESSAGE", "id"),
    ("TYPE", "event_type"),
    ("ATTEMPT", "attempt"),
    ("STATUS", "status"),
    ("VISIBLE AT", "visible_at"),
    ("LAST ERROR", "last_error"),
];

pub(super) async fn run(verb: Queues, global: &Global) -> Done {
    let client = Client::connect(global).await?;
    let path = |queue: &str, rest: &str| format!("/api/queues/{}{rest}", encode(queue));
    match verb {
        Queues::List => {
            let answer = client.get("/api/queues").await?;
            let columns = [
                ("QUEUE", "name"),
                ("SOURCE", "source"),
                ("VISIBLE", "visible"),
                ("IN FLIGHT", "in_flight"),
                ("DELAYED", "delayed"),
                ("DEAD", "dead"),
                ("OLDEST (S)", "oldest_seconds"),
            ];
            show(global, &answer, || print::table(&answer["queues"], &columns, "No queues."));
        }
        Queues::Peek { queue, limit } => {
            let answer = client.get(&path(&queue, &format!("/peek?limit={limit}"))).await?;
            show(global, &answer, || {
                print::table(&answer["messages"], &MESSAGES, "The queue is empty.");
            });
        }
        Queues::Dlq { queue, limit } => {
            let answer = client.get(&path(&queue, &format!("/dlq?limit={limit}"))).await?;
            show(global, &answer, || {
                print::table(&answer["messages"], &MESSAGES, "No dead messages.");
            });
        }
        Queues::Receive { queue, batch, wait, ack } => {
            let query = format!("/messages?batch={batch}&wait={}", encode(&wait));
            let path_and_query = path(&queue, &query);
            let answer =
                client.request(Method::GET, &path_and_query, HeaderMap::new(), Vec::new()).await?;
            if !answer.status.is_success() {
                value(answer)?;
                return Err(anyhow!("the messages cannot be read").into());
            }
            let got: Received = serde_json::from_str(&answer.text)?;
            let receipts: Vec<&str> = got.messages.iter().map(|m| m.receipt.as_str()).collect();
            match global.json {
                // As it came: a body may hold what this program would write otherwise.
                true => print::line(answer.text.trim_end()),
                false => print::table(&got.shown(), &RECEIVED, "No messages."),
            }
            if ack && !receipts.is_empty() {
                let body = json!({ "receipts": receipts });
                let acked = say(&client, &path(&queue, "/ack"), &body).await?;
                if !global.json {
                    print::note(&format!("{} were acknowledged.", acked["acked"]));
                }
            }
        }
        Queues::Ack { queue, receipts } => {
            let body = json!({ "receipts": receipts });
            let answer = say(&client, &path(&queue, "/ack"), &body).await?;
            show(global, &answer, || {
                print::note(&format!("{} were acknowledged.", answer["acked"]));
                refused(&answer);
            });
        }
        Queues::Nack { queue, receipts, delay, reason } => {
            let mut body = json!({ "receipts": receipts, "delay": delay });
            if let Some(reason) = reason {
                body["reason"] = json!(reason);
            }
            let answer = say(&client, &path(&queue, "/nack"), &body).await?;
            show(global, &answer, || {
                let (retried, dead) = (&answer["retried"], &answer["dead"]);
                print::note(&format!("{retried} can be received again, {dead} are dead."));
                refused(&answer);
            });
        }
        Queues::Retry { queue } => {
            let answer = client.post(&path(&queue, "/retry")).await?;
            show(global, &answer, || {
                print::note(&format!("{} messages are visible again.", answer["retried"]));
            });
        }
        Queues::Drain { queue, yes } => {
            if !yes {
                let depth = client.get(&path(&queue, "")).await?["depth"].clone();
                bail_out(&format!(
                    "this cancels {depth} open messages of `{}`; repeat it with --yes",
                    print::one_line(&queue)
                ))?;
            }
            let answer = client.post(&path(&queue, "/drain")).await?;
            show(global, &answer, || {
                print::note(&format!("{} messages were cancelled.", answer["drained"]));
            });
        }
    }
    Ok(())
}

fn show(global: &Global, answer: &Value, people: impl FnOnce()) {
    match global.json {
        true => print::json(answer),
        false => people(),
    }
}

fn bail_out(why: &str) -> anyhow::Result<()> {
    bail!("{why}")
}

fn refused(answer: &Value) {
    let columns = [("REFUSED", "message"), ("CODE", "code")];
    if answer["refused"].as_array().is_some_and(|list| !list.is_empty()) {
        print::table(&answer["refused"], &columns, "");
    }
}

async fn say(client: &Client, path: &str, body: &Value) -> anyhow::Result<Value> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    value(client.request(Method::POST, path, headers, body.to_string().into_bytes()).await?)
}
