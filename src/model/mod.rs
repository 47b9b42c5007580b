//! Ground floor: the nouns. Plain values without I/O, clock or chance.
//!
//! - [`id`]: typed ULIDs and the generator that is passed in
//! - [`time`]: instants, durations as written, clocks
//! - [`event`]: what came in; [`job`]: what must be done; [`lane`]: where it goes; [`run`]: work in several steps
//! - [`attempt`]: what a delivery led to; [`request`]: an HTTP exchange as values
//! - [`body`]: what was received or answered, and the one view of it; [`json`]: JSON as senders write it
//! - [`key`]: texts from outside as keys
//! - [`pooler`]: what stands before a database
//! - [`payload`]: what flows from step to step; [`path`]: JSON paths; [`secret`]: text that never prints itself

pub mod attempt;
pub mod aws;
pub mod body;
pub mod event;
pub mod id;
pub mod job;
pub mod json;
pub mod key;
pub mod lane;
pub mod path;
pub mod payload;
pub mod pooler;
pub mod request;
pub mod run;
pub mod secret;
pub mod time;
pub mod trace;

pub use attempt::{Attempt, AttemptResult, CallPhase, Failure, Outcome};
pub use aws::AwsIdentity;
#[cfg(feature = "lambda")]
pub use aws::{AWS_HELP, no_credentials};
pub use body::Body;
pub use event::{Event, Inbound};
pub use id::{AttemptId, EventId, Ids, JobId, RunId, SeededIds, SystemIds};
pub use job::{Job, JobState, Lease, NewJob, Target};
pub use lane::{Lane, LaneId, LaneSpec};
pub use path::Path;
pub use payload::Payload;
pub use pooler::Pooler;
pub use request::{Cut, Method, Request, Response};
pub use run::{Run, RunError, RunState, RunStatus};
pub use secret::Secret;
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
