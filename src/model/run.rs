//! A run: one execution of one workflow definition, as a value. The state machine in
//! `decide::workflow` changes it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::history::Note;
use super::id::{EventId, JobId, RunId};
use super::payload::Payload;
use super::target::Target;
use super::time::Timestamp;

/// The status of a run, as the API shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// It waits for its turn, because other runs with its concurrency key are running.
    Queued,
    /// It is working, or waiting for something.
    Running,
    /// An operator, or a failed step, has paused it. Nothing is sent, and due times are kept.
    Paused,
    /// It has failed, and its steps are being rolled back.
    Compensating,
    /// It finished normally, and has an output.
    Completed,
    /// A failure that nothing caught, or its deadline, has stopped it.
    Failed,
    /// It was cancelled: by an operator, by its parent, or in favour of another run with its
    /// concurrency key.
    Cancelled,
}

impl RunStatus {
    /// Every status. Parsing a stored word or an API filter goes through this list.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::Paused,
        Self::Compensating,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word under which the database and the API know this status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Compensating => "compensating",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it is final: completed, failed or cancelled. A redrive can reopen a run that did not
    /// complete.
    pub fn is_closed(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RunStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| format!("unknown run status `{text}`"))
    }
}

/// Why a step or a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// The error class: a stable word that `catch` and retry policies match.
    pub class: String,
    /// One sentence for people. Its wording may change; programs compare `class`.
    pub message: String,
    /// The step concerned; `None` for what concerns the run as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The response status, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The job that failed, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// How often the call was tried; 0 if no call failed.
    #[serde(default)]
    pub attempts: u32,
    /// The receiver's own name for the error, read from the response body; `None` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
}

/// One execution of one workflow definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The run's id. A run that an event starts takes it from the job that starts it, so that a
    /// repeated start is the same run.
    pub id: RunId,
    /// The workflow's name in the configuration.
    pub workflow: String,
    /// The hash of the definition that the run is pinned to.
    pub definition: String,
    /// The event that started it, or that started its topmost parent.
    pub event: EventId,
    /// The parent run and the visit in it that waits for this run; `None` for a topmost run.
    pub parent: Option<(RunId, u32)>,
    /// The present status. It is a column of its own, so that runs can be listed by it.
    pub status: RunStatus,
    /// Why it failed, or why it paused at a failed step; `None` otherwise.
    pub error: Option<RunError>,
    /// How often it was changed. Each change checks it, so that two concurrent changes cannot both
    /// apply.
    pub version: i64,
    /// When it was stored, by the database's clock.
    pub created_at: Timestamp,
    /// When it closed (completed, failed or cancelled); `None` while it is open.
    pub finished_at: Option<Timestamp>,
    /// Everything else that the state machine remembers.
    pub state: RunState,
    /// Why its stored state or error cannot be read; `None` if it can. The state is empty then, and
    /// the run cannot go on until its row is fixed; only ending it is possible.
    pub unreadable: Option<String>,
}

impl Run {
    /// Checks that the run could be read, and so can go on.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub fn readable(&self) -> Result<(), String> {
        match &self.unreadable {
            None => Ok(()),
            Some(why) => Err(format!("run {} cannot continue: {why}", self.id)),
        }
    }
}

/// What the state machine remembers of a run. Stored as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// The payload it started with: that of the event, or what a parent passed.
    pub input: Payload,
    /// What expressions see of the event: source, type, headers and time of acceptance.
    #[serde(default, rename = "about")]
    pub event_context: Value,
    /// Visits that are not finished yet, by their number.
    pub visits: BTreeMap<u32, Visit>,
    /// How many visits the run has made so far. The next visit gets the next number.
    pub visited: u32,
    /// How many of them were made before the last redrive, which starts a fresh count against the
    /// limit of steps.
    #[serde(default)]
    pub visited_before: u32,
    /// Visits allowed beyond the limit of steps. Each container adds one for every step of every
    /// place.
    #[serde(default)]
    pub allowance: u32,
    /// The latest result of each finished step, by the step's name. Steps inside containers are
    /// left out.
    #[serde(default)]
    pub steps: BTreeMap<String, Done>,
    /// The last value stored under each top-level key by a `result_path`. Templates read it if the
    /// payload has no such key.
    #[serde(default, rename = "kept")]
    pub last_results: Map<String, Value>,
    /// Variables set by `assign`, visible to all later steps.
    #[serde(default)]
    pub vars: Map<String, Value>,
    /// The payload it ended with; `None` unless it completed.
    #[serde(default)]
    pub output: Option<Payload>,
    /// The job that fires at the run's deadline; `None` without a timeout.
    #[serde(default, rename = "deadline")]
    pub deadline_job: Option<JobId>,
    /// The approximate instant of the deadline. An attempt that could not finish before it is not
    /// made.
    #[serde(default)]
    pub deadline_at: Option<Timestamp>,
    /// How many parents it has above it; 0 for a topmost run.
    #[serde(default)]
    pub depth: u32,
    /// Where a run stopped without completing. A redrive or a resume continues from here.
    #[serde(default)]
    pub stopped: Option<Stopped>,
    /// How often the run was redriven.
    #[serde(default)]
    pub redrives: u32,
    /// Finished steps that can be rolled back, in the order in which they finished.
    #[serde(default, rename = "armed")]
    pub undoable: Vec<Undoable>,
    /// How the run will end, while its steps are rolled back and its last steps (`finally`) run.
    #[serde(default)]
    pub ending: Option<Unwinding>,
    /// Whether its steps were rolled back. Such a run cannot be redriven.
    #[serde(default)]
    pub compensated: bool,
    /// Whether the workflow's own `catch` has taken a failure. It takes at most one.
    #[serde(default)]
    pub caught: bool,
    /// The status to return to when the run is resumed.
    #[serde(default)]
    pub paused_from: Option<RunStatus>,
    /// The gate it passes: the workflow and the value of its concurrency key; `None` if it needs no
    /// turn.
    #[serde(default)]
    pub gate: Option<String>,
    /// The job that checks whether it is the run's turn.
    #[serde(default)]
    pub turn_job: Option<JobId>,
}

/// A finished step that can be rolled back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Undoable {
    /// The step's position in the definition: its index, then its index inside a container.
    pub at: Vec<usize>,
    /// The number of the operation to undo. It is part of the undo call's idempotency key.
    pub visit: u32,
    /// The input it was called with, which the undo call's templates can read.
    pub input: Value,
    /// The step's result. Templates read it: those of an undo call as `$$.step.output`, those of
    /// later steps by the step's name.
    pub output: Value,
    /// The payload after the step. The undo call's templates see it as `$`.
    pub payload: Payload,
    /// Its place in the container; `None` outside of containers.
    #[serde(default)]
    pub place: Option<usize>,
}

/// How a run ends, or is going to end once its last steps have run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Close {
    /// It completed with this payload.
    Completed(Payload),
    /// It failed, for this reason. A failure that is caught does not lead here.
    Failed(RunError),
    /// It was cancelled, without a failure of its own.
    Cancelled,
}

impl Close {
    /// The status it leads to.
    pub fn status(&self) -> RunStatus {
        match self {
            Self::Completed(_) => RunStatus::Completed,
            Self::Failed(_) => RunStatus::Failed,
            Self::Cancelled => RunStatus::Cancelled,
        }
    }
}

/// What a run does before it ends: it rolls its steps back and runs its `finally` steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unwinding {
    /// The end that is recorded once everything before it is done.
    pub how: Close,
    /// The payload that the `finally` steps start with.
    pub payload: Payload,
}

/// Where a run stopped: a top-level step and the payload it was entered with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stopped {
    /// The step's position in the definition: its index, then its index inside a container.
    pub at: Vec<usize>,
    /// The payload with which the step was entered, before its `input` narrowed it.
    pub payload: Payload,
    /// The number of the operation. A redrive repeats it under the same idempotency key. `None` for
    /// a container, which is a new operation.
    pub operation: Option<u32>,
    /// The instant that `now()` answers in the repeated operation, so that it sends the same bytes.
    pub entered_at: Option<Timestamp>,
    /// The results of a container's places, so that a redrive skips those that are done. `None` for
    /// other steps.
    #[serde(default)]
    pub places: Option<Vec<Slot>>,
}

/// How a visit of a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepStatus {
    /// It finished, with or without a response.
    Completed,
    /// It was passed over, because its condition was false.
    Skipped,
    /// It failed, caught or not.
    Failed,
}

/// The result of a finished step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// How the latest visit of the step ended.
    pub status: StepStatus,
    /// The step's result. Templates read it: those of an undo call as `$$.step.output`, those of
    /// later steps by the step's name.
    pub output: Value,
    /// The payload after the step, if it differs from `output`.
    #[serde(default)]
    pub after: Option<Payload>,
    /// The status of the HTTP response, if there was one.
    #[serde(default)]
    pub response_status: Option<u16>,
    /// How often the step was visited in this run.
    pub visits: u32,
    /// The number of its latest visit in the run.
    #[serde(default)]
    pub seq: u32,
}

/// One entry into a step. A step that is entered again, in a loop for example, has a new visit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Visit {
    /// The step's name as people see it, with its containers.
    pub step: String,
    /// Where the step is in the definition: its index, then its index inside a container.
    pub at: Vec<usize>,
    /// For a step inside a container: the container's visit, and the place for its result.
    #[serde(default)]
    pub within: Option<(u32, usize)>,
    /// The payload, as narrowed by the step's `input`.
    pub payload: Payload,
    /// The payload before it was narrowed; `None` if it was not.
    #[serde(default)]
    pub before: Option<Payload>,
    /// The number of the operation, if it is not the visit's own: a redrive repeats the operation
    /// that failed.
    #[serde(default)]
    pub operation: Option<u32>,
    /// The operation that this visit rolls back; `None` for an ordinary visit.
    #[serde(default)]
    pub undoes: Option<u32>,
    /// The run's variables when the visit was entered. Kept only inside a container, where other
    /// places may change them meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vars: Option<Map<String, Value>>,
    /// What the visit waits for. It decides which facts can move it on.
    pub phase: VisitPhase,
    /// The open jobs of this visit: calls and timers.
    #[serde(default)]
    pub jobs: Vec<JobId>,
    /// When it was entered. Templates of this visit see it as `now()`, so that each attempt sends
    /// the same bytes.
    pub entered_at: Timestamp,
}

/// What a visit waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "for")]
pub enum VisitPhase {
    /// The outcome of an HTTP call.
    Call {
        /// The callback token that the call carries. Kept only until the call is over; after that
        /// only its hash is needed.
        #[serde(default)]
        token: Option<String>,
        /// How often a polling step has asked before.
        #[serde(default)]
        polls: u32,
    },
    /// An instant: its timer is one of the visit's jobs.
    Time,
    /// An answer from outside, after a call has delivered the token.
    Answer {
        /// The timer that fires if a heartbeat is missed; `None` if none are expected.
        #[serde(default)]
        beat: Option<JobId>,
    },
    /// An answer from outside, where no call delivers the token: it can be read where the run is
    /// shown.
    Token {
        /// The token in plain text. The API shows it with the run.
        token: String,
        /// The timer that fires if a heartbeat is missed; `None` if none are expected.
        #[serde(default)]
        beat: Option<JobId>,
    },
    /// The end of a child run, or the time to start it again.
    Child {
        /// The child run that the visit has started.
        run: RunId,
        /// How many child runs of this visit have failed so far, for its retry policy.
        #[serde(default)]
        failed: u32,
    },
    /// The places of a container (`parallel` or `map`): branches or items.
    Inside {
        /// The result of each place, in order.
        results: Vec<Slot>,
        /// Places without a result yet, entered or not. At 0 the container is done.
        open: usize,
        /// The index of the next place to enter.
        next: usize,
        /// Places that have failed and were tolerated.
        failed: u32,
        /// The items of a map, one per place; empty for `parallel`.
        #[serde(default)]
        items: Vec<Value>,
    },
}

/// The result of one place of a container: a branch or an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// There is no result yet.
    Open,
    /// The result of the place. For a failure that was tolerated it describes the error.
    Done(Value),
}

impl Slot {
    /// Stores the result of the place. Answers false, and keeps the old value, if it already had
    /// one.
    pub fn fill(&mut self, value: Value) -> bool {
        let is_open = *self == Self::Open;
        if is_open {
            *self = Self::Done(value);
        }
        is_open
    }

    /// The result, or `null` while there is none.
    pub fn value(&self) -> Value {
        match self {
            Self::Open => Value::Null,
            Self::Done(value) => value.clone(),
        }
    }
}

/// When a new job of a run becomes due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// This long after the commit, by the database's clock.
    After(Duration),
    /// At this instant, by the database's clock; in the past it is due at once.
    At(Timestamp),
}

/// A new job of a run, stored with the change that asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunJob {
    /// The id of the new job, chosen before it is stored, so that the visit that waits for it can
    /// name it.
    pub id: JobId,
    /// The visit that the job works for, and whether it is a call or a timer.
    pub target: Target,
    /// When it may be claimed for the first time.
    pub due: Due,
    /// Whether it is stored on hold, because its run is paused. Resuming the run frees it.
    pub is_paused: bool,
}

/// Which runs are inside under a concurrency key, and which wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Runs that hold a place under the key.
    pub inside: Vec<RunId>,
    /// Runs that wait, in the order of their turns.
    pub waiting: Vec<RunId>,
}

/// The change of one gate, made in the same commit as the change of the run that passes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateChange {
    /// The gate's id: the workflow and the value of the concurrency key.
    pub id: String,
    /// The version that the change was decided on, which is the fence; 0 for a new gate.
    pub version: i64,
    /// The gate as it is to be stored.
    pub gate: Gate,
}

/// A child run that a change asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// The id of the new run, chosen before it is stored, so that the visit that waits for it can
    /// name it.
    pub run: RunId,
    /// The visit that waits for the child run.
    pub visit: u32,
    /// The name of the workflow to start, whose present definition is used.
    pub workflow: String,
    /// The payload that the new run starts with.
    pub input: Payload,
}

/// The right to answer a visit from outside. Only the hash of its token is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token, in hexadecimal.
    pub hash: String,
    /// The run whose visit waits for the answer.
    pub run: RunId,
    /// The number of the visit that waits for the answer.
    pub visit: u32,
    /// The hash of the answer that used the token up; `None` until it is used.
    pub answer: Option<String>,
}

impl Token {
    /// What is stored of a token: its SHA-256 in hexadecimal, so that the database gives nobody the
    /// right to answer.
    pub fn hash_of(token: &str) -> String {
        hex::encode(Sha256::digest(token.as_bytes()))
    }
}

/// A change of a run: everything that takes effect in one commit, if run and gate still have the
/// versions it was decided on.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The run after the change. Its `version` is still the one from before.
    pub run: Run,
    /// Whether the run does not exist yet.
    pub is_new: bool,
    /// Whether this change closes the run, so that its end is logged and reported to the feed.
    pub ends: bool,
    /// New jobs of the run, stored in the same commit.
    pub jobs: Vec<RunJob>,
    /// Jobs that are no longer needed. They finish with this change, without running.
    pub cancel_jobs: Vec<JobId>,
    /// Open jobs to put on hold until the run is resumed.
    pub pause_jobs: Vec<JobId>,
    /// Jobs to take off hold.
    pub resume_jobs: Vec<JobId>,
    /// What it changes of its gate; `None` if it does not concern one.
    pub gate: Option<GateChange>,
    /// How long to keep the run after this change closes it; `None` leaves that to the general
    /// retention.
    pub retention: Option<Duration>,
    /// New lines of the run's history, in order. The store numbers them.
    pub notes: Vec<Note>,
    /// Tokens of visits that now wait for an answer from outside, as hashes.
    pub tokens: Vec<Token>,
    /// The token that an answer has used up.
    pub spent: Option<Token>,
    /// Child runs that it starts. The engine turns them into `children` before anything is stored.
    pub starts: Vec<Start>,
    /// The child runs of `starts`, as changes of their own. The engine fills this in.
    pub children: Vec<Change>,
}
