//! Settles a job: decides from its outcome and its rules whether it is done, retried or dead, and
//! what is recorded.

use std::time::Duration;

use serde_json::Value;

use super::plan::NewEvent;
use super::retry::{self, AttemptsSoFar, GiveUp, RetryPolicy, Verdict, read_retry_after};
use crate::model::FailureCode;
use crate::model::job::PARKED_PREFIX;
use crate::model::json;
use crate::model::run::Change;
use crate::model::{Attempt, AttemptResult, Failure, Job, LaneId, Lease, Outcome, Timestamp};

/// Stored with an attempt whose request was sent twice, because the kept connection had closed.
const RESENT: &str = "sent a second time at once: the receiver had closed the kept-alive \
    connection without a response";
/// How long a parked job waits before it is looked at again.
const PARKED_FOR: Duration = Duration::from_secs(30);
/// How long a job waits that a passing trouble of this process kept from being tried.
const POSTPONED_FOR: Duration = Duration::from_secs(2);
/// How many bytes of a response are stored with its attempt.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// After this many crashes of workers during its sends, a delivery is given up.
pub const DEATHS_MAX: u32 = 3;
/// The same limit for jobs of runs. It is higher because a job that is given up fails its run, and
/// in a row of crashes most jobs in flight are not the cause.
pub const RUN_DEATHS_MAX: u32 = 10;

/// Why a message is dead that nobody acknowledged: for people, and for its last error.
pub fn not_acknowledged(attempts_max: u32) -> String {
    format!(
        "not acknowledged within its visibility timeout at the last of {attempts_max} attempts \
         (`max_attempts`)"
    )
}

/// Everything that one outcome changes. It is recorded in one transaction, which the lease fences.
#[derive(Debug, Clone)]
pub struct JobOutcome {
    /// The lease under which the job ran. The store records nothing if the job has been claimed
    /// again since.
    pub lease: Lease,
    /// The lane whose circuit breaker `lane_fact` changes.
    pub lane: LaneId,
    /// What becomes of the job.
    pub next_state: NextState,
    /// How many sends of the job are on record after this commit.
    pub sent: u32,
    /// The attempt to store; `None` when no exchange took place.
    pub attempt: Option<Attempt>,
    /// What the lane's circuit breaker learns; `None` when the outcome says nothing about the
    /// destination.
    pub lane_fact: Option<LaneFact>,
    /// The change of the run that the job belongs to. The engine adds it after the outcome is
    /// settled.
    pub change: Option<Box<Change>>,
    /// Events that report the outcome, such as a dead delivery. They are stored with everything
    /// that they cause.
    pub reports: Vec<NewEvent>,
}

/// The state that a job gets when its outcome is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextState {
    /// The job is finished: the receiver accepted the request, or there was nothing to send.
    Done,
    /// Due again this long after the commit, by the database's clock.
    Retry {
        /// How long after the commit the job is due.
        after: Duration,
        /// The error message, stored as the job's last error.
        error: String,
    },
    /// The job is given up: out of retries, or the failure is one that a retry cannot help.
    Dead {
        /// The error message, stored as the job's last error.
        error: String,
    },
    /// The job failed for good, and its run handles the failure. The job itself does not count as
    /// dead.
    FailedIntoRun {
        /// The error message, stored as the job's last error.
        error: String,
    },
    /// The lease is returned before anything was tried: due at once, no attempt counted.
    Released,
}

/// What a lane's breaker learns from an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneFact {
    /// The destination answered with a success. This resets its count of failures, or counts as a
    /// good probe.
    Succeeded,
    /// The destination failed or did not answer. Enough of these in a row open the breaker.
    Failed,
    /// The destination works but asks for a pause of this length.
    Limited(Duration),
}

/// How long an execution took, and when it ended.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long the execution took, from its start until its outcome was known.
    pub duration: Duration,
    /// When it ended, by the process's clock. The attempt on record carries this time.
    pub now: Timestamp,
}

/// How much of an exchange is stored with its attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Log {
    /// Status, duration, error, and the response up to a limit.
    #[default]
    Full,
    /// The same without the response.
    Metadata,
    /// Only status and duration, without error message and response.
    None,
}

/// The rules for settling an outcome: what is a success, what is retried, and what is stored.
#[derive(Debug, Clone, Copy)]
pub struct OutcomeRules<'a> {
    /// The policies that may retry a failure. The first one that lists it decides.
    pub retry: &'a [RetryPolicy],
    /// Class and status of earlier failures. Filled only where there are several policies.
    pub before: &'a [(&'static str, Option<u16>)],
    /// Statuses that are a success, as ranges; empty is 200 to 299.
    pub success: &'a [(u16, u16)],
    /// The response fails the step's `expect.when`, so it is a failure whatever its status.
    pub is_unexpected: bool,
    /// The error name that the receiver put into its response, which `retry.errors` may list as
    /// `app:NAME`.
    pub app: Option<&'a str>,
    /// A request that may have arrived is never sent again.
    pub at_most_once: bool,
    /// How much of the exchange is stored with the attempt.
    pub log: Log,
    /// Fields of a response that are masked before it is stored, each as keys from the root.
    pub redact: &'a [Vec<String>],
}

impl<'a> OutcomeRules<'a> {
    /// Rules with one retry policy and the defaults for everything else.
    pub fn of(policy: &'a RetryPolicy) -> Self {
        Self {
            retry: std::slice::from_ref(policy),
            before: &[],
            success: &[],
            is_unexpected: false,
            app: None,
            at_most_once: false,
            log: Log::Full,
            redact: &[],
        }
    }

    fn accept(&self, status: u16) -> bool {
        match self.success.is_empty() {
            true => (200..300).contains(&status),
            false => self.success.iter().any(|(from, to)| (*from..=*to).contains(&status)),
        }
    }

    /// The part of a response that is stored: shortened, masked, or nothing.
    fn kept(&self, body: &[u8]) -> Vec<u8> {
        if self.log != Log::Full {
            return Vec::new();
        }
        if self.redact.is_empty() {
            return body[..body.len().min(KEPT_BYTES_MAX)].to_vec();
        }
        // What cannot be read cannot be redacted either.
        let Ok(mut json) = json::value_of(body) else { return Vec::new() };
        self.redact.iter().for_each(|keys| redact(&mut json, keys));
        let mut text = json.to_string().into_bytes();
        text.truncate(KEPT_BYTES_MAX);
        text
    }
}

/// Masks the field at a place with `***`. In a list on the way, it does so in each element.
fn redact(value: &mut Value, keys: &[String]) {
    match (value, keys.split_first()) {
        (Value::Array(items), _) if !keys.is_empty() => {
            items.iter_mut().for_each(|item| redact(item, keys))
        }
        (value, None) => *value = Value::String("***".to_owned()),
        (Value::Object(fields), Some((key, rest))) => {
            if let Some(field) = fields.get_mut(key) {
                redact(field, rest);
            }
        }
        _ => {}
    }
}

/// Settles an outcome. `chance` is a random number in `0.0..1.0` for the jitter.
pub fn settle(
    job: &Job,
    outcome: &Outcome,
    rules: OutcomeRules<'_>,
    timing: Timing,
    chance: f64,
) -> JobOutcome {
    let outcome_with = |next_state, attempt: Option<Attempt>, lane_fact| {
        let sent = job.attempt + u32::from(attempt.is_some());
        JobOutcome {
            lease: job.lease(),
            lane: job.target.lane(),
            next_state,
            sent,
            attempt,
            lane_fact,
            change: None,
            reports: Vec::new(),
        }
    };
    let (failure, response) = match outcome {
        Outcome::Released => return outcome_with(NextState::Released, None, None),
        Outcome::NothingToSend => return outcome_with(NextState::Done, None, None),
        Outcome::Parked(why) => {
            return outcome_with(
                NextState::Retry { after: PARKED_FOR, error: format!("{PARKED_PREFIX}{why}") },
                None,
                None,
            );
        }
        Outcome::Postponed(why) => {
            let error = format!("postponed: {why}");
            return outcome_with(NextState::Retry { after: POSTPONED_FOR, error }, None, None);
        }
        Outcome::Answered(response) if rules.accept(response.status) && !rules.is_unexpected => {
            let resent = response.resent.then(|| RESENT.to_owned());
            let error = match (response.cut.map(|cut| cut.to_string()), resent) {
                (Some(cut), Some(resent)) => Some(format!("{cut}; {resent}")),
                (cut, resent) => cut.or(resent),
            };
            let kept = rules.kept(&response.body);
            let attempt = attempt(
                job,
                AttemptResult::Delivered,
                timing,
                Some(response.status),
                kept,
                error,
                None,
            );
            return outcome_with(NextState::Done, Some(attempt), Some(LaneFact::Succeeded));
        }
        Outcome::Answered(response) if rules.accept(response.status) => {
            (Failure::Expectation(response.status), Some(response))
        }
        Outcome::Answered(response) if (300..400).contains(&response.status) => (
            Failure::Redirect { status: response.status, location: response.location.clone() },
            Some(response),
        ),
        Outcome::Answered(response) => (Failure::Status(response.status), Some(response)),
        Outcome::Failed(failure) => (failure.clone(), None),
    };
    if let Failure::Interrupted(why) = &failure {
        return interrupted(job, why, rules.at_most_once, timing);
    }
    let retry_after = response
        .and_then(|r| r.retry_after.as_deref())
        .and_then(|h| read_retry_after(h, timing.now));
    let counted = job.counted() + u32::from(failure.is_exchange());
    let mut error = failure.to_string();
    let tried = AttemptsSoFar {
        count: counted,
        before: rules.before,
        age: timing.now.since(job.created_at),
        app: rules.app,
    };
    let verdict = match rules.at_most_once && !failure.is_unsent() {
        true => Verdict::GiveUp(GiveUp::Permanent),
        false => retry::after(rules.retry, tried, &failure, retry_after, chance),
    };
    let lane_fact = lane_fact(&failure, &verdict, retry_after);
    let next_state = match verdict {
        Verdict::RetryIn(after) => NextState::Retry { after, error: error.clone() },
        Verdict::GiveUp(why) => {
            match why {
                GiveUp::NotListed => error.push_str(" (not retried: not in `retry.errors`)"),
                GiveUp::TooLate => error.push_str(
                    " (not retried: the next attempt would start after `retry.deadline`)",
                ),
                GiveUp::Permanent | GiveUp::Exhausted => {}
            }
            NextState::Dead { error: error.clone() }
        }
    };
    let kept = rules.kept(response.map_or(&[][..], |r| &r.body));
    let error = (rules.log != Log::None).then_some(error);
    let attempt = failure.is_exchange().then(|| {
        attempt(
            job,
            AttemptResult::Failed,
            timing,
            failure.status(),
            kept,
            error,
            Some(failure.code()),
        )
    });
    outcome_with(next_state, attempt, lane_fact)
}

/// Settles a call that was cut off after it had begun. The attempt is recorded but does not use up
/// a retry. The next worker repeats it at once, unless it may be sent only once: then its outcome
/// stays unknown and the job is dead.
fn interrupted(job: &Job, why: &str, at_most_once: bool, timing: Timing) -> JobOutcome {
    let failure = match at_most_once {
        true => Failure::UnknownOutcome(why.to_owned()),
        false => Failure::Interrupted(why.to_owned()),
    };
    let error = failure.to_string();
    let attempt = attempt(
        job,
        AttemptResult::Interrupted,
        timing,
        None,
        Vec::new(),
        Some(error.clone()),
        Some(FailureCode::Interrupted),
    );
    let next_state = if at_most_once {
        NextState::Dead { error }
    } else {
        NextState::Retry { after: Duration::ZERO, error }
    };
    JobOutcome {
        lease: job.lease(),
        lane: job.target.lane(),
        next_state,
        sent: job.attempt + 1,
        attempt: Some(attempt),
        lane_fact: None,
        change: None,
        reports: Vec::new(),
    }
}

/// What a failure says about the destination. A status that the policy does not retry is about the
/// event, a 429 is about the rate, and a request that was never sent says nothing.
fn lane_fact(
    failure: &Failure,
    verdict: &Verdict,
    retry_after: Option<Duration>,
) -> Option<LaneFact> {
    /// The pause after a 429 without `Retry-After`.
    const PAUSE: Duration = Duration::from_secs(1);
    match failure {
        Failure::Status(429) => Some(LaneFact::Limited(retry_after.unwrap_or(PAUSE))),
        Failure::Status(503) if retry_after.is_some_and(|wait| !wait.is_zero()) => {
            retry_after.map(LaneFact::Limited)
        }
        Failure::Compose(_)
        | Failure::Template(_)
        | Failure::CrashSuspect
        | Failure::Interrupted(_)
        | Failure::UnknownOutcome(_)
        | Failure::Expired => None,
        _ if failure.status().is_some()
            && matches!(verdict, Verdict::GiveUp(GiveUp::NotListed | GiveUp::Permanent)) =>
        {
            None
        }
        _ => Some(LaneFact::Failed),
    }
}

fn attempt(
    job: &Job,
    ending: AttemptResult,
    timing: Timing,
    status: Option<u16>,
    response: Vec<u8>,
    error: Option<String>,
    code: Option<FailureCode>,
) -> Attempt {
    Attempt {
        number: job.attempt + 1,
        claim: job.claim,
        ending,
        code,
        status,
        error,
        duration: timing.duration,
        response,
        at: timing.now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Target;
    use crate::model::{EventId, Ids, JobId, JobState, ManualClock, Response, SeededIds};

    fn job(attempt: u32, lost: u32) -> Job {
        let ids = SeededIds::new(1, &ManualClock::default());
        Job {
            id: JobId(ids.next()),
            event: EventId(ids.next()),
            target: Target::Handler("a".into()),
            state: JobState::Leased,
            attempt,
            interrupted: lost,
            crashes: lost,
            claim: 1,
            due_at: Timestamp(0),
            created_at: Timestamp(0),
            finished_at: None,
            last_error: None,
        }
    }

    fn answered(status: u16) -> Outcome {
        Outcome::Answered(Response { retry_after: Some("7".into()), ..Response::of(status, "x") })
    }

    fn settled(job: &Job, outcome: &Outcome) -> JobOutcome {
        settle(
            job,
            outcome,
            OutcomeRules::of(&RetryPolicy { max: 2, ..RetryPolicy::default() }),
            Timing { duration: Duration::ZERO, now: Timestamp(0) },
            0.5,
        )
    }

    #[test]
    fn a_2xx_is_done_and_tells_the_lane() {
        let job_outcome = settled(&job(0, 0), &answered(204));
        assert_eq!(
            (job_outcome.next_state, job_outcome.lane_fact),
            (NextState::Done, Some(LaneFact::Succeeded))
        );
        assert_eq!(job_outcome.attempt.unwrap().number, 1);
    }

    #[test]
    fn a_failure_is_retried_when_the_receiver_says_and_dies_at_its_last_attempt() {
        let retry = settled(&job(0, 0), &answered(503));
        let after = Duration::from_secs(30);
        assert_eq!(
            retry.next_state,
            NextState::Retry { after, error: "HTTP 503".into() },
            "the schedule is later than the 7 s asked for"
        );
        assert!(matches!(settled(&job(1, 0), &answered(503)).next_state, NextState::Dead { .. }));
    }

    #[test]
    fn an_interrupted_attempt_is_not_counted_against_the_policy() {
        let job_outcome = settled(&job(1, 1), &answered(503));
        assert!(matches!(job_outcome.next_state, NextState::Retry { .. }));
        assert_eq!(job_outcome.attempt.unwrap().number, 2);
    }

    #[test]
    fn what_passes_postpones_a_job_and_only_the_configuration_parks_it() {
        let why = "the database is full".to_owned();
        for (outcome, is_parked) in
            [(Outcome::Postponed(why.clone()), false), (Outcome::Parked(why), true)]
        {
            let settled = settled(&job(0, 0), &outcome);
            let NextState::Retry { error, .. } = &settled.next_state else { panic!("{settled:?}") };
            assert_eq!(error.starts_with(PARKED_PREFIX), is_parked, "{error}");
            assert!(settled.attempt.is_none() && settled.sent == 0);
        }
    }

    #[test]
    fn what_was_not_tried_is_given_back_uncounted() {
        let job_outcome = settled(&job(0, 0), &Outcome::Released);
        assert_eq!(job_outcome.next_state, NextState::Released);
        assert!(job_outcome.attempt.is_none() && job_outcome.lane_fact.is_none());
    }

    #[test]
    fn what_may_have_arrived_is_not_sent_again_where_it_must_be_sent_once() {
        let policy = RetryPolicy::default();
        let rules = OutcomeRules { at_most_once: true, ..OutcomeRules::of(&policy) };
        let timing = Timing { duration: Duration::ZERO, now: Timestamp(0) };
        let next_state =
            |outcome: Outcome| settle(&job(0, 0), &outcome, rules, timing, 0.5).next_state;
        assert!(matches!(
            next_state(Outcome::Failed(Failure::Timeout(crate::model::CallPhase::Headers))),
            NextState::Dead { .. }
        ));
        assert!(matches!(next_state(answered(503)), NextState::Dead { .. }));
        assert!(matches!(
            next_state(Outcome::Failed(Failure::Connect("refused".into()))),
            NextState::Retry { .. }
        ));
    }

    #[test]
    fn what_is_redacted_is_not_kept() {
        let policy = RetryPolicy::default();
        let redact = vec![vec!["cards".to_owned(), "number".to_owned()]];
        let rules = OutcomeRules { redact: &redact, ..OutcomeRules::of(&policy) };
        let body = br#"{"cards":[{"number":"4","name":"a"}]}"#;
        assert_eq!(rules.kept(body), br#"{"cards":[{"number":"***","name":"a"}]}"#);
        assert_eq!(rules.kept(b"no json 4"), b"");
        assert_eq!(OutcomeRules { log: Log::Metadata, ..rules }.kept(body), b"");
    }

    #[test]
    fn an_answer_that_is_not_what_was_expected_is_a_failure_with_its_status() {
        let policy = RetryPolicy::default();
        let rules = OutcomeRules { is_unexpected: true, ..OutcomeRules::of(&policy) };
        let timing = Timing { duration: Duration::ZERO, now: Timestamp(0) };
        let attempt = settle(&job(0, 0), &answered(200), rules, timing, 0.5).attempt.unwrap();
        assert_eq!((attempt.code, attempt.status), (Some(FailureCode::Expectation), Some(200)));
    }

    #[test]
    fn a_redirect_is_a_failure_that_names_its_target() {
        let outcome = Outcome::Answered(Response {
            location: Some("http://x/".into()),
            ..Response::of(302, "")
        });
        let attempt = settled(&job(0, 0), &outcome).attempt.unwrap();
        assert_eq!(attempt.code, Some(FailureCode::RedirectNotFollowed));
        assert!(attempt.error.unwrap().contains("http://x/"));
    }
}
