//! Third floor: the container. The server runs until a signal ends it; another has it look at its configuration again.
//!
//! - [`signals`]: those of the system

pub mod signals;

use std::io::Write;
use std::process::ExitCode;

use crate::config::problem::Severity;
use crate::config::{Config, Loaded, Problems, Request};
use crate::environment::{self, variable};
use crate::observe::log;
use crate::server::{Server, StartError};
use signals::{Asked, Signals};

/// Runs it as the environment alone says: what a build without the command line can do besides being a function.
pub async fn from_environment() -> ExitCode {
    let filter = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    log::start(log::Format::from_word(variable("LOG_FORMAT").as_deref()), filter.as_deref(), false);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tell = |problems: &Problems| tell_problems(problems, false);
    let look = || environment::load(Request::default());
    let loaded = look();
    tell(&loaded.problems);
    let Some(config) = loaded.config else { return ExitCode::from(2) };
    match run(config, look, tell).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell_error(&error.to_string());
            ExitCode::from(if matches!(error, StartError::CannotRun(_)) { 2 } else { 1 })
        }
    }
}

/// Runs it with a configuration. To look again is to load the configuration anew; problems are told.
///
/// # Errors
/// It does not start.
pub async fn run(config: Config, look: impl Fn() -> Loaded, tell: impl Fn(&Problems)) -> Result<(), StartError> {
    warn(&config);
    raise_file_limit();
    let mut signals =
        Signals::listen().map_err(|error| StartError::Machine(format!("signals cannot be listened for: {error}")))?;
    let server = tokio::select! {
        started = Server::start(config.clone()) => started?,
        () = signals.stop() => return Ok(()),
    };
    let (address, handlers, workflows) = (server.address(), config.handlers.len(), config.workflows.len());
    tracing::info!(%address, handlers, workflows, version = env!("CARGO_PKG_VERSION"), "tidehook is ready.");
    while signals.next().await == Asked::Reload {
        reload(&look(), &config, &tell);
    }
    tracing::info!("Shutting down: what is under way may end; a second signal ends it at once.");
    server.stop(signals.stop()).await;
    tracing::info!("Goodbye.");
    Ok(())
}

/// Tells the problems of a configuration on standard error: with the lines they point into for people, else as lines of the log.
pub fn tell_problems(problems: &Problems, colour: bool) {
    if problems.list.is_empty() {
        return;
    }
    if !log::is_json() {
        // Nobody reads where standard error is closed.
        let _ = writeln!(std::io::stderr(), "{}", problems.render(colour).trim_end());
        return;
    }
    for problem in problems.sorted() {
        let (code, key, help) = (problem.code, &problem.key, problem.help.as_deref());
        let place = problems.place_of(&problem);
        match problem.severity {
            Severity::Error => tracing::error!(code, key, place, help, "{}", problem.message),
            Severity::Warning => tracing::warn!(code, key, place, help, "{}", problem.message),
        }
    }
}

/// Tells on standard error why the process ends.
pub fn tell_error(error: &str) {
    if log::is_json() {
        tracing::error!("{error}");
    } else {
        let _ = writeln!(std::io::stderr(), "error: {error}");
    }
}

/// What is open or without effect although the file may look as if it were not.
fn warn(config: &Config) {
    if config.server.policy.allow_private {
        tracing::warn!("server.allow_private_urls is set: deliveries may reach private and loopback addresses.");
    }
    if let Some(why) = config.server.trust.weakness() {
        tracing::warn!("server.trust_proxy is set without networks: {why}.");
    }
}

/// Open connections need file descriptors; the soft limit of many systems is far below the hard one.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::debug!(%error, "The limit of open files stays as it is.");
    }
}

/// Says what a restart with a new configuration would change. Nothing is applied.
fn reload(loaded: &Loaded, running: &Config, tell: impl Fn(&Problems)) {
    let Some(new) = &loaded.config else {
        tracing::warn!("The configuration has errors now; the running one stays.");
        tell(&loaded.problems);
        return;
    };
    let changes = changes(running, new);
    match changes.is_empty() {
        true => tracing::info!("The configuration is unchanged."),
        false => tracing::info!(changes = changes.join("; "), "The configuration has changed; restart to apply."),
    }
}

/// What differs, by name: values may be secrets and are not shown.
fn changes(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (&old.fingerprints, &new.fingerprints);
    let removed = old.keys().filter(|key| !new.contains_key(*key)).map(|key| format!("{key} removed"));
    let others = new.iter().filter_map(|(key, hash)| match old.get(key) {
        None => Some(format!("{key} added")),
        Some(before) if before != hash => Some(format!("{key} changed")),
        Some(_) => None,
    });
    removed.chain(others).collect()
}
