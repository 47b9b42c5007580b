//! The workflow machine: from a run and a fact it computes the changed run and the jobs to store.
//!
//! It is pure: time, ids and tokens are passed in, and nothing is sent here. A repeated fact
//! changes nothing.
//!
//! - [`flow`]: a definition, compiled
//! - [`fact`]: what can happen to a run
//! - [`machine`]: starts a run and applies facts to it
//! - [`walk`]: moves a run from step to step
//! - [`ending`]: pauses, rollback and `finally`
//! - [`asks`]: the jobs that a change creates or cancels
//! - [`redrive`]: restarts a run that failed or was cancelled
//! - [`gate`]: limits concurrent runs
//! - [`step_type`]: what the machine asks of a step type, see `config::workflow::steps`
//! - [`check`]: the invariants of a run
//! - [`graph`]: a definition as a graph
//! - [`data`]: how data flows through a step
//! - [`catch`]: how failures are caught

pub mod asks;
pub mod catch;
pub mod check;
pub mod data;
pub mod ending;
pub mod fact;
pub mod flow;
pub mod gate;
pub mod graph;
pub mod machine;
pub mod redrive;
pub mod step_type;
pub mod walk;

pub use fact::Fact;
pub use flow::{Flow, Step};
pub use machine::{Context, Draw, advance, start};
