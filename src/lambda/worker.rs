//! The function `worker`: works on the jobs that messages name, then on other due jobs while there
//! is time.
//!
//! It answers which messages of the batch are to be delivered again:
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>. A message that
//! cannot be read is not among them.

use std::collections::BTreeSet;
use std::time::Duration;

use lambda_runtime::Error;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::{Function, time};
use crate::engine::Worked;
use crate::model::{JobId, JobState};
use crate::observe::metrics;
use crate::wake::Wakeup;
use crate::wake::sqs::Hint;

/// How soon a worker looks again for due work that it could not take on, because its lane allows no
/// more for now.
const AGAIN: Duration = Duration::from_secs(1);

/// A batch of messages as Lambda delivers it. Only the fields that are needed are read, so that
/// others cannot break it.
#[derive(Deserialize)]
struct Batch {
    #[serde(rename = "Records", default)]
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "messageId")]
    id: String,
    #[serde(default)]
    body: Option<String>,
}

/// Works on the jobs that a batch of messages names, and answers which messages failed.
pub(super) async fn invoke(
    function: &Function,
    payload: &RawValue,
    left: Duration,
) -> Result<Box<RawValue>, Error> {
    let batch: Batch = serde_json::from_str(payload.get())?;
    let hints: Vec<(String, Hint)> = batch.records.into_iter().filter_map(read).collect();
    let engine = &function.engine;
    let result = async {
        function.ready().await?;
        let jobs: BTreeSet<JobId> =
            hints.iter().flat_map(|(_, hint)| hint.jobs.iter().copied()).collect();
        let jobs: Vec<JobId> = jobs.into_iter().collect();
        engine.work_on(&jobs, time::budget(engine.config(), left)).await
    };
    let failures = match result.await {
        Ok(worked) => {
            go_on(function, worked).await;
            if worked.more { unfinished(function, &hints).await } else { Vec::new() }
        }
        Err(error) => {
            tracing::error!(%error, "The database is unavailable. The queue delivers the messages \
                again, and the next tick announces the work.");
            hints.iter().map(|(id, _)| id.clone()).collect()
        }
    };
    let failures: Vec<_> = failures.into_iter().map(|id| json!({ "itemIdentifier": id })).collect();
    Ok(to_raw_value(&json!({ "batchItemFailures": failures }))?)
}

/// Reads a message as a hint. One that is no hint is counted and dropped: it would never become
/// readable.
fn read(record: Record) -> Option<(String, Hint)> {
    match Hint::read(record.body.as_deref().unwrap_or("")) {
        Ok(hint) => Some((record.id, hint)),
        Err(why) => {
            metrics::hint_refused();
            tracing::warn!(
                hint = record.id,
                why,
                "A message in the queue is not a valid hint. It is dropped."
            );
            None
        }
    }
}

/// Sends hints for work that is left: at once when the time ran out, a little later when lanes
/// allow no more for now.
async fn go_on(function: &Function, worked: Worked) {
    let engine = &function.engine;
    if worked.more {
        engine.wake().await;
        return;
    }
    match engine.store().has_due_work().await {
        Ok(true) => engine.notify_workers(&[Wakeup { after: AGAIN, ..Wakeup::LOOK }]).await,
        Ok(false) => {}
        Err(error) => {
            tracing::debug!(%error, "The check for more due work failed. The next tick checks \
                again.")
        }
    }
}

/// The messages whose jobs are still due, and must be delivered again. New hints are sent for these
/// jobs at once.
async fn unfinished(function: &Function, hints: &[(String, Hint)]) -> Vec<String> {
    let engine = &function.engine;
    let mut left = Vec::new();
    let mut again = Vec::new();
    for (id, hint) in hints {
        let mut is_done = true;
        for job in &hint.jobs {
            match engine.store().job(*job).await {
                Ok(Some(found))
                    if found.state == JobState::Pending && found.due_at <= engine.clock().now() =>
                {
                    is_done = false;
                    again.push(Wakeup::of(*job, Duration::ZERO));
                }
                Ok(_) => {}
                Err(_) => is_done = false,
            }
        }
        if !is_done {
            left.push(id.clone());
        }
    }
    // A message that has failed comes back after its visibility timeout, which is long; a new one
    // comes at once.
    engine.notify_workers(&again).await;
    left
}
