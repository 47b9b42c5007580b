//! What an outcome means for a job: job + outcome + policy → what is to be recorded.

use std::time::Duration;

use super::retry::{GiveUp, RetryPolicy, Verdict, read_retry_after};
use crate::model::run::Change;
use crate::model::{Attempt, Ending, Failure, Job, LaneId, Lease, Outcome, Target, Timestamp};

/// A parked job is looked at again after this.
const PARKED_FOR: Duration = Duration::from_secs(30);
/// No more of a response is kept with its attempt.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// A delivery leased during this many unclean deaths is given up.
pub const DEATHS_MAX: u32 = 3;
/// The same for jobs of runs: one that is given up takes its whole run with it, and in a row of crashes most of those
/// that were in hand are bystanders.
pub const RUN_DEATHS_MAX: u32 = 10;

/// Everything that one outcome changes, recorded in one transaction and fenced by the lease.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The right to record.
    pub lease: Lease,
    /// The job's lane.
    pub lane: LaneId,
    /// What becomes of the job.
    pub finish: Finish,
    /// Sends on record after this commit.
    pub sent: u32,
    /// The attempt, if there was an exchange.
    pub attempt: Option<Attempt>,
    /// What the lane's breaker learns; `None` when it need not know.
    pub lane_fact: Option<LaneFact>,
    /// What it changes of a run.
    pub change: Option<Box<Change>>,
}

/// What becomes of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// Delivered.
    Done,
    /// Due again this long after the commit, by the database's clock.
    Retry {
        /// The delay.
        after: Duration,
        /// The failure, for people.
        error: String,
    },
    /// Given up.
    Dead {
        /// The failure, for people.
        error: String,
    },
    /// It failed for good, and its run has taken the failure over.
    Taken {
        /// The failure, for people.
        error: String,
    },
    /// The lease is given back untouched: due at once, no attempt counted.
    Released,
}

/// What a lane's breaker learns from an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneFact {
    /// The destination works.
    Succeeded,
    /// It does not.
    Failed,
}

/// What an exchange took, and when it ended.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long it took.
    pub duration: Duration,
    /// When it ended.
    pub now: Timestamp,
}

/// What is a success, and what follows a failure.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// When to try again.
    pub retry: &'a RetryPolicy,
    /// Statuses that are a success, as ranges; empty is 200 to 299.
    pub success: &'a [(u16, u16)],
}

impl Rules<'_> {
    fn accept(&self, status: u16) -> bool {
        match self.success.is_empty() {
            true => (200..300).contains(&status),
            false => self.success.iter().any(|(from, to)| (*from..=*to).contains(&status)),
        }
    }
}

/// Settles an outcome. `chance` is a random number in `0.0..1.0` for the jitter.
pub fn settle(job: &Job, outcome: &Outcome, rules: Rules<'_>, timing: Timing, chance: f64) -> Commit {
    let commit = |finish, attempt: Option<Attempt>, lane_fact| {
        let sent = job.attempt + u32::from(attempt.is_some());
        Commit { lease: job.lease(), lane: job.target.lane(), finish, sent, attempt, lane_fact, change: None }
    };
    let (failure, response) = match outcome {
        Outcome::Postponed => return commit(Finish::Released, None, None),
        Outcome::Elapsed => return commit(Finish::Done, None, None),
        Outcome::Parked(why) => return commit(Finish::Retry { after: PARKED_FOR, error: why.clone() }, None, None),
        Outcome::Answered(response) if rules.accept(response.status) => {
            let error = response.cut.map(|cut| cut.to_string());
            let attempt = attempt(job, Ending::Delivered, timing, Some(response.status), &response.body, error, None);
            return commit(Finish::Done, Some(attempt), Some(LaneFact::Succeeded));
        }
        Outcome::Answered(response) if (300..400).contains(&response.status) => {
            (Failure::Redirect { status: response.status, location: response.location.clone() }, Some(response))
        }
        Outcome::Answered(response) => (Failure::Status(response.status), Some(response)),
        Outcome::Failed(failure) => (failure.clone(), None),
    };
    let retry_after = response.and_then(|r| r.retry_after.as_deref()).and_then(|h| read_retry_after(h, timing.now));
    let counted = job.counted() + u32::from(failure.is_exchange());
    let mut error = failure.to_string();
    let finish = match rules.retry.after(counted, &failure, retry_after, chance) {
        Verdict::RetryIn(after) => Finish::Retry { after, error: error.clone() },
        Verdict::GiveUp(why) => {
            match why {
                GiveUp::NotListed => error.push_str(" (not in `retry.errors`)"),
                GiveUp::Permanent | GiveUp::Exhausted => {}
            }
            Finish::Dead { error: error.clone() }
        }
    };
    let is_lane_failure = !matches!(failure, Failure::Compose(_) | Failure::CrashSuspect | Failure::Expired);
    let body = response.map_or(&[][..], |r| &r.body);
    let attempt = failure
        .is_exchange()
        .then(|| attempt(job, Ending::Failed, timing, failure.status(), body, Some(error), Some(failure.code())));
    commit(finish, attempt, is_lane_failure.then_some(LaneFact::Failed))
}

/// Whether a job must be given up before it is tried: its workers keep dying while they hold it.
pub fn is_crash_suspect(job: &Job) -> bool {
    match job.target {
        Target::Handler(_) => job.lost >= DEATHS_MAX,
        Target::Workflow(_) | Target::Step(_) | Target::Timer(_) => job.lost >= RUN_DEATHS_MAX,
    }
}

fn attempt(
    job: &Job,
    ending: Ending,
    timing: Timing,
    status: Option<u16>,
    body: &[u8],
    error: Option<String>,
    code: Option<&str>,
) -> Attempt {
    Attempt {
        number: job.attempt + 1,
        claim: job.claim,
        ending,
        code: code.map(str::to_owned),
        status,
        error,
        duration: timing.duration,
        response: body[..body.len().min(KEPT_BYTES_MAX)].to_vec(),
        at: timing.now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventId, Ids, JobId, JobState, ManualClock, Response, SeededIds};

    fn job(attempt: u32, lost: u32) -> Job {
        let ids = SeededIds::new(1, &ManualClock::default());
        Job {
            id: JobId(ids.next()),
            event: EventId(ids.next()),
            target: Target::Handler("a".into()),
            state: JobState::Leased,
            attempt,
            lost,
            claim: 1,
            due_at: Timestamp(0),
            created_at: Timestamp(0),
            finished_at: None,
            last_error: None,
        }
    }

    fn answered(status: u16) -> Outcome {
        Outcome::Answered(Response { status, body: "x".into(), cut: None, retry_after: Some("7".into()), location: None })
    }

    fn settled(job: &Job, outcome: &Outcome) -> Commit {
        settle(
            job,
            outcome,
            Rules { retry: &RetryPolicy { max: 2, ..RetryPolicy::default() }, success: &[] },
            Timing { duration: Duration::ZERO, now: Timestamp(0) },
            0.5,
        )
    }

    #[test]
    fn a_2xx_is_done_and_tells_the_lane() {
        let commit = settled(&job(0, 0), &answered(204));
        assert_eq!((commit.finish, commit.lane_fact), (Finish::Done, Some(LaneFact::Succeeded)));
        assert_eq!(commit.attempt.unwrap().number, 1);
    }

    #[test]
    fn a_failure_is_retried_when_the_receiver_says_and_dies_at_its_last_attempt() {
        let retry = settled(&job(0, 0), &answered(503));
        assert_eq!(retry.finish, Finish::Retry { after: Duration::from_secs(7), error: "HTTP 503".into() });
        assert!(matches!(settled(&job(1, 0), &answered(503)).finish, Finish::Dead { .. }));
    }

    #[test]
    fn an_interrupted_attempt_is_not_counted_against_the_policy() {
        let commit = settled(&job(1, 1), &answered(503));
        assert!(matches!(commit.finish, Finish::Retry { .. }));
        assert_eq!(commit.attempt.unwrap().number, 2);
    }

    #[test]
    fn what_was_not_tried_is_given_back_uncounted() {
        let commit = settled(&job(0, 0), &Outcome::Postponed);
        assert_eq!(commit.finish, Finish::Released);
        assert!(commit.attempt.is_none() && commit.lane_fact.is_none());
    }

    #[test]
    fn a_redirect_is_a_failure_that_names_its_target() {
        let outcome = Outcome::Answered(Response {
            status: 302,
            body: "".into(),
            cut: None,
            retry_after: None,
            location: Some("http://x/".into()),
        });
        let attempt = settled(&job(0, 0), &outcome).attempt.unwrap();
        assert_eq!(attempt.code.as_deref(), Some("redirect_not_followed"));
        assert!(attempt.error.unwrap().contains("http://x/"));
    }
}
