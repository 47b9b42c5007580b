//! Runs the server as a long-lived process, until a signal ends it. Third floor.
//!
//! SIGHUP makes it load the configuration again and log what a restart would change; nothing is
//! applied.
//!
//! - [`signals`]: the Unix signals that it listens for

pub mod signals;

use std::io::Write;
use std::process::ExitCode;

use crate::config::problem::Severity;
use crate::config::{Config, Loaded, Problems, Request};
use crate::environment::{self, variable};
use crate::model::Roles;
use crate::observe::log;
use crate::server::{Server, StartError};
use signals::{SignalAction, Signals};

/// Runs the server with the configuration that the environment names. This is what a build without
/// the command line does, unless it is a function.
pub async fn from_environment() -> ExitCode {
    let filter = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    log::start(log::Format::named(variable("LOG_FORMAT").as_deref()), filter.as_deref(), false);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tell = |problems: &Problems| report_problems(problems, false);
    let look = || environment::load(Request::default());
    let loaded = look();
    tell(&loaded.problems);
    let Some(config) = loaded.config else { return ExitCode::from(2) };
    let roles = match roles_of_environment() {
        Ok(roles) => roles,
        Err(why) => {
            report_error(&why);
            return ExitCode::from(2);
        }
    };
    match run(config, roles, look, tell).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report_error(&error.to_string());
            ExitCode::from(if matches!(error, StartError::CannotRun(_)) { 2 } else { 1 })
        }
    }
}

/// The roles that `TIDEHOOK_ROLES` names; all of them when it is not set.
///
/// # Errors
/// It names something else: a sentence.
pub fn roles_of_environment() -> Result<Roles, String> {
    variable("ROLES").map_or(Ok(Roles::ALL), |text| text.parse())
}

/// Runs the server with a configuration until a signal ends it.
///
/// `look` loads the configuration anew on SIGHUP, and `tell` reports its problems then.
///
/// # Errors
/// The server does not start.
pub async fn run(
    config: Config,
    roles: Roles,
    look: impl Fn() -> Loaded,
    tell: impl Fn(&Problems),
) -> Result<(), StartError> {
    warn(&config);
    raise_file_limit();
    let mut signals = Signals::listen().map_err(|error| {
        StartError::Machine(format!("the signal handlers cannot be installed: {error}"))
    })?;
    let server = tokio::select! {
        started = Server::start(config.clone(), roles) => started?,
        () = signals.stop() => return Ok(()),
    };
    let (address, handlers, workflows) =
        (server.address(), config.handlers.len(), config.workflows.len());
    tracing::info!(
        %address, %roles, handlers, workflows, version = env!("CARGO_PKG_VERSION"),
        "tidehook is ready.",
    );
    while signals.next().await == SignalAction::Reload {
        reload(&look(), &config, &tell);
    }
    tracing::info!(
        "Shutting down: waiting for in-flight deliveries. A second signal stops them at once."
    );
    server.stop(signals.stop()).await;
    tracing::info!("tidehook has stopped.");
    Ok(())
}

/// Writes the problems of a configuration to standard error: with the lines they point into, or as
/// lines of the log where the log is JSON.
pub fn report_problems(problems: &Problems, colour: bool) {
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

/// Writes to standard error why the process ends, as a line of the log where the log is JSON.
pub fn report_error(error: &str) {
    if log::is_json() {
        tracing::error!("{error}");
    } else {
        let _ = writeln!(std::io::stderr(), "error: {error}");
    }
}

/// Warns of settings that weaken the protection of deliveries and client addresses.
fn warn(config: &Config) {
    if config.server.policy.allow_private {
        tracing::warn!(
            "server.allow_private_urls is true: deliveries may reach private and loopback \
             addresses. Use it for development only."
        );
    }
    if let Some(why) = config.server.trust.weakness() {
        tracing::warn!(
            "server.trust_proxy is true, but server.trusted_proxies lists no networks: {why}."
        );
    }
}

/// Raises the soft limit of open files to the hard one: connections need file descriptors, and many
/// systems allow few by default.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) =
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::debug!(%error, "The limit of open files could not be raised.");
    }
}

/// Logs what a restart with the new configuration would change. Nothing is applied.
fn reload(loaded: &Loaded, running: &Config, tell: impl Fn(&Problems)) {
    let Some(new) = &loaded.config else {
        tracing::warn!(
            "The changed configuration has errors. The server keeps the one it runs with."
        );
        tell(&loaded.problems);
        return;
    };
    let changes = changes(running, new);
    match changes.is_empty() {
        true => tracing::info!("The configuration is unchanged."),
        false => tracing::info!(
            changes = changes.join("; "),
            "The configuration file has changed. Restart the server to apply it."
        ),
    }
}

/// The sections that differ, by their names only: values may be secrets.
fn changes(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (&old.fingerprints, &new.fingerprints);
    let removed =
        old.keys().filter(|key| !new.contains_key(*key)).map(|key| format!("{key} removed"));
    let others = new.iter().filter_map(|(key, hash)| match old.get(key) {
        None => Some(format!("{key} added")),
        Some(before) if before != hash => Some(format!("{key} changed")),
        Some(_) => None,
    });
    removed.chain(others).collect()
}
