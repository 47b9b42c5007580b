//! The function `worker` under its own name, for `cargo lambda watch`.

fn main() -> std::process::ExitCode {
    tidehook::start(|| tidehook::lambda::run(Ok(tidehook::lambda::Role::Worker)))
}
