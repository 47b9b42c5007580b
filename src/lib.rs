//! tidehook turns events into HTTP actions, reliably.
//!
//! The floors of the house, from the top; an arrow may only point down (`tests/it/floors.rs`):
//!
//! - [`server`], [`container`], [`lambda`], [`http`], `cli`: how people and clouds reach it; [`environment`]: what a process is told
//! - [`engine`]: accept · work · tick · operate; the only room that holds everything
//! - [`store`], [`deliver`], [`ingress`], [`wake`], [`secrets`], `aws`: the outside world; these rooms do not see each other
//! - [`config`] → [`decide`] → [`model`]: no I/O, no clock, no chance
//! - [`observe`] stands beside the stairs: what happens, told as it happens

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

/// Runs one of the doors to its end, on a runtime of its own.
pub fn start<F: Future<Output = ExitCode>>(door: impl FnOnce() -> F) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(door());
    // What is still blocked on a look-up must not hold the exit.
    runtime.shutdown_background();
    code
}
