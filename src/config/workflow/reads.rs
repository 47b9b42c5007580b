//! Warns of expressions that read what cannot be there, as far as the order of the steps tells:
//! results of steps that cannot have run, and values that a later response replaced.

use std::collections::BTreeSet;

use super::super::problem::{Problem, Problems, Severity, did_you_mean};
use super::check::leads;
use super::step::{Draft, Goto};
use crate::decide::workflow::flow::{Address, Call, CallKey, ResultPath};
use crate::model::Path;
use crate::model::path::Root;

/// The names that expressions may use under `$$`.
const CONTEXT: [&str; 10] =
    ["input", "event", "run", "step", "steps", "vars", "response", "error", "item", "callback"];

/// Checks the expressions of a workflow's own steps. `jumps` are those of its `catch`, which any
/// step may take.
pub(super) fn check_reads(
    workflow: &str,
    drafts: &[Draft],
    jumps: &[&Goto],
    problems: &mut Problems,
) {
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

/// Which step may run after which.
struct Order<'a> {
    drafts: &'a [Draft],
    /// For each step, the indexes of the steps that may run after it.
    after: Vec<BTreeSet<usize>>,
}

impl<'a> Order<'a> {
    fn of(drafts: &'a [Draft], jumps: &[&Goto]) -> Self {
        let caught: Vec<usize> = jumps
            .iter()
            .filter_map(|goto| drafts.iter().position(|draft| draft.step.name == goto.to.value))
            .collect();
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
            (Root::Context, [word, name, ..]) if word == "steps" => {
                self.unrun(workflow, at, path, name)
            }
            (Root::Context, [word, ..]) if !CONTEXT.contains(&word.as_str()) => {
                let reader = &self.drafts[at].step.name;
                let message = format!(
                    "workflow '{workflow}' step '{reader}' reads `{}`, but `$$.{word}` does not \
                     exist",
                    path.text()
                );
                Some(self.warning(
                    workflow,
                    at,
                    "unknown_context",
                    message,
                    did_you_mean(word, CONTEXT.iter().copied()),
                ))
            }
            (Root::Payload, [key, ..]) => self.replaced(workflow, at, path, key),
            _ => None,
        }
    }

    /// Warns of `$$.steps.NAME` for a step that does not exist or cannot have run before.
    fn unrun(&self, workflow: &str, at: usize, path: &Path, name: &str) -> Option<Problem> {
        let reader = &self.drafts[at].step.name;
        let names = || self.drafts.iter().map(|draft| draft.step.name.as_str());
        let Some(read) = names().position(|other| other == name) else {
            let message = format!(
                "workflow '{workflow}' step '{reader}' reads `{}`, but there is no step '{name}'",
                path.text()
            );
            return Some(self.warning(
                workflow,
                at,
                "unknown_step",
                message,
                did_you_mean(name, names()),
            ));
        };
        if self.may_follow(read, at) {
            return None;
        }
        let message = format!(
            "workflow '{workflow}' step '{reader}' reads `{}`, but step '{name}' never runs before \
             it",
            path.text()
        );
        Some(self.warning(workflow, at, "never_ran", message, None))
    }

    /// Warns of `$.key` that one step stored and a later one may have removed by replacing the
    /// payload with its response.
    fn replaced(&self, workflow: &str, at: usize, path: &Path, key: &str) -> Option<Problem> {
        let stores = |draft: &Draft| {
            matches!(
                &draft.step.result_path,
                ResultPath::Set(keys) if keys.first().is_some_and(|k| k == key),
            )
        };
        let stored = (0..self.drafts.len())
            .filter(|from| stores(&self.drafts[*from]) && self.may_follow(*from, at));
        let wiped = |from: usize| {
            let between =
                |by: &usize| *by != from && self.may_follow(from, *by) && self.may_follow(*by, at);
            (0..self.drafts.len())
                .filter(|by| replaces(&self.drafts[*by]))
                .find(between)
                .map(|by| (from, by))
        };
        let (from, by) = stored.filter_map(wiped).next()?;
        let (reader, from, by) =
            (&self.drafts[at].step.name, &self.drafts[from].step.name, &self.drafts[by].step.name);
        let read = path.text();
        let message = format!(
            "workflow '{workflow}' step '{reader}' reads `{read}`, which step '{from}' stored, but \
             step '{by}' replaces the payload with its response in between"
        );
        let help = format!(
            "templates still find the value of '{from}', but conditions do not: set `result_path: \
             \"null\"` on '{by}' to keep the payload, or read `$$.steps.{from}.output`"
        );
        Some(self.warning(workflow, at, "payload_replaced", message, Some(help)))
    }

    fn warning(
        &self,
        workflow: &str,
        at: usize,
        code: &'static str,
        message: String,
        help: Option<String>,
    ) -> Problem {
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

/// Whether a step replaces the payload with its response.
fn replaces(draft: &Draft) -> bool {
    draft.step.kind.has_response()
        && draft.step.result_path == ResultPath::Replace
        && draft.step.output.is_none()
}

/// The paths that a step reads before it has an answer, in the payload and under `$$`.
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
    let mut paths: Vec<&Path> =
        call.headers.iter().chain(&call.query).flat_map(|(_, value)| value.paths()).collect();
    if let Address::Template { text, .. } = &call.url {
        paths.extend(text.paths());
    }
    if let CallKey::Template(key) = &call.key {
        paths.extend(key.paths());
    }
    paths.extend(call.body.iter().flat_map(|body| body.paths()));
    paths
}
