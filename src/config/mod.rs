//! Ground floor: YAML into types that cannot be wrong.
//!
//! - [`tree`]: text into nodes that know their place; [`layers`]: overlays and `${VAR}`
//! - [`problem`]: what is wrong, where, and how to mend it; all of it at once; `mask`: without the secrets
//! - [`keys`]: every key there is, the one list behind reading, hints and the editor schema
//! - `read`: nodes into values, by the keys of a section
//! - `source`, `handler`, `workflow`, `queue`, `alert`, `server`: one section each
//! - [`schema`]: JSON Schema for editors; `reference`: the same list for people; `load`: the only file here that reads a disk

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
use crate::decide::plan::{Route, Routes};
use crate::model::{LaneId, LaneSpec, Target};
use read::Section;
use tree::Node;

/// A whole configuration, checked. Lists keep the order of the file.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where events are kept.
    pub database: Database,
    /// How it is reached.
    pub server: Server,
    /// Who may call.
    pub api: Api,
    /// How it delivers.
    pub delivery: Delivery,
    /// How it works.
    pub worker: Worker,
    /// Readings of older files.
    pub compat: Compat,
    /// Where events come from.
    pub sources: Vec<Arc<Source>>,
    /// Who gets them.
    pub handlers: Vec<Handler>,
    /// Multi-step work.
    pub workflows: Vec<Workflow>,
    /// Pull queues.
    pub queues: Vec<Queue>,
    /// Whom to tell.
    pub alerts: Option<Alerts>,
    /// What each section says, as a hash: `server`, `sources.github`, …
    pub fingerprints: BTreeMap<String, String>,
    /// The variables it was read with, for definitions of workflows that it no longer holds.
    variables: Hidden,
}

/// Variables, which may be secret and are never shown.
#[derive(Clone, Default)]
struct Hidden(layers::Variables);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} variables", self.0.len())
    }
}

/// What the floors above know and a configuration may name.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Signature schemes: the name that `verify` uses, and a check of the secret's form.
    pub providers: BTreeMap<&'static str, CheckSecret>,
    /// What secrets by reference stand for; `None` where nothing is looked up.
    pub resolve: Option<Resolve>,
}

/// Looks references up: what each stands for (nothing, where there is nobody to ask), or a sentence why there is no answer.
pub type Resolve = fn(&BTreeSet<String>) -> BTreeMap<String, Result<Option<String>, String>>;

/// A check of a secret's form: a sentence when the scheme cannot use it.
pub type CheckSecret = fn(&str) -> Result<(), String>;

/// Reads a merged and expanded tree.
///
/// Every problem is collected; a configuration comes back only when none of them is an error.
pub fn read(root: &Node, known: &Known, problems: &mut Problems) -> Option<Config> {
    let mut top = Section::new(root, &keys::TOP, "", problems);
    let compat = Compat::read(top.section("compat"));
    top.set_lenient(compat.lenient_keys);
    let database = Database::read(top.section("database"));
    let server = Server::read(top.section("server"));
    let api = Api::read(top.section("api"));
    let delivery = Delivery::read(top.section("delivery"));
    let worker = Worker::read(top.section("worker"));
    let policy = server.policy.clone();
    let sources = top.each("sources", |name, section| Source::read(name, section, known).map(Arc::new));
    let names = names(&sources);
    let around = ReadContext { sources: &names, policy: &policy, delivery: &delivery, compat: &compat };
    let handlers = top.each("handlers", |name, section| Handler::read(name, section, &around));
    let workflows = top.each("workflows", |name, section| Workflow::read(name, section, &around));
    workflow::check_references(&workflows, top.problems());
    handler::check_renamed(&handlers, top.problems());
    let handler_names: Vec<String> = handlers.iter().map(|h| h.name.clone()).collect();
    let queues = top.each("queues", |name, section| Queue::read(name, section, &around, &handler_names));
    let alerts = Alerts::read(top.optional_section("alerts"));
    top.finish();
    if problems.has_errors() {
        return None;
    }
    warn_of_open_doors(&server, &api, &sources, problems);
    if problems.has_errors() {
        return None;
    }
    let fingerprints = fingerprints(root);
    let variables = Hidden::default();
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

/// Without a token whoever reaches the server may use what the token would guard.
fn warn_of_open_doors(server: &Server, api: &Api, sources: &[Arc<Source>], problems: &mut Problems) {
    if api.auth_token.is_some() || server.bind.is_loopback() {
        return;
    }
    let takes_events = sources.iter().any(|source| matches!(source.kind, SourceKind::Event | SourceKind::Outbound));
    let open = match (takes_events, api.open) {
        (_, true) => "/events and /api are",
        (true, false) => "/events is",
        (false, false) => return,
    };
    let message = format!("`api.auth_token` is not set: {open} open to everyone who can reach this server");
    let help = Some("set `api.auth_token`, or `server.bind: 127.0.0.1` where only this machine shall reach it".to_owned());
    problems.push(Problem {
        severity: Severity::Warning,
        code: "open_api",
        place: None,
        key: "api.auth_token".to_owned(),
        message,
        help,
    });
}

/// A hash of what each section says, variables replaced, so that a change can be named without being shown.
fn fingerprints(root: &Node) -> BTreeMap<String, String> {
    use sha2::{Digest, Sha256};
    let hash = |node: &Node| hex::encode(Sha256::digest(read::json(node).to_string()));
    let tree::Value::Map(sections) = &root.value else { return BTreeMap::new() };
    let mut found = BTreeMap::new();
    for (key, section) in sections {
        let is_named = keys::TOP.iter().any(|k| k.name == key.text && matches!(k.takes, keys::Takes::Named(_)));
        match &section.value {
            tree::Value::Map(entries) if is_named => {
                found.extend(entries.iter().map(|(name, node)| (format!("{}.{}", key.text, name.text), hash(node))));
            }
            _ => {
                found.insert(key.text.clone(), hash(section));
            }
        }
    }
    found
}

/// What a section needs of the sections before it.
pub struct ReadContext<'a> {
    /// The sources by name, with what is known of each.
    pub sources: &'a BTreeMap<String, SourceKind>,
    /// Which private addresses may be reached.
    pub policy: &'a Policy,
    /// Defaults of deliveries.
    pub delivery: &'a Delivery,
    /// Readings of older files.
    pub compat: &'a Compat,
}

fn names(sources: &[Arc<Source>]) -> BTreeMap<String, SourceKind> {
    sources.iter().map(|s| (s.name.clone(), s.kind)).collect()
}

impl Config {
    /// The consumers, compiled for routing.
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
        Routes(handlers.chain(workflows).collect())
    }

    /// What the lanes' rows must say.
    pub fn lanes(&self) -> Vec<LaneSpec> {
        let handler = |h: &Handler| LaneSpec {
            rate: h.rate_limit,
            breaker: h.breaker,
            ..LaneSpec::new(Target::Handler(h.name.clone()).lane(), h.source.clone())
        };
        let mut lanes: Vec<LaneSpec> = self.handlers.iter().map(handler).collect();
        if !self.workflows.is_empty() {
            lanes.push(LaneSpec::new(LaneId::timers(), "timers"));
        }
        lanes.extend(self.workflows.iter().flat_map(Workflow::lanes));
        lanes
    }

    /// A workflow by name.
    pub fn workflow(&self, name: &str) -> Option<&Workflow> {
        self.workflows.iter().find(|w| w.name == name)
    }

    /// Compiles a definition as it was written once, with the variables of today.
    ///
    /// # Errors
    /// It cannot be compiled any more: what is wrong with it.
    pub fn compile(&self, name: &str, definition: &str) -> Result<Workflow, String> {
        let mut problems = Problems::default();
        let written: serde_json::Value = serde_json::from_str(definition).map_err(|why| why.to_string())?;
        // What starts a run does not matter to one that has started, and its source may be gone.
        let mut running = written.clone();
        if let Some(keys) = running.as_object_mut() {
            ["source", "events", "filter", "idempotency_key"].iter().for_each(|key| drop(keys.remove(*key)));
            keys.insert("callable".to_owned(), true.into());
        }
        let node = tree::parse(&running.to_string(), 0);
        let read = node.map(|mut node| {
            layers::expand(&mut node, &self.variables.0, &layers::Variables::new(), &mut problems);
            let names = names(&self.sources);
            let Self { server, delivery, compat, .. } = self;
            let around = ReadContext { sources: &names, policy: &server.policy, delivery, compat };
            let mut section = Section::new(&node, &workflow::keys::WORKFLOW, &format!("workflows.{name}"), &mut problems);
            section.set_lenient(true);
            Workflow::read(name, section, &around)
        });
        let wrong = |problems: &Problems| {
            let lines: Vec<&str> = problems.list.iter().map(|problem| problem.message.as_str()).collect();
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

    /// Keeps what workflows were written as, and the variables for older ones.
    fn set_written(&mut self, written: &serde_json::Value, variables: &layers::Variables, problems: &mut Problems) {
        for workflow in &mut self.workflows {
            let written = &written[&workflow.name];
            workflow.warn_of_stored_variables(written, problems);
            workflow.warn_of_literal_secrets(written, problems);
            workflow.set_definition(written);
        }
        self.variables = Hidden(variables.clone());
    }

    /// A source by name.
    pub fn source(&self, name: &str) -> Option<&Arc<Source>> {
        self.sources.iter().find(|s| s.name == name)
    }

    /// What this version understands and cannot run yet; starting names each of them and stops.
    pub fn cannot_run(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut say = |what: &str, name: &str| lines.push(format!("{what} `{name}`"));
        self.queues.iter().for_each(|q| say("queue", &q.name));
        for source in &self.sources {
            match source.kind {
                SourceKind::Webhook | SourceKind::Event => {}
                SourceKind::Sns => say("sns source", &source.name),
                SourceKind::Cron => say("cron source", &source.name),
                SourceKind::Outbound => say("outbound source", &source.name),
            }
        }
        if self.alerts.is_some() {
            lines.push("section `alerts`".to_owned());
        }
        match self.database.driver {
            Driver::Sqlite | Driver::Postgres => {}
            Driver::Mysql => lines.push("database driver `mysql`".to_owned()),
            Driver::D1 => lines.push("database driver `d1` (set DATABASE_URL to SQLite or Postgres)".to_owned()),
        }
        lines
    }
}
