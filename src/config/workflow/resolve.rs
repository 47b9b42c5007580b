//! Turns the names of jumps into indexes, and puts all steps of a workflow into one list.

use std::collections::BTreeMap;

use super::step::{Draft, Goto};
use crate::decide::workflow::catch::{Catch, CatchTarget};
use crate::decide::workflow::flow::{Next, Step};
use crate::decide::workflow::step_type::Links;

/// The steps of a workflow in the order of its flow, with resolved jumps.
pub(super) struct Resolved {
    /// The steps of its own list, then those of `finally`, then the calls that undo steps.
    pub(super) steps: Vec<Step>,
    /// How many steps, from the first on, are those of the workflow's own list.
    pub(super) main: usize,
    /// The index of the first step of `finally`; `None` when there is none.
    pub(super) finally: Option<usize>,
    /// The catches of the workflow, for failures that no step catches.
    pub(super) catch: Vec<Catch>,
}

/// Puts the steps of a workflow in order. Jumps to unknown names were reported before; here they
/// lead to the first step.
pub(super) fn resolve(
    main: Vec<Draft>,
    finally: Vec<Draft>,
    catches: Vec<(Catch, Option<Goto>)>,
) -> Resolved {
    let (count, last) = (main.len(), finally.len());
    let index = index(&main, 0);
    let catch = catches
        .into_iter()
        .map(|(catch, goto)| with_target(catch, goto.as_ref(), &index))
        .collect();
    let mut undos = Undos { first: count + last, steps: Vec::new() };
    let mut steps = list(main, 0, &mut undos);
    steps.extend(list(finally, count, &mut undos));
    steps.extend(undos.steps);
    Resolved { steps, main: count, finally: (last > 0).then_some(count), catch }
}

/// Collects the calls that undo steps; `first` is the index of the first of them in the flow.
struct Undos {
    first: usize,
    steps: Vec<Step>,
}

impl Undos {
    fn add(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.first + self.steps.len() - 1
    }
}

fn index(drafts: &[Draft], first: usize) -> BTreeMap<String, usize> {
    drafts
        .iter()
        .enumerate()
        .rev()
        .map(|(at, draft)| (draft.step.name.clone(), first + at))
        .collect()
}

fn to(goto: &Goto, index: &BTreeMap<String, usize>) -> usize {
    index.get(&goto.to.value).copied().unwrap_or(0)
}

fn with_target(catch: Catch, goto: Option<&Goto>, index: &BTreeMap<String, usize>) -> Catch {
    match (catch.way, goto) {
        (CatchTarget::Step(_), Some(goto)) => {
            Catch { way: CatchTarget::Step(to(goto, index)), ..catch }
        }
        _ => catch,
    }
}

/// Resolves the steps of one list, whose first step has the index `first` in the list that holds
/// it.
fn list(drafts: Vec<Draft>, first: usize, undos: &mut Undos) -> Vec<Step> {
    let index = index(&drafts, first);
    let end = first + drafts.len();
    let mut steps = Vec::with_capacity(drafts.len());
    for (at, draft) in drafts.into_iter().enumerate() {
        let Draft {
            mut step,
            goto,
            catches,
            choices,
            default,
            ends,
            inner,
            inner_leads_on,
            undo,
            ..
        } = draft;
        let following = first + at + 1;
        step.next = match &goto {
            _ if ends => Next::End,
            Some(goto) => Next::Step(to(goto, &index)),
            None if following < end => Next::Step(following),
            None => Next::End,
        };
        step.undo = undo.map(|undo| undos.add(undo));
        step.catch = step
            .catch
            .into_iter()
            .zip(&catches)
            .map(|(catch, goto)| with_target(catch, goto.as_ref(), &index))
            .collect();
        let mut inner = list(inner, 0, undos);
        if !inner_leads_on {
            inner.iter_mut().for_each(|branch| branch.next = Next::End);
        }
        let links = Links {
            choices: choices
                .iter()
                .map(|goto| goto.as_ref().map_or(0, |goto| to(goto, &index)))
                .collect(),
            default: default.as_ref().map(|goto| to(goto, &index)),
            inner,
        };
        if let Some(resolved) = step.kind.resolved(links) {
            step.kind = resolved;
        }
        steps.push(step);
    }
    steps
}
