//! Records the outcome of a job: it settles the outcome, commits it, and then reports it to
//! metrics, log and feed.

use std::time::Duration;

use super::Engine;
use super::advance::ChangeError;
use super::execute::Execution;
use super::notices::Notice;
use super::targets::kind_of;
use crate::decide::alert::SOURCE;
use crate::decide::plan::NewEvent;
use crate::decide::retry::RetryPolicy;
use crate::decide::settle::{JobOutcome, LaneFact, NextState, OutcomeRules, settle};
use crate::model::history::NoteKind;
use crate::model::run::Change;
use crate::model::{Event, FailureCode, Outcome, RunStatus, Target};
use crate::observe::feed::{FeedEvent, Next};
use crate::observe::metrics;
use crate::store::{Claimed, Error};
use crate::wake::Wakeup;

/// The first pause before a commit is repeated that the store did not take. It doubles with each
/// repeat, up to `AGAIN_MAX`.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// The result of an attempt to commit an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Committed {
    Yes,
    /// The lease is gone: another worker has claimed the job.
    LeaseLost,
    /// The run has changed since it was read, so the change no longer fits.
    MovedOn,
}

/// How many bytes of stored response an outcome adds to a batch, which bounds the batch's size.
pub(super) fn bytes(job_outcome: &JobOutcome) -> usize {
    let reports = job_outcome.reports.iter().map(|report| report.inbound.body.bytes().len());
    let response = job_outcome.attempt.as_ref().map_or(0, |attempt| attempt.response.len());
    response + reports.sum::<usize>()
}

impl Engine {
    /// Settles an outcome and commits it. Returns what the job became, or `None` when its lease
    /// was lost.
    pub(super) async fn record(
        &self,
        claimed: &Claimed,
        event: &Event,
        ran: Execution,
    ) -> Option<NextState> {
        let kind = kind_of(&claimed.job.target);
        let rules = kind.rules(self, &claimed.job, &ran);
        let mut job_outcome =
            settle(&claimed.job, &ran.outcome, rules, ran.timing, self.0.parts.chance.draw());
        // A run whose deadline comes first has no use for a retry: its step has failed now, while
        // there is time to act on it.
        let deadline = ran.step_context.as_ref().and_then(|step| step.deadline_at);
        if let (NextState::Retry { after, error }, Some(deadline), Some(_)) =
            (&job_outcome.next_state, deadline, &job_outcome.attempt)
            && claimed.now.plus(ran.timing.duration).plus(*after) >= deadline
        {
            job_outcome.next_state = NextState::Dead {
                error: format!(
                    "{error} (not retried: the next attempt would start after the deadline of the \
                     run)"
                ),
            };
        }
        // A success is news only to a breaker that remembers something.
        if job_outcome.lane_fact == Some(LaneFact::Succeeded) && claimed.lane_clean {
            job_outcome.lane_fact = None;
        }
        if !kind.has_breaker() {
            job_outcome.lane_fact = None;
        }
        if let NextState::Dead { error } = &job_outcome.next_state {
            let (job, sent) = (&claimed.job, job_outcome.sent);
            job_outcome.reports.extend(self.notice_of_dead(job, event, sent, error));
        }
        let is_recorded = match kind.changes_run() {
            false => self.commit(&job_outcome).await == Committed::Yes,
            true => self.commit_with_run(&mut job_outcome, claimed, event, &ran).await,
        };
        let ended = is_recorded.then(|| job_outcome.next_state.clone());
        if let Some(NextState::Retry { after, .. }) = &ended {
            self.notify_workers(&[Wakeup::of(job_outcome.lease.job, *after)]).await;
        }
        self.report_attempt(&job_outcome, event, claimed.job.target.name(), ended.as_ref());
        if is_recorded && !job_outcome.reports.is_empty() {
            self.wake().await;
        }
        if let (true, Some(change)) = (is_recorded, &job_outcome.change) {
            self.after_change(change, true).await;
        }
        ended
    }

    /// Commits an outcome together with the change of its run. If the run has changed meanwhile,
    /// the change is computed again on its present state; the call is never repeated for that.
    /// Returns false when the lease was lost.
    async fn commit_with_run(
        &self,
        job_outcome: &mut JobOutcome,
        claimed: &Claimed,
        event: &Event,
        ran: &Execution,
    ) -> bool {
        // A job that is retried or given back does not change its run yet. A start that is given up
        // has no run.
        let is_start = matches!(claimed.job.target, Target::Workflow(_));
        let goes_on =
            matches!(job_outcome.next_state, NextState::Retry { .. } | NextState::Released);
        let is_given_up = is_start && matches!(job_outcome.next_state, NextState::Dead { .. });
        if goes_on || is_given_up {
            return self.commit(job_outcome).await == Committed::Yes;
        }
        let mut again = AGAIN_FIRST;
        // The run as it was claimed is right unless someone else moved it, which the commit finds
        // out.
        let mut known = ran.run.clone();
        loop {
            match self.change_of(claimed, event, ran, job_outcome, known.take()).await {
                Ok(change) => {
                    let mut offered = job_outcome.clone();
                    if let NextState::Dead { error } = &job_outcome.next_state {
                        offered.next_state = NextState::FailedIntoRun { error: error.clone() };
                    }
                    offered.reports = self.notices_of_change(claimed, change.as_ref(), &offered);
                    offered.change = change.map(Box::new);
                    match self.commit(&offered).await {
                        Committed::Yes => {
                            *job_outcome = offered;
                            return true;
                        }
                        Committed::LeaseLost => return false,
                        Committed::MovedOn => {}
                    }
                }
                Err(ChangeError::Unusable(why)) => {
                    let parked = Outcome::Parked(why);
                    let policy = RetryPolicy::default();
                    *job_outcome =
                        settle(&claimed.job, &parked, OutcomeRules::of(&policy), ran.timing, 0.5);
                    return self.commit(job_outcome).await == Committed::Yes;
                }
                Err(ChangeError::Store(error)) => {
                    tracing::debug!(job = %job_outcome.lease.job, %error, "A run cannot be stored \
                        yet. The worker tries again.");
                    if !error.is_passing() || self.0.aborting.is_cancelled() && again >= AGAIN_MAX {
                        return false;
                    }
                    tokio::time::sleep(again).await;
                    again = (again * 2).min(AGAIN_MAX);
                }
            }
        }
    }

    /// The notices of a run that fails with this outcome, or whose rollback does: of the run, and
    /// of the step's job that failed it.
    fn notices_of_change(
        &self,
        claimed: &Claimed,
        change: Option<&Change>,
        outcome: &JobOutcome,
    ) -> Vec<NewEvent> {
        let change = change.filter(|c| c.run.state.event_context["source"] != SOURCE);
        let Some(change) = change else { return Vec::new() };
        let is_paused = change.notes.iter().any(|note| note.kind == NoteKind::Paused);
        let class = change.run.error.as_ref().map(|error| error.class.as_str());
        if is_paused && class == Some("compensation_failed") {
            return self.notice(Notice::compensation_failed(&change.run)).into_iter().collect();
        }
        if !change.ends || change.run.status != RunStatus::Failed {
            return Vec::new();
        }
        let dead = match (&outcome.next_state, &claimed.job.target) {
            (NextState::FailedIntoRun { error }, Target::Step(_)) => {
                let (job, event) = (&claimed.job, change.run.event);
                Some(Notice::dead(job, event, outcome.sent, error))
            }
            _ => None,
        };
        let notices = dead.into_iter().chain([Notice::run_failed(&change.run)]);
        notices.filter_map(|notice| self.notice(notice)).collect()
    }

    /// Commits an outcome, and repeats that until the store answers. The call has taken place, so
    /// its outcome is kept and the call is not made again.
    async fn commit(&self, job_outcome: &JobOutcome) -> Committed {
        let mut again = AGAIN_FIRST;
        loop {
            let offered = job_outcome.clone();
            let answer = if self.may_wait(job_outcome) {
                self.0.outcomes.put_unhurried(offered).await
            } else {
                self.0.outcomes.put(offered).await
            };
            match self.health().learn(answer) {
                Ok(()) => return Committed::Yes,
                Err(Error::LeaseLost) => return Committed::LeaseLost,
                Err(Error::MovedOn) => return Committed::MovedOn,
                Err(error) if error.is_passing() => {
                    tracing::debug!(job = %job_outcome.lease.job, %error, "The outcome of a job \
                        cannot be stored yet. The worker tries again.");
                    // At shutdown the leases run out by themselves.
                    if self.0.aborting.is_cancelled() && again >= AGAIN_MAX {
                        return Committed::LeaseLost;
                    }
                    tokio::time::sleep(again).await;
                    again = (again * 2).min(AGAIN_MAX);
                }
                Err(error) => {
                    tracing::error!(job = %job_outcome.lease.job, %error, "The database refuses \
                        the outcome of a job. The job is marked as dead.");
                    return self.give_up(job_outcome, &error).await;
                }
            }
        }
    }

    /// Whether an outcome may wait a few milliseconds for others to share its commit: nothing
    /// follows from it, and nobody needs its slot. If the process is killed meanwhile, the call is
    /// made again.
    fn may_wait(&self, job_outcome: &JobOutcome) -> bool {
        job_outcome.next_state == NextState::Done
            && job_outcome.change.is_none()
            && job_outcome.lane_fact.is_none()
            && self.0.inflight.has_room()
            && !self.is_draining()
    }

    /// Makes a job dead whose outcome the store refuses for good. A retry of the job would end in
    /// the same refusal.
    async fn give_up(&self, job_outcome: &JobOutcome, why: &Error) -> Committed {
        let error = format!("the outcome cannot be stored: {why}");
        let bare = JobOutcome {
            next_state: NextState::Dead { error },
            attempt: None,
            lane_fact: None,
            change: None,
            reports: Vec::new(),
            ..job_outcome.clone()
        };
        match self.health().learn(self.0.outcomes.put(bare).await) {
            Ok(()) => {
                metrics::dead(job_outcome.lane.0.split_once(':').map_or("", |(_, name)| name));
                Committed::Yes
            }
            Err(_) => Committed::LeaseLost,
        }
    }

    fn report_attempt(
        &self,
        job_outcome: &JobOutcome,
        event: &Event,
        handler: &str,
        ended: Option<&NextState>,
    ) {
        let Some(attempt) = &job_outcome.attempt else {
            if let Some(NextState::Dead { error }) = ended {
                metrics::dead(handler);
                tracing::warn!(
                    job = %job_outcome.lease.job, event = %event.id, handler, %error,
                    "A delivery is dead without an attempt.",
                );
            }
            return;
        };
        let code = attempt.code.map(FailureCode::as_str);
        match ended {
            Some(_) => metrics::tried(handler, code, attempt.duration),
            None => metrics::stale(handler),
        }
        if matches!(ended, Some(NextState::Dead { .. })) {
            metrics::dead(handler);
        }
        let (job, number, took) = (job_outcome.lease.job, attempt.number, attempt.duration);
        let next = match ended {
            Some(NextState::Done) => Next::Delivered,
            Some(NextState::FailedIntoRun { .. }) => Next::Dead,
            Some(NextState::Retry { after, .. }) => Next::RetryIn(*after),
            Some(NextState::Dead { .. }) => Next::Dead,
            Some(NextState::Released) | None => Next::Stale,
        };
        let error = attempt.error.as_deref().unwrap_or("");
        match next {
            Next::Delivered => {
                tracing::debug!(
                    %job, event = %event.id, handler, attempt = number, ?took, "Delivered.",
                )
            }
            Next::RetryIn(after) => {
                if let Some(left_out) = self.0.retries.should_log(&job_outcome.lane) {
                    let left_out = (left_out > 0).then_some(left_out);
                    tracing::info!(
                        %job, event = %event.id, handler, attempt = number, error,
                        retry_in = ?after, left_out, "A delivery failed and will be retried.",
                    );
                }
            }
            Next::Dead => {
                tracing::warn!(
                    %job, event = %event.id, handler, attempt = number, error,
                    "A delivery failed and will not be retried.",
                )
            }
            Next::Stale => {
                tracing::warn!(
                    %job, event = %event.id, handler, attempt = number,
                    "An outcome arrived after the lease was lost. It changed nothing.",
                )
            }
        }
        self.feed().publish(|| FeedEvent::Tried {
            event: event.id,
            source: event.source.clone(),
            job,
            handler: handler.to_owned(),
            attempt: number,
            status: attempt.status,
            error: attempt.error.clone(),
            took,
            next,
        });
    }
}
