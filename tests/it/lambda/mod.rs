//! The same binary as functions: on the runtime API, with a queue, over Postgres.

mod faults;
mod ingress;
pub mod install;
mod limits;
mod queue;
pub mod runtime;
mod secrets;
mod work;
