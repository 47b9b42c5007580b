//! The `Pull` verbs over maps.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::{Memory, Tables};
use crate::decide::settle::not_acknowledged;
use crate::model::{Attempt, AttemptResult, FailureCode, Job, JobId, JobState, LaneId, Timestamp};
use crate::store::error::Result;
use crate::store::{Pull, QueueCounts, Receive, Received};

impl Tables {
    /// Takes one visible message, or makes it dead if its attempts are used up.
    fn receive_one(&mut self, id: JobId, request: &Receive, now: Timestamp) -> Option<Job> {
        let was_leased = self.jobs.get(&id)?.job.state == JobState::Leased;
        let taken = self.lease(id, request.visibility, now)?;
        if was_leased {
            let key = (id, taken.claim - 1);
            let attempt = self.attempts.get(&key).cloned();
            self.attempts.extend(attempt.map(|attempt| {
                let error = "the consumer did not acknowledge the message within its visibility \
                    timeout";
                let code = Some(FailureCode::NotAcknowledged);
                let ending = AttemptResult::Interrupted;
                (key, Attempt { code, ending, error: Some(error.to_owned()), ..attempt })
            }));
        }
        let job = &mut self.jobs.get_mut(&id)?.job;
        if job.attempt >= request.attempts_max {
            (job.state, job.finished_at) = (JobState::Dead, Some(now));
            job.last_error = Some(not_acknowledged(request.attempts_max));
            return Some(job.clone());
        }
        Some(taken)
    }
}

#[async_trait]
impl Pull for Memory {
    async fn receive(&self, requests: &[Receive]) -> Result<Vec<Received>> {
        let now = self.clock.now();
        let mut tables = self.tables();
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let mut received = Received::default();
            for (_, id) in tables.due(&request.lane, now) {
                if received.messages.len() >= usize::try_from(request.most).unwrap_or(usize::MAX) {
                    break;
                }
                match tables.receive_one(id, request, now) {
                    Some(job) if job.state == JobState::Dead => received.dead.push(job),
                    Some(job) => received.messages.push(job),
                    None => {}
                }
            }
            if received.messages.is_empty() {
                let open = tables.jobs.values().filter(|row| row.job.finished_at.is_none());
                let of_lane = open.filter(|row| row.job.target.lane() == request.lane);
                let next = of_lane.map(|row| row.job.due_at).min();
                received.next_in = next.map(|at| at.since(now));
            }
            answers.push(received);
        }
        Ok(answers)
    }

    async fn bury(&self, lane: &LaneId, attempts_max: u32, most: u32) -> Result<Vec<Job>> {
        let now = self.clock.now();
        let mut tables = self.tables();
        let is_last = |tables: &Tables, id: &JobId| {
            let job = tables.jobs.get(id).map(|row| &row.job);
            job.is_some_and(|j| j.state == JobState::Leased && j.attempt + 1 >= attempts_max)
        };
        let due = tables.due(lane, now).into_iter().map(|(_, id)| id);
        let few: Vec<JobId> = due
            .filter(|id| is_last(&tables, id))
            .take(usize::try_from(most).unwrap_or(usize::MAX))
            .collect();
        let request =
            Receive { lane: lane.clone(), most, visibility: Duration::ZERO, attempts_max };
        Ok(few.into_iter().filter_map(|id| tables.receive_one(id, &request, now)).collect())
    }

    async fn queue_counts(&self, lanes: &[LaneId]) -> Result<BTreeMap<LaneId, QueueCounts>> {
        let now = self.clock.now();
        let tables = self.tables();
        let counted = |lane: &LaneId| {
            let mut counts = QueueCounts::default();
            for job in tables.jobs.values().map(|row| &row.job) {
                if job.target.lane() != *lane {
                    continue;
                }
                let open = match (job.state, job.due_at <= now) {
                    (JobState::Pending | JobState::Leased, true) => &mut counts.visible,
                    (JobState::Leased, false) => &mut counts.in_flight,
                    (JobState::Pending, false) => &mut counts.delayed,
                    (JobState::Dead, _) => {
                        counts.dead += 1;
                        continue;
                    }
                    (JobState::Done | JobState::Cancelled, _) => continue,
                };
                *open += 1;
                let oldest = counts.oldest_at.unwrap_or(job.created_at);
                counts.oldest_at = Some(oldest.min(job.created_at));
            }
            (lane.clone(), counts)
        };
        Ok(lanes.iter().map(counted).collect())
    }

    async fn messages(&self, ids: &[JobId]) -> Result<BTreeMap<JobId, Job>> {
        let tables = self.tables();
        let jobs = ids.iter().filter_map(|id| tables.jobs.get(id)).map(|row| row.job.clone());
        Ok(jobs.filter(|job| job.target.lane().is_pulled()).map(|job| (job.id, job)).collect())
    }

    async fn peek(&self, lane: &LaneId, dead: bool, most: u32) -> Result<Vec<Job>> {
        let tables = self.tables();
        let of_lane = tables.jobs.values().map(|row| &row.job);
        let of_lane = of_lane.filter(|job| job.target.lane() == *lane);
        let mut found: Vec<Job> = of_lane
            .filter(
                |job| if dead { job.state == JobState::Dead } else { job.finished_at.is_none() },
            )
            .cloned()
            .collect();
        found.sort_by_key(|job| (if dead { Timestamp(0) } else { job.due_at }, job.id));
        found.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        Ok(found)
    }

    async fn drain(&self, lane: &LaneId, most: u32) -> Result<u64> {
        let now = self.clock.now();
        Ok(self.tables().cancel_open(lane, most, now))
    }
}
