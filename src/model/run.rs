//! A run: one execution of one workflow definition, as a value. The machine in `decide::workflow` moves it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::id::{EventId, JobId, RunId};
use super::job::Target;
use super::payload::Payload;
use super::time::Timestamp;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// It waits for its turn: others with its concurrency key are running.
    Queued,
    /// It goes on, or waits for something.
    Running,
    /// Held: nothing is sent, due times are kept.
    Paused,
    /// It has failed, and what its steps did is being undone.
    Compensating,
    /// It came to its end.
    Completed,
    /// It stopped at a failure nobody caught, or at its deadline.
    Failed,
    /// Called off by a person.
    Cancelled,
}

impl RunStatus {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Running, Self::Paused, Self::Compensating, Self::Completed, Self::Failed, Self::Cancelled];

    /// The stored word.
    pub fn word(self) -> &'static str {
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

    /// Whether nothing further happens by itself.
    pub fn is_closed(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for RunStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|s| s.word() == text).ok_or_else(|| format!("unknown run status `{text}`"))
    }
}

/// Why a step or a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// The error class: a stable word, as `catch` names it.
    pub class: String,
    /// For people.
    pub message: String,
    /// The step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The response status, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The job that failed, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// How often it was tried.
    #[serde(default)]
    pub attempts: u32,
    /// The name that the receiver gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
}

/// One execution of one workflow definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The workflow's name.
    pub workflow: String,
    /// The hash of the definition it is pinned to.
    pub definition: String,
    /// The event that started it, or started its topmost parent.
    pub event: EventId,
    /// The run and visit that wait for it.
    pub parent: Option<(RunId, u32)>,
    /// Where it stands.
    pub status: RunStatus,
    /// Why it failed.
    pub error: Option<RunError>,
    /// How often it changed: the fence between two who change it.
    pub version: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Everything else, as the machine sees it.
    pub state: RunState,
    /// Why what is stored of it cannot be read, if it cannot. Its state is empty then: it does not go on, and nothing but its end is
    /// written, until it can.
    pub unreadable: Option<String>,
}

impl Run {
    /// Whether the run can be read, and so can go on.
    ///
    /// # Errors
    /// A sentence: why not.
    pub fn readable(&self) -> Result<(), String> {
        match &self.unreadable {
            None => Ok(()),
            Some(why) => Err(format!("run {} cannot go on: {why}", self.id)),
        }
    }
}

/// What the machine remembers of a run. Stored as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// What it started with.
    pub input: Payload,
    /// What expressions see of the event: source, type, headers, when it came.
    #[serde(default)]
    pub about: Value,
    /// Open visits by number.
    pub visits: BTreeMap<u32, Visit>,
    /// How many visits there were.
    pub visited: u32,
    /// Those before the last redrive, which starts a fresh count of steps.
    #[serde(default)]
    pub visited_before: u32,
    /// Visits that containers have earned beyond the limit: one for each step of each place.
    #[serde(default)]
    pub allowance: u32,
    /// What finished steps left, by name: their latest visit.
    #[serde(default)]
    pub steps: BTreeMap<String, Done>,
    /// The last value stored under each root by a `result_path`: templates fall back to it.
    #[serde(default)]
    pub kept: Map<String, Value>,
    /// Assigned variables.
    #[serde(default)]
    pub vars: Map<String, Value>,
    /// What it came to.
    #[serde(default)]
    pub output: Option<Payload>,
    /// The job of the run's deadline.
    #[serde(default)]
    pub deadline: Option<JobId>,
    /// When that is, about: an attempt that could not end before it is not made.
    #[serde(default)]
    pub deadline_at: Option<Timestamp>,
    /// How deep it is nested below a topmost run.
    #[serde(default)]
    pub depth: u32,
    /// Where a run that did not complete stood: a redrive goes on from here.
    #[serde(default)]
    pub stopped: Option<Stopped>,
    /// How often it was redriven.
    #[serde(default)]
    pub redrives: u32,
    /// Steps that can be undone, in the order in which they were done.
    #[serde(default)]
    pub armed: Vec<Armed>,
    /// How it is going to end, while its steps are undone and its last steps run.
    #[serde(default)]
    pub ending: Option<Unwinding>,
    /// What its steps did was undone.
    #[serde(default)]
    pub compensated: bool,
    /// The workflow's own `catch` has taken a failure; it takes one.
    #[serde(default)]
    pub caught: bool,
    /// What it was before it was paused.
    #[serde(default)]
    pub paused_from: Option<RunStatus>,
    /// The concurrency key it runs under.
    #[serde(default)]
    pub gate: Option<String>,
    /// The job that looks whether it is its turn.
    #[serde(default)]
    pub turn: Option<JobId>,
}

/// A finished step that can be undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Armed {
    /// The step.
    pub at: Vec<usize>,
    /// Its visit.
    pub visit: u32,
    /// What it was called with.
    pub input: Value,
    /// What it answered.
    pub output: Value,
    /// The payload after it.
    pub payload: Payload,
    /// Its place in its container.
    #[serde(default)]
    pub place: Option<usize>,
}

/// How a run ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Close {
    /// At its end, with this payload.
    Completed(Payload),
    /// At a failure.
    Failed(RunError),
    /// Called off.
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

/// What a run does before it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unwinding {
    /// How it ends.
    pub how: Close,
    /// The payload of the last steps.
    pub payload: Payload,
}

/// Where a run stopped: a step of its own list, and the payload it was entered with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stopped {
    /// The step.
    pub at: Vec<usize>,
    /// The payload as it came to the step.
    pub payload: Payload,
    /// The number of the operation, so that a redrive repeats it under the same key…
    pub operation: Option<u32>,
    /// …with the same bytes: `now()` stands still.
    pub entered_at: Option<Timestamp>,
    /// What came of the places of a container.
    #[serde(default)]
    pub places: Option<Vec<Slot>>,
}

/// What a finished step left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// `completed`, `skipped`, `failed`.
    pub status: String,
    /// What it answered.
    pub output: Value,
    /// The payload after it, where that is something else.
    #[serde(default)]
    pub after: Option<Payload>,
    /// The response's status, if there was one.
    #[serde(default)]
    pub response_status: Option<u16>,
    /// How often it was visited.
    pub visits: u32,
    /// Its latest visit.
    #[serde(default)]
    pub seq: u32,
}

/// One entry into a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Visit {
    /// The step, as people see it.
    pub step: String,
    /// Where the step stands in the definition: its index, then its index inside a container.
    pub at: Vec<usize>,
    /// The container's visit and the place in its result, inside a container.
    #[serde(default)]
    pub within: Option<(u32, usize)>,
    /// The payload, narrowed by the step's `input`.
    pub payload: Payload,
    /// The payload before that, where it was narrowed.
    #[serde(default)]
    pub before: Option<Payload>,
    /// The number of the operation, where it is not the visit's own: a redrive repeats the operation that failed.
    #[serde(default)]
    pub operation: Option<u32>,
    /// The visit that it undoes.
    #[serde(default)]
    pub undoes: Option<u32>,
    /// The run's variables as they were when it was entered, where others may set them meanwhile: inside a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vars: Option<Map<String, Value>>,
    /// What it waits for.
    pub phase: VisitPhase,
    /// Open jobs of this visit.
    #[serde(default)]
    pub jobs: Vec<JobId>,
    /// When it was entered: what `now()` answers in its templates, so that each attempt sends the same bytes.
    pub entered_at: Timestamp,
}

/// What a visit waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "for")]
pub enum VisitPhase {
    /// A call.
    Call {
        /// The token that the call carries. Kept only until the call is over; its hash is what is asked for later.
        #[serde(default)]
        token: Option<String>,
        /// How often it was asked before, by a step that polls.
        #[serde(default)]
        polls: u32,
    },
    /// An instant.
    Time,
    /// An answer from outside.
    Answer {
        /// The job that misses a heartbeat.
        #[serde(default)]
        beat: Option<JobId>,
    },
    /// The same, where nobody was told of the token: it can be read where the run is shown.
    Token {
        /// The token.
        token: String,
        /// The job that misses a heartbeat.
        #[serde(default)]
        beat: Option<JobId>,
    },
    /// The end of a run that it started, or the instant to start it again.
    Child {
        /// The run.
        run: RunId,
        /// How many have failed.
        #[serde(default)]
        failed: u32,
    },
    /// The visits inside it.
    Inside {
        /// What came of each place.
        results: Vec<Slot>,
        /// Open places.
        open: usize,
        /// The next place to enter.
        next: usize,
        /// Failed places.
        failed: u32,
        /// What is entered, for a map.
        #[serde(default)]
        items: Vec<Value>,
    },
}

/// A place of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// Nothing came of it yet.
    Open,
    /// This came of it.
    Done(Value),
}

impl Slot {
    /// Puts a value in, once.
    pub fn fill(&mut self, value: Value) -> bool {
        let is_open = *self == Self::Open;
        if is_open {
            *self = Self::Done(value);
        }
        is_open
    }

    /// What came of it; null while it is open.
    pub fn value(&self) -> Value {
        match self {
            Self::Open => Value::Null,
            Self::Done(value) => value.clone(),
        }
    }
}

/// When a job is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// This long after the commit, by the database's clock.
    After(Duration),
    /// At this instant.
    At(Timestamp),
}

/// A job of a run, to be stored with the change that wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunJob {
    /// Its id.
    pub id: JobId,
    /// What it is for.
    pub target: Target,
    /// When.
    pub due: Due,
    /// It waits until its run is resumed.
    pub held: bool,
}

/// Who runs under a concurrency key, and who waits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Runs that run.
    pub inside: Vec<RunId>,
    /// Runs that wait, in the order of their turns.
    pub waiting: Vec<RunId>,
}

/// A change of a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateChange {
    /// The workflow and the key.
    pub id: String,
    /// How often it had changed: the fence. 0 for one that is new.
    pub version: i64,
    /// What it is after it.
    pub gate: Gate,
}

/// A run that a change asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// Its id.
    pub run: RunId,
    /// The visit that waits for it.
    pub visit: u32,
    /// The workflow.
    pub workflow: String,
    /// What it starts with.
    pub input: Payload,
}

/// One line of a run's history.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// What happened: a stable word.
    pub kind: &'static str,
    /// The step, if it concerns one.
    pub step: Option<String>,
    /// The visit, if it concerns one.
    pub visit: Option<u32>,
    /// More of it.
    pub data: Value,
}

/// A line of history as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its place, from 1.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub kind: String,
    /// The step.
    pub step: Option<String>,
    /// The visit.
    pub visit: Option<u32>,
    /// More of it.
    pub data: Value,
}

/// The right to answer a visit from outside, by the hash of its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token, in hexadecimal.
    pub hash: String,
    /// The run.
    pub run: RunId,
    /// The visit.
    pub visit: u32,
    /// The hash of the answer that used it up.
    pub answer: Option<String>,
}

impl Token {
    /// What is stored of a token: its SHA-256 in hexadecimal, so that the database gives nobody the right to answer.
    pub fn hash_of(token: &str) -> String {
        hex::encode(Sha256::digest(token.as_bytes()))
    }
}

/// A change of a run: everything that becomes true in one commit, if the run is still what it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The run after it. Its version is that before it.
    pub run: Run,
    /// The run does not exist yet.
    pub is_new: bool,
    /// It ends the run.
    pub ends: bool,
    /// Jobs to store.
    pub jobs: Vec<RunJob>,
    /// Jobs that nobody needs any more: they end with this change, without effect.
    pub cancel_jobs: Vec<JobId>,
    /// Jobs that wait until the run is resumed.
    pub hold: Vec<JobId>,
    /// Jobs that wait for that no longer.
    pub free: Vec<JobId>,
    /// What it changes of its gate.
    pub gate: Option<GateChange>,
    /// When the run may go, if that is not left to the retention of everything.
    pub keep: Option<Duration>,
    /// Lines of history.
    pub notes: Vec<Note>,
    /// Tokens to store.
    pub tokens: Vec<Token>,
    /// A token that is used up by an answer.
    pub spent: Option<Token>,
    /// Runs that it asks for.
    pub starts: Vec<Start>,
    /// The same as changes of their own, once they are made.
    pub children: Vec<Change>,
}
