//! How much time an invocation has left, and what work it may still begin.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;
use crate::decide::workflow::Flow;
use crate::engine::Budget;
use crate::model::Timestamp;

/// The longest timeout that Lambda allows; a deadline further off is not believed.
const LONGEST: Duration = Duration::from_secs(900);
/// The time at the end of an invocation that is kept for its records and its answer.
const FOR_ANSWER: Duration = Duration::from_secs(2);
/// The time that must remain after the longest call, to record its outcome.
const TO_SPARE: Duration = Duration::from_secs(5);

/// The time that a function's timeout must exceed the timeout of a call by.
pub const AROUND_CALL: Duration = Duration::from_secs(FOR_ANSWER.as_secs() + TO_SPARE.as_secs());

/// The time until an invocation's deadline, given in milliseconds since 1970.
///
/// A deadline from before the process began (the local emulator sends such) or in the far future is
/// not believed: then the result is `configured`.
pub fn left(deadline: u64, began: Timestamp, now: Timestamp, configured: Duration) -> Duration {
    let deadline = Timestamp(i64::try_from(deadline).unwrap_or(i64::MAX));
    let left = deadline.since(now);
    if deadline <= began || left > LONGEST { configured } else { left }
}

/// The work that an invocation may take on: it claims nothing that could not finish in time, and
/// calls are cut off before it ends.
pub fn budget(config: &Config, left: Duration) -> Budget {
    let now = Instant::now();
    // A timeout that is longer than the function's own never fits; a third of the time goes to it
    // all the same.
    let claims = left.saturating_sub(longest_call(config) + TO_SPARE).max(left / 3);
    Budget {
        claim_until: Some(now + claims),
        call_deadline: Some(now + left.saturating_sub(FOR_ANSWER)),
        ..Budget::endless(config.worker.concurrency)
    }
}

/// The longest timeout of any call.
pub fn longest_call(config: &Config) -> Duration {
    let handlers = config.handlers.iter().map(|handler| handler.timeout);
    let steps = config.workflows.iter().flat_map(|workflow| calls(&workflow.flow));
    handlers.chain(steps).max().unwrap_or(Duration::ZERO)
}

fn calls(flow: &Flow) -> Vec<Duration> {
    let inner = flow.steps.iter().flat_map(|step| step.kind.inner());
    flow.steps
        .iter()
        .chain(inner)
        .filter_map(|step| step.kind.call())
        .map(|call| call.timeout)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: Duration = Duration::from_secs(25);

    fn at(deadline: u64) -> Duration {
        left(deadline, Timestamp(1_000_000), Timestamp(1_060_000), CONFIGURED)
    }

    #[test]
    fn a_deadline_is_what_it_says_unless_it_cannot_be() {
        assert_eq!(at(1_090_000), Duration::from_secs(30));
        assert_eq!(at(1_050_000), Duration::ZERO, "it has passed");
        for absurd in [0, 600_000, 1_000_000, 1_060_001 + 900_000, u64::MAX] {
            assert_eq!(at(absurd), CONFIGURED, "{absurd}");
        }
    }
}
