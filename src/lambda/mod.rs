//! Runs the engine as functions of AWS Lambda. Third floor.
//!
//! The handler of a function names its role: `ingress` serves requests, `ticker` runs housekeeping
//! and announces due jobs, `worker` works on the jobs that messages name. Everything else is as in
//! the container: the rows of the store count, and a message is only a hint.
//!
//! - [`ingress`], [`ticker`], [`worker`]: the functions
//! - [`time`]: how long an invocation may still take, and what it may begin
//! - [`checkup`]: finds problems from inside a function
//!
//! The runtime API is described at
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>.

pub mod checkup;
pub mod ingress;
pub mod ticker;
pub mod time;
pub mod worker;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use lambda_runtime::{Diagnostic, Error, LambdaEvent};
use serde_json::json;
use serde_json::value::RawValue;

use crate::config::{Config, Driver, Request};
use crate::engine::Engine;
use crate::environment::{self, variable};
use crate::http::{State, router};
use crate::model::{Clock, SystemClock, Timestamp};
use crate::observe::{emf, log};
use crate::server::{self, StartError};
use crate::store::{self, Address};
use crate::wake::sqs::Sqs;
use crate::wake::sqs::queue::Queue;
use crate::wake::{Wake, local::Local};

/// The variable that holds the address of the runtime API; a process that has it is a function.
const RUNTIME_API: &str = "AWS_LAMBDA_RUNTIME_API";
/// A tick looks ahead until the next tick, and this much further, in case that one is late.
const LOOK_FURTHER: Duration = Duration::from_secs(120);
/// The time between ticks unless `TIDEHOOK_TICK_RATE` says otherwise.
const TICK_EVERY: Duration = Duration::from_secs(60);
/// Seconds that an invocation may take where its deadline is unknown, unless
/// `TIDEHOOK_BUDGET_SECONDS` says otherwise.
const BUDGET: u64 = 25;

/// The error type that is reported to the runtime when a function does not start.
const NOT_STARTED: &str = "Tidehook.NotStarted";
/// The time limit for telling the runtime why a function does not start.
const TELL_MAX: Duration = Duration::from_secs(2);

/// The role of a function: one process has one of them, and its handler names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Serves the HTTP routes of the container: webhooks, events and the API.
    Ingress,
    /// Runs housekeeping and announces due jobs, by a schedule; without a queue it also works on
    /// them.
    Ticker,
    /// Works on the jobs that messages of the queue name, then on others that are due.
    Worker,
}

impl Role {
    /// The role that a handler names with its last word, after a dot, slash or colon.
    ///
    /// # Errors
    /// The word is none of the roles.
    pub fn of_handler(handler: &str) -> Result<Self, String> {
        match handler.rsplit(['.', '/', ':']).next().unwrap_or("") {
            "ingress" => Ok(Self::Ingress),
            "ticker" => Ok(Self::Ticker),
            "worker" => Ok(Self::Worker),
            other => Err(format!(
                "unknown function handler `{other}`: set the handler of the function to ingress, \
                 ticker or worker"
            )),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Ticker => "ticker",
            Self::Worker => "worker",
        }
    }

    /// The most database connections of one environment, which handles one invocation at a time.
    fn connections(self, config: &Config) -> u32 {
        match self {
            Self::Ingress | Self::Ticker => 1,
            Self::Worker => config.database.max_connections.min(4),
        }
    }
}

/// The role of this process when it is a function, else `None`.
///
/// It is a function when there is a runtime API and the command line has no verb. A container image
/// names the role as its command, a package as its handler.
pub fn asked(mut arguments: impl Iterator<Item = String>) -> Option<Result<Role, String>> {
    std::env::var_os(RUNTIME_API)?;
    match (arguments.next(), arguments.next()) {
        (None, _) => Some(Role::of_handler(&std::env::var("_HANDLER").unwrap_or_default())),
        (Some(word), None) => Role::of_handler(&word).ok().map(Ok),
        _ => None,
    }
}

/// A function with its engine, ready for invocations.
#[derive(Clone)]
pub struct Function {
    engine: Engine,
    /// The routes of the container, built once and used by the role `ingress`.
    routes: Router,
    role: Role,
    /// When the process began; an invocation's deadline before this is not believed.
    began: Timestamp,
    budget: Duration,
    /// The queue that carries hints to workers; without one, the ticker works on due jobs itself.
    queue: Option<Queue>,
}

/// Runs a function until its environment ends. An error of its start is reported to the runtime.
pub async fn run(role: Result<Role, String>) -> ExitCode {
    let filter = std::env::var("RUST_LOG").ok().filter(|f| !f.is_empty());
    let format = variable("LOG_FORMAT");
    log::start(
        log::Format::named(Some(format.as_deref().unwrap_or("json"))),
        filter.as_deref(),
        false,
    );
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match role {
        Ok(role) => Box::pin(serve(role)).await,
        Err(why) => Err(why.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %error, "The function cannot start.");
            if let Err(why) = tell_of_failed_start(&error.to_string()).await {
                tracing::warn!(%why, "The start error could not be reported to the Lambda \
                    runtime.");
            }
            ExitCode::FAILURE
        }
    }
}

/// Tells the runtime why a function does not start, so that its caller can read it: the deployment,
/// which invokes the migration.
async fn tell_of_failed_start(error: &str) -> Result<(), Error> {
    let url = format!("http://{}/2018-06-01/runtime/init/error", std::env::var(RUNTIME_API)?);
    #[expect(
        clippy::disallowed_methods,
        reason = "tells the runtime API beside this process, and nobody else"
    )]
    let http = reqwest::Client::builder().no_proxy().timeout(TELL_MAX).build()?;
    let request = http.post(url).header("Lambda-Runtime-Function-Error-Type", NOT_STARTED);
    request
        .json(&json!({ "errorType": NOT_STARTED, "errorMessage": error }))
        .send()
        .await?
        .error_for_status()?;
    Ok(())
}

async fn serve(role: Role) -> Result<(), Error> {
    let function = Function::start(role).await?;
    tracing::info!(
        role = role.as_str(),
        version = env!("CARGO_PKG_VERSION"),
        "The function is ready."
    );
    function.serve().await
}

/// An error in the form in which the runtime and the caller get it.
fn failure(error: &Error) -> Diagnostic {
    Diagnostic { error_type: "Tidehook.Failed".to_owned(), error_message: error.to_string() }
}

/// The time between ticks, from `TIDEHOOK_TICK_RATE` in the syntax of a schedule: `rate(10
/// minutes)`.
fn tick_every() -> Result<Duration, String> {
    let Some(text) = variable("TICK_RATE") else { return Ok(TICK_EVERY) };
    let rate = || {
        let (count, unit) = text.strip_prefix("rate(")?.strip_suffix(')')?.split_once(' ')?;
        let minutes = match unit {
            "minute" | "minutes" => 1,
            "hour" | "hours" => 60,
            _ => return None,
        };
        Some(Duration::from_secs(
            count.parse::<u64>().ok().filter(|count| *count > 0)? * minutes * 60,
        ))
    };
    rate().ok_or_else(|| {
        format!(
            "TIDEHOOK_TICK_RATE must be a rate such as `rate(1 minute)` or \
        `rate(10 minutes)`, not `{text}`"
        )
    })
}

fn seconds(name: &str, otherwise: u64) -> Result<Duration, String> {
    match variable(name) {
        None => Ok(Duration::from_secs(otherwise)),
        Some(text) => match text.parse::<u64>() {
            Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
            _ => Err(format!("TIDEHOOK_{name} must be a number of seconds, not `{text}`")),
        },
    }
}

impl Function {
    /// Reads the configuration and builds the engine.
    ///
    /// Nothing is connected to yet: while the database is unreachable, requests are answered 503,
    /// and the function starts all the same.
    ///
    /// # Errors
    /// The configuration or the environment is wrong.
    pub async fn start(role: Role) -> Result<Self, Error> {
        let loaded = environment::load(Request::default());
        let Some(mut config) = loaded.config else {
            return Err(format!(
                "the configuration has errors; run `tidehook validate` before you deploy:\n{}",
                loaded.problems.render(false)
            )
            .into());
        };
        let cannot = config.cannot_run();
        if !cannot.is_empty() {
            return Err(StartError::CannotRun(cannot).into());
        }
        if config.database.driver == Driver::Sqlite {
            let why = "functions cannot use SQLite, because they do not share a disk: set \
                `database.url` to a Postgres or MySQL server";
            return Err(why.into());
        }
        // Every caller of a function comes from outside: without a token nobody may use the
        // management routes.
        config.api.open = false;
        if config.api.auth_token.is_none() {
            tracing::warn!(
                "api.auth_token is not set: everyone who can reach /events may send events, and \
                 /api refuses every request. Set api.auth_token."
            );
        }
        server::init_metrics(&config);
        let config = Arc::new(config);
        let url = server::database_url(&config)?;
        let connections = role.connections(&config);
        let address = Address {
            pooler: config.database.pooler,
            iam: server::iam(&config).await?,
            tests_idle: true,
            beside: false,
            ..Address::new(url, connections)
        };
        let store = store::connect(address).await?;
        let queue = match variable("QUEUE_URL") {
            Some(url) => Some(Queue::new(url, environment::aws().await)),
            None => None,
        };
        let horizon = tick_every()? + LOOK_FURTHER;
        let wake: Arc<dyn Wake> = match &queue {
            Some(queue) => Arc::new(Sqs::new(queue.clone(), horizon)),
            None => Arc::new(Local::default()),
        };
        Ok(Self::new(
            server::engine(config, store, wake)?,
            role,
            queue,
            seconds("BUDGET_SECONDS", BUDGET)?,
        ))
    }

    /// Builds a function over an engine. `budget` limits invocations whose deadline is unknown.
    pub fn new(engine: Engine, role: Role, queue: Option<Queue>, budget: Duration) -> Self {
        let routes = router(State::of_function(engine.clone()));
        Self { engine, routes, role, began: SystemClock.now(), budget, queue }
    }

    /// Takes invocations from the runtime API and answers them, one after the other. One that
    /// panics is answered with an error.
    ///
    /// # Errors
    /// The runtime API cannot be reached.
    pub async fn serve(self) -> Result<(), Error> {
        lambda_runtime::run(lambda_runtime::service_fn(move |event: LambdaEvent<Box<RawValue>>| {
            let function = self.clone();
            async move {
                let answer = function.invoke(event).await.map_err(|error| failure(&error));
                emf::write(function.role.as_str());
                answer
            }
        }))
        .await
    }

    /// Handles one invocation. Nothing of it continues after its answer.
    ///
    /// # Errors
    /// The payload does not fit the role, or the database does not answer a tick.
    pub async fn invoke(&self, event: LambdaEvent<Box<RawValue>>) -> Result<Box<RawValue>, Error> {
        let request_id = event.context.request_id.clone();
        let span = tracing::info_span!("invocation", request_id);
        let left = time::left(event.context.deadline, self.began, SystemClock.now(), self.budget);
        let answer = tracing::Instrument::instrument(
            async {
                match self.role {
                    // On the heap: the type of all that an invocation may wait for is deeper than a
                    // compiler looks.
                    Role::Ingress => Box::pin(ingress::invoke(self, event)).await,
                    Role::Ticker => Box::pin(ticker::invoke(self, &event.payload, left)).await,
                    Role::Worker => Box::pin(worker::invoke(self, &event.payload, left)).await,
                }
            },
            span,
        )
        .await;
        if let Err(error) = &answer {
            tracing::error!(%error, request_id, "The invocation failed.");
        }
        answer
    }

    /// Prepares the engine once, and asks the database again after it was unreachable.
    ///
    /// # Errors
    /// The database does not answer, or it lacks the schema.
    async fn ready(&self) -> store::Result<()> {
        let health = self.engine.health();
        if !health.is_prepared() {
            return health.learn(self.engine.prepare(false).await);
        }
        if !health.is_up() {
            self.engine.ask().await?;
        }
        Ok(())
    }
}
