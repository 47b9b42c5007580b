//! A workflow definition as a graph for display: which step leads where, and why.

use super::catch::{Catch, CatchTarget};
use super::flow::{Flow, Next, Step};
use super::step_type::Branch;
use crate::decide::errors::ErrorName;

/// One arrow of the graph: a transition from a step to the next, or to the end of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The place that the transition leaves.
    pub from: Place,
    /// The place that the transition enters.
    pub to: Place,
    /// The condition on which the run takes it, for display; empty means always.
    pub when: String,
    /// Why the run takes it: a step is done, a step failed, or a step is undone.
    pub what: Cause,
}

/// An end point of a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A step, by its index in the workflow's list.
    Step(usize),
    /// Stands for every step of the workflow's own list, for transitions that the workflow declares
    /// as a whole.
    AnyStep,
    /// The end of the run, after which no step follows.
    End,
}

/// Why a run takes a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The step is done, and this is what follows it.
    Next,
    /// A step failed, and a `catch` takes the failure.
    Failure,
    /// A completed step is rolled back.
    Undo,
}

/// All transitions of a workflow: those of each step in order, then those of the workflow as a
/// whole.
pub fn edges(flow: &Flow) -> Vec<Edge> {
    let mut edges: Vec<Edge> =
        flow.steps.iter().enumerate().flat_map(|(at, step)| of(flow, at, step)).collect();
    edges.extend(flow.catch.iter().map(|catch| caught(flow, Place::AnyStep, catch)));
    if flow.undoes {
        let when = "failure: roll back, last step first".to_owned();
        edges.push(Edge { from: Place::AnyStep, to: end(flow, 0), when, what: Cause::Undo });
    }
    edges
}

/// Whether the step at this index rolls another one back.
fn is_undo(flow: &Flow, at: usize) -> bool {
    let undoes = |step: &Step| step.undo == Some(at);
    flow.steps.iter().any(|step| undoes(step) || step.kind.inner().iter().any(undoes))
}

/// Where a step leads when nothing comes after it: to `finally`, or to the end of the run.
fn end(flow: &Flow, from: usize) -> Place {
    match flow.finally {
        Some(finally) if from < flow.main => Place::Step(finally),
        _ => Place::End,
    }
}

fn of(flow: &Flow, from: usize, step: &Step) -> Vec<Edge> {
    let way = |to, when: String, what| Edge { from: Place::Step(from), to, when, what };
    let mut edges = Vec::new();
    match step.kind.branches() {
        Some(branches) => edges.extend(branches.into_iter().map(|Branch { when, to }| {
            way(Place::Step(to), when.unwrap_or("otherwise").to_owned(), Cause::Next)
        })),
        None if is_undo(flow, from) => {
            edges.push(way(end(flow, 0), "when the rollback is complete".to_owned(), Cause::Undo));
        }
        None => {
            let to = match &step.next {
                Next::Step(index) => Place::Step(*index),
                Next::End => end(flow, from),
            };
            edges.push(way(to, String::new(), Cause::Next));
        }
    }
    edges.extend(step.catch.iter().map(|catch| caught(flow, Place::Step(from), catch)));
    let undos =
        step.undo.into_iter().chain(step.kind.inner().iter().filter_map(|inner| inner.undo));
    edges.extend(undos.map(|undo| way(Place::Step(undo), "undone".to_owned(), Cause::Undo)));
    edges
}

fn caught(flow: &Flow, from: Place, catch: &Catch) -> Edge {
    let names: Vec<String> = catch.errors.iter().map(ErrorName::to_string).collect();
    match catch.way {
        CatchTarget::Step(to) => {
            Edge { from, to: Place::Step(to), when: names.join(", "), what: Cause::Failure }
        }
        CatchTarget::Undo => {
            let when = format!("{}: roll back", names.join(", "));
            Edge { from, to: end(flow, 0), when, what: Cause::Undo }
        }
    }
}
