//! Limits how many runs with the same concurrency key are under way. A *gate* is the row per key
//! that lists the runs inside and the runs that wait.

use super::Fact;
use super::flow::{Concurrency, OnLimit};
use super::machine::{Context, advance, hand_on};
use crate::model::run::{Change, Gate, GateChange};
use crate::model::{JobId, Run, RunId, RunStatus};

/// What the gate decided about a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// The run has a place and may run now.
    Admitted {
        /// Runs that are cancelled to make room for it.
        instead_of: Vec<RunId>,
    },
    /// The run stays in the queue until another run of the key ends.
    Waits {
        /// Runs that waited before it and are cancelled.
        instead_of: Vec<RunId>,
    },
    /// The run is cancelled, because the limit is reached and the rule is `OnLimit::Skip`.
    Refused,
}

/// Decides about a run that arrives at its gate. A run that is inside stays inside, and one that
/// waits keeps its place in the queue.
pub fn arrive(gate: &mut Gate, run: RunId, rule: &Concurrency) -> Turn {
    if gate.inside.contains(&run) {
        return Turn::Admitted { instead_of: Vec::new() };
    }
    let waits = gate.waiting.iter().position(|waiting| *waiting == run);
    let ahead = waits.unwrap_or(gate.waiting.len());
    if gate.inside.len() + ahead < rule.limit {
        gate.waiting.retain(|waiting| *waiting != run);
        gate.inside.push(run);
        return Turn::Admitted { instead_of: Vec::new() };
    }
    if waits.is_some() {
        return Turn::Waits { instead_of: Vec::new() };
    }
    match rule.on_limit {
        OnLimit::Queue => {
            gate.waiting.push(run);
            Turn::Waits { instead_of: Vec::new() }
        }
        OnLimit::Skip => Turn::Refused,
        OnLimit::CancelRunning => {
            let over = (gate.inside.len() + 1).saturating_sub(rule.limit).min(gate.inside.len());
            let instead_of: Vec<RunId> = gate.inside.drain(..over).collect();
            gate.inside.push(run);
            Turn::Admitted { instead_of }
        }
        OnLimit::ReplaceQueued => {
            let instead_of = std::mem::replace(&mut gate.waiting, vec![run]);
            Turn::Waits { instead_of }
        }
    }
}

/// Removes a run from its gate. Returns the run whose turn it is now, if one waits.
pub fn leave(gate: &mut Gate, run: RunId, limit: usize) -> Option<RunId> {
    gate.inside.retain(|inside| *inside != run);
    gate.waiting.retain(|waiting| *waiting != run);
    (gate.inside.len() < limit && !gate.waiting.is_empty()).then(|| gate.waiting[0])
}

/// Handles a timer of a run that has a concurrency key; `None` when it has nothing to do with the
/// gate. `known` is the gate's version and content.
pub fn at_gate(run: &Run, job: JobId, known: (i64, Gate), context: &Context<'_>) -> Option<Change> {
    let (version, mut gate) = known;
    let id = run.state.gate.clone()?;
    let (limit, rule) = match &context.flow.concurrency {
        Some(rule) => (rule.limit, rule.clone()),
        None => (1, Concurrency { key: None, limit: 1, on_limit: OnLimit::Queue }),
    };
    let asks = run.state.turn_job == Some(job);
    let (is_inside, waits) = (gate.inside.contains(&run.id), gate.waiting.contains(&run.id));
    if run.status.is_closed() {
        if !is_inside && !waits {
            return None;
        }
        let next = leave(&mut gate, run.id, limit);
        let change = hand_on(run, next, context);
        return Some(Change { gate: Some(GateChange { id, version, gate }), ..change });
    }
    // Whoever has lost its place, or its place in the queue, was called off for another one.
    let is_out = !asks && !is_inside && !waits;
    if is_out {
        return advance(run, &Fact::Cancelled, context);
    }
    if run.status != RunStatus::Queued {
        return None;
    }
    let turn = arrive(&mut gate, run.id, &rule);
    let change = advance(run, &Fact::Turn(turn), context)?;
    Some(Change { gate: Some(GateChange { id, version, gate }), ..change })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ulid::Ulid;

    fn rule(limit: usize, on_limit: OnLimit) -> Concurrency {
        Concurrency { key: None, limit, on_limit }
    }

    fn run(n: u128) -> RunId {
        RunId(Ulid(n))
    }

    #[test]
    fn runs_take_turns_in_the_order_in_which_they_came() {
        let (mut gate, rule) = (Gate::default(), rule(1, OnLimit::Queue));
        assert!(matches!(arrive(&mut gate, run(1), &rule), Turn::Admitted { .. }));
        for n in [2, 3] {
            assert!(matches!(arrive(&mut gate, run(n), &rule), Turn::Waits { .. }));
        }
        assert_eq!(leave(&mut gate, run(1), 1), Some(run(2)));
        // Whoever is not first waits on.
        assert!(matches!(arrive(&mut gate, run(3), &rule), Turn::Waits { .. }));
        assert!(matches!(arrive(&mut gate, run(2), &rule), Turn::Admitted { .. }));
        assert_eq!((gate.inside, gate.waiting), (vec![run(2)], vec![run(3)]));
    }

    #[test]
    fn the_rules_for_one_too_many() {
        let full = || Gate { inside: vec![run(1)], waiting: vec![run(2)] };
        let mut gate = full();
        assert_eq!(arrive(&mut gate, run(3), &rule(1, OnLimit::Skip)), Turn::Refused);
        assert_eq!(gate, full());
        assert_eq!(
            arrive(&mut gate, run(3), &rule(1, OnLimit::ReplaceQueued)),
            Turn::Waits { instead_of: vec![run(2)] }
        );
        assert_eq!(
            arrive(&mut gate, run(4), &rule(1, OnLimit::CancelRunning)),
            Turn::Admitted { instead_of: vec![run(1)] }
        );
        assert_eq!(gate, Gate { inside: vec![run(4)], waiting: vec![run(3)] });
    }
}
