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
    let (address, handlers) = (server.address(), config.handlers.len());
    tracing::info!(%address, handlers, version = env!("CARGO_PKG_VERSION"), "tidehook is ready.");
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
    if config.api.metrics_auth_token.is_some() {
        tracing::warn!("api.metrics_auth_token has no effect: this version serves no /metrics.");
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

fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut changes = Vec::new();
    let mut compare = |what: &str, old: Vec<(String, String)>, new: Vec<(String, String)>| {
        for (name, _) in old.iter().filter(|(name, _)| !new.iter().any(|(n, _)| n == name)) {
            changes.push(format!("{what} {name} removed"));
        }
        for (name, detail) in &new {
            match old.iter().find(|(n, _)| n == name) {
                None => changes.push(format!("{what} {name} added")),
                Some((_, before)) if before != detail => changes.push(format!("{what} {name}: {before} → {detail}")),
                Some(_) => {}
            }
        }
    };
    let sources = |c: &Config| c.sources.iter().map(|s| (s.name.clone(), format!("{:?}", s.kind))).collect();
    let handlers = |c: &Config| c.handlers.iter().map(|h| (h.name.clone(), h.url.to_string())).collect();
    let workflows = |c: &Config| c.workflows.iter().map(|w| (w.name.clone(), String::new())).collect();
    compare("source", sources(old), sources(new));
    compare("handler", handlers(old), handlers(new));
    compare("workflow", workflows(old), workflows(new));
    if old.server.port != new.server.port {
        changes.push(format!("server.port: {} → {}", old.server.port, new.server.port));
    }
    if old.database.driver != new.database.driver {
        changes.push(format!("database.driver: {:?} → {:?}", old.database.driver, new.database.driver));
    }
    changes
}
