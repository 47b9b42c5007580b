//! The binary: a function where a runtime API is there, else the command line.

use std::process::ExitCode;

use clap::Parser;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "lambda")]
    if tidehook::lambda::is_function() && std::env::args_os().len() == 1 {
        return tidehook::start(|| tidehook::lambda::run(tidehook::lambda::role()));
    }
    let cli = tidehook::cli::Cli::parse();
    tidehook::start(|| tidehook::cli::run(cli))
}
