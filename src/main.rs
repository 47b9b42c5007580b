//! The binary: a function where a runtime API is there, else the command line, else the container.

use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "lambda")]
    if let Some(role) = tidehook::lambda::asked(std::env::args().skip(1)) {
        return tidehook::start(|| tidehook::lambda::run(role));
    }
    otherwise()
}

#[cfg(feature = "cli")]
fn otherwise() -> ExitCode {
    let cli = <tidehook::cli::Cli as clap::Parser>::parse();
    tidehook::start(|| tidehook::cli::run(cli))
}

#[cfg(not(feature = "cli"))]
fn otherwise() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !matches!(words.iter().map(String::as_str).collect::<Vec<_>>()[..], [] | ["start"]) {
        eprintln!(
            "error: this build is for functions: it knows `start` and no other verb; the command line is the feature `cli`"
        );
        return ExitCode::from(2);
    }
    tidehook::start(tidehook::container::from_environment)
}
