//! Checks the structure of workflows: names are unique, jumps have a target, every step can be
//! reached, calls name other workflows.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::problem::{Place, Problem, Problems, Severity, did_you_mean};
use super::Workflow;
use super::step::{Draft, Goto};
use crate::decide::workflow::catch::Catch;
use crate::decide::workflow::flow::DEPTH_MAX;
use crate::decide::workflow::step_type::Emission;

/// Checks a workflow's steps, those of `finally`, and the targets of its own `catch`.
pub(super) fn check_steps(
    workflow: &str,
    main: &[Draft],
    finally: &[Draft],
    catches: &[(Catch, Option<Goto>)],
    problems: &mut Problems,
) {
    let jumps: Vec<&Goto> = catches.iter().filter_map(|(_, goto)| goto.as_ref()).collect();
    check_list(workflow, main, &jumps, problems);
    check_list(workflow, finally, &[], problems);
    for draft in finally {
        if main.iter().any(|other| other.step.name == draft.step.name) {
            let message = format!(
                "workflow '{workflow}' has duplicate step name '{}' in `finally`: step names are \
                 unique in a workflow; rename one",
                draft.step.name
            );
            problems.push(error("duplicate_name", draft.place, workflow, message, None));
        }
    }
}

/// Checks the steps of one list: a workflow's, or those inside a map. `jumps` enter the list from
/// outside.
fn check_list(workflow: &str, drafts: &[Draft], jumps: &[&Goto], problems: &mut Problems) {
    let mut names = BTreeSet::new();
    for draft in drafts {
        let name = draft.step.name.as_str();
        if !names.insert(name) {
            let message = format!(
                "workflow '{workflow}' has duplicate step name '{name}': rename one of the steps"
            );
            problems.push(error("duplicate_name", draft.place, workflow, message, None));
        }
    }
    for goto in drafts.iter().flat_map(Draft::gotos).chain(jumps.iter().copied()) {
        if !names.contains(goto.to.value.as_str()) {
            let message = format!("{} '{}' references nonexistent step", goto.what, goto.to.value);
            let help = did_you_mean(&goto.to.value, names.iter().copied());
            problems.push(error("unknown_step", goto.to.place, &goto.to.key, message, help));
        }
    }
    unreachable(workflow, drafts, jumps, problems);
    endless(workflow, drafts, problems);
    for draft in drafts.iter().filter(|draft| draft.inner_leads_on) {
        check_list(workflow, &draft.inner, &[], problems);
    }
}

/// The indexes of the steps that may come next after a step.
pub(super) fn leads(drafts: &[Draft], at: usize) -> Vec<usize> {
    let draft = &drafts[at];
    let mut to: Vec<usize> = draft
        .gotos()
        .filter_map(|goto| drafts.iter().position(|d| d.step.name == goto.to.value))
        .collect();
    if !draft.ends && !draft.jumps() && at + 1 < drafts.len() {
        to.push(at + 1);
    }
    to
}

fn unreachable(workflow: &str, drafts: &[Draft], jumps: &[&Goto], problems: &mut Problems) {
    let mut reached = BTreeSet::new();
    let mut open: Vec<usize> = if drafts.is_empty() { Vec::new() } else { vec![0] };
    open.extend(
        jumps
            .iter()
            .filter_map(|goto| drafts.iter().position(|draft| draft.step.name == goto.to.value)),
    );
    while let Some(at) = open.pop() {
        if reached.insert(at) {
            open.extend(leads(drafts, at));
        }
    }
    for (at, draft) in drafts.iter().enumerate().filter(|(at, _)| !reached.contains(at)) {
        let message = format!(
            "workflow '{workflow}' step '{}' is never reached: remove it, or lead to it with \
             `goto`",
            drafts[at].step.name
        );
        problems.push(Problem {
            severity: Severity::Warning,
            ..error("unreachable_step", draft.place, workflow, message, None)
        });
    }
}

/// Refuses a loop of steps that take no time (`choice`, `set`): only the limit of steps would end
/// the run.
fn endless(workflow: &str, drafts: &[Draft], problems: &mut Problems) {
    let takes_no_time = |at: usize| !drafts[at].step.kind.takes_time();
    for (at, draft) in drafts.iter().enumerate().filter(|(at, _)| takes_no_time(*at)) {
        let mut seen = BTreeSet::new();
        let mut open: Vec<usize> =
            leads(drafts, at).into_iter().filter(|to| takes_no_time(*to)).collect();
        while let Some(next) = open.pop() {
            if next == at {
                let message = format!(
                    "workflow '{workflow}' step '{}' loops back to itself without a call or a wait",
                    draft.step.name
                );
                let help = "add a `wait` or a call to the loop";
                problems.push(error(
                    "endless_circle",
                    draft.place,
                    workflow,
                    message,
                    Some(help.to_owned()),
                ));
                return;
            }
            if seen.insert(next) {
                open.extend(leads(drafts, next).into_iter().filter(|to| takes_no_time(*to)));
            }
        }
    }
}

fn error(
    code: &'static str,
    place: Place,
    key: &str,
    message: String,
    help: Option<String>,
) -> Problem {
    Problem {
        severity: Severity::Error,
        code,
        place: Some(place),
        key: key.to_owned(),
        message,
        help,
    }
}

/// Checks calls between workflows: the called one exists and is not its caller. It warns of one
/// that is called and also starts on events.
pub(in crate::config) fn check_references(workflows: &[Workflow], problems: &mut Problems) {
    let names: BTreeSet<&str> = workflows.iter().map(|w| w.name.as_str()).collect();
    for workflow in workflows {
        for (call, target) in &workflow.calls {
            if target.value == workflow.name {
                let message = format!("{call} cannot reference itself (recursive)");
                problems.push(error(
                    "recursive_workflow",
                    target.place,
                    &target.key,
                    message,
                    None,
                ));
            } else if !names.contains(target.value.as_str()) {
                let message = format!("{call} references unknown workflow '{}'", target.value);
                let help = did_you_mean(&target.value, names.iter().copied());
                problems.push(error("unknown_workflow", target.place, &target.key, message, help));
            }
        }
    }
    endless_events(workflows, problems);
    circular_calls(workflows, problems);
    let called: BTreeSet<&str> =
        workflows.iter().flat_map(|w| &w.calls).map(|(_, target)| target.value.as_str()).collect();
    for workflow in
        workflows.iter().filter(|w| called.contains(w.name.as_str()) && w.source.is_some())
    {
        let message = format!(
            "workflow '{}' is called by another workflow and also starts on events of its source",
            workflow.name
        );
        let help = "if it should only be called, set `callable: true` and remove `source`";
        problems.push(Problem {
            severity: Severity::Warning,
            ..error(
                "called_and_listening",
                workflow.place,
                &format!("workflows.{}", workflow.name),
                message,
                Some(help.into()),
            )
        });
    }
}

/// Warns of workflows that start themselves with the events they emit, directly or through others:
/// only their conditions end this.
fn endless_events(workflows: &[Workflow], problems: &mut Problems) {
    let starts = |from: &Workflow| -> Vec<usize> {
        let steps =
            from.flow.steps.iter().flat_map(|step| std::iter::once(step).chain(step.kind.inner()));
        let emits: Vec<&Emission> = steps.filter_map(|step| step.kind.emission()).collect();
        let listens = |to: &Workflow| {
            let wants = |emit: &&Emission| {
                let is_wanted = to.events.is_empty()
                    || to.events.iter().any(|pattern| pattern.matches(&emit.event));
                to.source.as_ref() == Some(&emit.source) && is_wanted
            };
            emits.iter().any(wants)
        };
        (0..workflows.len()).filter(|at| listens(&workflows[*at])).collect()
    };
    let leads: Vec<Vec<usize>> = workflows.iter().map(starts).collect();
    for workflow in in_circles(workflows, &leads) {
        let message = format!(
            "workflow '{}' emits an event that starts it again, directly or through other \
             workflows",
            workflow.name
        );
        let help =
            "emit another type, or narrow `events` or `filter`; nothing else stops this loop";
        let key = format!("workflows.{}", workflow.name);
        problems.push(Problem {
            severity: Severity::Warning,
            ..error("endless_events", workflow.place, &key, message, Some(help.to_owned()))
        });
    }
}

/// Warns of workflows that call themselves through others: only a condition or the nesting limit
/// ends this.
fn circular_calls(workflows: &[Workflow], problems: &mut Problems) {
    let calls = |from: &Workflow| -> Vec<usize> {
        let names = from.calls.iter().filter(|(_, target)| target.value != from.name);
        names
            .filter_map(|(_, target)| workflows.iter().position(|to| to.name == target.value))
            .collect()
    };
    let leads: Vec<Vec<usize>> = workflows.iter().map(calls).collect();
    for workflow in in_circles(workflows, &leads) {
        let message = format!("workflow '{}' calls itself through other workflows", workflow.name);
        let help = format!(
            "make sure that a condition ends the loop; runs may nest at most {DEPTH_MAX} levels \
             deep"
        );
        let key = format!("workflows.{}", workflow.name);
        problems.push(Problem {
            severity: Severity::Warning,
            ..error("circular_calls", workflow.place, &key, message, Some(help))
        });
    }
}

/// The workflows from which a path in `leads` returns to themselves.
fn in_circles<'a>(workflows: &'a [Workflow], leads: &[Vec<usize>]) -> Vec<&'a Workflow> {
    let returns = |at: usize| {
        let (mut seen, mut open) = (BTreeSet::new(), leads[at].clone());
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                open.extend(&leads[next]);
            }
        }
        seen.contains(&at)
    };
    workflows
        .iter()
        .enumerate()
        .filter(|(at, _)| returns(*at))
        .map(|(_, workflow)| workflow)
        .collect()
}

/// Warns of a wait for an answer that is not shorter than the workflow's timeout: the run would end
/// first.
pub(super) fn check_waits(
    workflow: &str,
    drafts: &[Draft],
    run: Duration,
    problems: &mut Problems,
) {
    for draft in drafts {
        let Some(awaited) = draft.step.kind.awaited() else { continue };
        if awaited.timeout < run {
            continue;
        }
        let key = if awaited.approval.is_some() { "timeout" } else { "callback_timeout" };
        let (name, wait, run) = (&draft.step.name, awaited.timeout.as_secs(), run.as_secs());
        problems.push(Problem {
            severity: Severity::Warning,
            code: "no_effect",
            place: Some(draft.place),
            key: key.to_owned(),
            message: format!(
                "workflow '{workflow}' step '{name}' waits up to {wait} s for its answer, but the \
                 run fails with `workflow_timeout` after {run} s"
            ),
            help: Some(format!(
                "make `{key}` shorter than the `timeout` of the workflow, or raise that `timeout`"
            )),
        });
    }
}
