//! A definition as a graph: which step leads where, and why.

use super::catch::ErrorName;
use super::flow::{Flow, Next, Step};
use super::steps::Kind;

/// A way from a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The step's index.
    pub from: usize,
    /// The index of the one it leads to; `None` is the end.
    pub to: Option<usize>,
    /// When it is taken; empty is always.
    pub when: String,
    /// It is taken on a failure.
    pub on_failure: bool,
}

/// Every way from every step, in order.
pub fn edges(flow: &Flow) -> Vec<Edge> {
    flow.steps.iter().enumerate().flat_map(|(at, step)| of(at, step)).collect()
}

fn of(from: usize, step: &Step) -> Vec<Edge> {
    let way = |to, when: String, on_failure| Edge { from, to, when, on_failure };
    let mut edges = Vec::new();
    match &step.kind {
        Kind::Choice(choice) => {
            edges.extend(choice.choices.iter().map(|(when, to)| way(Some(*to), when.text().to_owned(), false)));
            edges.extend(choice.default.map(|to| way(Some(to), "otherwise".to_owned(), false)));
        }
        Kind::Fail(_) => {}
        _ => edges.push(way(next(&step.next), String::new(), false)),
    }
    for catch in &step.catch {
        let names: Vec<String> = catch.errors.iter().map(ErrorName::to_string).collect();
        edges.push(way(Some(catch.goto), names.join(", "), true));
    }
    edges
}

fn next(next: &Next) -> Option<usize> {
    match next {
        Next::Step(index) => Some(*index),
        Next::End => None,
    }
}
