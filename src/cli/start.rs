//! `tidehook start`: the server.

use super::signals::{Asked, Signals};
use super::{Done, Failed, Global, context, print};
use crate::config::Config;
use crate::server::{Server, StartError};

pub(super) async fn run(global: &Global) -> Done {
    let config = context::configuration(global, true)?;
    warn(&config);
    raise_file_limit();
    let mut signals = Signals::listen()?;
    let started = tokio::select! {
        started = Server::start(config.clone()) => started,
        () = signals.stop() => return Ok(()),
    };
    let server = match started {
        Ok(server) => server,
        Err(error @ StartError::CannotRun(_)) => {
            print::error(&error.to_string());
            return Err(Failed::Config);
        }
        Err(error) => return Err(error.into()),
    };
    let (address, handlers, workflows) = (server.address(), config.handlers.len(), config.workflows.len());
    tracing::info!(%address, handlers, workflows, version = env!("CARGO_PKG_VERSION"), "tidehook is ready.");
    while signals.next().await == Asked::Reload {
        reload(global, &config);
    }
    tracing::info!("Shutting down: what is under way may end; a second signal ends it at once.");
    server.stop(signals.stop()).await;
    tracing::info!("Goodbye.");
    Ok(())
}

/// What is open or without effect although the file may look as if it were not.
fn warn(config: &Config) {
    if config.api.auth_token.is_none() {
        tracing::warn!("api.auth_token is not set: /events and /api are open to everyone who can reach them.");
    }
    if config.server.policy.allow_private {
        tracing::warn!("server.allow_private_urls is set: deliveries may reach private and loopback addresses.");
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

/// Looks at the configuration again and says what a restart would change. Nothing is applied.
fn reload(global: &Global, running: &Config) {
    let loaded = context::load(global);
    let Some(new) = loaded.config else {
        tracing::warn!("The configuration has errors now; the running one stays.");
        print::problems(&loaded.problems);
        return;
    };
    let changes = changes(running, &new);
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
