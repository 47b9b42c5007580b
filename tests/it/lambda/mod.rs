//! The same binary as functions: on the runtime API, with a queue, over Postgres.

mod credentials;
mod faults;
mod ingress;
mod limits;
mod panics;
mod secrets;
mod work;
