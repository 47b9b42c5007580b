//! What the expressions of steps read, checked as far as the order of the steps tells: steps that cannot have run, and
//! values that a later response has wiped.

use std::collections::BTreeSet;

use super::super::problem::{Problem, Problems, Severity, did_you_mean};
use super::check::leads;
use super::step::{Draft, Goto};
use crate::decide::workflow::flow::{Address, Call, CallKey, ResultPath};
use crate::model::Path;
use crate::model::path::Root;

/// What stands under `$$`.
const CONTEXT: [&str; 10] = ["input", "event", "run", "step", "steps", "vars", "response", "error", "item", "callback"];

/// Checks the steps of a workflow's own list. `jumps` lead into it from every step.
pub(super) fn check_reads(workflow: &str, drafts: &[Draft], jumps: &[&Goto], problems: &mut Problems) {
    let order = Order::of(drafts, jumps);
    for (at, draft) in drafts.iter().enumerate() {
        let mut told = BTreeSet::new();
        for path in paths(draft) {
            let Some(problem) = order.problem(workflow, at, path) else { continue };
            if told.insert(problem.message.clone()) {
                problems.push(problem);
            }
        }
    }
}

/// Which step may come before which.
struct Order<'a> {
    drafts: &'a [Draft],
    /// For each step those that may come after it.
    after: Vec<BTreeSet<usize>>,
}

impl<'a> Order<'a> {
    fn of(drafts: &'a [Draft], jumps: &[&Goto]) -> Self {
        let caught: Vec<usize> =
            jumps.iter().filter_map(|goto| drafts.iter().position(|draft| draft.step.name == goto.to.value)).collect();
        let after = |from: usize| {
            let mut seen = BTreeSet::new();
            let mut open = leads(drafts, from);
            open.extend(&caught);
            while let Some(at) = open.pop() {
                if seen.insert(at) {
                    open.extend(leads(drafts, at));
                }
            }
            seen
        };
        Self { drafts, after: (0..drafts.len()).map(after).collect() }
    }

    fn may_follow(&self, earlier: usize, later: usize) -> bool {
        self.after.get(earlier).is_some_and(|after| after.contains(&later))
    }

    fn problem(&self, workflow: &str, at: usize, path: &Path) -> Option<Problem> {
        match (path.root(), path.keys()?) {
            (Root::Context, [word, name, ..]) if word == "steps" => self.unrun(workflow, at, path, name),
            (Root::Context, [word, ..]) if !CONTEXT.contains(&word.as_str()) => {
                let reader = &self.drafts[at].step.name;
                let message =
                    format!("workflow '{workflow}' step '{reader}' reads `{}`, and there is no `$$.{word}`", path.text());
                Some(self.warning(workflow, at, "unknown_context", message, did_you_mean(word, CONTEXT.iter().copied())))
            }
            (Root::Payload, [key, ..]) => self.replaced(workflow, at, path, key),
            _ => None,
        }
    }

    /// `$$.steps.NAME` of a step that is not there, or that cannot have run.
    fn unrun(&self, workflow: &str, at: usize, path: &Path, name: &str) -> Option<Problem> {
        let reader = &self.drafts[at].step.name;
        let names = || self.drafts.iter().map(|draft| draft.step.name.as_str());
        let Some(read) = names().position(|other| other == name) else {
            let message = format!("workflow '{workflow}' step '{reader}' reads `{}`, and there is no step '{name}'", path.text());
            return Some(self.warning(workflow, at, "unknown_step", message, did_you_mean(name, names())));
        };
        if self.may_follow(read, at) {
            return None;
        }
        let message =
            format!("workflow '{workflow}' step '{reader}' reads `{}`, and '{name}' cannot have run before it", path.text());
        Some(self.warning(workflow, at, "never_ran", message, None))
    }

    /// `$.key` that a step stored and a later one has wiped by replacing the payload.
    fn replaced(&self, workflow: &str, at: usize, path: &Path, key: &str) -> Option<Problem> {
        let stores =
            |draft: &Draft| matches!(&draft.step.result_path, ResultPath::Set(keys) if keys.first().is_some_and(|k| k == key));
        let stored = (0..self.drafts.len()).filter(|from| stores(&self.drafts[*from]) && self.may_follow(*from, at));
        let wiped = |from: usize| {
            let between = |by: &usize| *by != from && self.may_follow(from, *by) && self.may_follow(*by, at);
            (0..self.drafts.len()).filter(|by| replaces(&self.drafts[*by])).find(between).map(|by| (from, by))
        };
        let (from, by) = stored.filter_map(wiped).next()?;
        let (reader, from, by) = (&self.drafts[at].step.name, &self.drafts[from].step.name, &self.drafts[by].step.name);
        let read = path.text();
        let message = format!(
            "workflow '{workflow}' step '{reader}' reads `{read}`, which '{from}' stored, after '{by}' has replaced the payload with its response"
        );
        let help = format!(
            "templates fall back to what '{from}' stored, conditions do not: write `result_path: \"null\"` on '{by}' to keep the payload, or read `$$.steps.{from}.output`"
        );
        Some(self.warning(workflow, at, "payload_replaced", message, Some(help)))
    }

    fn warning(&self, workflow: &str, at: usize, code: &'static str, message: String, help: Option<String>) -> Problem {
        let draft = &self.drafts[at];
        Problem {
            severity: Severity::Warning,
            code,
            place: Some(draft.place),
            key: format!("workflows.{workflow}"),
            message,
            help,
        }
    }
}

/// Whether a step's response takes the place of the payload.
fn replaces(draft: &Draft) -> bool {
    draft.step.kind.has_response() && draft.step.result_path == ResultPath::Replace && draft.step.output.is_none()
}

/// What a step reads of the payload and of the context before it has an answer.
fn paths(draft: &Draft) -> Vec<&Path> {
    let step = &draft.step;
    let mut paths: Vec<&Path> = step.when.iter().flat_map(|when| when.paths()).collect();
    // Behind its `input` a step sees only what that has left.
    if let Some(input) = &step.input {
        paths.extend(input.paths());
        return paths;
    }
    paths.extend(step.kind.paths());
    paths.extend(step.kind.call().into_iter().flat_map(of_call));
    paths
}

fn of_call(call: &Call) -> Vec<&Path> {
    let mut paths: Vec<&Path> = call.headers.iter().chain(&call.query).flat_map(|(_, value)| value.paths()).collect();
    if let Address::Template { text, .. } = &call.url {
        paths.extend(text.paths());
    }
    if let CallKey::Template(key) = &call.key {
        paths.extend(key.paths());
    }
    paths.extend(call.body.iter().flat_map(|body| body.paths()));
    paths
}
