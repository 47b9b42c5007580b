//! The integration tests: one binary, rooms named as in `src/`.
#![allow(missing_docs, reason = "tests are read by their names")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod api;
mod attacks;
mod config;
mod engine;
mod floors;
mod conformance;
mod delivery;
mod faults;
mod support;
mod vectors;
