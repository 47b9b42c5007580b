//! What can happen to a run.

use super::gate::Turn;
use crate::model::run::RunError;
use crate::model::{JobId, Payload};

/// Something that happened. It concerns a visit, or the run as a whole; one that concerns nothing open changes
/// nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A call was answered as the step wants it.
    Answered {
        /// The visit.
        visit: u32,
        /// The job that called.
        job: JobId,
        /// The response's status.
        status: u16,
        /// Its body.
        body: Payload,
    },
    /// A call failed for good.
    Failed {
        /// The visit.
        visit: u32,
        /// The job that called.
        job: JobId,
        /// Why.
        error: RunError,
    },
    /// An instant has come.
    Elapsed {
        /// The visit; 0 is the run's deadline.
        visit: u32,
        /// The job that waited for it.
        job: JobId,
    },
    /// An answer came from outside.
    CalledBack {
        /// The visit.
        visit: u32,
        /// The answer, or why the caller says it failed.
        answer: Result<Payload, String>,
    },
    /// A run that it started has ended.
    ChildEnded {
        /// The visit.
        visit: u32,
        /// What it came to, or why it failed.
        result: Result<Payload, RunError>,
    },
    /// Who was asked for an answer is still at it.
    Heartbeat {
        /// The visit.
        visit: u32,
    },
    /// What the run found under its concurrency key.
    Turn(Turn),
    /// The run is called off: what its steps did is undone if the workflow says so, and its last steps run.
    Cancelled,
    /// The run is ended at once.
    Killed,
    /// Nothing more is sent until the run is resumed.
    Paused,
    /// The run goes on.
    Resumed,
}
