//! Pull queues: consumers receive messages under a lease, and acknowledge them, give them back or
//! keep them for longer.
//!
//! Long polls do not ask the database themselves. A process has one task that looks on behalf of
//! all of them: when a message arrives, when one becomes visible again, and otherwise once a
//! second. It runs only while somebody waits.

mod receipt;
mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub use receipt::{MessageReceipt, NoReceipt};
pub use waiting::Pulls;
use waiting::{Parcel, Waiter, look_for_all};

use super::Engine;
use super::notices::Notice;
use crate::config::Queue;
use crate::decide::alert::SOURCE;
use crate::decide::settle::{JobOutcome, NextState};
use crate::model::{
    Attempt, AttemptResult, Event, EventId, FailureCode, Job, JobId, JobState, LaneId, Lease,
    Target,
};
use crate::observe::metrics;
use crate::store::{Error, Receive, Received, Result};

/// How many unacknowledged messages one transaction of a tick makes dead.
const BURIED_AT_ONCE: u32 = 500;

/// A message that a consumer has received.
#[derive(Debug, Clone)]
pub struct Message {
    /// The job behind it. Its `attempt` counts the receives before this one.
    pub job: Job,
    /// What was accepted: type, headers and body.
    pub event: Arc<Event>,
}

impl Message {
    /// What the consumer shows to acknowledge this receive.
    pub fn receipt(&self) -> MessageReceipt {
        MessageReceipt::of(&self.job)
    }
}

/// How a consumer names a message it has received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// By the receipt of this receive.
    Receipt(MessageReceipt),
    /// By its id, which stands for the receive that is under way.
    Id(JobId),
}

/// What a consumer says of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is done with them, and they never come back.
    Ack,
    /// They are to be received again after this time.
    Nack {
        /// How long until they are visible again.
        delay: Duration,
        /// Why, for whoever reads the dead letters.
        reason: Option<String>,
    },
}

/// What became of one message that a consumer named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// It is acknowledged, and finished.
    Acked,
    /// It can be received again.
    Retried,
    /// It had no attempt left, and is dead.
    Dead,
    /// Its lease was extended.
    Extended,
    /// The receipt is not, or no longer, the right to this message.
    Stale,
    /// The queue has no such message that somebody holds.
    Unknown,
}

impl Engine {
    /// Receives messages of a queue: those that are visible now, or, when there are none, the first
    /// that become visible within `wait`. Answers an empty list otherwise.
    ///
    /// If the caller goes away before it has the messages, they become visible again at once and
    /// no attempt is counted.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn receive(
        &self,
        queue: &Arc<Queue>,
        most: u32,
        wait: Duration,
    ) -> Result<Vec<Message>> {
        if self.is_draining() {
            return Ok(Vec::new());
        }
        let (answer, mut answered) = oneshot::channel();
        let waiter = Waiter { most, at_once: wait.is_zero(), answer };
        if self.0.pulls.add(queue, waiter) {
            tokio::spawn(look_for_all(self.clone()));
        }
        let parcel = if wait.is_zero() {
            (&mut answered).await
        } else {
            match tokio::time::timeout(wait, &mut answered).await {
                Ok(parcel) => parcel,
                Err(_) => {
                    // What was sent in this instant is taken; nothing is sent after it.
                    answered.close();
                    match answered.try_recv() {
                        Ok(parcel) => Ok(parcel),
                        Err(_) => return Ok(Vec::new()),
                    }
                }
            }
        };
        match parcel {
            Ok(parcel) => parcel.map(Parcel::open),
            // The task that looks has ended: the process shuts down.
            Err(_) => Ok(Vec::new()),
        }
    }

    /// Records what a consumer says of messages, one answer for each, in their order.
    ///
    /// # Errors
    /// Those of the store; what was recorded before stays recorded.
    pub async fn judge_messages(
        &self,
        queue: &Queue,
        named: &[Named],
        verdict: &Verdict,
    ) -> Result<Vec<Answered>> {
        let held = self.held(queue, named).await?;
        let recorded = held.iter().map(|held| async {
            let (lease, attempt) = match held {
                Ok(held) => *held,
                Err(answered) => return Ok(*answered),
            };
            let (outcome, answered) = self.message_outcome(queue, lease, attempt, verdict);
            let is_dead = answered == Answered::Dead;
            match self.health().learn(self.0.outcomes.put(outcome).await) {
                Ok(()) => {
                    if is_dead {
                        self.report_given_up(queue, lease.job).await;
                    }
                    Ok(answered)
                }
                Err(Error::LeaseLost) => Ok(Answered::Stale),
                Err(error) => Err(error),
            }
        });
        let answers: Vec<Answered> = futures::future::try_join_all(recorded).await?;
        metrics::messages(
            &queue.name,
            match verdict {
                Verdict::Ack => "acked",
                Verdict::Nack { .. } => "nacked",
            },
            answers.iter().filter(|a| !matches!(a, Answered::Stale | Answered::Unknown)).count(),
        );
        if answers.contains(&Answered::Retried) {
            self.messages_arrived([queue.name.as_str()]).await;
        }
        Ok(answers)
    }

    /// Hides messages that a consumer holds for this long from now, one answer for each.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn extend_messages(
        &self,
        queue: &Queue,
        named: &[Named],
        by: Duration,
    ) -> Result<Vec<Answered>> {
        let held = self.held(queue, named).await?;
        let leases: Vec<Lease> = held.iter().flatten().map(|(lease, _)| *lease).collect();
        let mut extended = self.health().learn(self.store().extend(&leases, by).await)?.into_iter();
        held.into_iter()
            .map(|held| match held {
                Err(answered) => Ok(answered),
                Ok(_) => match extended.next() {
                    Some(Ok(())) => Ok(Answered::Extended),
                    Some(Err(Error::LeaseLost)) | None => Ok(Answered::Stale),
                    Some(Err(error)) => Err(error),
                },
            })
            .collect()
    }

    /// Which lease each name stands for, with the number of receives before it.
    async fn held(
        &self,
        queue: &Queue,
        named: &[Named],
    ) -> Result<Vec<std::result::Result<(Lease, u32), Answered>>> {
        let mut held = Vec::with_capacity(named.len());
        let ids: Vec<JobId> = named
            .iter()
            .filter_map(|name| match name {
                Named::Id(id) => Some(*id),
                Named::Receipt(_) => None,
            })
            .collect();
        let jobs = self.health().learn(self.store().messages(&ids).await)?;
        for name in named {
            held.push(match name {
                Named::Receipt(receipt) if !receipt.is_of(&queue.name) => Err(Answered::Stale),
                Named::Receipt(receipt) => Ok((receipt.lease, receipt.attempt)),
                Named::Id(id) => match jobs.get(id) {
                    Some(job) if is_of(job, queue) && job.state == JobState::Leased => {
                        Ok((job.lease(), job.attempt))
                    }
                    _ => Err(Answered::Unknown),
                },
            });
        }
        Ok(held)
    }

    fn message_outcome(
        &self,
        queue: &Queue,
        lease: Lease,
        attempt: u32,
        verdict: &Verdict,
    ) -> (JobOutcome, Answered) {
        let sent = attempt.saturating_add(1);
        let at = self.clock().now();
        let (next_state, answered, code, error) = match verdict {
            Verdict::Ack => (NextState::Done, Answered::Acked, None, None),
            Verdict::Nack { delay, reason } => {
                let error = match reason {
                    Some(reason) => format!("given back by its consumer: {reason}"),
                    None => "given back by its consumer (nack)".to_owned(),
                };
                let code = Some(FailureCode::GivenBack);
                match sent >= queue.attempts_max {
                    true => {
                        let error = format!("{error}, at the last of {sent} attempts");
                        let next = NextState::Dead { error: error.clone() };
                        (next, Answered::Dead, code, Some(error))
                    }
                    false => {
                        let next = NextState::Retry { after: *delay, error: error.clone() };
                        (next, Answered::Retried, code, Some(error))
                    }
                }
            }
        };
        let ending = match code {
            None => AttemptResult::Delivered,
            Some(_) => AttemptResult::Failed,
        };
        let attempt = Attempt {
            number: sent,
            claim: lease.claim,
            ending,
            code,
            status: None,
            error,
            duration: Duration::ZERO,
            response: Vec::new(),
            at,
        };
        let outcome = JobOutcome {
            lease,
            lane: LaneId::queue(&queue.name),
            next_state,
            sent,
            attempt: Some(attempt),
            lane_fact: None,
            change: None,
            reports: Vec::new(),
        };
        (outcome, answered)
    }

    fn report_dead(&self, queue: &Queue, job: JobId, attempts: u32) {
        metrics::dead(&queue.name);
        tracing::warn!(
            %job, queue = queue.name, attempts,
            "A message is dead: its attempts are used up.",
        );
    }

    /// Reports a message that its consumer gave back at the last attempt.
    async fn report_given_up(&self, queue: &Queue, job: JobId) {
        match self.store().messages(&[job]).await {
            Ok(jobs) => self.report_all_dead(queue, &jobs.into_values().collect::<Vec<_>>()).await,
            Err(error) => tracing::debug!(%error, %job, "A dead message cannot be read."),
        }
    }

    /// Reports messages that nobody acknowledged in time for the last time.
    async fn report_all_dead(&self, queue: &Queue, dead: &[Job]) {
        if dead.is_empty() {
            return;
        }
        let ids: Vec<EventId> = dead.iter().map(|job| job.event).collect();
        let events = self.store().events_by_id(&ids).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "The events of dead messages cannot be read.");
            BTreeMap::new()
        });
        for job in dead {
            self.report_dead(queue, job.id, job.attempt);
            // What becomes of a notice is no news.
            if events.get(&job.event).is_some_and(|event| event.source != SOURCE) {
                let error = job.last_error.as_deref().unwrap_or("");
                self.tell(Notice::dead(job, job.event, job.attempt, error)).await;
            }
        }
    }

    /// Makes messages dead that nobody acknowledged at their last attempt, in queues that nobody
    /// receives from. Answers how many.
    pub(super) async fn bury_messages(&self) -> Result<u64> {
        let mut buried = 0;
        for queue in &self.config().queues {
            let lane = LaneId::queue(&queue.name);
            let dead = self.store().bury(&lane, queue.attempts_max, BURIED_AT_ONCE).await?;
            buried += u64::try_from(dead.len()).unwrap_or(u64::MAX);
            self.report_all_dead(queue, &dead).await;
        }
        Ok(buried)
    }

    /// Tells consumers, here and at other processes, that these queues have new messages.
    pub(super) async fn messages_arrived<'a>(&self, queues: impl IntoIterator<Item = &'a str>) {
        self.0.pulls.arrived(queues);
        self.0.parts.wake.messages_arrived().await;
    }

    /// The same after a change that may concern any queue.
    pub(super) async fn messages_may_have_arrived(&self) {
        if !self.config().queues.is_empty() {
            self.0.pulls.arrived_anywhere();
            self.0.parts.wake.messages_arrived().await;
        }
    }

    async fn with_events(&self, received: &[Received]) -> Result<BTreeMap<EventId, Arc<Event>>> {
        let jobs = received.iter().flat_map(|received| &received.messages);
        let ids: Vec<EventId> = jobs.map(|job| job.event).collect();
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let events = self.store().events_by_id(&ids).await?;
        Ok(events.into_iter().map(|(id, event)| (id, Arc::new(event))).collect())
    }

    /// Looks once at these queues, and hands out what it finds.
    async fn look_for(
        &self,
        requests: &[Receive],
        returns: &mpsc::UnboundedSender<Vec<Message>>,
    ) -> Result<()> {
        let received = self.health().learn(self.store().receive(requests).await)?;
        // A failure here leaves leases that run out, as if the consumer had died.
        let events = self.health().learn(self.with_events(&received).await)?;
        for (request, received) in requests.iter().zip(received) {
            let Some(name) = request.lane.queue_name() else { continue };
            if let Some(queue) = self.directory().queue(name) {
                self.report_all_dead(queue, &received.dead).await;
            }
            let message = |job: Job| {
                let event = events.get(&job.event).cloned();
                if event.is_none() {
                    tracing::error!(message = %job.id, event = %job.event, "The event of a message \
                        is missing from the database.");
                }
                Some(Message { event: event?, job })
            };
            let messages: VecDeque<Message> =
                received.messages.into_iter().filter_map(message).collect();
            metrics::messages(name, "received", messages.len());
            let (shares, left) = self.0.pulls.share(request, messages, received.next_in);
            drop(Parcel { messages: left, returns: returns.clone() });
            for (waiter, share) in shares {
                let parcel = Parcel { messages: share, returns: returns.clone() };
                // A consumer that has gone drops its parcel, which returns the messages.
                let _ = waiter.answer.send(Ok(parcel));
            }
        }
        Ok(())
    }

    /// Makes messages visible again that were taken for a consumer that has gone.
    async fn return_messages(&self, messages: Vec<Message>) {
        let released = messages.iter().map(|message| {
            self.0.outcomes.put(JobOutcome {
                lease: message.job.lease(),
                lane: message.job.target.lane(),
                next_state: NextState::Released,
                sent: message.job.attempt,
                attempt: None,
                lane_fact: None,
                change: None,
                reports: Vec::new(),
            })
        });
        // What cannot be returned becomes visible when its lease runs out.
        futures::future::join_all(released).await;
        let queues = messages.iter().map(|message| message.job.target.name());
        self.messages_arrived(queues).await;
    }
}

fn is_of(job: &Job, queue: &Queue) -> bool {
    matches!(&job.target, Target::Queue(name) if *name == queue.name)
}
