//! A job: a row with a due time.

use std::fmt;
use std::str::FromStr;

use super::id::{EventId, JobId, RunId};
use super::lane::LaneId;
use super::time::Timestamp;

/// What a job is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A handler of the configuration, resolved when the job runs.
    Handler(String),
    /// The start of a workflow's run.
    Workflow(String),
    /// A call of a run.
    Step(Visiting),
    /// An instant of a run: its wait, timeout or deadline is over, or a run that it started has ended.
    Timer(Visiting),
}

/// Which visit of which run; visit 0 is the run as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Visiting {
    /// The run.
    pub run: RunId,
    /// The visit.
    pub visit: u32,
    /// `workflow/step`, as people and receivers see it.
    pub step: String,
}

impl fmt::Display for Visiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.run, self.visit, self.step)
    }
}

impl Visiting {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let (run, visit, step) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { run: run.parse().ok()?, visit: visit.parse().ok()?, step: step.to_owned() })
    }
}

impl Target {
    /// The stored word for the kind of target.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Handler(_) => "handler",
            Self::Workflow(_) => "workflow",
            Self::Step(_) => "step",
            Self::Timer(_) => "timer",
        }
    }

    /// The target's name, as people and receivers see it: a handler, a workflow, or `workflow/step`.
    pub fn name(&self) -> &str {
        match self {
            Self::Handler(name) | Self::Workflow(name) => name,
            Self::Step(visiting) | Self::Timer(visiting) => &visiting.step,
        }
    }

    /// The name as stored.
    pub fn stored_name(&self) -> String {
        match self {
            Self::Handler(name) | Self::Workflow(name) => name.clone(),
            Self::Step(visiting) | Self::Timer(visiting) => visiting.to_string(),
        }
    }

    /// The lane the target's jobs wait in.
    pub fn lane(&self) -> LaneId {
        match self {
            Self::Handler(name) => LaneId::handler(name),
            Self::Workflow(name) => LaneId(format!("workflow:{name}")),
            Self::Step(visiting) => LaneId::step(&visiting.step),
            Self::Timer(_) => LaneId::timers(),
        }
    }

    /// The run it belongs to, if it does.
    pub fn visiting(&self) -> Option<&Visiting> {
        match self {
            Self::Step(visiting) | Self::Timer(visiting) => Some(visiting),
            Self::Handler(_) | Self::Workflow(_) => None,
        }
    }

    /// Reads what `kind` and `stored_name` wrote; `None` for a kind this version does not know.
    pub fn from_parts(kind: &str, name: &str) -> Option<Self> {
        match kind {
            "handler" => Some(Self::Handler(name.to_owned())),
            "workflow" => Some(Self::Workflow(name.to_owned())),
            "step" => Visiting::parse(name).map(Self::Step),
            "timer" => Visiting::parse(name).map(Self::Timer),
            _ => None,
        }
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Waits for its due time.
    Pending,
    /// A worker has it until its due time.
    Leased,
    /// Delivered.
    Done,
    /// Given up, with a reason.
    Dead,
    /// Called off by a person.
    Cancelled,
}

impl JobState {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Leased, Self::Done, Self::Dead, Self::Cancelled];

    /// The stored word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Leased => "leased",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for JobState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|s| s.word() == text).ok_or_else(|| format!("unknown job state `{text}`"))
    }
}

/// How the last error of a job begins that cannot be worked on as things stand: its handler or its definition is gone.
pub const PUT_ASIDE: &str = "parked: ";

/// The right to record a job's outcome: it is lost when someone else claims the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// How often the job was claimed when the lease began: the fencing token.
    pub claim: i64,
}

/// Work to be stored with the event that causes it.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// What it is for.
    pub target: Target,
    /// The consumer's idempotency key: `(scope, key)`. A key seen before drops this job.
    pub key: Option<(String, String)>,
    /// Whoever stores it can start it at once: it is leased by the commit that creates it, if its lane has
    /// nothing against that.
    pub start: bool,
}

/// A job as stored, or as claimed.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id: the same over all attempts.
    pub id: JobId,
    /// The event that caused it.
    pub event: EventId,
    /// What it is for.
    pub target: Target,
    /// Where it stands.
    pub state: JobState,
    /// How many sends are on record, interrupted ones included.
    pub attempt: u32,
    /// How many of these were interrupted: their worker went away before an answer was recorded.
    pub lost: u32,
    /// How many workers died of those that had marked the beginning of a send.
    pub deaths: u32,
    /// How often it was claimed: the fencing token of the present lease.
    pub claim: i64,
    /// When it is due, or when its lease ends.
    pub due_at: Timestamp,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The last failure, for people.
    pub last_error: Option<String>,
}

impl Job {
    /// The lease this job was claimed with.
    pub fn lease(&self) -> Lease {
        Lease { job: self.id, claim: self.claim }
    }

    /// Why a job that waits was put aside by whoever had claimed it, if it was: nothing was sent, and it is looked at again.
    pub fn put_aside(&self) -> Option<&str> {
        let error = self.last_error.as_deref().filter(|_| self.state == JobState::Pending)?;
        error.starts_with(PUT_ASIDE).then_some(error)
    }

    /// Attempts that count against the policy: real exchanges only.
    pub fn counted(&self) -> u32 {
        self.attempt.saturating_sub(self.lost)
    }
}
