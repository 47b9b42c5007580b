//! Wake-ups by SQS: each message names jobs that are due when it is delivered. Messages are sent
//! after the commit and before the answer. The queue delays them by up to 15 minutes; anything
//! later is left to the ticks.
//!
//! - [`Hint`]: the content of a message; [`Sqs`]: the wake-ups; [`queue`]: the client of the queue
//!
//! Messages are sent by `SendMessageBatch`:
//! <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>

pub mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;

use super::{Wake, Wakeup, local::Local};
use crate::model::JobId;
use crate::observe::metrics;
use queue::Queue;

/// The version of the message format. Messages without it, or with another one, are refused.
const VERSION: u32 = 1;
/// The longest delay that SQS allows for a message.
pub const DELAY_MAX: Duration = Duration::from_secs(900);
/// The most jobs in one message, which a worker runs side by side.
const JOBS_PER_MESSAGE: usize = 10;
/// The most messages in one request, a limit of SQS.
const MESSAGES_PER_REQUEST: usize = 10;
/// How many requests are in flight at once.
const REQUESTS: usize = 4;
/// A longer message cannot be a hint: ten ids take less than half a KiB.
const BYTES_MAX: usize = 64 * 1024;

/// The content of a message: these jobs are due. Without jobs: some work is due.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hint {
    /// Jobs that are due when the message is delivered. Empty: some work is due, and the worker
    /// looks for it.
    pub jobs: Vec<JobId>,
}

#[derive(Deserialize)]
struct Written {
    tidehook: u32,
    jobs: Vec<String>,
}

impl Hint {
    /// Reads the body of a message.
    ///
    /// # Errors
    /// It is not a hint, or of another version. Reading it again would not help.
    pub fn read(body: &str) -> Result<Self, String> {
        if body.len() > BYTES_MAX {
            return Err(format!("the message has {} bytes, more than any hint", body.len()));
        }
        let written: Written =
            serde_json::from_str(body).map_err(|e| format!("it is not a hint: {e}"))?;
        if written.tidehook != VERSION {
            return Err(format!(
                "hints of version {} are not supported by this version of tidehook",
                written.tidehook
            ));
        }
        let jobs: Result<Vec<JobId>, _> = written.jobs.iter().map(|id| id.parse()).collect();
        Ok(Self { jobs: jobs.map_err(|_| "it contains an invalid job id".to_owned())? })
    }

    /// The hint as the body of a message.
    pub fn write(&self) -> String {
        let jobs: Vec<String> = self.jobs.iter().map(ToString::to_string).collect();
        json!({ "tidehook": VERSION, "jobs": jobs }).to_string()
    }
}

/// Wake-ups sent as messages over an SQS queue, for workers that run as functions.
pub struct Sqs {
    queue: Queue,
    local: Local,
    horizon: Duration,
}

impl Sqs {
    /// Wake-ups over this queue. A tick looks `horizon` ahead, at most [`DELAY_MAX`].
    pub fn new(queue: Queue, horizon: Duration) -> Self {
        Self { queue, local: Local::default(), horizon: horizon.min(DELAY_MAX) }
    }

    async fn send(&self, messages: Vec<(Duration, Hint)>) {
        let requests = messages.chunks(MESSAGES_PER_REQUEST).map(<[_]>::to_vec).collect::<Vec<_>>();
        futures::stream::iter(requests)
            .for_each_concurrent(REQUESTS, |request| self.send_batch(request))
            .await;
    }

    async fn send_batch(&self, messages: Vec<(Duration, Hint)>) {
        let count = messages.len();
        let entries = messages.into_iter().enumerate().map(|(at, (after, hint))| {
            let seconds = i32::try_from(after.as_secs()).unwrap_or(i32::MAX);
            SendMessageBatchRequestEntry::builder()
                .id(at.to_string())
                .message_body(hint.write())
                .delay_seconds(seconds)
                .build()
        });
        let entries = match entries.collect::<Result<Vec<_>, _>>() {
            Ok(entries) => entries,
            Err(why) => return failed(count, &why.to_string()),
        };
        let request = self
            .queue
            .client()
            .send_message_batch()
            .queue_url(self.queue.url())
            .set_entries(Some(entries));
        match request.send().await {
            Ok(answer) => {
                metrics::hints_sent(answer.successful().len());
                if let Some(first) = answer.failed().first() {
                    failed(answer.failed().len(), first.message().unwrap_or(first.code()));
                }
            }
            Err(error) => failed(count, &queue::sentence(&error)),
        }
    }
}

/// Counts and logs hints that were not sent. The work is committed, so the next tick announces it
/// again.
fn failed(count: usize, why: &str) {
    metrics::hints_failed(count);
    tracing::warn!(
        count,
        why,
        "Hints could not be sent to the queue. The next tick announces the work again."
    );
}

/// The messages for these wake-ups. Jobs due in the same second share messages. What is further
/// away than `DELAY_MAX` is left to the ticks.
fn messages(due: &[Wakeup]) -> Vec<(Duration, Hint)> {
    let mut by_second: BTreeMap<u64, BTreeSet<JobId>> = BTreeMap::new();
    for wakeup in due.iter().filter(|wakeup| !wakeup.here && wakeup.after <= DELAY_MAX) {
        // Up, so that the job is due when its message is delivered.
        let second = u64::try_from(wakeup.after.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
        by_second.entry(second).or_default().extend(wakeup.job);
    }
    let of_second = |(second, jobs): (u64, BTreeSet<JobId>)| {
        let jobs: Vec<JobId> = jobs.into_iter().collect();
        let hints: Vec<Hint> = match jobs.is_empty() {
            true => vec![Hint::default()],
            false => {
                jobs.chunks(JOBS_PER_MESSAGE).map(|jobs| Hint { jobs: jobs.to_vec() }).collect()
            }
        };
        hints.into_iter().map(move |hint| (Duration::from_secs(second), hint)).collect::<Vec<_>>()
    };
    by_second.into_iter().flat_map(of_second).collect()
}

#[async_trait]
impl Wake for Sqs {
    async fn wake(&self, due: &[Wakeup]) {
        if due.iter().any(|wakeup| wakeup.here) {
            self.local.look();
        }
        let messages = messages(due);
        if !messages.is_empty() {
            self.send(messages).await;
        }
    }

    async fn woken(&self, at_most: Duration) {
        self.local.woken(at_most).await;
    }

    fn horizon(&self) -> Option<Duration> {
        Some(self.horizon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ulid::Ulid;

    fn job(n: u128) -> JobId {
        JobId(Ulid(n))
    }

    #[test]
    fn a_hint_is_read_as_it_was_written() {
        for jobs in [vec![], vec![job(7)], (0..10).map(job).collect()] {
            let hint = Hint { jobs };
            assert_eq!(Hint::read(&hint.write()), Ok(hint));
        }
    }

    #[test]
    fn what_is_not_a_hint_says_so() {
        let large = format!("{{\"tidehook\":1,\"jobs\":[\"{}\"]}}", "0".repeat(BYTES_MAX));
        for body in [
            "",
            "hello",
            "{}",
            "[]",
            r#"{"tidehook":2,"jobs":[]}"#,
            r#"{"tidehook":1,"jobs":["x"]}"#,
            &large,
        ] {
            assert!(Hint::read(body).is_err(), "{body:.80}");
        }
    }

    #[test]
    fn work_of_one_second_shares_messages_and_what_is_far_away_has_none() {
        let due = |n: u128, ms: u64| Wakeup::of(job(n), Duration::from_millis(ms));
        let now: Vec<Wakeup> = (0..12).map(|n| due(n, 0)).collect();
        let sizes: Vec<usize> = messages(&now).iter().map(|(_, hint)| hint.jobs.len()).collect();
        assert_eq!(sizes, [10, 2]);
        let later = messages(&[due(1, 29_100), due(2, 30_000), due(3, 900_000), due(4, 900_001)]);
        let seconds: Vec<u64> = later.iter().map(|(after, _)| after.as_secs()).collect();
        assert_eq!(seconds, [30, 900]);
        assert_eq!(later[0].1.jobs, [job(1), job(2)]);
        assert_eq!(messages(&[Wakeup::LOOK]), [(Duration::ZERO, Hint::default())]);
        assert!(
            messages(&[Wakeup { here: true, ..due(5, 0) }]).is_empty(),
            "whoever tells of it goes on with it"
        );
        assert!(messages(&[]).is_empty());
    }
}
