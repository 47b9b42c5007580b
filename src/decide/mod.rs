//! Ground floor: decisions. Functions of values; nothing here awaits, reads a clock or rolls dice.
//!
//! - [`pattern`]: event type patterns; [`filter`]: conditions; [`template`]: payload templates;
//!   [`operand`], [`function`]: the values both may use
//! - [`plan`]: which work an event causes
//! - [`fair`]: who gets a worker's free slots
//! - [`errors`]: names for failures; [`retry`]: when to try again; [`breaker`], [`rate`]: whether a lane may run
//! - [`settle`]: what an outcome means for a job
//! - [`workflow`]: the machine that moves a run from step to step
//! - [`signature`]: Standard Webhooks signatures, for what comes in and what goes out
//! - [`cidr`]: address lists; [`address`]: which addresses and URLs may be reached

pub mod address;
pub mod breaker;
pub mod cidr;
pub mod errors;
pub mod fair;
pub mod filter;
pub mod foreign;
pub mod function;
pub mod operand;
pub mod pattern;
pub mod plan;
pub mod rate;
pub mod retry;
pub mod settle;
pub mod signature;
pub mod template;
pub mod workflow;
