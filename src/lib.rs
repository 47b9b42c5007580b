//! tidehook turns events into HTTP actions, reliably.
//!
//! The code is layered like the floors of a house. A module may import only from lower floors;
//! `tests/it/floors.rs` checks it. From the top:
//!
//! - [`server`], [`container`], [`lambda`], [`http`], `cli`: how people and clouds reach it
//! - [`environment`]: the settings that a process gets from its environment
//! - [`engine`]: accepts events, works on jobs, runs housekeeping, operates runs
//! - [`store`], [`deliver`], [`ingress`], [`wake`], [`secrets`], `aws`: the outside world
//! - [`config`] → [`decide`] → [`model`]: no I/O, no clock, no randomness
//!
//! [`observe`] stands beside the floors: logs, metrics, and the feed of what happens. The modules
//! of the outside world do not import each other; only the engine uses them together.

#[cfg(feature = "lambda")]
pub mod aws;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod container;
pub mod decide;
pub mod deliver;
pub mod engine;
pub mod environment;
pub mod http;
pub mod ingress;
#[cfg(feature = "lambda")]
pub mod lambda;
pub mod model;
pub mod observe;
pub mod secrets;
pub mod server;
pub mod store;
pub mod wake;

use std::process::ExitCode;

/// Runs one way to start tidehook (function, command line or container) to its end, on a runtime of
/// its own.
pub fn start<F: Future<Output = ExitCode>>(door: impl FnOnce() -> F) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the async runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(door());
    // What is still blocked on a look-up must not hold the exit.
    runtime.shutdown_background();
    code
}
