//! The reference store: the verbs over maps, for tests and simulation. Nothing survives the
//! process.
//!
//! It is the specification in its plainest form. The conformance suite checks the SQL stores
//! against it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

mod hints;
mod lanes;
mod maintenance;
mod pull;
mod query;
mod runs;

use super::error::{Error, Result};
use super::{
    Accepted, ClaimRequest, Claimed, Definition, Each, Intake, NewEvent, Page, Retry, Work,
};
use crate::decide::breaker::{self, Allows};
use crate::decide::rate;
use crate::decide::settle::{JobOutcome, NextState};
use crate::model::FailureCode;
use crate::model::history::HistoryEntry;
use crate::model::key::within_limits;
use crate::model::run::{Gate, Token};
use crate::model::time::Clock;
use crate::model::{
    Attempt, AttemptResult, Event, EventId, Job, JobId, JobState, Lane, LaneId, Lease, ManualClock,
    Run, RunId, SystemClock, Target, Timestamp,
};

/// The store in memory: every verb over maps, under one lock.
pub struct Memory {
    clock: Box<dyn Clock>,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    events: BTreeMap<EventId, Event>,
    jobs: BTreeMap<JobId, Row>,
    attempts: BTreeMap<(JobId, i64), Attempt>,
    keys: HashMap<(String, String), Key>,
    lanes: BTreeMap<LaneId, Lane>,
    rejections: BTreeMap<(String, String), (u64, Timestamp)>,
    definitions: BTreeMap<String, Definition>,
    runs: BTreeMap<RunId, Run>,
    history: BTreeMap<(RunId, i64), HistoryEntry>,
    tokens: BTreeMap<String, Token>,
    gates: BTreeMap<String, (i64, Gate)>,
    /// Until when a finished run is kept, for runs whose workflow sets its own retention.
    kept_until: BTreeMap<RunId, Timestamp>,
}

struct Row {
    job: Job,
    expires_at: Option<Timestamp>,
    /// It belongs to a paused run, so no claim takes it.
    is_paused: bool,
    /// The claim under which a send was about to begin; `None` if no send was marked.
    begun: Option<i64>,
    /// Until when its announcement counts: before this instant `hints` does not report it again.
    woken_until: Option<Timestamp>,
}

struct Key {
    event: EventId,
    body: Option<Vec<u8>>,
    expires_at: Timestamp,
}

impl Memory {
    /// An empty store, on the given clock or the machine's.
    pub fn new(clock: Option<ManualClock>) -> Self {
        let clock: Box<dyn Clock> = match clock {
            Some(clock) => Box::new(clock),
            None => Box::new(SystemClock),
        };
        Self { clock, tables: Mutex::default() }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// The holder of a key, unless the key has expired.
    fn holder(&self, key: &(String, String), now: Timestamp) -> Option<&Key> {
        self.keys.get(key).filter(|k| k.expires_at > now)
    }

    fn accept(&mut self, new_event: &NewEvent, now: Timestamp) -> Accepted {
        let inbound = &new_event.inbound;
        if let Some(event) = self.events.get(&new_event.id) {
            let jobs = self.jobs.values().filter(|r| r.job.event == event.id).map(|r| r.job.id);
            return Accepted::New {
                event: event.id,
                jobs: jobs.collect(),
                started: Vec::new(),
                at: now,
            };
        }
        let about = format!("{}|{}", inbound.source, inbound.kind);
        let call =
            inbound.idempotency_key.as_ref().map(|k| (format!("call:{about}"), within_limits(k)));
        let provider =
            inbound.dedupe_key.as_ref().map(|k| (format!("provider:{about}"), within_limits(k)));
        if let Some(holder) = call.as_ref().and_then(|k| self.holder(k, now)) {
            let same = holder.body.as_deref() == Some(&inbound.body.bytes()[..]);
            return if same {
                Accepted::Duplicate(holder.event)
            } else {
                Accepted::Conflict(holder.event)
            };
        }
        if let Some(holder) = provider.as_ref().and_then(|k| self.holder(k, now)) {
            return Accepted::Duplicate(holder.event);
        }
        let key_of = |key: &(String, String)| (within_limits(&key.0), within_limits(&key.1));
        let seen: Vec<Option<EventId>> = new_event
            .plan
            .jobs
            .iter()
            .map(|j| j.key.as_ref().and_then(|k| self.holder(&key_of(k), now)).map(|k| k.event))
            .collect();
        if let Some(first) = seen.iter().flatten().next()
            && seen.iter().all(Option::is_some)
        {
            return Accepted::Duplicate(*first);
        }
        let expires_at = now.plus(new_event.key_ttl);
        let body = call.is_some().then(|| inbound.body.bytes().to_vec());
        let consumer: Vec<_> =
            new_event.plan.jobs.iter().filter_map(|j| j.key.as_ref().map(key_of)).collect();
        let unique_key =
            provider.as_ref().or(call.as_ref()).or(consumer.first()).map(|(_, word)| word.clone());
        if let Some(key) = call {
            self.keys.insert(key, Key { event: new_event.id, body, expires_at });
        }
        for key in provider.into_iter().chain(consumer) {
            if self.holder(&key, now).is_none() {
                self.keys.insert(key, Key { event: new_event.id, body: None, expires_at });
            }
        }
        self.events.insert(
            new_event.id,
            Event {
                id: new_event.id,
                source: inbound.source.clone(),
                kind: inbound.kind.clone(),
                headers: inbound.headers.clone(),
                body: inbound.body.clone(),
                unique_key,
                created_at: now,
            },
        );
        let fresh = new_event
            .plan
            .jobs
            .iter()
            .zip(&seen)
            .filter(|(_, seen)| seen.is_none())
            .map(|(job, _)| job);
        let (mut ids, mut started) = (Vec::new(), Vec::new());
        for new in fresh {
            let lane = self.lanes.get(&new.target.lane());
            let starts = new.start
                && lane.is_some_and(|l| !l.paused && l.breaker.is_clean() && l.bucket.is_none());
            if starts {
                started.push(new.id);
            }
            let job = Job {
                id: new.id,
                event: new_event.id,
                target: new.target.clone(),
                state: if starts { JobState::Leased } else { JobState::Pending },
                attempt: 0,
                interrupted: 0,
                crashes: 0,
                claim: i64::from(starts),
                due_at: match new.due {
                    _ if starts => now.plus(new_event.lease),
                    Some(at) => at.max(now),
                    None => now,
                },
                created_at: now,
                finished_at: None,
                last_error: None,
            };
            ids.push(new.id);
            self.jobs.insert(
                new.id,
                Row {
                    job,
                    expires_at: new_event
                        .event_ttl
                        .filter(|_| new.due.is_none())
                        .map(|ttl| now.plus(ttl)),
                    is_paused: false,
                    begun: None,
                    woken_until: None,
                },
            );
        }
        Accepted::New { event: new_event.id, jobs: ids, started, at: now }
    }

    fn due(&self, lane: &LaneId, now: Timestamp) -> Vec<(Timestamp, JobId)> {
        let open = self
            .jobs
            .values()
            .filter(|r| r.job.finished_at.is_none() && !r.is_paused && r.job.due_at <= now);
        let mut due: Vec<_> = open
            .filter(|r| r.job.target.lane() == *lane)
            .map(|r| (r.job.due_at, r.job.id))
            .collect();
        due.sort_unstable();
        due
    }

    fn wanted(
        &self,
        request: &ClaimRequest,
        lane: &LaneId,
        now: Timestamp,
    ) -> Vec<(Timestamp, JobId)> {
        let due = self.due(lane, now).into_iter();
        due.filter(|(_, id)| request.only.is_empty() || request.only.contains(id)).collect()
    }

    fn allowed(lane: &Lane, most: u32, now: Timestamp) -> u32 {
        let most = match breaker::allows(&lane.breaker, now) {
            Allows::NothingBefore(_) => 0,
            Allows::Probe => most.min(1),
            Allows::All => most,
            Allows::AtMost(limit) => most.min(limit),
        };
        match &lane.bucket {
            None => most,
            Some(bucket) => most.min(rate::available(&rate::refilled(bucket, now))),
        }
    }

    fn claim(&mut self, request: &ClaimRequest, now: Timestamp) -> Vec<Claimed> {
        let runs = |lane: &&Lane| {
            !lane.paused
                && !request.skip.contains(&lane.id)
                && !request.unserved.contains(&lane.id)
                && !matches!(breaker::allows(&lane.breaker, now), Allows::NothingBefore(_))
        };
        let mut picked: Vec<Lane> = self
            .lanes
            .values()
            .filter(|lane| !lane.id.is_pulled())
            .filter(runs)
            .filter(|l| !self.wanted(request, &l.id, now).is_empty())
            .cloned()
            .collect();
        picked.sort_by(|a, b| (a.last_served_at, &a.id).cmp(&(b.last_served_at, &b.id)));
        // Tenants take turns, and the lanes of each.
        let mut places: HashMap<String, usize> = HashMap::new();
        picked.sort_by_cached_key(|lane| {
            let place = places.entry(lane.tenant.clone()).or_default();
            *place += 1;
            *place
        });
        picked.truncate(usize::try_from(request.slots.most).unwrap_or(usize::MAX));
        let mut sharing = request.slots.among(picked.len());
        let mut claimed = Vec::new();
        for mut lane in picked {
            let want = Self::allowed(&lane, sharing.most(&lane), now);
            sharing.took(&lane, want);
            let lane_clean = lane.breaker.is_clean();
            let mut taken = 0;
            for (_, id) in self
                .wanted(request, &lane.id, now)
                .into_iter()
                .take(usize::try_from(want).unwrap_or(usize::MAX))
            {
                claimed.extend(self.lease(id, request.lease, now).map(|job| Claimed {
                    job,
                    now,
                    lane_clean,
                }));
                taken += 1;
            }
            lane.last_served_at = now;
            lane.bucket = lane.bucket.map(|b| rate::spent(&rate::refilled(&b, now), taken));
            lane.breaker = breaker::served(&lane.breaker, taken, request.lease, now);
            self.lanes.insert(lane.id.clone(), lane);
        }
        claimed
    }

    fn lease(&mut self, id: JobId, lease: Duration, now: Timestamp) -> Option<Job> {
        let row = self.jobs.get_mut(&id)?;
        let job = &mut row.job;
        if job.state == JobState::Leased {
            job.attempt += 1;
            job.interrupted += 1;
            job.crashes += u32::from(row.begun == Some(job.claim));
            let attempt = Attempt {
                number: job.attempt,
                claim: job.claim,
                ending: AttemptResult::Interrupted,
                code: Some(FailureCode::Interrupted),
                status: None,
                error: Some("the worker stopped before it recorded a response".to_owned()),
                duration: Duration::ZERO,
                response: Vec::new(),
                at: now,
            };
            self.attempts.insert((id, job.claim), attempt);
        }
        job.state = JobState::Leased;
        job.claim += 1;
        job.due_at = now.plus(lease);
        Some(Job { last_error: None, ..job.clone() })
    }

    /// Cancels open jobs of a lane, at most `most`. Answers how many.
    fn cancel_open(&mut self, lane: &LaneId, most: u32, now: Timestamp) -> u64 {
        let of_lane = |r: &&mut Row| r.job.finished_at.is_none() && r.job.target.lane() == *lane;
        let mut cancelled = 0;
        for row in
            self.jobs.values_mut().filter(of_lane).take(usize::try_from(most).unwrap_or(usize::MAX))
        {
            row.job = Job {
                state: JobState::Cancelled,
                claim: row.job.claim + 1,
                finished_at: Some(now),
                ..row.job.clone()
            };
            cancelled += 1;
        }
        cancelled
    }

    fn leased_row(&mut self, lease: &Lease) -> Option<&mut Row> {
        let row = self.jobs.get_mut(&lease.job)?;
        (row.job.state == JobState::Leased && row.job.claim == lease.claim).then_some(row)
    }

    fn record(&mut self, job_outcome: &JobOutcome, now: Timestamp) -> Result<()> {
        if job_outcome
            .change
            .as_deref()
            .is_some_and(|change| !change.is_new && !self.is_current(change))
        {
            return Err(Error::MovedOn);
        }
        let has_lease = self.leased_row(&job_outcome.lease).is_some();
        let row = self.jobs.get(&job_outcome.lease.job);
        if !has_lease
            && row.is_some_and(|r| {
                r.job.claim == job_outcome.lease.claim && r.job.state == state_after(job_outcome)
            })
        {
            // It was recorded before, and the answer was lost.
            return Ok(());
        }
        if let Some(attempt) = &job_outcome.attempt {
            let ending = if has_lease { attempt.ending } else { AttemptResult::Stale };
            let attempt = Attempt { ending, at: now, ..attempt.clone() };
            let key = (job_outcome.lease.job, attempt.claim);
            if self
                .attempts
                .get(&key)
                .is_none_or(|before| before.ending == AttemptResult::Interrupted)
            {
                self.attempts.insert(key, attempt);
            }
        }
        let Some(row) = self.leased_row(&job_outcome.lease) else { return Err(Error::LeaseLost) };
        let job = &mut row.job;
        job.attempt = job_outcome.sent;
        job.interrupted += u32::from(
            job_outcome
                .attempt
                .as_ref()
                .is_some_and(|attempt| attempt.ending == AttemptResult::Interrupted),
        );
        job.due_at = now;
        match &job_outcome.next_state {
            NextState::Done => (job.state, job.finished_at) = (JobState::Done, Some(now)),
            NextState::Released => job.state = JobState::Pending,
            NextState::Retry { after, error } => {
                (job.state, job.due_at, job.last_error) =
                    (JobState::Pending, now.plus(*after), Some(error.clone()));
            }
            NextState::FailedIntoRun { error } => {
                (job.state, job.finished_at, job.last_error) =
                    (JobState::Done, Some(now), Some(error.clone()));
            }
            NextState::Dead { error } => {
                (job.state, job.finished_at, job.last_error) =
                    (JobState::Dead, Some(now), Some(error.clone()));
            }
        }
        if let (Some(fact), Some(lane)) =
            (job_outcome.lane_fact, self.lanes.get_mut(&job_outcome.lane))
        {
            lane.breaker = breaker::after(&lane.breaker, &lane.rules, fact, now);
        }
        if let Some(change) = job_outcome.change.as_deref() {
            self.apply(change, now);
        }
        for report in &job_outcome.reports {
            self.accept(report, now);
        }
        Ok(())
    }
}

/// The state that a job has after an outcome.
fn state_after(outcome: &JobOutcome) -> JobState {
    match outcome.next_state {
        NextState::Done | NextState::FailedIntoRun { .. } => JobState::Done,
        NextState::Retry { .. } | NextState::Released => JobState::Pending,
        NextState::Dead { .. } => JobState::Dead,
    }
}

/// Sorts and cuts a list exactly as the SQL stores do.
fn paged<K: Ord + Copy, V>(items: Vec<(K, V)>, after: Option<K>, page: Page) -> Vec<V> {
    let beyond = |id: K| after.is_none_or(|a| if page.newest_first { id < a } else { id > a });
    let mut items: Vec<_> = items.into_iter().filter(|(id, _)| beyond(*id)).collect();
    items.sort_by_key(|(id, _)| *id);
    if page.newest_first {
        items.reverse();
    }
    items
        .into_iter()
        .take(usize::try_from(page.limit).unwrap_or(usize::MAX))
        .map(|(_, v)| v)
        .collect()
}

#[async_trait]
impl Intake for Memory {
    async fn accept(&self, new_events: &[NewEvent]) -> Each<Accepted> {
        let now = self.clock.now();
        let mut tables = self.tables();
        Ok(new_events.iter().map(|new_event| Ok(tables.accept(new_event, now))).collect())
    }
}

#[async_trait]
impl Work for Memory {
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>> {
        let now = self.clock.now();
        Ok(if request.slots.most == 0 { Vec::new() } else { self.tables().claim(request, now) })
    }

    async fn extend(&self, leases: &[Lease], by: Duration) -> Each<()> {
        let until = self.clock.now().plus(by);
        let mut tables = self.tables();
        let extend = |lease| match tables.leased_row(lease) {
            Some(row) => {
                row.job.due_at = until;
                Ok(())
            }
            None => Err(Error::LeaseLost),
        };
        Ok(leases.iter().map(extend).collect())
    }

    async fn begin_send(&self, lease: Lease) -> Result<bool> {
        let mut tables = self.tables();
        let row = tables.leased_row(&lease);
        Ok(row.map(|row| row.begun = Some(lease.claim)).is_some())
    }

    async fn record(&self, outcomes: &[JobOutcome]) -> Each<()> {
        let now = self.clock.now();
        let mut tables = self.tables();
        Ok(outcomes.iter().map(|commit| tables.record(commit, now)).collect())
    }

    async fn reclaim(&self) -> Result<u64> {
        let now = self.clock.now();
        let mut tables = self.tables();
        let leased = tables
            .jobs
            .values_mut()
            .filter(|r| r.job.state == JobState::Leased && r.job.due_at > now)
            .filter(|r| !matches!(r.job.target, Target::Queue(_)));
        Ok(leased.map(|r| r.job.due_at = now).count().try_into().unwrap_or(u64::MAX))
    }

    async fn retry(&self, which: &Retry) -> Result<u64> {
        let now = self.clock.now();
        let mut tables = self.tables();
        let wanted = |job: &Job| match which {
            Retry::One(id) => {
                job.id == *id && matches!(job.state, JobState::Dead | JobState::Cancelled)
            }
            Retry::Queue(queue) => {
                job.state == JobState::Dead && job.target.lane() == LaneId::queue(queue)
            }
            Retry::All { state, handler } => {
                let is_queue = matches!(job.target, Target::Queue(_));
                job.state == *state
                    && (*state != JobState::Pending || job.attempt > 0)
                    && handler.as_deref().is_none_or(|h| !is_queue && job.target.name() == h)
            }
        };
        let mut revived = 0;
        for row in tables.jobs.values_mut().filter(|r| wanted(&r.job)) {
            row.expires_at = None;
            row.job = Job {
                state: JobState::Pending,
                attempt: 0,
                interrupted: 0,
                crashes: 0,
                due_at: now,
                finished_at: None,
                ..row.job.clone()
            };
            revived += 1;
        }
        Ok(revived)
    }

    async fn cancel(&self, job: JobId) -> Result<bool> {
        let now = self.clock.now();
        let mut tables = self.tables();
        let Some(row) = tables.jobs.get_mut(&job).filter(|r| r.job.finished_at.is_none()) else {
            return Ok(false);
        };
        row.job = Job {
            state: JobState::Cancelled,
            claim: row.job.claim + 1,
            finished_at: Some(now),
            ..row.job.clone()
        };
        Ok(true)
    }

    async fn cancel_handler_jobs(&self, handler: &str, most: u32) -> Result<u64> {
        let now = self.clock.now();
        Ok(self.tables().cancel_open(&LaneId::handler(handler), most, now))
    }

    async fn expire(&self, most: u32) -> Result<Vec<Job>> {
        let now = self.clock.now();
        let mut tables = self.tables();
        let over = |r: &&mut Row| {
            r.job.state == JobState::Pending && r.expires_at.is_some_and(|at| at <= now)
        };
        let mut expired = Vec::new();
        for row in
            tables.jobs.values_mut().filter(over).take(usize::try_from(most).unwrap_or(usize::MAX))
        {
            let last_error = Some("event TTL expired".to_owned());
            row.job = Job {
                state: JobState::Dead,
                claim: row.job.claim + 1,
                finished_at: Some(now),
                last_error,
                ..row.job.clone()
            };
            expired.push(row.job.clone());
        }
        Ok(expired)
    }
}
