//! What the engine needs from a database: traits whose verbs take slices, one sentence per verb,
//! and the types they speak. Every driver implements all of them, and the conformance suite
//! (`tests/it/conformance/`) runs on every driver.

pub mod hints;
pub mod intake;
pub mod lanes;
pub mod maintenance;
pub mod pull;
pub mod query;
pub mod runs;
pub mod tables;
pub mod work;

pub use hints::{HintedJob, Hints, OVERDUE};
pub use intake::{Accepted, Intake, NewEvent};
pub use lanes::Lanes;
pub use maintenance::{Chores, Maintenance};
pub use pull::{Pull, QueueCounts, Receive, Received};
pub use query::{EventFilter, JobFilter, Page, Query, Rejection, Totals};
pub use runs::{Definition, RunFilter, Runs};
pub use tables::Tables;
pub use work::{ClaimRequest, Claimed, Retry, Work};

use super::error::Result;

/// The answer to a slice. The outer error concerns the slice as a whole, and whether it was
/// committed is then not known. The inner results are per item, in the order of the slice.
pub type Each<T> = Result<Vec<Result<T>>>;

/// Everything the engine needs from a database.
pub trait Store:
    Intake + Work + Pull + Hints + Lanes + Runs + Query + Maintenance + Tables
{
}
impl<T> Store for T where
    T: Intake + Work + Pull + Hints + Lanes + Runs + Query + Maintenance + Tables
{
}
