//! Accepts inbound events: an event is planned and committed with its jobs, and only then is the
//! sender answered.
//!
//! A job that this process can start at once is leased by the commit that creates it and passed to
//! the worker in memory, so it needs no claim. All other jobs wait in the table.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::inflight::{Inflight, Reservation};
use super::{Engine, Parts};
use crate::decide::plan::{Plan, plan};
use crate::model::{Event, EventId, Inbound, Job, JobId, Target};
use crate::observe::feed::FeedEvent;
use crate::observe::metrics;
use crate::store::{Accepted, Claimed, Each, Error, NewEvent, Result as Stored};
use crate::wake::Wakeup;

/// How long a caller waits for its commit. This is longer than a commit takes over a slow line, and
/// short enough that a sender still gets an answer when the database hangs.
const WAIT_MAX: Duration = Duration::from_millis(4_500);

/// If the database answers a query within this time, it is busy and not down. This is the last part
/// of `WAIT_MAX`.
const ASK_MAX: Duration = Duration::from_millis(1_500);
/// Above this many bytes of body, the parsed view is dropped after planning and parsed again for
/// each delivery. This saves memory while the event waits.
const VIEW_KEPT_MAX: usize = 64 * 1024;

/// The answer to the sender of an accepted event. The event is committed when this is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The event; the first one's id for a duplicate.
    pub event: EventId,
    /// The event was stored before under the same key, so nothing new was stored.
    pub duplicate: bool,
    /// Deliveries that were created.
    pub jobs: usize,
    /// Workflow runs that the event starts; 0 for a duplicate.
    pub runs: usize,
}

/// Why an event was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// The store is not prepared yet: migrations or the lanes are still missing.
    #[error("tidehook is starting")]
    Starting,
    /// The process is shutting down and takes no further events.
    #[error("tidehook is shutting down")]
    Stopping,
    /// The database does not answer. The event may have been committed all the same; if the sender
    /// repeats it under the same idempotency key, it is the same event.
    #[error("the database does not answer")]
    Unavailable,
    /// The database has no room for the event.
    #[error("the database is full")]
    Full,
    /// The idempotency key was used with another body, for this event.
    #[error("the idempotency key was already used with a different body")]
    Conflict(EventId),
    /// The store refuses the event for good, so a repeat would fail as well. The text is the
    /// store's error.
    #[error("the event cannot be stored: {0}")]
    Unstorable(String),
}

/// An event with the work that it causes.
#[derive(Debug)]
pub struct Planned {
    pub(super) inbound: Inbound,
    pub(super) plan: Plan,
}

/// A new event on its way to a commit, with the worker slots that are reserved for its jobs.
pub struct Submission {
    new_event: NewEvent,
    slots: Vec<Reservation>,
}

/// How many bytes of body an event adds to a batch, which bounds the batch's size.
pub(super) fn bytes(offered: &Submission) -> usize {
    offered.new_event.inbound.body.bytes().len()
}

/// Returns the function that commits a batch of new events and then passes the jobs it leased to
/// the worker. It runs in the batch's own task, so a caller that hangs up leaves no leased job
/// behind.
pub(super) fn committer(
    parts: &Parts,
    inflight: &Arc<Inflight>,
) -> impl Fn(Vec<Submission>) -> BoxFuture<'static, Each<Accepted>> + Send + Sync + 'static {
    let (store, inflight) = (Arc::clone(&parts.store), Arc::clone(inflight));
    move |offered| {
        let (store, inflight) = (Arc::clone(&store), Arc::clone(&inflight));
        Box::pin(async move {
            let (new_events, slots): (Vec<NewEvent>, Vec<Vec<Reservation>>) =
                offered.into_iter().map(|o| (o.new_event, o.slots)).unzip();
            let answers = store.accept(&new_events).await?;
            new_events
                .into_iter()
                .zip(&answers)
                .for_each(|(new_event, answer)| pass_to_worker(&inflight, new_event, answer));
            drop(slots);
            Ok(answers)
        })
    }
}

/// Passes the jobs that the commit has leased to the worker in memory.
fn pass_to_worker(inflight: &Inflight, new_event: NewEvent, answer: &Stored<Accepted>) {
    let Ok(Accepted::New { started, at, .. }) = answer else { return };
    if started.is_empty() {
        return;
    }
    let NewEvent { id, inbound, plan, lease, .. } = new_event;
    let event = Arc::new(Event {
        id,
        source: inbound.source,
        kind: inbound.kind,
        headers: inbound.headers,
        body: inbound.body,
        // Deliveries do not read it.
        unique_key: None,
        created_at: *at,
    });
    for new in plan.jobs.into_iter().filter(|job| started.contains(&job.id)) {
        // As the commit stored it: leased, under its first claim.
        let job = Job::leased(new.id, id, new.target, *at, at.plus(lease));
        inflight.pass_to_worker(Claimed { job, now: *at, lane_clean: true }, Arc::clone(&event));
    }
}

impl Engine {
    /// Accepts an event: plans its jobs and commits both in one transaction.
    ///
    /// # Errors
    /// Why the event was refused. Except for [`NotAccepted::Unavailable`], nothing was stored.
    pub async fn accept(&self, inbound: Inbound) -> Result<Receipt, NotAccepted> {
        self.accept_planned(self.plan(inbound)).await
    }

    /// Decides which jobs an event causes. This is the only step that reads the body; the parsed
    /// view of a large body is dropped afterwards.
    pub fn plan(&self, inbound: Inbound) -> Planned {
        let plan = plan(&self.0.routes, &inbound, &*self.0.parts.ids);
        if let Some(Err(why)) = inbound.body.parsed_if_cached() {
            self.unreadable(&inbound, why);
        }
        let is_large = inbound.body.bytes().len() > VIEW_KEPT_MAX;
        let body = if is_large { inbound.body.unread() } else { inbound.body };
        Planned { inbound: Inbound { body, ..inbound }, plan }
    }

    /// An event as it is stored, under a new id.
    pub(super) fn new_event(&self, Planned { inbound, plan }: Planned) -> NewEvent {
        let delivery = &self.config().delivery;
        NewEvent {
            id: EventId::next(&*self.0.parts.ids),
            inbound,
            plan,
            key_ttl: delivery.idempotency_ttl,
            event_ttl: delivery.event_ttl,
            lease: self.0.lease,
        }
    }

    /// Accepts an event whose jobs are already planned.
    ///
    /// # Errors
    /// As [`Engine::accept`].
    pub async fn accept_planned(
        &self,
        Planned { inbound, mut plan }: Planned,
    ) -> Result<Receipt, NotAccepted> {
        let health = self.health();
        if self.0.closed.load(std::sync::atomic::Ordering::Acquire) {
            return Err(NotAccepted::Stopping);
        }
        if !health.is_prepared() {
            return Err(NotAccepted::Starting);
        }
        if !health.is_up() {
            return Err(NotAccepted::Unavailable);
        }
        let inner = &self.0;
        let began = Instant::now();
        let misses = std::mem::take(&mut plan.misses);
        let mut slots = Vec::new();
        for job in &mut plan.jobs {
            let lane = job.target.lane();
            let waits = lane.is_pulled() || job.due.is_some();
            let slot = if waits { None } else { inner.inflight.reserve(&lane) };
            job.start = slot.is_some();
            slots.extend(slot);
        }
        let handlers: Vec<String> =
            plan.jobs.iter().map(|job| job.target.name().to_owned()).collect();
        // `Receipt.jobs` counts deliveries only. Starts of runs are counted apart.
        let run_starts: Vec<JobId> = plan
            .jobs
            .iter()
            .filter(|job| matches!(job.target, Target::Workflow(_)))
            .map(|job| job.id)
            .collect();
        let now = self.clock().now();
        let later = plan.jobs.iter().filter_map(|job| Some((job.id, job.due?.since(now))));
        let later: Vec<(JobId, Duration)> = later.collect();
        // Workers take no messages, so only consumers hear of them.
        let messages: Vec<(JobId, String)> = plan
            .jobs
            .iter()
            .filter_map(|job| match &job.target {
                Target::Queue(name) => Some((job.id, name.clone())),
                _ => None,
            })
            .collect();
        let (source, kind) = (inbound.source.clone(), inbound.kind.clone());
        let new_event = self.new_event(Planned { inbound, plan });
        let committed = inner.new_events.put(Submission { new_event, slots });
        tokio::pin!(committed);
        let answer = match tokio::time::timeout(WAIT_MAX - ASK_MAX, &mut committed).await {
            Ok(answer) => answer,
            Err(_) => {
                // A slow commit may only mean a busy processor, so the database is probed before it
                // is reported as down.
                let (answer, probed) = tokio::join!(
                    tokio::time::timeout(ASK_MAX, &mut committed),
                    tokio::time::timeout(ASK_MAX, self.ask())
                );
                match (answer, probed) {
                    (Ok(answer), _) => answer,
                    (Err(_), Ok(Ok(_))) => return Err(NotAccepted::Unavailable),
                    (Err(_), _) => {
                        health.set_down("the commit timed out, and the database does not answer");
                        return Err(NotAccepted::Unavailable);
                    }
                }
            }
        };
        let (mut waiting, mut queues) = (Vec::new(), Vec::new());
        let receipt = match health.learn(answer) {
            Ok(Accepted::New { event, jobs, started, .. }) => {
                let waits = jobs.iter().filter(|id| !started.contains(id));
                let waits = waits.filter(|id| messages.iter().all(|(message, _)| message != *id));
                let after = |id: &JobId| later.iter().find(|(job, _)| job == id);
                let after = |id: &JobId| after(id).map_or(Duration::ZERO, |(_, after)| *after);
                waiting.extend(waits.map(|id| Wakeup::of(*id, after(id))));
                let stored = messages.iter().filter(|(message, _)| jobs.contains(message));
                queues.extend(stored.map(|(_, queue)| queue.as_str()));
                health.set_written();
                let runs = jobs.iter().filter(|id| run_starts.contains(id)).count();
                Receipt { event, duplicate: false, jobs: jobs.len() - runs, runs }
            }
            Ok(Accepted::Duplicate(event)) => Receipt { event, duplicate: true, jobs: 0, runs: 0 },
            Ok(Accepted::Conflict(event)) => return Err(NotAccepted::Conflict(event)),
            Err(Error::Full(_)) => return Err(NotAccepted::Full),
            Err(Error::Down(_) | Error::ReadOnly(_) | Error::Conflict(_)) => {
                return Err(NotAccepted::Unavailable);
            }
            Err(
                error @ (Error::InUse(_) | Error::LeaseLost | Error::MovedOn | Error::Permanent(_)),
            ) => {
                tracing::error!(source, %error, "An event cannot be stored.");
                return Err(NotAccepted::Unstorable(error.to_string()));
            }
        };
        self.notify_workers(&waiting).await;
        if !queues.is_empty() {
            self.messages_arrived(queues).await;
        }
        let Receipt { event, duplicate, jobs, .. } = receipt;
        metrics::accepted(&source, duplicate, jobs, began.elapsed());
        if !duplicate {
            inner.near.remember(event, misses);
        }
        tracing::debug!(
            %event, source, kind, duplicate, jobs,
            "An event was accepted.",
        );
        self.feed().publish(|| FeedEvent::Accepted {
            event,
            verified: self.config().source(&source).and_then(|s| s.verify.clone()),
            source,
            kind,
            duplicate,
            handlers: if duplicate { Vec::new() } else { handlers },
        });
        Ok(receipt)
    }
}
