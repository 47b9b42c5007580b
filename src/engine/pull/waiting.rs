//! The consumers that wait at this process, and the task that looks on behalf of all of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::Message;
use crate::config::Queue;
use crate::engine::Engine;
use crate::model::LaneId;
use crate::store::{Receive, Result};

/// The longest time between two looks while somebody waits.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The shortest time between two looks at a queue whose next message is not visible yet.
const LOOK_SOON: Duration = Duration::from_millis(5);
/// The most messages that one look takes from a queue, whoever waits for them.
const PER_LOOK_MAX: u32 = 1_000;

/// Messages on their way to a consumer. If nobody takes them, they become visible again.
pub(super) struct Parcel {
    pub(super) messages: Vec<Message>,
    pub(super) returns: mpsc::UnboundedSender<Vec<Message>>,
}

impl Parcel {
    pub(super) fn open(mut self) -> Vec<Message> {
        std::mem::take(&mut self.messages)
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if !self.messages.is_empty() {
            // Without a receiver the process ends, and the leases run out.
            let _ = self.returns.send(std::mem::take(&mut self.messages));
        }
    }
}

/// A consumer that waits for messages.
pub(super) struct Waiter {
    pub(super) most: u32,
    /// It does not wait: it gets what the next look finds.
    pub(super) at_once: bool,
    pub(super) answer: oneshot::Sender<Result<Parcel>>,
}

/// A queue that somebody waits for.
struct Waited {
    queue: Arc<Queue>,
    waiters: VecDeque<Waiter>,
    /// When to look next. Never later than a second from the last look.
    look_at: Instant,
}

/// The consumers that wait at this process.
#[derive(Default)]
pub struct Pulls {
    state: Mutex<PullState>,
    kick: Notify,
}

#[derive(Default)]
struct PullState {
    queues: BTreeMap<String, Waited>,
    /// Until when an empty queue need not be looked at, although nobody waits for it any more.
    empty_until: BTreeMap<String, Instant>,
    is_running: bool,
}

impl Pulls {
    fn state(&self) -> MutexGuard<'_, PullState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has these queues looked at now, if somebody waits for them; all of them when none is named.
    pub(in crate::engine) fn arrived<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let mut state = self.state();
        let now = Instant::now();
        let mut is_waited_for = false;
        for name in names {
            state.empty_until.remove(name);
            if let Some(waited) = state.queues.get_mut(name) {
                waited.look_at = now;
                is_waited_for = true;
            }
        }
        drop(state);
        if is_waited_for {
            self.kick.notify_one();
        }
    }

    pub(super) fn arrived_anywhere(&self) {
        let mut state = self.state();
        state.empty_until.clear();
        let now = Instant::now();
        state.queues.values_mut().for_each(|waited| waited.look_at = now);
        drop(state);
        self.kick.notify_one();
    }

    /// Adds a waiter. Answers whether the task that looks must be started.
    pub(super) fn add(&self, queue: &Arc<Queue>, waiter: Waiter) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        let known = state.empty_until.remove(&queue.name);
        let at_once = waiter.at_once;
        let waited = state.queues.entry(queue.name.clone()).or_insert_with(|| Waited {
            queue: Arc::clone(queue),
            waiters: VecDeque::new(),
            look_at: known.unwrap_or(now),
        });
        waited.waiters.push_back(waiter);
        if at_once {
            waited.look_at = now;
        }
        let starts = !state.is_running;
        state.is_running = true;
        drop(state);
        self.kick.notify_one();
        starts
    }

    /// What to ask for now, and when to look again; `None` when nobody waits any more, and the
    /// task ends.
    fn due(&self) -> Option<(Vec<Receive>, Instant)> {
        let mut state = self.state();
        let now = Instant::now();
        let mut over = Vec::new();
        for (name, waited) in &mut state.queues {
            waited.waiters.retain(|waiter| !waiter.answer.is_closed());
            if waited.waiters.is_empty() {
                over.push((name.clone(), waited.look_at));
            }
        }
        for (name, look_at) in over {
            state.queues.remove(&name);
            state.empty_until.insert(name, look_at);
        }
        state.empty_until.retain(|_, until| *until > now);
        if state.queues.is_empty() {
            state.is_running = false;
            return None;
        }
        let next = state.queues.values().map(|waited| waited.look_at).min();
        let due = state.queues.values().filter(|waited| waited.look_at <= now);
        let request = |waited: &Waited| Receive {
            lane: LaneId::queue(&waited.queue.name),
            most: waited
                .waiters
                .iter()
                .fold(0_u32, |sum, waiter| sum.saturating_add(waiter.most))
                .min(PER_LOOK_MAX),
            visibility: waited.queue.visibility,
            attempts_max: waited.queue.attempts_max,
        };
        Some((due.map(request).collect(), next.unwrap_or(now + LOOK_EVERY)))
    }

    /// The waiters of a queue that a look has answered, what each gets of `messages`, and what is
    /// left because some have gone meanwhile. Sets when to look next.
    pub(super) fn share(
        &self,
        request: &Receive,
        mut messages: VecDeque<Message>,
        next_in: Option<Duration>,
    ) -> (Vec<(Waiter, Vec<Message>)>, Vec<Message>) {
        let mut state = self.state();
        let name = request.lane.queue_name();
        let Some(waited) = name.and_then(|name| state.queues.get_mut(name)) else {
            return (Vec::new(), messages.into());
        };
        let wanted = usize::try_from(request.most).unwrap_or(usize::MAX);
        waited.look_at = match messages.len() < wanted {
            true => {
                let next = next_in.unwrap_or(LOOK_EVERY).clamp(LOOK_SOON, LOOK_EVERY);
                Instant::now() + next
            }
            false => Instant::now(),
        };
        let mut shares = Vec::new();
        let mut waiting = VecDeque::new();
        while let Some(waiter) = waited.waiters.pop_front() {
            let few = messages.len().min(usize::try_from(waiter.most).unwrap_or(usize::MAX));
            let share: Vec<Message> = messages.drain(..few).collect();
            match share.is_empty() && !waiter.at_once {
                true => waiting.push_back(waiter),
                false => shares.push((waiter, share)),
            }
        }
        waited.waiters = waiting;
        (shares, messages.into())
    }

    /// Takes all waiters of these queues, or of every queue.
    fn take(&self, requests: Option<&[Receive]>) -> Vec<Waiter> {
        let mut state = self.state();
        let wanted = |waited: &Waited| {
            let lane = LaneId::queue(&waited.queue.name);
            requests.is_none_or(|requests| requests.iter().any(|r| r.lane == lane))
        };
        let of = state.queues.values_mut().filter(|waited| wanted(waited));
        of.flat_map(|waited| std::mem::take(&mut waited.waiters)).collect()
    }
}

/// Looks for messages on behalf of everyone who waits, until nobody does.
pub(super) async fn look_for_all(engine: Engine) {
    let (returns, mut returned) = mpsc::unbounded_channel::<Vec<Message>>();
    let pulls = &engine.0.pulls;
    while let Some((requests, look_at)) = pulls.due() {
        if engine.is_draining() {
            let all = pulls.take(None);
            let nothing = || Parcel { messages: Vec::new(), returns: returns.clone() };
            all.into_iter().for_each(|waiter| drop(waiter.answer.send(Ok(nothing()))));
            continue;
        }
        if requests.is_empty() {
            tokio::select! {
                () = pulls.kick.notified() => {}
                () = engine.0.parts.wake.messages_elsewhere() => pulls.arrived_anywhere(),
                () = tokio::time::sleep_until(look_at) => {}
                () = engine.draining() => {}
                Some(messages) = returned.recv() => engine.return_messages(messages).await,
            }
            continue;
        }
        if let Err(error) = engine.look_for(&requests, &returns).await {
            tracing::debug!(%error, "The queues cannot be looked at.");
            for waiter in pulls.take(Some(&requests)) {
                let _ = waiter.answer.send(Err(error.clone()));
            }
        }
        while let Ok(messages) = returned.try_recv() {
            engine.return_messages(messages).await;
        }
    }
    // Parcels that are still on their way hold a sender; the last one closes the channel.
    drop(returns);
    while let Some(messages) = returned.recv().await {
        engine.return_messages(messages).await;
    }
}
