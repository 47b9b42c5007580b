//! Ground floor: the data types that everything shares. Plain values without I/O, clock or
//! randomness.
//!
//! - [`id`]: typed ULIDs and their generators
//! - [`time`]: instants, durations as written, clocks
//! - [`event`]: what came in; [`job`]: units of work; [`target`]: whom a job is for; [`lane`]: the
//!   queue of one destination; [`run`]: executions of workflows
//! - [`attempt`]: outcomes of running a job; [`request`]: an HTTP exchange as values
//! - [`body`]: the body of a request or response, and its one parsed view; [`json`]: JSON as
//!   senders write it
//! - [`roles`]: which part of the work a process does
//! - [`key`]: texts from outside as keys
//! - [`pooler`]: the connection pooler in front of a database
//! - [`payload`]: the data that flows from step to step; [`path`]: JSON paths; [`secret`]: text
//!   that never prints itself

pub mod attempt;
pub mod aws;
pub mod body;
pub mod event;
pub mod history;
pub mod id;
pub mod job;
pub mod json;
pub mod key;
pub mod lane;
pub mod path;
pub mod payload;
pub mod pooler;
pub mod request;
pub mod retention;
pub mod roles;
pub mod run;
pub mod secret;
pub mod target;
pub mod time;
pub mod trace;

pub use attempt::{Attempt, AttemptResult, CallPhase, Failure, FailureCode, Outcome};
pub use aws::AwsIdentity;
#[cfg(feature = "lambda")]
pub use aws::{AWS_HELP, no_credentials};
pub use body::Body;
pub use event::{Event, Inbound};
pub use id::{AttemptId, EventId, Ids, JobId, RunId, SeededIds, SystemIds};
pub use job::{Job, JobState, Lease, NewJob};
pub use lane::{Lane, LaneId, LaneSpec};
pub use path::Path;
pub use payload::Payload;
pub use pooler::Pooler;
pub use request::{Cut, Method, Request, Response};
pub use retention::{Keep, OldestKept, Past, Retention};
pub use roles::Roles;
pub use run::{Run, RunError, RunState, RunStatus};
pub use secret::Secret;
pub use target::{SlotRef, Target, VisitRef};
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
