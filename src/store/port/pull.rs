//! Pull queues: messages that consumers receive under a lease and acknowledge.
//!
//! A message is a job whose lane no worker looks at. What consumers answer is recorded like any
//! other outcome ([`super::Work::record`]), and leases are extended like those of workers.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::{Job, JobId, LaneId, Timestamp};
use crate::store::error::Result;

/// A request for messages of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receive {
    /// The lane of the queue that is asked.
    pub lane: LaneId,
    /// The most messages to take.
    pub most: u32,
    /// How long the messages are hidden from other consumers.
    pub visibility: Duration,
    /// After how many receives without an acknowledgement a message is dead.
    pub attempts_max: u32,
}

/// What one queue gave to one request.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// The messages, oldest due time first, each under a new lease. `attempt` counts the receives
    /// before this one.
    pub messages: Vec<Job>,
    /// Messages that were not acknowledged in time for the last time that is allowed. They are dead
    /// now.
    pub dead: Vec<Job>,
    /// If fewer messages than wanted were there: when the next one becomes visible, from now.
    /// `None` if none is known.
    pub next_in: Option<Duration>,
}

/// How many messages a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCounts {
    /// Messages that a consumer would get now.
    pub visible: u64,
    /// Messages that a consumer has received and not acknowledged.
    pub in_flight: u64,
    /// Messages that wait after a `nack` with a delay.
    pub delayed: u64,
    /// Messages that were given up.
    pub dead: u64,
    /// When the oldest open message was stored.
    pub oldest_at: Option<Timestamp>,
}

/// Lets consumers receive messages.
#[async_trait]
pub trait Pull: Send + Sync {
    /// Takes messages of queues under lease, for each request at most the number it wants. A
    /// message whose lease ran out counts that receive as an attempt, and is dead if it was the
    /// last one.
    async fn receive(&self, requests: &[Receive]) -> Result<Vec<Received>>;
    /// Marks messages as dead that nobody acknowledged in time at their last attempt, at most
    /// `most` in one call. Answers them. [`Pull::receive`] does the same for queues with consumers.
    async fn bury(&self, lane: &LaneId, attempts_max: u32, most: u32) -> Result<Vec<Job>>;
    /// Counts the messages of these queues. The cost grows with what they hold.
    async fn queue_counts(&self, lanes: &[LaneId]) -> Result<BTreeMap<LaneId, QueueCounts>>;
    /// Messages by their ids. Unknown ids, and jobs that are no messages, are left out.
    async fn messages(&self, ids: &[JobId]) -> Result<BTreeMap<JobId, Job>>;
    /// The first messages of a queue without receiving them, at most `most`: those that are open in
    /// the order in which they become visible, or those that are dead, oldest first.
    async fn peek(&self, lane: &LaneId, dead: bool, most: u32) -> Result<Vec<Job>>;
    /// Cancels open messages of a queue, at most `most` in one call. Answers how many.
    async fn drain(&self, lane: &LaneId, most: u32) -> Result<u64>;
}
