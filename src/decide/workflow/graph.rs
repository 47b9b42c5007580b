//! A definition as a graph: which step leads where, and why.

use super::catch::{Catch, Way};
use super::flow::{Flow, Next, Step};
use super::step_type::Branch;
use crate::decide::errors::ErrorName;

/// A way from a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Where it begins.
    pub from: Place,
    /// Where it leads.
    pub to: Place,
    /// When it is taken; empty is always.
    pub when: String,
    /// What it is taken for.
    pub what: Cause,
}

/// Where a way begins or leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A step, by its index.
    Step(usize),
    /// Any step of the workflow's own that has no other way.
    AnyStep,
    /// The end of the run.
    End,
}

/// What a way is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// What comes next.
    Next,
    /// A failure.
    Failure,
    /// What a step did is undone.
    Undo,
}

/// Every way from every step, in order; then those of the workflow as a whole.
pub fn edges(flow: &Flow) -> Vec<Edge> {
    let mut edges: Vec<Edge> = flow.steps.iter().enumerate().flat_map(|(at, step)| of(flow, at, step)).collect();
    edges.extend(flow.catch.iter().map(|catch| caught(flow, Place::AnyStep, catch)));
    if flow.undoes {
        let when = "failure: what was done is undone, the last first".to_owned();
        edges.push(Edge { from: Place::AnyStep, to: end(flow, 0), when, what: Cause::Undo });
    }
    edges
}

/// Whether a step undoes another.
fn is_undo(flow: &Flow, at: usize) -> bool {
    let undoes = |step: &Step| step.undo == Some(at);
    flow.steps.iter().any(|step| undoes(step) || step.kind.inner().iter().any(undoes))
}

/// Where the workflow's own steps lead when nothing comes after them.
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
        Some(branches) => edges.extend(
            branches
                .into_iter()
                .map(|Branch { when, to }| way(Place::Step(to), when.unwrap_or("otherwise").to_owned(), Cause::Next)),
        ),
        None if is_undo(flow, from) => {
            edges.push(way(end(flow, 0), "when all is undone".to_owned(), Cause::Undo));
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
    let undos = step.undo.into_iter().chain(step.kind.inner().iter().filter_map(|inner| inner.undo));
    edges.extend(undos.map(|undo| way(Place::Step(undo), "undone".to_owned(), Cause::Undo)));
    edges
}

fn caught(flow: &Flow, from: Place, catch: &Catch) -> Edge {
    let names: Vec<String> = catch.errors.iter().map(ErrorName::to_string).collect();
    match catch.way {
        Way::Step(to) => Edge { from, to: Place::Step(to), when: names.join(", "), what: Cause::Failure },
        Way::Undo => {
            let when = format!("{}: undo what was done", names.join(", "));
            Edge { from, to: end(flow, 0), when, what: Cause::Undo }
        }
    }
}
