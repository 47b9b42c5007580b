//! The integration tests: one binary, rooms named as in `src/`.
#![allow(missing_docs, reason = "tests are read by their names")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod alerts;
mod api;
mod attacks;
mod backup;
mod cli;
mod config;
mod conformance;
mod copy;
mod cron;
mod delivery;
mod docs;
mod engine;
mod faults;
mod floors;
mod lambda;
mod outsiders;
mod parity;
mod parked;
mod people;
mod promises;
mod queues;
mod roles;
mod simulation;
mod support;
mod vectors;
mod workflows;
