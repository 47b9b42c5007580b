//! The binary: a function where a runtime API is there, else the command line.

use std::process::ExitCode;

use clap::Parser;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "lambda")]
    if let Some(role) = tidehook::lambda::asked(std::env::args().skip(1)) {
        return tidehook::start(|| tidehook::lambda::run(role));
    }
    let cli = tidehook::cli::Cli::parse();
    tidehook::start(|| tidehook::cli::run(cli))
}
