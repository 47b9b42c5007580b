//! The facts that can change a run, such as a response, a timer or an operator's request.

use super::gate::Turn;
use crate::model::run::RunError;
use crate::model::{JobId, Payload};

/// Something that happened to a visit or to the run as a whole. A fact about a visit that is closed
/// changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A call succeeded by the rules of its step.
    Answered {
        /// The number of the visit that made the call.
        visit: u32,
        /// The job that made the call. The fact is ignored unless the visit still waits for this
        /// job.
        job: JobId,
        /// The HTTP status of the response.
        status: u16,
        /// The body of the response, as the step's `reads` setting interprets it.
        body: Payload,
    },
    /// A call failed for good: it has no retry left.
    Failed {
        /// The number of the visit that made the call.
        visit: u32,
        /// The job that made the call. The fact is ignored unless the visit still waits for this
        /// job.
        job: JobId,
        /// The failure, as `catch` sees it.
        error: RunError,
    },
    /// A timer job became due: a wait, a timeout, a heartbeat limit, a later retry, or the run's
    /// deadline.
    Elapsed {
        /// The number of the visit that the timer belongs to; 0 means the run's deadline.
        visit: u32,
        /// The timer job. The fact is ignored unless the visit, or the run's deadline, still waits
        /// for it.
        job: JobId,
    },
    /// An outside system or a person answered with the step's token.
    CalledBack {
        /// The number of the visit that waits for the answer.
        visit: u32,
        /// The answer, or the caller's reason for a failure.
        answer: Result<Payload, String>,
    },
    /// A run that the step started as a sub-workflow has ended.
    ChildEnded {
        /// The number of the visit that started the other run.
        visit: u32,
        /// The output of that run, or why it failed.
        result: Result<Payload, RunError>,
    },
    /// The system that will answer reports that it is still at work.
    Heartbeat {
        /// The number of the visit that waits for the answer.
        visit: u32,
    },
    /// The run's place under its concurrency key was decided.
    Turn(Turn),
    /// An operator, a parent or the concurrency rule cancels the run. Its steps are rolled back if
    /// the workflow says so, and the steps of `finally` run.
    Cancelled,
    /// An operator ends the run at once, without rollback and `finally`.
    Killed,
    /// An operator pauses the run. Nothing of it is sent until it is resumed.
    Paused,
    /// An operator resumes a paused run.
    Resumed,
}
