//! The section `workflows`: reads workflows of several steps and compiles them for the state
//! machine.
//!
//! - `step`: one step with its data flow and jumps
//! - `call`: the call that a step makes
//! - `steps`: what each type of step adds, one file per type
//! - `keys`: the keys of workflows and of all steps
//! - `check`: unique names, valid jumps, reachable steps
//! - `reads`: expressions that read steps which cannot have run, or values that were replaced
//! - `resolve`: turns the names of jumps into indexes

mod call;
mod check;
pub(super) mod keys;
mod reads;
mod resolve;
mod step;
mod steps;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::ReadContext;
use super::handler::{
    OF_EVENT, check_context, read_filter, read_path, read_patterns, read_source, read_template,
};
use super::problem::{Place, Problem, Problems, Severity};
use super::read::{Placed, Section};
use super::server::read_retry;
use super::tree;
use crate::decide::filter::Filter;
use crate::decide::pattern::Pattern;
use crate::decide::template::Template;
use crate::decide::workflow::Flow;
use crate::decide::workflow::flow::{Concurrency, OnLimit, Param, Retention};
use crate::model::{LaneId, LaneSpec, Path, Target};

pub(super) use check::check_references;

/// The default of `max_steps`: how many steps a run may enter, repeated visits included.
const VISITS_MAX: u32 = 1_000;

/// A workflow as configured: what starts it, and the compiled steps that its runs execute.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// The key of its entry under `workflows`, without a slash.
    pub name: String,
    /// The source whose events start it; `None` when other workflows or people start it.
    pub source: Option<String>,
    /// The patterns of event types that start it; an empty list means all types.
    pub events: Vec<Pattern>,
    /// The condition on the payload of events that start it; `None` accepts every payload.
    pub filter: Option<Filter>,
    /// The path of an idempotency key: of several events with the same key, one starts a run.
    pub idempotency_key: Option<Path>,
    /// The compiled steps and limits that the state machine executes; runs are pinned to its hash.
    pub flow: Flow,
    /// The definition as written, before variables were replaced, as JSON. It is stored with runs,
    /// and the flow's hash is made from it and the name.
    pub definition: String,
    /// The workflows it calls: who calls, for messages, and the called name with its place.
    calls: Vec<(String, Placed<String>)>,
    /// The place of its name in the file, for problems that concern the workflow as a whole.
    pub place: Place,
}

impl Workflow {
    /// The number of steps in its own list, without those of `finally` and the calls that undo
    /// steps.
    pub fn steps(&self) -> usize {
        self.flow.main
    }

    /// The lanes for starting its runs and for the calls of its steps; they share one tenant.
    pub fn lanes(&self) -> Vec<LaneSpec> {
        let tenant = || format!("workflow:{}", self.name);
        let start = LaneSpec::new(Target::Workflow(self.name.clone()).lane(), tenant());
        let steps = self
            .flow
            .places()
            .into_iter()
            .map(|place| LaneSpec::new(LaneId::step(&place), tenant()));
        std::iter::once(start).chain(steps).collect()
    }

    pub(super) fn read(name: &str, mut s: Section<'_>, around: &ReadContext<'_>) -> Option<Self> {
        let callable = s.bool("callable").unwrap_or(false);
        if name.contains('/') {
            s.error(
                "bad_name",
                "",
                format!("workflow name '{name}' must not contain '/': rename the workflow"),
            );
        }
        let source = match callable && !s.has("source") {
            true => None,
            false => read_source(&mut s, &format!("workflow '{name}'"), around),
        };
        if callable && source.is_some() {
            let message = format!(
                "workflow '{name}' is `callable: true` and also starts on events of its source"
            );
            let help = "remove `source` and `events` if it should only be called; otherwise remove \
                `callable`";
            s.problem(
                Severity::Warning,
                "called_and_listening",
                "callable",
                message,
                Some(help.into()),
            );
        }
        let timeout = s.duration("timeout");
        let params = s.items("params", |_, p| read_param(name, p));
        let events = read_patterns(&mut s, around.compat);
        let filter = read_filter(&mut s, "filter", around.compat);
        if let Some(filter) = &filter {
            check_context(
                &mut s,
                "filter",
                &format!("workflow '{name}'"),
                &filter.paths(),
                &OF_EVENT,
            );
        }
        let idempotency_key = read_path(&mut s, "idempotency_key");
        let visits_max = s.number32("max_steps").unwrap_or(VISITS_MAX);
        let retry = read_retry(&mut s, "retry", &around.delivery.retry);
        let of = step::StepScope { workflow: name, around, retry: &retry, inside: None };
        let main = s.items("steps", |at, inner| Some(step::Draft::read(at, inner, of)));
        if main.is_empty() {
            s.error(
                "missing_key",
                "steps",
                format!("workflow '{name}' has no steps: add at least one under `steps`"),
            );
        }
        let finally = s.items("finally", |at, inner| Some(step::Draft::read(at, inner, of)));
        let catches = step::read_catches(&mut s, &format!("workflow '{name}'"));
        let undoes = s.one_of("on_failure").is_some_and(|word| word == "compensate");
        let output = read_template(&mut s, "output", false);
        let concurrency = s.optional_section("concurrency").and_then(read_concurrency);
        let retention = read_retention(s.section("retention"));
        let place = s.place();
        if let Some(timeout) = timeout {
            check::check_waits(name, &main, timeout, s.problems());
        }
        check::check_steps(name, &main, &finally, &catches, s.problems());
        let jumps: Vec<&step::Goto> =
            catches.iter().filter_map(|(_, goto)| goto.as_ref()).collect();
        reads::check_reads(name, &main, &jumps, s.problems());
        s.finish();
        let calls = main.iter().chain(&finally).flat_map(step::Draft::calls).collect();
        let resolved = resolve::resolve(main, finally, catches);
        let flow = Flow {
            name: name.to_owned(),
            hash: String::new(),
            timeout,
            params,
            steps: resolved.steps,
            main: resolved.main,
            finally: resolved.finally,
            undoes,
            catch: resolved.catch,
            output,
            concurrency,
            retention,
            visits_max,
            bare_errors: around.compat.qhook_catch_payload,
        };
        let name = name.to_owned();
        let definition = String::new();
        Some(Self { name, source, events, filter, idempotency_key, flow, definition, calls, place })
    }

    /// Warns of variables in templates whose result is stored with the run: a secret in them would
    /// be stored, too.
    pub(super) fn warn_of_stored_variables(&self, written: &Value, problems: &mut Problems) {
        let mut lists = vec![&written["steps"], &written["finally"]];
        let mut found: Vec<(String, &str)> = Vec::new();
        if holds_variable(&written["output"]) {
            found.push((format!("workflow '{}'", self.name), "output"));
        }
        while let Some(list) = lists.pop() {
            for step in list.as_array().into_iter().flatten() {
                lists.push(&step["steps"]);
                let stores_body = matches!(step["type"].as_str(), Some("set" | "emit"));
                let kept = ["input", "result", "output", "assign"]
                    .into_iter()
                    .chain(stores_body.then_some("body"));
                let who = format!(
                    "workflow '{}' step '{}'",
                    self.name,
                    step["name"].as_str().unwrap_or("?")
                );
                found.extend(
                    kept.filter(|key| holds_variable(&step[*key])).map(|key| (who.clone(), key)),
                );
            }
        }
        for (who, key) in found {
            let message =
                format!("{who}: `{key}` contains a variable, and its value is stored with the run");
            let help = "put secrets into `url`, `query`, `headers` or the `body` of a call: \
                tidehook does not store these values";
            problems.push(Problem {
                severity: Severity::Warning,
                code: "stored_variable",
                place: Some(self.place),
                key: format!("workflows.{}", self.name),
                message,
                help: Some(help.to_owned()),
            });
        }
    }

    /// Warns of credentials that are written out in headers, bodies, queries or URLs: the
    /// definition is stored with the runs that use it.
    pub(super) fn warn_of_literal_secrets(&self, written: &Value, problems: &mut Problems) {
        let mut open = vec![(None, written)];
        while let Some((step, value)) = open.pop() {
            match value {
                Value::Array(items) => open.extend(items.iter().map(|item| (step, item))),
                Value::Object(fields) => {
                    let step = fields.get("name").and_then(Value::as_str).or(step);
                    open.extend(fields.iter().map(|(_, value)| (step, value)));
                    let headers =
                        fields.get("headers").and_then(Value::as_object).into_iter().flatten();
                    let headers =
                        headers.map(|(name, value)| ("header", name.clone(), value.clone()));
                    let parts = ["body", "query"]
                        .into_iter()
                        .filter_map(|key| fields.get(key)?.as_object())
                        .flatten();
                    let parts = parts.map(|(name, value)| ("key", name.clone(), value.clone()));
                    let url = fields
                        .get("url")
                        .and_then(Value::as_str)
                        .and_then(|url| url.split_once('?'));
                    let pairs = url
                        .map_or("", |(_, query)| query)
                        .split('&')
                        .filter_map(|pair| pair.split_once('='));
                    let pairs = pairs.map(|(name, value)| {
                        ("URL parameter", name.to_owned(), Value::from(value))
                    });
                    for (what, name, _) in headers
                        .chain(parts)
                        .chain(pairs)
                        .filter(|(_, name, value)| is_credential(name) && is_literal(value))
                    {
                        let place = step.map_or(String::new(), |step| format!(" step '{step}'"));
                        problems.push(Problem {
                            severity: Severity::Warning,
                            code: "literal_secret",
                            place: Some(self.place),
                            key: format!("workflows.{}", self.name),
                            message: format!(
                                "workflow '{}'{place}: the {what} `{name}` contains a credential \
                                 in plain text, and the definition is stored with its runs",
                                self.name
                            ),
                            help: Some(
                                "use a variable, `${NAME}`: only the name is stored".to_owned(),
                            ),
                        });
                    }
                }
                _ => {}
            }
        }
    }

    /// Sets the definition as written, before variables were replaced, and the hash that runs are
    /// pinned to.
    pub(super) fn set_definition(&mut self, written: &Value) {
        self.definition = written.to_string();
        // Two workflows with the same text are two.
        self.flow.hash = hex::encode(Sha256::digest(format!("{}\n{}", self.name, self.definition)));
    }
}

fn read_concurrency(mut s: Section<'_>) -> Option<Concurrency> {
    let limit = s.number32("limit").and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
    let on_limit = match s.one_of("on_limit").as_deref() {
        Some("skip") => OnLimit::Skip,
        Some("cancel_running") => OnLimit::CancelRunning,
        Some("replace_queued") => OnLimit::ReplaceQueued,
        _ => OnLimit::Queue,
    };
    let key = match s.text("key").map(|text| Template::text(&text)) {
        Some(Err(bad)) => {
            s.error(
                "bad_template",
                "key",
                format!("the concurrency key is not a valid template: {}", bad.message),
            );
            None
        }
        Some(Ok(key))
            if key.is_fixed() && s.text("key").is_some_and(|text| text.contains("$.")) =>
        {
            s.error(
                "bad_template",
                "key",
                "the concurrency key must be a template: write it like `{{ $.repo }}`",
            );
            None
        }
        Some(Ok(key)) => Some(key),
        None => None,
    };
    s.finish();
    Some(Concurrency { key, limit, on_limit })
}

fn read_retention(mut s: Section<'_>) -> Retention {
    let retention = Retention { completed: s.duration("completed"), failed: s.duration("failed") };
    s.finish();
    retention
}

/// Whether the name of a header, field or parameter says that its value is a secret.
fn is_credential(header: &str) -> bool {
    let name = header.to_ascii_lowercase();
    matches!(name.as_str(), "authorization" | "proxy-authorization" | "cookie")
        || ["token", "secret", "api-key", "apikey", "api_key", "password"]
            .iter()
            .any(|end| name.ends_with(end))
}

/// Whether a value is a text that is written out: not empty, and without a variable or placeholder.
fn is_literal(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| !text.is_empty() && !tree::holds_variable(text) && !text.contains("{{"))
}

fn holds_variable(written: &Value) -> bool {
    match written {
        Value::String(text) => tree::holds_variable(text),
        Value::Array(items) => items.iter().any(holds_variable),
        Value::Object(fields) => fields.values().any(holds_variable),
        _ => false,
    }
}

fn read_param(workflow: &str, mut s: Section<'_>) -> Option<Param> {
    const KINDS: [&str; 5] = ["string", "number", "boolean", "object", "array"];
    let name = s.required_text("name")?;
    let kind = s.text("type").unwrap_or_else(|| "string".to_owned());
    if !KINDS.contains(&kind.as_str()) {
        s.error(
            "unknown_word",
            "type",
            format!(
                "workflow '{workflow}' param '{name}' has invalid \
            type '{kind}': use string, number, boolean, object or array"
            ),
        );
    }
    let required = s.bool("required").unwrap_or(true);
    if name.starts_with('$') || name.contains("{{") {
        let message = format!(
            "workflow '{workflow}' param '{name}' is a path, but `params` takes names of top-level \
             keys"
        );
        let help = "write the name only, like `order`; check deeper values with the `schema` of \
            the source or with a condition";
        s.problem(Severity::Error, "bad_path", "name", message, Some(help.into()));
    }
    s.finish();
    Some(Param { name, kind, required })
}
