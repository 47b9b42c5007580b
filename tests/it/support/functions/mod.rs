//! The real binary as functions: the runtime API, a queue, and an installation of both over
//! Postgres.

pub mod gateway;
pub mod inside;
pub mod install;
pub mod queue;
pub mod runtime;
