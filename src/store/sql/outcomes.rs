//! Converts outcomes and leases into rows for the statements of `work`.

use std::collections::{HashMap, HashSet};

use super::rows::{DueRow, IdRow};
use super::values::Rows;
use crate::decide::settle::{JobOutcome, NextState};
use crate::model::time::millis;
use crate::model::{Attempt, AttemptResult, FailureCode, JobId, JobState, Lease};

/// Attempts that were interrupted, for jobs whose lease ran out: they belong to the claim before
/// the present one.
pub(in crate::store) fn interrupted_rows(rows: &[&DueRow]) -> Rows {
    expired_rows(rows, FailureCode::Interrupted, "the worker stopped before it recorded a response")
}

/// The same for messages of queues.
pub(in crate::store) fn unacknowledged_rows(rows: &[&DueRow]) -> Rows {
    let error = "the consumer did not acknowledge the message within its visibility timeout";
    expired_rows(rows, FailureCode::NotAcknowledged, error)
}

fn expired_rows(rows: &[&DueRow], code: FailureCode, error: &str) -> Rows {
    let count = rows.len();
    Rows::default()
        .text("job_id", rows.iter().map(|r| r.id.clone()))
        .int("claim", rows.iter().map(|r| r.claim - 1))
        .int("number", rows.iter().map(|r| r.attempt))
        .text("ending", vec![AttemptResult::Interrupted.as_str(); count])
        .text("code", vec![code.as_str(); count])
        .maybe_int("status", vec![None; count])
        .text("error", vec![error; count])
        .int("duration_ms", vec![0; count])
        .blob("response", vec![Vec::new(); count])
}

pub(in crate::store) fn lease_rows(leases: &[Lease]) -> Rows {
    Rows::default()
        .text("job", leases.iter().map(|l| l.job.to_string()))
        .int("claim", leases.iter().map(|l| l.claim))
}

/// The leases under which jobs were changed, by the ids of these jobs. A slice may hold outcomes of
/// two leases of one job; only the later one can have been current.
pub(in crate::store) fn held(outcomes: &[JobOutcome], changed: &[IdRow]) -> HashSet<Lease> {
    let changed: HashSet<&str> = changed.iter().map(|row| row.id.as_str()).collect();
    let mut latest: HashMap<JobId, i64> = HashMap::new();
    for Lease { job, claim } in outcomes.iter().map(|outcome| outcome.lease) {
        let known = latest.entry(job).or_insert(claim);
        *known = claim.max(*known);
    }
    latest
        .into_iter()
        .filter(|(job, _)| changed.contains(job.to_string().as_str()))
        .map(|(job, claim)| Lease { job, claim })
        .collect()
}

/// 1 for an outcome whose attempt was interrupted, else 0. Such attempts do not count against the
/// retry policy.
fn lost(job_outcome: &JobOutcome) -> i64 {
    i64::from(
        job_outcome
            .attempt
            .as_ref()
            .is_some_and(|attempt| attempt.ending == AttemptResult::Interrupted),
    )
}

/// The attempt of an outcome that fits into the job's row: it delivered the job, and nothing is
/// known of it but status, duration and response.
pub(in crate::store) fn in_row(job_outcome: &JobOutcome) -> Option<&Attempt> {
    job_outcome.attempt.as_ref().filter(|attempt| {
        job_outcome.next_state == NextState::Done
            && attempt.ending == AttemptResult::Delivered
            && attempt.code.is_none()
            && attempt.error.is_none()
            && attempt.claim == job_outcome.lease.claim
            && attempt.number == job_outcome.sent
    })
}

/// The state that a job has after an outcome.
fn state(next_state: &NextState) -> JobState {
    match next_state {
        NextState::Done | NextState::FailedIntoRun { .. } => JobState::Done,
        NextState::Retry { .. } | NextState::Released => JobState::Pending,
        NextState::Dead { .. } => JobState::Dead,
    }
}

/// Leases with the state that their outcomes leave: an outcome was recorded before if its job has
/// that state already.
pub(in crate::store) fn repeat_rows(outcomes: &[JobOutcome]) -> Rows {
    let leases: Vec<Lease> = outcomes.iter().map(|outcome| outcome.lease).collect();
    lease_rows(&leases).text("next", outcomes.iter().map(|c| state(&c.next_state).as_str()))
}

pub(in crate::store) fn record_rows(outcomes: &[JobOutcome]) -> Rows {
    let after = |next_state: &NextState| match next_state {
        NextState::Retry { after, .. } => millis(*after),
        _ => 0,
    };
    let ended = |next_state: &NextState| {
        matches!(
            next_state,
            NextState::Done | NextState::FailedIntoRun { .. } | NextState::Dead { .. }
        )
        .then_some(0)
    };
    let error = |next_state: &NextState| match next_state {
        NextState::Retry { error, .. }
        | NextState::Dead { error }
        | NextState::FailedIntoRun { error } => Some(error.clone()),
        NextState::Done | NextState::Released => None,
    };
    Rows::default()
        .text("job", outcomes.iter().map(|c| c.lease.job.to_string()))
        .int("claim", outcomes.iter().map(|c| c.lease.claim))
        .text("next", outcomes.iter().map(|c| state(&c.next_state).as_str()))
        .int("sent", outcomes.iter().map(|c| i64::from(c.sent)))
        .int("after", outcomes.iter().map(|c| after(&c.next_state)))
        .int("lost", outcomes.iter().map(lost))
        .maybe_int("ended", outcomes.iter().map(|c| ended(&c.next_state)))
        .maybe_text("error", outcomes.iter().map(|c| error(&c.next_state)))
        .maybe_int("took", outcomes.iter().map(|c| in_row(c).map(|a| millis(a.duration))))
        .maybe_int("status", outcomes.iter().map(|c| in_row(c)?.status.map(i64::from)))
        .blob(
            "response",
            outcomes.iter().map(|c| in_row(c).map_or_else(Vec::new, |a| a.response.clone())),
        )
}

pub(in crate::store) fn attempt_rows(outcomes: &[(&JobOutcome, bool)]) -> Rows {
    let attempts: Vec<_> = outcomes
        .iter()
        .filter_map(|(c, had_lease)| c.attempt.as_ref().map(|a| (c, a, *had_lease)))
        .collect();
    let ending = |ending: AttemptResult, had_lease: bool| {
        if had_lease { ending } else { AttemptResult::Stale }
    };
    Rows::default()
        .text("job_id", attempts.iter().map(|(c, ..)| c.lease.job.to_string()))
        .int("claim", attempts.iter().map(|(_, a, _)| a.claim))
        .int("number", attempts.iter().map(|(_, a, _)| i64::from(a.number)))
        .text(
            "ending",
            attempts.iter().map(|(_, a, had_lease)| ending(a.ending, *had_lease).as_str()),
        )
        .maybe_text("code", attempts.iter().map(|(_, a, _)| a.code.map(|code| code.to_string())))
        .maybe_int("status", attempts.iter().map(|(_, a, _)| a.status.map(i64::from)))
        .maybe_text("error", attempts.iter().map(|(_, a, _)| a.error.clone()))
        .int("duration_ms", attempts.iter().map(|(_, a, _)| millis(a.duration)))
        .blob("response", attempts.iter().map(|(_, a, _)| a.response.clone()))
}
