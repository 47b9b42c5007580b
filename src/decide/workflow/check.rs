//! The invariants of a run: what must be true of every stored run at any time.

use std::collections::BTreeSet;

use crate::model::run::{Slot, VisitPhase};
use crate::model::{JobId, Run, RunStatus};

/// Lists what is wrong with a run, one sentence each; empty means that nothing is. `open` are the
/// run's open jobs.
pub fn faults(run: &Run, open: &BTreeSet<JobId>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut say = |what: String| faults.push(what);
    let state = &run.state;
    if run.status.is_closed() {
        if !state.visits.is_empty() {
            say(format!("it is {} and {} of its visits are open", run.status, state.visits.len()));
        }
        if run.finished_at.is_none() {
            say(format!("it is {} without an end", run.status));
        }
        return faults;
    }
    // A run that is held, or waits for its turn, need not have one.
    let may_wait = matches!(run.status, RunStatus::Paused | RunStatus::Queued);
    if state.visits.is_empty() && !may_wait {
        say(format!("it is {} and none of its visits is open: nothing will ever move it", run.status));
    }
    for (seq, visit) in &state.visits {
        let step = &visit.step;
        for job in visit.jobs.iter().filter(|job| !open.contains(job)) {
            say(format!("visit {seq} ({step}) waits for job {job}, which is not open"));
        }
        match &visit.phase {
            VisitPhase::Call { token: None, .. } | VisitPhase::Time if visit.jobs.is_empty() => {
                say(format!("visit {seq} ({step}) waits for a job and has none"));
            }
            VisitPhase::Inside { results, open, next, .. } => {
                let waiting = results.iter().filter(|slot| **slot == Slot::Open).count();
                if waiting != *open {
                    say(format!("visit {seq} ({step}) counts {open} open places and has {waiting}"));
                }
                let inside = state.visits.values().filter(|v| v.within.is_some_and(|(of, _)| of == *seq)).count();
                let entered = results[..(*next).min(results.len())].iter().filter(|slot| **slot == Slot::Open).count();
                if inside != entered {
                    say(format!("visit {seq} ({step}) should have {entered} visits inside and has {inside}"));
                }
            }
            _ => {}
        }
        if let Some((container, _)) = visit.within
            && !state.visits.contains_key(&container)
        {
            say(format!("visit {seq} ({step}) is inside of visit {container}, which is over"));
        }
    }
    if let Some(deadline) = state.deadline.filter(|job| !open.contains(job)) {
        say(format!("its deadline is job {deadline}, which is not open"));
    }
    faults
}
