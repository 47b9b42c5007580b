//! `worker`: messages name jobs that are due; these first, then whatever else is due while there is time.
//!
//! What a batch answers is <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>: the messages that are to
//! come again. A message that can never be read is none of them.

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

/// Work that could not be taken on now, because its lane gives no more, is looked for again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// A batch of messages. Only what is needed is read, so that nothing else can be wrong.
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

/// Works off what a batch names.
pub(super) async fn invoke(function: &Function, payload: &RawValue, left: Duration) -> Result<Box<RawValue>, Error> {
    let batch: Batch = serde_json::from_str(payload.get())?;
    let hints: Vec<(String, Hint)> = batch.records.into_iter().filter_map(read).collect();
    let engine = &function.engine;
    let result = async {
        function.ready().await?;
        let jobs: BTreeSet<JobId> = hints.iter().flat_map(|(_, hint)| hint.jobs.iter().copied()).collect();
        let jobs: Vec<JobId> = jobs.into_iter().collect();
        engine.work_on(&jobs, time::budget(engine.config(), left)).await
    };
    let failures = match result.await {
        Ok(worked) => {
            go_on(function, worked).await;
            if worked.more { unfinished(function, &hints).await } else { Vec::new() }
        }
        Err(error) => {
            tracing::error!(%error, "The database cannot be used; the messages come again, and the next tick announces the work.");
            hints.iter().map(|(id, _)| id.clone()).collect()
        }
    };
    let failures: Vec<_> = failures.into_iter().map(|id| json!({ "itemIdentifier": id })).collect();
    Ok(to_raw_value(&json!({ "batchItemFailures": failures }))?)
}

/// A message that cannot be read never will be: it is counted and not asked for again.
fn read(record: Record) -> Option<(String, Hint)> {
    match Hint::read(record.body.as_deref().unwrap_or("")) {
        Ok(hint) => Some((record.id, hint)),
        Err(why) => {
            metrics::hint_refused();
            tracing::warn!(hint = record.id, why, "A message of the queue is no hint; it is dropped.");
            None
        }
    }
}

/// Tells of work that is left: what there was no time for at once, what its lane does not give yet a little later.
async fn go_on(function: &Function, worked: Worked) {
    let engine = &function.engine;
    if worked.more {
        engine.wake().await;
        return;
    }
    match engine.store().is_due().await {
        Ok(true) => engine.tell(&[Wakeup { after: AGAIN, ..Wakeup::LOOK }]).await,
        Ok(false) => {}
        Err(error) => tracing::debug!(%error, "Whether anything is due is left to the next tick."),
    }
}

/// The messages that name jobs which are still due.
async fn unfinished(function: &Function, hints: &[(String, Hint)]) -> Vec<String> {
    let engine = &function.engine;
    let mut left = Vec::new();
    let mut again = Vec::new();
    for (id, hint) in hints {
        let mut is_done = true;
        for job in &hint.jobs {
            match engine.store().job(*job).await {
                Ok(Some(found)) if found.state == JobState::Pending && found.due_at <= engine.clock().now() => {
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
    // A message that has failed comes back after its visibility timeout, which is long; a new one comes at once.
    engine.tell(&again).await;
    left
}
