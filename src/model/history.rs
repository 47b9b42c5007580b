//! The history of a run: what happened to it, in order.

use std::fmt;

use serde_json::Value;

use super::time::Timestamp;

/// What happened to a run. The names are stable: they are stored, shown by the API, and
/// documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoteKind {
    /// The run was created with this definition.
    RunStarted,
    /// The run never started: the payload lacks a parameter of the workflow.
    RunRejected,
    /// The run reached the end of its steps.
    RunCompleted,
    /// The run failed.
    RunFailed,
    /// The run was cancelled.
    RunCancelled,
    /// The run waits for its turn under a concurrency key.
    Queued,
    /// The run got its turn.
    Admitted,
    /// Too many runs were active under the concurrency key.
    Refused,
    /// A visit of a step began.
    StepEntered,
    /// The condition of the step was false.
    StepSkipped,
    /// The step finished.
    StepCompleted,
    /// The step failed.
    StepFailed,
    /// A `catch` took the failure.
    Caught,
    /// `on_failure: continue` ignored the failure.
    Continued,
    /// A call was in flight when nobody needed its response any more.
    CallAbandoned,
    /// A sub-workflow that failed will be started again.
    RetryScheduled,
    /// The step waits until an instant.
    WaitStarted,
    /// A token for an answer from outside was created.
    TokenIssued,
    /// The answer from outside arrived.
    CallbackReceived,
    /// A heartbeat restarted the timer of the next one.
    HeartbeatReceived,
    /// A sub-workflow was started.
    ChildStarted,
    /// A sub-workflow ended.
    ChildFinished,
    /// An operator, or the parent run, cancelled the run.
    CancelRequested,
    /// An operator killed the run: nothing is rolled back.
    Killed,
    /// An operator, or a step with `on_exhausted: pause`, paused the run.
    Paused,
    /// An operator resumed the run.
    Resumed,
    /// An operator restarted the run after it had failed.
    Redriven,
    /// The rollback began.
    CompensationStarted,
    /// The rollback ended.
    Compensated,
}

impl NoteKind {
    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RunStarted => "RunStarted",
            Self::RunRejected => "RunRejected",
            Self::RunCompleted => "RunCompleted",
            Self::RunFailed => "RunFailed",
            Self::RunCancelled => "RunCancelled",
            Self::Queued => "Queued",
            Self::Admitted => "Admitted",
            Self::Refused => "Refused",
            Self::StepEntered => "StepEntered",
            Self::StepSkipped => "StepSkipped",
            Self::StepCompleted => "StepCompleted",
            Self::StepFailed => "StepFailed",
            Self::Caught => "Caught",
            Self::Continued => "Continued",
            Self::CallAbandoned => "CallAbandoned",
            Self::RetryScheduled => "RetryScheduled",
            Self::WaitStarted => "WaitStarted",
            Self::TokenIssued => "TokenIssued",
            Self::CallbackReceived => "CallbackReceived",
            Self::HeartbeatReceived => "HeartbeatReceived",
            Self::ChildStarted => "ChildStarted",
            Self::ChildFinished => "ChildFinished",
            Self::CancelRequested => "CancelRequested",
            Self::Killed => "Killed",
            Self::Paused => "Paused",
            Self::Resumed => "Resumed",
            Self::Redriven => "Redriven",
            Self::CompensationStarted => "CompensationStarted",
            Self::Compensated => "Compensated",
        }
    }
}

impl fmt::Display for NoteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One line of a run's history.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// What happened.
    pub kind: NoteKind,
    /// The step, if it concerns one.
    pub step: Option<String>,
    /// The visit, if it concerns one.
    pub visit: Option<u32>,
    /// Details as JSON, whose fields depend on `kind`; `{}` if there are none.
    pub data: Value,
}

/// A history line as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryEntry {
    /// Its position in the run's history, counted from 1.
    pub seq: i64,
    /// When it was written, by the database's clock.
    pub at: Timestamp,
    /// What happened, as a stable word such as `StepEntered`.
    pub kind: String,
    /// The step concerned; `None` for what concerns the run as a whole.
    pub step: Option<String>,
    /// The visit's number; `None` for what concerns the run as a whole.
    pub visit: Option<u32>,
    /// Details as JSON, whose fields depend on `kind`; `{}` if there are none.
    pub data: Value,
}
