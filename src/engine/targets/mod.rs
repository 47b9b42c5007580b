//! Kinds of targets: what the engine does with a job, by whom it is for. One file per kind, and one
//! line here.
//!
//! - [`handler`]: one HTTP call that delivers an event
//! - [`alert`]: a notice to operators
//! - [`queue`]: a message that a consumer fetches; no worker takes it
//! - [`slot`]: a tick of a cron source
//! - [`workflow`]: the start of a run
//! - [`step`]: the HTTP call or the event of a step
//! - [`timer`]: an instant that a run waits for

pub mod alert;
pub mod handler;
pub mod queue;
pub mod slot;
pub mod step;
pub mod timer;
pub mod workflow;

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use tokio::time::Instant;

use super::Engine;
use super::directory::Directory;
use super::execute::Execution;
use crate::decide::retry::RetryPolicy;
use crate::decide::settle::{OutcomeRules, RUN_DEATHS_MAX};
use crate::model::{Event, Job, Outcome, Run, Target, Timestamp};
use step::StepContext;

/// The retry policy of what has none of its own.
pub(super) static FALLBACK: LazyLock<RetryPolicy> = LazyLock::new(RetryPolicy::default);

/// How the engine works on one kind of target.
#[async_trait]
pub trait TargetKind: Sync {
    /// Whether its jobs make HTTP calls. If a worker dies during such a call, the next attempt
    /// marks when its send begins, so that a job that kills its workers is told from others.
    fn sends(&self) -> bool {
        false
    }

    /// After how many deaths of workers during its sends a job is given up.
    fn crashes_max(&self) -> u32 {
        RUN_DEATHS_MAX
    }

    /// Whether its outcomes change the circuit breaker of its lane. Steps have none: a run that has
    /// a way out of a failure must not wait for the receiver to recover.
    fn has_breaker(&self) -> bool {
        false
    }

    /// Whether the end of a job may change a run, in the same commit.
    fn changes_run(&self) -> bool {
        false
    }

    /// Why this process cannot work on jobs of this name; `None` if it can. The text completes
    /// "parked: ".
    fn missing(&self, directory: &Directory, name: &str) -> Option<String>;

    /// Whether several retry policies judge its failures, so that earlier ones must be known.
    async fn has_policies(&self, _engine: &Engine, _job: &Job, _run: Option<&Run>) -> bool {
        false
    }

    /// Executes a job once. Jobs that send nothing do their part in the commit that ends them.
    async fn execute(&self, _engine: &Engine, _doing: Doing<'_>) -> (Outcome, Option<StepContext>) {
        (Outcome::NothingToSend, None)
    }

    /// The rules by which an outcome is settled.
    fn rules<'a>(&self, _engine: &'a Engine, _job: &Job, _ran: &'a Execution) -> OutcomeRules<'a> {
        OutcomeRules::of(&FALLBACK)
    }
}

/// One execution of a job.
#[derive(Clone, Copy)]
pub struct Doing<'a> {
    /// The job, under the lease of this process.
    pub job: &'a Job,
    /// The event that caused it.
    pub event: &'a Event,
    /// The database's clock when the job was claimed.
    pub now: Timestamp,
    /// The run, for a job of a step.
    pub run: Option<&'a Arc<Run>>,
    /// When a call must have ended; `None` is no limit but its own timeout.
    pub end: Option<Instant>,
}

/// How a target is worked on.
pub fn kind_of(target: &Target) -> &'static dyn TargetKind {
    match target {
        Target::Handler(_) => &handler::Handler,
        Target::Queue(_) => &queue::Queue,
        Target::Alert(_) => &alert::Alert,
        Target::Workflow(_) => &workflow::Workflow,
        Target::Slot(_) => &slot::Slot,
        Target::Step(_) => &step::Step,
        Target::Timer(_) => &timer::Timer,
    }
}

/// The same by the word that lanes begin with; `None` for a word of another version.
pub fn kind_of_lane(word: &str) -> Option<&'static dyn TargetKind> {
    Some(match word {
        "handler" => &handler::Handler,
        "queue" => &queue::Queue,
        "alert" => &alert::Alert,
        "workflow" => &workflow::Workflow,
        "cron" => &slot::Slot,
        "step" => &step::Step,
        "timers" => &timer::Timer,
        _ => return None,
    })
}

/// Whether a job is given up without another try, because too many workers died while they executed
/// it.
pub fn is_crash_suspect(job: &Job) -> bool {
    job.crashes >= kind_of(&job.target).crashes_max()
}
