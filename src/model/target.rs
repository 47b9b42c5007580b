//! A target: what a job does when it runs, and for whom.

use std::fmt;

use super::id::RunId;
use super::lane::LaneId;
use super::time::Timestamp;

/// What a job does when it runs, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A handler of the configuration, resolved when the job runs.
    Handler(String),
    /// A pull queue of the configuration, whose consumers fetch the job as a message. No worker
    /// takes it.
    Queue(String),
    /// A notice to operators, over the channel with this name.
    Alert(String),
    /// The start of a workflow's run.
    Workflow(String),
    /// A slot of a cron source: the tick, and the job of the next slot.
    Slot(SlotRef),
    /// The HTTP call that one visit to a step makes.
    Step(VisitRef),
    /// A timer of a run: a wait, timeout or deadline is over, or a child run has finished.
    Timer(VisitRef),
}

/// A slot of a cron source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SlotRef {
    /// The instant that the schedule names.
    pub at: Timestamp,
    /// The schedule it was computed with (its fingerprint).
    pub schedule: String,
    /// The name of the source.
    pub source: String,
}

impl fmt::Display for SlotRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.at.0, self.schedule, self.source)
    }
}

impl SlotRef {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let (at, schedule, source) = (parts.next()?, parts.next()?, parts.next()?);
        let at = Timestamp(at.parse().ok()?);
        Some(Self { at, schedule: schedule.to_owned(), source: source.to_owned() })
    }
}

/// A visit of a run; visit 0 stands for the run as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VisitRef {
    /// The run that the job belongs to.
    pub run: RunId,
    /// The number of the visit in that run, or 0 for the run as a whole.
    pub visit: u32,
    /// `workflow/step`, as people and receivers see it.
    pub step: String,
}

impl fmt::Display for VisitRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.run, self.visit, self.step)
    }
}

impl VisitRef {
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
            Self::Queue(_) => "queue",
            Self::Alert(_) => "alert",
            Self::Workflow(_) => "workflow",
            Self::Slot(_) => "slot",
            Self::Step(_) => "step",
            Self::Timer(_) => "timer",
        }
    }

    /// The target's name, as people and receivers see it: a handler, a queue, a workflow, or
    /// `workflow/step`.
    pub fn name(&self) -> &str {
        match self {
            Self::Handler(name) | Self::Queue(name) | Self::Alert(name) | Self::Workflow(name) => {
                name
            }
            Self::Slot(slot) => &slot.source,
            Self::Step(visiting) | Self::Timer(visiting) => &visiting.step,
        }
    }

    /// The name as the database stores it: for the jobs of a run it also holds the run's id and the
    /// visit, so that `from_parts` can read it back.
    pub fn stored_name(&self) -> String {
        match self {
            Self::Handler(name) | Self::Queue(name) | Self::Alert(name) | Self::Workflow(name) => {
                name.clone()
            }
            Self::Slot(slot) => slot.to_string(),
            Self::Step(visiting) | Self::Timer(visiting) => visiting.to_string(),
        }
    }

    /// The lane the target's jobs wait in.
    pub fn lane(&self) -> LaneId {
        match self {
            Self::Handler(name) => LaneId::handler(name),
            Self::Queue(name) => LaneId::queue(name),
            Self::Alert(name) => LaneId(format!("alert:{name}")),
            Self::Workflow(name) => LaneId(format!("workflow:{name}")),
            Self::Slot(slot) => LaneId::cron(&slot.source),
            Self::Step(visiting) => LaneId::step(&visiting.step),
            Self::Timer(_) => LaneId::timers(),
        }
    }

    /// The run and visit it belongs to; `None` for what an event causes directly.
    pub fn visit_ref(&self) -> Option<&VisitRef> {
        match self {
            Self::Step(visiting) | Self::Timer(visiting) => Some(visiting),
            Self::Handler(_)
            | Self::Queue(_)
            | Self::Alert(_)
            | Self::Workflow(_)
            | Self::Slot(_) => None,
        }
    }

    /// Reads what `kind` and `stored_name` wrote; `None` for a kind this version does not know.
    pub fn from_parts(kind: &str, name: &str) -> Option<Self> {
        match kind {
            "handler" => Some(Self::Handler(name.to_owned())),
            "queue" => Some(Self::Queue(name.to_owned())),
            "alert" => Some(Self::Alert(name.to_owned())),
            "workflow" => Some(Self::Workflow(name.to_owned())),
            "slot" => SlotRef::parse(name).map(Self::Slot),
            "step" => VisitRef::parse(name).map(Self::Step),
            "timer" => VisitRef::parse(name).map(Self::Timer),
            _ => None,
        }
    }
}
