//! The command line: one file per verb. Third floor.
//!
//! Data goes to standard output, everything else to standard error. Colour carries no information.
//! The exit code is 0 for success, 1 for a failure, and 2 when the configuration or the command
//! line is wrong.
//!
//! - `context`: finds the configuration and the server that a verb works with
//! - `client`: how that server is reached
//! - `print`: output as tables, lines and JSON
//! - all other files: one verb each, under its name (`run` is in `runs`)

mod alerts;
mod backup;
mod client;
mod context;
mod copy;
mod cron;
mod dev;
mod doctor;
mod events;
mod explain;
mod fsck;
mod graph;
mod init;
mod inspect;
mod jobs;
mod lanes;
mod migrate;
mod print;
mod queues;
mod receiver;
mod rejections;
mod runs;
mod schema;
mod send;
mod stack;
mod start;
mod tail;
pub mod test;
mod test_step;
mod timeline;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use serde_json::Value;

use crate::observe::log;

/// Turns events into HTTP actions, reliably.
#[derive(Debug, Parser)]
#[command(
    name = "tidehook",
    version,
    about,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options that every verb accepts, before or after its name.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The configuration file [default: tidehook.yaml, else qhook.yaml]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The environment: also reads .env.NAME and the overlay file next to the configuration
    #[arg(short, long, global = true, value_name = "NAME")]
    env: Option<String>,
    /// Treat warnings as errors
    #[arg(long, global = true, conflicts_with = "lenient")]
    strict: bool,
    /// Report unknown keys as warnings instead of errors
    #[arg(long, global = true)]
    lenient: bool,
    /// Use the server at this URL instead of the one in the configuration
    #[arg(long, global = true, value_name = "URL")]
    remote: Option<String>,
    /// The bearer token for the server's API
    #[arg(long, global = true, value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Print the output as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a demo: a signed sample webhook, a receiver that fails once, and a live timeline
    Dev(dev::Dev),
    /// Run the server until a signal stops it
    #[command(alias = "serve")]
    Start(start::Start),
    /// Check the configuration
    #[command(alias = "check")]
    Validate,
    /// Create a starter configuration
    Init(init::Init),
    /// Send an event, signed like its provider signs it
    Send(send::Send),
    /// Show one event with its deliveries and attempts
    Inspect(inspect::Inspect),
    /// Show which handlers an event matches, and why the others do not match
    Explain(explain::Explain),
    /// Run scenario tests: events, mock responses, simulated time, and expected results
    Test(test::Test),
    /// Run one step of a workflow against a mock response
    TestStep(test_step::TestStep),
    /// Follow events and their outcomes live
    Tail(tail::Tail),
    /// Check for problems: configuration, database, clocks, receivers
    Doctor(doctor::Doctor),
    /// List events
    #[command(subcommand)]
    Events(events::Events),
    /// Manage deliveries: list, show, retry, cancel
    #[command(subcommand)]
    Jobs(jobs::Jobs),
    /// Manage workflow runs: list, show, cancel, kill, pause, resume, redrive, approve, reject
    #[command(subcommand, alias = "workflow-runs")]
    Runs(runs::Runs),
    /// Draw a workflow with its rollback edges; with --run, mark the path of that run
    Graph(graph::Graph),
    /// Start a workflow run manually
    Run(runs::Start),
    /// Manage lanes (the queue of each destination): list, pause, resume
    #[command(subcommand)]
    Lanes(lanes::Lanes),
    /// Manage pull queues: list, peek, receive, ack, nack, dlq, retry, drain
    #[command(subcommand)]
    Queues(queues::Queues),
    /// Try the channel of alerts out
    #[command(subcommand)]
    Alerts(alerts::Alerts),
    /// Show when the schedules of the configuration fire: list, next
    #[command(subcommand)]
    Cron(cron::Cron),
    /// Check stored runs for inconsistencies; exits with code 1 if there are any
    Fsck,
    /// Show the number of refused requests by source and reason
    Rejections,
    /// Apply pending database migrations
    Migrate(migrate::Migrate),
    /// Back up the SQLite database to a file, even while a server uses it
    Backup(backup::Backup),
    /// Move everything to another database: SQLite, Postgres, MySQL or MariaDB
    Copy(copy::Copy),
    /// Print the JSON Schema of the configuration for editors
    Schema(schema::Schema),
    /// Print a shell completion script
    Completions {
        /// The shell: bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// Why a verb failed; it decides the exit code.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The configuration is wrong: exit code 2. The problems were printed for people already; here
    /// they are data for `--json`.
    Config(Value),
    /// Any other failure. The exit code is 2 when an argument is wrong (`WrongArgument`), else 1.
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

pub(crate) type Done = Result<(), Failed>;

/// Runs a command and returns the exit code of the process.
pub async fn run(cli: Cli) -> ExitCode {
    let variable = |name: &str| context::variable(name);
    let format = log::Format::named(variable("LOG_FORMAT").as_deref());
    let filter = std::env::var("RUST_LOG").ok().filter(|f| !f.is_empty());
    // The timeline of `dev` tells what happens; only trouble is logged beside it.
    let quiet =
        matches!(cli.verb, Verb::Dev(_) | Verb::Test(_)).then(|| "tidehook=error".to_owned());
    let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    log::start(format, filter.or(quiet).as_deref(), colour);
    // One provider for all TLS; a second call finds it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let json = cli.global.json;
    match dispatch(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Config(problems)) => {
            if json {
                print::failure("configuration", "the configuration has errors", &problems);
            }
            ExitCode::from(2)
        }
        Err(Failed::Other(error)) => {
            let is_argument = error.is::<client::WrongArgument>();
            if json {
                print::failure(
                    if is_argument { "argument" } else { "failed" },
                    &print::chain(&error),
                    &Value::Null,
                );
            }
            print::error(&print::chain(&error));
            if is_argument { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

async fn dispatch(cli: Cli) -> Done {
    let global = cli.global;
    match cli.verb {
        Verb::Dev(verb) => dev::run(verb, &global).await,
        Verb::Start(start) => start::run(&start, &global).await,
        Verb::Validate => validate::run(&global),
        Verb::Init(verb) => init::run(&verb, &global),
        Verb::Send(verb) => send::run(verb, &global).await,
        Verb::Inspect(verb) => inspect::run(&verb, &global).await,
        Verb::Explain(verb) => explain::run(verb, &global).await,
        Verb::Test(verb) => test::run(&verb, &global).await,
        Verb::TestStep(verb) => test_step::run(&verb, &global),
        Verb::Tail(verb) => tail::run(verb, &global).await,
        Verb::Doctor(verb) => doctor::run(&verb, &global).await,
        Verb::Events(verb) => events::run(verb, &global).await,
        Verb::Jobs(verb) => jobs::run(verb, &global).await,
        Verb::Runs(verb) => runs::run(verb, &global).await,
        Verb::Graph(verb) => graph::run(&verb, &global).await,
        Verb::Run(verb) => runs::start(verb, &global).await,
        Verb::Lanes(verb) => lanes::run(verb, &global).await,
        Verb::Alerts(verb) => alerts::run(&verb, &global).await,
        Verb::Cron(verb) => cron::run(&verb, &global),
        Verb::Queues(verb) => queues::run(verb, &global).await,
        Verb::Fsck => fsck::run(&global).await,
        Verb::Rejections => rejections::run(&global).await,
        Verb::Migrate(verb) => migrate::run(&verb, &global).await,
        Verb::Backup(verb) => backup::run(&verb, &global).await,
        Verb::Copy(verb) => copy::run(&verb, &global).await,
        Verb::Schema(verb) => schema::run(&verb),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tidehook", &mut std::io::stdout());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_defined() {
        Cli::command().debug_assert();
    }
}
