//! The decisions of the engine, as pure functions: nothing here awaits, reads a clock or draws
//! random numbers.
//!
//! This is the ground floor of the architecture. Everything above may call it.
//!
//! - [`pattern`]: patterns for event types
//! - [`filter`]: conditions; [`template`]: payload templates
//! - [`operand`], [`function`]: the values that both may use
//! - [`foreign_syntax`]: recognizes expressions of other languages
//! - [`plan`]: which jobs an event causes
//! - [`fair`]: which lanes get a worker's free slots
//! - [`look`]: when a claim looks at a lane again
//! - [`errors`]: names of errors
//! - [`retry`]: whether and when a failed attempt is retried
//! - [`breaker`], [`rate`]: whether a lane may give jobs now
//! - [`settle`]: what an outcome means for a job
//! - [`workflow`]: the state machine that moves a run from step to step
//! - [`signature`]: Standard Webhooks signatures, inbound and outbound
//! - [`cron`]: schedules; [`alert`]: notices to operators in the words of their channel
//! - [`cidr`]: lists of networks; [`address`]: which URLs and addresses may be reached

pub mod address;
pub mod alert;
pub mod breaker;
pub mod cidr;
pub mod cron;
pub mod errors;
pub mod fair;
pub mod filter;
pub mod foreign_syntax;
pub mod function;
pub mod look;
pub mod operand;
pub mod pattern;
pub mod plan;
pub mod rate;
pub mod retry;
pub mod settle;
pub mod signature;
pub mod template;
pub mod workflow;
