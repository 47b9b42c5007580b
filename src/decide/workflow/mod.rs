//! The workflow machine: a run and a fact into the run after it, and what it asks for. Pure: time, ids and tokens
//! come in; nothing is sent here, and a repeated fact changes nothing.
//!
//! - [`flow`]: a definition, compiled; [`fact`]: what can happen to a run
//! - [`machine`]: start and advance; [`walk`]: from step to step; [`ending`]: pauses, rollback, the last steps; [`asks`]: the jobs
//!   that a change wants; [`redrive`]: taking a run up again; [`gate`]: how many runs at once
//! - [`step_type`]: what the machine asks of a type of step; the types are in `config::workflow::steps`
//! - [`check`]: what must hold of every run
//! - [`graph`]: which step leads where
//! - [`data`]: input, result path, output; [`catch`]: failures and where they go

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
pub use machine::{Draw, Here, advance, start};
