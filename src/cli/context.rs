//! Finds the configuration and the server that a verb of the command line works with.

use super::{Failed, Global, print};
use crate::config::problem::did_you_mean;
use crate::config::{Config, Loaded, Request, Workflow};
pub(crate) use crate::environment::variable;
use crate::{environment, server};

/// Loads the configuration that the options name, else the one that the environment names.
pub(crate) fn load(global: &Global) -> Loaded {
    let (path, env) = (global.config.clone(), global.env.clone());
    environment::load(Request {
        path,
        env,
        strict: global.strict,
        lenient: global.lenient,
        ..Request::default()
    })
}

/// Loads the configuration, and prints its problems to standard error when it has errors or
/// `with_warnings` is set.
///
/// # Errors
/// The configuration has errors.
pub(crate) fn configuration(global: &Global, with_warnings: bool) -> Result<Config, Failed> {
    let loaded = load(global);
    if loaded.config.is_none() || with_warnings {
        print::problems(&loaded.problems);
    }
    let problems = super::validate::listed(&loaded.problems);
    loaded.config.ok_or(Failed::Config(problems))
}

/// The workflow with this name.
///
/// # Errors
/// The configuration has no such workflow; the message suggests a similar name.
pub(crate) fn workflow<'a>(config: &'a Config, name: &str) -> anyhow::Result<&'a Workflow> {
    let names = config.workflows.iter().map(|workflow| workflow.name.as_str());
    let hint = did_you_mean(name, names).map_or(String::new(), |help| format!("; {help}"));
    config.workflow(name).ok_or_else(|| {
        super::client::WrongArgument(format!("the configuration has no workflow `{name}`{hint}"))
            .into()
    })
}

/// The URL of `--remote`, else of `TIDEHOOK_REMOTE_URL`, without a trailing slash.
pub(crate) fn remote(global: &Global) -> Option<String> {
    global
        .remote
        .clone()
        .or_else(|| variable("REMOTE_URL"))
        .map(|url| url.trim_end_matches('/').to_owned())
}

/// The API token of `--token`, else of `TIDEHOOK_API_TOKEN`.
pub(crate) fn token(global: &Global) -> Option<String> {
    global.token.clone().or_else(|| variable("API_TOKEN"))
}

/// The URL at which this machine reaches the server of a configuration; loopback where the server
/// listens on all addresses.
pub(crate) fn local_url(config: &Config) -> String {
    let bind = config.server.bind;
    let host = if bind.is_unspecified() { std::net::IpAddr::from([127, 0, 0, 1]) } else { bind };
    format!("http://{}", std::net::SocketAddr::new(host, config.server.port))
}

/// Whether the file of an embedded database exists; always true for a database in memory.
pub(crate) fn has_database(config: &Config) -> bool {
    let Ok(url) = server::database_url(config) else { return false };
    let path = url
        .expose()
        .trim_start_matches("sqlite:")
        .trim_start_matches("//")
        .split('?')
        .next()
        .unwrap_or("")
        .to_owned();
    path.contains(":memory:") || std::path::Path::new(&path).exists()
}
