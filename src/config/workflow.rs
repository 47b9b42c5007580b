//! `workflows`: multi-step work. Every key is checked here; running them comes with the workflow machine.

use std::collections::BTreeSet;

use super::handler::{read_filter, read_method, read_patterns, read_source, read_template};
use super::problem::{Place, Problem, Problems, Severity, did_you_mean};
use super::read::{Placed, Section};
use super::server::read_retry;
use super::{Around, urls};
use crate::decide::pattern::Pattern;
use crate::model::Path;

/// A workflow as declared.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// Its name.
    pub name: String,
    /// The source that starts it; `None` when it is only called.
    pub source: Option<String>,
    /// Which types start it; empty is all.
    pub events: Vec<Pattern>,
    /// Its steps.
    pub steps: Vec<Step>,
    /// Where it stands.
    pub place: Place,
}

/// A step as declared: its name, its kind and where it may lead.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// The workflow it calls, if it does.
    pub calls: Option<Placed<String>>,
    goes: Vec<Goto>,
    ends: bool,
    jumps: bool,
    place: Place,
}

#[derive(Debug, Clone)]
struct Goto {
    /// How messages name the jump.
    what: String,
    to: Placed<String>,
}

const ERROR_CLASSES: [&str; 5] = ["timeout", "5xx", "4xx", "network", "all"];

impl Workflow {
    pub(super) fn read(name: &str, mut s: Section<'_>, around: &Around<'_>) -> Option<Self> {
        let callable = s.bool("callable").unwrap_or(false);
        let source = match callable && !s.has("source") {
            true => None,
            false => read_source(&mut s, &format!("workflow '{name}'"), around),
        };
        s.number("timeout");
        s.items("params", |_, p| read_param(name, p));
        let events = read_patterns(&mut s, around.compat);
        let steps = s.items("steps", |at, step| Step::read(name, at, step, around));
        if steps.is_empty() {
            s.error("missing_key", "steps", format!("workflow '{name}' has no steps"));
        }
        let place = s.place();
        check_steps(name, &steps, s.problems());
        s.finish();
        Some(Self { name: name.to_owned(), source, events, steps, place })
    }
}

fn read_param(workflow: &str, mut s: Section<'_>) -> Option<()> {
    let name = s.required_text("name")?;
    if let Some(kind) = s.text("type").filter(|k| !["string", "number", "boolean", "object", "array"].contains(&k.as_str())) {
        s.error("unknown_word", "type", format!("workflow '{workflow}' param '{name}' has invalid type '{kind}'"));
    }
    s.bool("required");
    s.finish();
    Some(())
}

impl Step {
    fn read(workflow: &str, at: usize, mut s: Section<'_>, around: &Around<'_>) -> Option<Self> {
        let name = s.required_text("name").unwrap_or_else(|| format!("#{}", at + 1));
        let kind = s.word("type").unwrap_or_else(|| "http".to_owned());
        let who = format!("handler '{workflow}/{name}'");
        let call = format!("workflow '{workflow}' step '{name}'");
        let url = urls::call(&mut s, "url", &who, around.policy);
        let headers = urls::headers(&mut s, &call);
        read_method(&mut s, &call);
        let sends_json = headers.iter().all(|(n, v)| !n.eq_ignore_ascii_case("content-type") || v.contains("json"));
        read_template(&mut s, "input", sends_json);
        read_template(&mut s, "output", true);
        read_result_path(&mut s, &call);
        read_retry(s.section("retry"), &around.delivery.retry);
        s.number("timeout");
        s.word("on_failure");
        let ends = s.bool("end").unwrap_or(false);
        let mut goes = Vec::new();
        let mut jump = |what: String, to: Option<Placed<String>>| goes.extend(to.map(|to| Goto { what, to }));
        let goto = s.placed_text("goto");
        let jumps = goto.is_some();
        jump(format!("workflow '{workflow}' step '{name}' goto"), goto);
        for to in s.items("catch", |_, c| read_catch(workflow, &name, c)) {
            jump(format!("workflow '{workflow}' step '{name}' catch goto"), Some(to));
        }
        match kind.as_str() {
            "choice" => {
                let choices = s.items("choices", |_, c| read_choice(workflow, &name, c, around));
                if choices.is_empty() {
                    s.error("missing_key", "choices", format!("workflow '{workflow}' choice step '{name}' has no choices"));
                }
                for to in choices {
                    jump(format!("workflow '{workflow}' choice step '{name}' goto"), Some(to));
                }
                let default = s.placed_text("default");
                jump(format!("workflow '{workflow}' choice step '{name}' default"), default);
            }
            "http" if !s.has("url") => s.error("missing_key", "", format!("{call} has no url")),
            "parallel" => read_branches(workflow, &name, &mut s, around),
            "map" => read_map(workflow, &name, &mut s, around, url.is_some()),
            "wait" if !s.has("seconds") && !s.has("timestamp_path") => {
                let message = format!("workflow '{workflow}' wait step '{name}' needs either 'seconds' or 'timestamp_path'");
                s.error("missing_key", "", message);
            }
            _ => {}
        }
        let calls = s.placed_text("workflow");
        if kind == "workflow" && calls.is_none() {
            s.error("missing_key", "", format!("{call} is type 'workflow' but has no workflow name"));
        }
        for (key, of) in [
            ("choices", "choice"),
            ("default", "choice"),
            ("branches", "parallel"),
            ("iterator", "map"),
            ("workflow", "workflow"),
        ] {
            if s.has(key) && kind != of {
                s.warn("no_effect", key, format!("{call}: `{key}` has no effect on a step of type `{kind}`"));
            }
        }
        s.number("seconds");
        read_any_path(&mut s, "timestamp_path");
        s.number("callback_timeout");
        let place = s.place();
        s.finish();
        let is_choice = kind == "choice";
        Some(Self { name, kind, calls, goes, ends, jumps: jumps || is_choice, place })
    }
}

fn read_any_path(s: &mut Section<'_>, key: &str) {
    if let Some(text) = s.text(key)
        && let Err(why) = Path::parse(&text)
    {
        s.error("bad_path", key, why);
    }
}

fn read_result_path(s: &mut Section<'_>, call: &str) {
    if s.is_null("result_path") {
        let help = "qhook 0.6 read a YAML null as absent; remove the key to replace the payload";
        s.problem(
            Severity::Warning,
            "new_reading",
            "result_path",
            format!("{call}: `result_path: null` discards the response"),
            Some(help.into()),
        );
    }
    s.text("result_path");
}

fn read_catch(workflow: &str, step: &str, mut s: Section<'_>) -> Option<Placed<String>> {
    if !s.has("errors") {
        s.error("missing_key", "", format!("workflow '{workflow}' step '{step}' has a catch without `errors`"));
    }
    for error in s.texts("errors").unwrap_or_default() {
        if !ERROR_CLASSES.contains(&error.value.as_str()) {
            s.bad_word("errors", &error.value, &ERROR_CLASSES);
        }
    }
    s.required_text("goto");
    let goto = s.placed_text("goto");
    s.finish();
    goto
}

fn read_choice(workflow: &str, step: &str, mut s: Section<'_>, around: &Around<'_>) -> Option<Placed<String>> {
    if s.has("when") == s.has("condition") {
        let what = if s.has("when") { "both `when` and `condition`, which are the same key" } else { "no `when`" };
        s.error("missing_key", "", format!("workflow '{workflow}' choice step '{step}' has a choice with {what}"));
    }
    read_filter(&mut s, "when", around.compat);
    read_filter(&mut s, "condition", around.compat);
    s.required_text("goto");
    let goto = s.placed_text("goto");
    s.finish();
    goto
}

fn read_branches(workflow: &str, step: &str, s: &mut Section<'_>, around: &Around<'_>) {
    let mut names = BTreeSet::new();
    let branches = s.items("branches", |_, mut b| {
        let name = b.required_text("name").unwrap_or_default();
        let who = format!("handler '{workflow}/{step}:{name}'");
        if !b.has("url") {
            b.error("missing_key", "", format!("{who} has no url"));
        }
        urls::call(&mut b, "url", &who, around.policy);
        urls::headers(&mut b, &who);
        read_method(&mut b, &who);
        if !names.insert(name.clone()) {
            b.error(
                "duplicate_name",
                "name",
                format!("workflow '{workflow}' parallel step '{step}' has duplicate branch name '{name}'"),
            );
        }
        b.finish();
        Some(())
    });
    if branches.is_empty() {
        s.error("missing_key", "branches", format!("workflow '{workflow}' parallel step '{step}' has no branches"));
    }
}

fn read_map(workflow: &str, step: &str, s: &mut Section<'_>, around: &Around<'_>, has_url: bool) {
    if !s.has("items_path") {
        s.error("missing_key", "", format!("workflow '{workflow}' map step '{step}' has no items_path"));
    }
    read_any_path(s, "items_path");
    s.number("max_concurrency");
    let mut iterates = false;
    if let Some(mut i) = s.optional_section("iterator") {
        let who = format!("handler '{workflow}/{step}'");
        iterates = i.has("url");
        urls::call(&mut i, "url", &who, around.policy);
        urls::headers(&mut i, &who);
        read_method(&mut i, &who);
        read_template(&mut i, "input", true);
        i.number("timeout");
        read_retry(i.section("retry"), &around.delivery.retry);
        i.finish();
    }
    if !has_url && !s.has("url") && !iterates {
        s.error("missing_key", "", format!("workflow '{workflow}' map step '{step}' has no url"));
    }
}

/// Names are unique, jumps lead somewhere, and every step can be reached.
fn check_steps(workflow: &str, steps: &[Step], problems: &mut Problems) {
    let mut names = BTreeSet::new();
    for step in steps {
        if !names.insert(step.name.as_str()) {
            let message = format!("workflow '{workflow}' has duplicate step name '{}'", step.name);
            problems.push(error("duplicate_name", step.place, workflow, message, None));
        }
    }
    for goto in steps.iter().flat_map(|s| &s.goes) {
        if !names.contains(goto.to.value.as_str()) {
            let message = format!("{} '{}' references nonexistent step", goto.what, goto.to.value);
            let help = did_you_mean(&goto.to.value, names.iter().copied());
            problems.push(error("unknown_step", goto.to.place, &goto.to.key, message, help));
        }
    }
    let mut reached = BTreeSet::new();
    let mut open: Vec<usize> = if steps.is_empty() { Vec::new() } else { vec![0] };
    while let Some(at) = open.pop() {
        if !reached.insert(at) {
            continue;
        }
        let step = &steps[at];
        open.extend(step.goes.iter().filter_map(|g| steps.iter().position(|s| s.name == g.to.value)));
        if !step.ends && !step.jumps && at + 1 < steps.len() {
            open.push(at + 1);
        }
    }
    for (at, step) in steps.iter().enumerate() {
        if !reached.contains(&at) {
            let message = format!("workflow '{workflow}' step '{}' is never reached", step.name);
            problems
                .push(Problem { severity: Severity::Warning, ..error("unreachable_step", step.place, workflow, message, None) });
        }
    }
}

fn error(code: &'static str, place: Place, key: &str, message: String, help: Option<String>) -> Problem {
    Problem { severity: Severity::Error, code, place: Some(place), key: key.to_owned(), message, help }
}

/// Called workflows exist and are not their own caller; a called one that also listens is pointed out.
pub(super) fn check_references(workflows: &mut [Workflow], problems: &mut Problems) {
    let names: BTreeSet<String> = workflows.iter().map(|w| w.name.clone()).collect();
    for workflow in workflows.iter() {
        for step in &workflow.steps {
            let Some(target) = &step.calls else { continue };
            let call = format!("workflow '{}' step '{}'", workflow.name, step.name);
            if target.value == workflow.name {
                let message = format!("{call} cannot reference itself (recursive)");
                problems.push(error("recursive_workflow", target.place, &target.key, message, None));
            } else if !names.contains(&target.value) {
                let message = format!("{call} references unknown workflow '{}'", target.value);
                let help = did_you_mean(&target.value, names.iter().map(String::as_str));
                problems.push(error("unknown_workflow", target.place, &target.key, message, help));
            }
        }
    }
    let called: BTreeSet<&str> =
        workflows.iter().flat_map(|w| &w.steps).filter_map(|s| s.calls.as_ref()).map(|c| c.value.as_str()).collect();
    for workflow in workflows.iter().filter(|w| called.contains(w.name.as_str()) && w.source.is_some()) {
        let message = format!("workflow '{}' is called by another one and also starts on events of its source", workflow.name);
        let help = "write `callable: true` without a source if it should only be called";
        problems.push(Problem {
            severity: Severity::Warning,
            ..error("called_and_listening", workflow.place, &format!("workflows.{}", workflow.name), message, Some(help.into()))
        });
    }
}
