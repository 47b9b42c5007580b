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
            say(format!(
                "the run is {}, but {} of its visits are still open",
                run.status,
                state.visits.len()
            ));
        }
        if run.finished_at.is_none() {
            say(format!("the run is {} but has no end time", run.status));
        }
        return faults;
    }
    // A run that is held, or waits for its turn, need not have one.
    let may_wait = matches!(run.status, RunStatus::Paused | RunStatus::Queued);
    if state.visits.is_empty() && !may_wait {
        say(format!(
            "the run is {}, but has no open visit, so it can never continue; end it with `tidehook \
             runs kill`",
            run.status
        ));
    }
    for (seq, visit) in &state.visits {
        let step = &visit.step;
        for job in visit.jobs.iter().filter(|job| !open.contains(job)) {
            say(format!("visit {seq} ({step}) waits for job {job}, which is not open"));
        }
        match &visit.phase {
            VisitPhase::Call { token: None, .. } | VisitPhase::Time if visit.jobs.is_empty() => {
                say(format!("visit {seq} ({step}) waits for a job, but has none"));
            }
            VisitPhase::Inside { results, open, next, .. } => {
                let waiting = results.iter().filter(|slot| **slot == Slot::Open).count();
                if waiting != *open {
                    say(format!(
                        "visit {seq} ({step}) counts {open} open slots, but has {waiting}"
                    ));
                }
                let inside = state
                    .visits
                    .values()
                    .filter(|v| v.within.is_some_and(|(of, _)| of == *seq))
                    .count();
                let entered = results[..(*next).min(results.len())]
                    .iter()
                    .filter(|slot| **slot == Slot::Open)
                    .count();
                if inside != entered {
                    say(format!(
                        "visit {seq} ({step}) should contain {entered} visits, but contains \
                         {inside}"
                    ));
                }
            }
            _ => {}
        }
        if let Some((container, _)) = visit.within
            && !state.visits.contains_key(&container)
        {
            say(format!("visit {seq} ({step}) is inside visit {container}, which is closed"));
        }
    }
    if let Some(deadline) = state.deadline_job.filter(|job| !open.contains(job)) {
        say(format!("the deadline of the run is job {deadline}, which is not open"));
    }
    faults
}
