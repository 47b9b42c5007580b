//! Third floor: the command line, one file per verb. Data goes to standard output, everything else to
//! standard error; colour is decoration; exit codes are for scripts: 0 done, 1 failed, 2 the configuration
//! or the command line is wrong.
//!
//! - `context`: the configuration and the server a verb is about; `client`: how it is asked
//! - `print`: tables and values
//! - `dev`, `start`, `validate`, `init`, `send`, `inspect`, `explain`, `tail`, `doctor`, `events`, `jobs`, `lanes`, `rejections`,
//!   `migrate`, `backup`, `schema`: the verbs

mod backup;
mod client;
mod context;
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
#[command(name = "tidehook", version, about, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The configuration file [default: tidehook.yaml, else qhook.yaml]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The environment: reads .env.NAME and the overlay beside the configuration
    #[arg(short, long, global = true, value_name = "NAME")]
    env: Option<String>,
    /// Warnings are errors
    #[arg(long, global = true, conflicts_with = "lenient")]
    strict: bool,
    /// Unknown keys are warnings
    #[arg(long, global = true)]
    lenient: bool,
    /// Ask the server at this URL instead of the one of the configuration
    #[arg(long, global = true, value_name = "URL")]
    remote: Option<String>,
    /// The API token of the server
    #[arg(long, global = true, value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show it work: a signed sample webhook, a receiver that fails once, the timeline
    Dev(dev::Dev),
    /// Run the server
    #[command(alias = "serve")]
    Start,
    /// Check a configuration
    #[command(alias = "check")]
    Validate,
    /// Write a configuration to start from
    Init(init::Init),
    /// Send an event, signed as its provider signs it
    Send(send::Send),
    /// Show an event with its deliveries and attempts
    Inspect(inspect::Inspect),
    /// Say which handlers an event reaches, and for each other one the first clause that failed
    Explain(explain::Explain),
    /// Play scenarios: events, answers, the passing of time, and what must come of it
    Test(test::Test),
    /// Run one step of a workflow against a made-up answer
    TestStep(test_step::TestStep),
    /// Follow events and outcomes as they happen
    Tail(tail::Tail),
    /// Look for what is wrong: configuration, database, clocks, receivers
    Doctor(doctor::Doctor),
    /// Events
    #[command(subcommand)]
    Events(events::Events),
    /// Deliveries
    #[command(subcommand)]
    Jobs(jobs::Jobs),
    /// Runs of workflows: list, show, cancel, kill, pause, resume, redrive, approve, reject
    #[command(subcommand, alias = "workflow-runs")]
    Runs(runs::Runs),
    /// Draw a workflow, rollback edges included; with a run, the path it took
    Graph(graph::Graph),
    /// Start a workflow by hand
    Run(runs::Start),
    /// Destinations: list, pause, resume
    #[command(subcommand)]
    Lanes(lanes::Lanes),
    /// Check that stored runs are as they must be; exit code 1 when one is not
    Fsck,
    /// Refused requests, counted by source and reason
    Rejections,
    /// Bring the database's schema up to date
    Migrate(migrate::Migrate),
    /// Copy the SQLite database into a file, also while a server works on it
    Backup(backup::Backup),
    /// Print the JSON Schema of the configuration, for editors
    Schema(schema::Schema),
    /// Print the completions of a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// Why a verb ends without success.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The configuration is wrong; its problems, which people have been told, as data.
    Config(Value),
    /// Anything else.
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

pub(crate) type Done = Result<(), Failed>;

/// Runs a command and answers its exit code.
pub async fn run(cli: Cli) -> ExitCode {
    let variable = |name: &str| context::variable(name);
    let format = log::Format::from_word(variable("LOG_FORMAT").as_deref());
    let filter = std::env::var("RUST_LOG").ok().filter(|f| !f.is_empty());
    // The timeline of `dev` tells what happens; only trouble is logged beside it.
    let quiet = matches!(cli.verb, Verb::Dev(_) | Verb::Test(_)).then(|| "tidehook=error".to_owned());
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
                print::failure(if is_argument { "argument" } else { "failed" }, &format!("{error:#}"), &Value::Null);
            }
            print::error(&format!("{error:#}"));
            if is_argument { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

async fn dispatch(cli: Cli) -> Done {
    let global = cli.global;
    match cli.verb {
        Verb::Dev(verb) => dev::run(verb, &global).await,
        Verb::Start => start::run(&global).await,
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
        Verb::Fsck => fsck::run(&global).await,
        Verb::Rejections => rejections::run(&global).await,
        Verb::Migrate(verb) => migrate::run(&verb, &global).await,
        Verb::Backup(verb) => backup::run(&verb, &global).await,
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
