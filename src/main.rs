//! The program: a function where there is a runtime API of AWS Lambda, else the command line, else
//! the container.

use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "lambda")]
    if let Some(role) = tidehook::lambda::asked(std::env::args().skip(1)) {
        return tidehook::start(|| tidehook::lambda::run(role));
    }
    #[cfg(feature = "mimalloc")]
    give_memory_back();
    otherwise()
}

/// Makes the allocator of a server return freed memory to the system at once: after a burst of
/// large bodies, the process keeps a third less, at the same processor time per event
/// (docs/benchmarks.md).
///
/// The allocator reads its options from the environment when a process starts. So the process
/// executes itself again under the same id; where that fails, it goes on as it is.
#[cfg(feature = "mimalloc")]
fn give_memory_back() {
    use std::os::unix::process::CommandExt;
    const OPTION: &str = "MIMALLOC_PURGE_DELAY";
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_else(|| "tidehook".into());
    let words: Vec<_> = words.collect();
    if std::env::var_os(OPTION).is_some()
        || !words.iter().any(|word| word == "start" || word == "serve")
    {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let _ = std::process::Command::new(program).arg0(name).args(words).env(OPTION, "0").exec();
    }
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
            "error: this build is for functions and supports the command `start` only; build it \
             with the feature `cli` for the command line"
        );
        return ExitCode::from(2);
    }
    tidehook::start(tidehook::container::from_environment)
}
