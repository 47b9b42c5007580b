//! Converts outcomes and leases into rows for the statements of `work`.

use super::rows::DueRow;
use super::statement::Rows;
use crate::decide::settle::{JobOutcome, NextState};
use crate::model::time::millis;
use crate::model::{AttemptResult, FailureCode, JobState, Lease};

/// Attempts that were interrupted, for jobs whose lease ran out: they belong to the claim before
/// the present one.
pub(super) fn interrupted_rows(rows: &[&DueRow]) -> Rows {
    let count = rows.len();
    Rows::default()
        .text(rows.iter().map(|r| r.id.clone()))
        .int(rows.iter().map(|r| r.claim - 1))
        .int(rows.iter().map(|r| r.attempt))
        .text(vec![AttemptResult::Interrupted.as_str(); count])
        .text(vec![FailureCode::Interrupted.as_str(); count])
        .maybe_int(vec![None; count])
        .text(vec!["the worker stopped before it recorded a response"; count])
        .int(vec![0; count])
        .bytes(vec![Vec::new(); count])
}

pub(super) fn lease_rows(leases: &[Lease]) -> Rows {
    Rows::default()
        .text(leases.iter().map(|l| l.job.to_string()))
        .int(leases.iter().map(|l| l.claim))
}

pub(super) fn jobs(leases: &[Lease]) -> impl Iterator<Item = String> {
    leases.iter().map(|l| l.job.to_string())
}

pub(super) fn ids(outcomes: &[JobOutcome]) -> impl Iterator<Item = String> {
    outcomes.iter().map(|c| c.lease.job.to_string())
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

pub(super) fn record_rows(outcomes: &[JobOutcome]) -> Rows {
    let state = |next_state: &NextState| match next_state {
        NextState::Done | NextState::FailedIntoRun { .. } => JobState::Done,
        NextState::Retry { .. } | NextState::Released => JobState::Pending,
        NextState::Dead { .. } => JobState::Dead,
    };
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
        .text(outcomes.iter().map(|c| c.lease.job.to_string()))
        .int(outcomes.iter().map(|c| c.lease.claim))
        .text(outcomes.iter().map(|c| state(&c.next_state).as_str()))
        .int(outcomes.iter().map(|c| i64::from(c.sent)))
        .int(outcomes.iter().map(|c| after(&c.next_state)))
        .int(outcomes.iter().map(lost))
        .maybe_int(outcomes.iter().map(|c| ended(&c.next_state)))
        .maybe_text(outcomes.iter().map(|c| error(&c.next_state)))
}

pub(super) fn attempt_rows(outcomes: &[(&JobOutcome, bool)]) -> Rows {
    let attempts: Vec<_> = outcomes
        .iter()
        .filter_map(|(c, had_lease)| c.attempt.as_ref().map(|a| (c, a, *had_lease)))
        .collect();
    let ending = |ending: AttemptResult, had_lease: bool| {
        if had_lease { ending } else { AttemptResult::Stale }
    };
    Rows::default()
        .text(attempts.iter().map(|(c, ..)| c.lease.job.to_string()))
        .int(attempts.iter().map(|(_, a, _)| a.claim))
        .int(attempts.iter().map(|(_, a, _)| i64::from(a.number)))
        .text(attempts.iter().map(|(_, a, had_lease)| ending(a.ending, *had_lease).as_str()))
        .maybe_text(attempts.iter().map(|(_, a, _)| a.code.map(|code| code.to_string())))
        .maybe_int(attempts.iter().map(|(_, a, _)| a.status.map(i64::from)))
        .maybe_text(attempts.iter().map(|(_, a, _)| a.error.clone()))
        .int(attempts.iter().map(|(_, a, _)| millis(a.duration)))
        .bytes(attempts.iter().map(|(_, a, _)| a.response.clone()))
}
