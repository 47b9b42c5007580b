//! The configuration: reads YAML into checked types, and reports every mistake at once. Ground
//! floor.
//!
//! - [`tree`]: text into nodes that know their place in the file
//! - [`layers`]: overlays, variables and secrets by reference
//! - [`problem`]: a mistake with its place and a suggestion
//! - `mask`: hides secrets in what is shown
//! - [`keys`]: the list of all keys; reading, suggestions and the editor schema use it
//! - `read`: reads values from a section by its keys
//! - `source`, `handler`, `workflow`, `queue`, `alert`, `server`: one section each
//! - [`schema`]: the JSON Schema for editors
//! - `reference`: the reference for people
//! - `load`: the only file here that reads the disk

pub mod alert;
pub mod handler;
pub mod keys;
pub mod layers;
pub mod load;
mod mask;
pub mod problem;
pub mod queue;
pub mod read;
pub mod reference;
pub mod schema;
pub mod server;
pub mod source;
pub mod tree;
pub mod urls;
pub mod workflow;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use alert::Alerts;
pub use handler::Handler;
pub use load::{Loaded, Request, load};
pub use mask::STARS;
pub use problem::{Problem, Problems, Severity};
pub use queue::Queue;
pub use server::{Api, Compat, Database, Delivery, Driver, Server, Worker};
pub use source::{Source, SourceKind};
pub use workflow::Workflow;

use crate::decide::address::Policy;
use crate::decide::alert::SOURCE;
use crate::decide::plan::{Route, Routes};
use crate::model::{LaneId, LaneSpec, Target};
use read::Section;
use tree::Node;

/// A whole configuration that was checked. Lists are in the order of the file.
#[derive(Debug, Clone)]
pub struct Config {
    /// The section `database`: which database stores events, jobs and runs, and how to connect to
    /// it.
    pub database: Database,
    /// The section `server`: the listen address, limits of requests, and which addresses deliveries
    /// may reach.
    pub server: Server,
    /// The section `api`: the tokens of `/api`, `/events` and `/metrics`.
    pub api: Api,
    /// The section `delivery`: defaults of all deliveries, and the key that signs them.
    pub delivery: Delivery,
    /// The section `worker`: parallel deliveries, leases, retention and the time a shutdown may
    /// take.
    pub worker: Worker,
    /// The section `compat`: which behaviour of qhook is kept for older files.
    pub compat: Compat,
    /// The sources: where events come from and how they are verified.
    pub sources: Vec<Arc<Source>>,
    /// The handlers: HTTP destinations that each get events of one source.
    pub handlers: Vec<Handler>,
    /// The workflows, compiled; each is started by events, by other workflows or by hand.
    pub workflows: Vec<Workflow>,
    /// The queues that consumers pull messages from.
    pub queues: Vec<Arc<Queue>>,
    /// Where operators are notified; `None` when the file has no `alerts`.
    pub alerts: Option<Arc<Alerts>>,
    /// A hash of each section or named entry (`server`, `sources.github`), to tell what a reload
    /// would change.
    pub fingerprints: BTreeMap<String, String>,
    /// The variables it was read with. Runs may need them for older definitions of workflows
    /// (`Config::compile`).
    variables: HiddenVariables,
}

/// Variables whose values are never printed, because they may be secret.
#[derive(Clone, Default)]
struct HiddenVariables(layers::Variables);

impl std::fmt::Debug for HiddenVariables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} variables", self.0.len())
    }
}

/// What the configuration needs from modules above it: it may not import them, so callers pass it
/// in.
#[derive(Debug, Clone, Default)]
pub struct External {
    /// The signature schemes by the name that `verify` uses, each with a check of its secret's
    /// form.
    pub providers: BTreeMap<&'static str, CheckSecret>,
    /// Resolves secrets by reference; `None` in places that look nothing up, such as tests.
    pub resolve: Option<Resolve>,
}

/// Resolves references: each has a value, `None` when there is nobody to ask, or a sentence why
/// there is no answer.
pub type Resolve = fn(&BTreeSet<String>) -> BTreeMap<String, Result<Option<String>, String>>;

/// Checks the form of a secret; the error is a sentence why the scheme cannot use it.
pub type CheckSecret = fn(&str) -> Result<(), String>;

/// Reads a tree that was merged and whose variables were replaced.
///
/// It collects every problem, and returns a configuration only when none of them is an error.
pub fn read(root: &Node, known: &External, problems: &mut Problems) -> Option<Config> {
    let mut top = Section::new(root, &keys::TOP, "", problems);
    let compat = Compat::read(top.section("compat"));
    top.set_lenient(compat.lenient_keys);
    let database = Database::read(top.section("database"));
    let server = Server::read(top.section("server"));
    let api = Api::read(top.section("api"));
    let delivery = Delivery::read(top.section("delivery"));
    let worker = Worker::read(top.section("worker"));
    let policy = server.policy.clone();
    let sources =
        top.each("sources", |name, section| Source::read(name, section, known).map(Arc::new));
    let names = names(&sources);
    let around =
        ReadContext { sources: &names, policy: &policy, delivery: &delivery, compat: &compat };
    let handlers = top.each("handlers", |name, section| Handler::read(name, section, &around));
    let workflows = top.each("workflows", |name, section| Workflow::read(name, section, &around));
    workflow::check_references(&workflows, top.problems());
    handler::check_renamed(&handlers, top.problems());
    let handler_names: Vec<String> = handlers.iter().map(|h| h.name.clone()).collect();
    let queues = top.each("queues", |name, section| {
        Queue::read(name, section, &around, &handler_names).map(Arc::new)
    });
    let alerts = Alerts::read(top.optional_section("alerts"), &policy).map(Arc::new);
    top.finish();
    if problems.has_errors() {
        return None;
    }
    warn_of_open_doors(&server, &api, &sources, problems);
    if problems.has_errors() {
        return None;
    }
    let fingerprints = fingerprints(root);
    let variables = HiddenVariables::default();
    Some(Config {
        database,
        server,
        api,
        delivery,
        worker,
        compat,
        sources,
        handlers,
        workflows,
        queues,
        alerts,
        fingerprints,
        variables,
    })
}

/// Warns when there is no token and the server listens on more than loopback: everyone who reaches
/// it can use what a token would protect.
fn warn_of_open_doors(
    server: &Server,
    api: &Api,
    sources: &[Arc<Source>],
    problems: &mut Problems,
) {
    if api.auth_token.is_some() || server.bind.is_loopback() {
        return;
    }
    let takes_events = sources
        .iter()
        .any(|source| matches!(source.kind, SourceKind::Event | SourceKind::Outbound));
    let open = match (takes_events, api.open) {
        (_, true) => "/events and /api are",
        (true, false) => "/events is",
        (false, false) => return,
    };
    let message = format!(
        "`api.auth_token` is not set, so {open} open to everyone who can reach this server"
    );
    let help = Some(
        "set `api.auth_token`; or set `server.bind: 127.0.0.1` if only this machine \
        needs to reach the server"
            .to_owned(),
    );
    problems.push(Problem {
        severity: Severity::Warning,
        code: "open_api",
        place: None,
        key: "api.auth_token".to_owned(),
        message,
        help,
    });
}

/// A hash of each section after variables were replaced, so that a change can be reported without
/// showing values.
fn fingerprints(root: &Node) -> BTreeMap<String, String> {
    use sha2::{Digest, Sha256};
    let hash = |node: &Node| hex::encode(Sha256::digest(read::json(node).to_string()));
    let tree::Value::Map(sections) = &root.value else { return BTreeMap::new() };
    let mut found = BTreeMap::new();
    for (key, section) in sections {
        let is_named = keys::TOP
            .iter()
            .any(|k| k.name == key.text && matches!(k.takes, keys::Takes::Named(_)));
        match &section.value {
            tree::Value::Map(entries) if is_named => {
                found.extend(
                    entries
                        .iter()
                        .map(|(name, node)| (format!("{}.{}", key.text, name.text), hash(node))),
                );
            }
            _ => {
                found.insert(key.text.clone(), hash(section));
            }
        }
    }
    found
}

/// What later sections need of those that were read before them.
pub struct ReadContext<'a> {
    /// The names of all sources, with their kinds.
    pub sources: &'a BTreeMap<String, SourceKind>,
    /// Which private addresses calls may reach, from the section `server`.
    pub policy: &'a Policy,
    /// The section `delivery`, for defaults.
    pub delivery: &'a Delivery,
    /// The section `compat`: how expressions are read.
    pub compat: &'a Compat,
}

fn names(sources: &[Arc<Source>]) -> BTreeMap<String, SourceKind> {
    sources.iter().map(|s| (s.name.clone(), s.kind)).collect()
}

impl Config {
    /// The routing rules: all handlers and queues, and the workflows that events can start.
    pub fn routes(&self) -> Routes {
        let handlers = self.handlers.iter().map(|h| Route {
            target: Target::Handler(h.name.clone()),
            key_name: h.was.first().map_or(&h.name, |old| &old.value).clone(),
            source: h.source.clone(),
            events: h.events.clone(),
            filter: h.filter.clone(),
            idempotency_key: h.idempotency_key.clone(),
        });
        let workflows = self.workflows.iter().filter_map(|w| {
            Some(Route {
                target: Target::Workflow(w.name.clone()),
                key_name: w.name.clone(),
                source: w.source.clone()?,
                events: w.events.clone(),
                filter: w.filter.clone(),
                idempotency_key: w.idempotency_key.clone(),
            })
        });
        let queues = self.queues.iter().map(|q| Route {
            target: Target::Queue(q.name.clone()),
            key_name: q.name.clone(),
            source: q.source.clone(),
            events: q.events.clone(),
            filter: q.filter.clone(),
            idempotency_key: q.idempotency_key.clone(),
        });
        let alerts = self.alerts.iter().map(|alerts| Route {
            target: Target::Alert(alert::NAME.to_owned()),
            key_name: alert::NAME.to_owned(),
            source: SOURCE.to_owned(),
            events: alerts.patterns(),
            filter: None,
            idempotency_key: None,
        });
        Routes(handlers.chain(queues).chain(workflows).chain(alerts).collect())
    }

    /// The lanes of all handlers, queues, cron sources and workflows, with their limits, as the
    /// store must have them.
    pub fn lanes(&self) -> Vec<LaneSpec> {
        let handler = |h: &Handler| LaneSpec {
            rate: h.rate_limit,
            breaker: h.breaker,
            ..LaneSpec::new(Target::Handler(h.name.clone()).lane(), h.source.clone())
        };
        let mut lanes: Vec<LaneSpec> = self.handlers.iter().map(handler).collect();
        lanes.extend(
            self.queues
                .iter()
                .map(|q| LaneSpec::new(Target::Queue(q.name.clone()).lane(), q.source.clone())),
        );
        if self.alerts.is_some() {
            let target = Target::Alert(alert::NAME.to_owned());
            lanes.push(LaneSpec::new(target.lane(), SOURCE));
        }
        let crons = self.sources.iter().filter(|source| source.cron.is_some());
        lanes.extend(crons.map(|source| LaneSpec::new(LaneId::cron(&source.name), "cron")));
        if !self.workflows.is_empty() {
            lanes.push(LaneSpec::new(LaneId::timers(), "timers"));
        }
        lanes.extend(self.workflows.iter().flat_map(Workflow::lanes));
        lanes
    }

    /// The workflow with this name, if the configuration has one.
    pub fn workflow(&self, name: &str) -> Option<&Workflow> {
        self.workflows.iter().find(|w| w.name == name)
    }

    /// Compiles a stored definition of a workflow with the current variables: runs stay on the
    /// definition that they started with.
    ///
    /// # Errors
    /// It does not compile any more; the message says why.
    pub fn compile(&self, name: &str, definition: &str) -> Result<Workflow, String> {
        let mut problems = Problems::default();
        let written: serde_json::Value =
            serde_json::from_str(definition).map_err(|why| why.to_string())?;
        // What starts a run does not matter to one that has started, and its source may be gone.
        let mut running = written.clone();
        if let Some(keys) = running.as_object_mut() {
            ["source", "events", "filter", "idempotency_key"]
                .iter()
                .for_each(|key| drop(keys.remove(*key)));
            keys.insert("callable".to_owned(), true.into());
        }
        let node = tree::parse(&running.to_string(), 0);
        let read = node.map(|mut node| {
            layers::expand(&mut node, &self.variables.0, &layers::Variables::new(), &mut problems);
            let names = names(&self.sources);
            let Self { server, delivery, compat, .. } = self;
            let around = ReadContext { sources: &names, policy: &server.policy, delivery, compat };
            let mut section = Section::new(
                &node,
                &workflow::keys::WORKFLOW,
                &format!("workflows.{name}"),
                &mut problems,
            );
            section.set_lenient(true);
            Workflow::read(name, section, &around)
        });
        let wrong = |problems: &Problems| {
            let lines: Vec<&str> =
                problems.list.iter().map(|problem| problem.message.as_str()).collect();
            lines.join("; ")
        };
        match read {
            Ok(Some(mut workflow)) if !problems.has_errors() => {
                workflow.set_definition(&written);
                Ok(workflow)
            }
            Ok(_) => Err(wrong(&problems)),
            Err(problem) => Err(problem.message),
        }
    }

    /// Gives each workflow its text as written, and keeps the variables for older definitions.
    fn set_written(
        &mut self,
        written: &serde_json::Value,
        variables: &layers::Variables,
        problems: &mut Problems,
    ) {
        for workflow in &mut self.workflows {
            let written = &written[&workflow.name];
            workflow.warn_of_stored_variables(written, problems);
            workflow.warn_of_literal_secrets(written, problems);
            workflow.set_definition(written);
        }
        self.variables = HiddenVariables(variables.clone());
    }

    /// The source with this name, if the configuration has one.
    pub fn source(&self, name: &str) -> Option<&Arc<Source>> {
        self.sources.iter().find(|s| s.name == name)
    }

    /// What the configuration asks for and this version cannot run yet. `start` lists it and stops.
    pub fn cannot_run(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut say = |what: &str, name: &str| lines.push(format!("{what} `{name}`"));
        for source in &self.sources {
            match source.kind {
                SourceKind::Webhook | SourceKind::Event | SourceKind::Cron => {}
                SourceKind::Sns => say("sns source", &source.name),
                SourceKind::Outbound => say("outbound source", &source.name),
            }
        }
        match self.database.driver {
            Driver::Sqlite | Driver::Postgres | Driver::Mysql => {}
            Driver::D1 => lines.push(
                "database driver `d1` (set DATABASE_URL to a SQLite, Postgres or MySQL URL)"
                    .to_owned(),
            ),
        }
        lines
    }
}
