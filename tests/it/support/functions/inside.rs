//! Functions inside this process: the code of the real ones, with an engine each, on a clock that
//! the test moves and with receivers that it scripts.

use std::sync::Arc;
use std::time::Duration;

use lambda_runtime::{Context, LambdaEvent};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tidehook::engine::Engine;
use tidehook::lambda::{Function, Role};
use tidehook::wake::Wake;
use tidehook::wake::sqs::{Hint, Sqs};

use super::queue::Queue;

/// As in `template.yaml`.
const VISIBILITY: Duration = Duration::from_secs(360);
/// A tick looks so far ahead.
const HORIZON: Duration = Duration::from_secs(180);
const BUDGET: Duration = Duration::from_secs(25);

pub struct Inside {
    queue: Queue,
    ticker: Function,
    worker: Function,
}

/// What tells workers by a queue.
pub fn wake(queue: &Queue) -> Arc<dyn Wake> {
    Arc::new(Sqs::new(queue.client(), HORIZON))
}

impl Inside {
    /// With an engine for the ticker and one for the worker, which tell by the same queue.
    pub fn new(queue: Queue, ticker: Engine, worker: Engine) -> Self {
        let function = |engine, role| Function::new(engine, role, Some(queue.client()), BUDGET);
        Self {
            ticker: function(ticker, Role::Ticker),
            worker: function(worker, Role::Worker),
            queue,
        }
    }

    /// Works messages off until none is visible.
    pub async fn work(&self) {
        while let Some((batch, event)) = self.queue.receive(VISIBILITY) {
            let answer = invoke(&self.worker, event).await;
            self.queue.delete(&batch, &answer);
        }
    }

    /// What happens when time has passed: a tick, and a message that names nothing. It stands for
    /// those of other work, with which a worker finds what is due in the fraction of a second by
    /// which delays are rounded up.
    pub async fn look(&self) {
        invoke(&self.ticker, json!({ "tidehook": "tick" })).await;
        self.queue.put(&Hint::default().write());
        self.work().await;
    }
}

/// An invocation whose deadline is unknown, so that the clock of the test does not matter to it.
async fn invoke(function: &Function, event: Value) -> Value {
    let payload: Box<RawValue> = to_raw_value(&event).unwrap();
    let answer = function.invoke(LambdaEvent::new(payload, Context::default())).await.unwrap();
    serde_json::from_str(answer.get()).unwrap()
}
