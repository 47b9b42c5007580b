//! What is in hand: the leases of this process, by lane and tenant, kept alive while work runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::decide::fair::Slots;
use crate::model::{Job, JobId, LaneId, Lease};
use crate::store::Error;

/// The leases of this process.
#[derive(Debug)]
pub struct InHand {
    leases: Mutex<HashMap<JobId, (Lease, LaneId)>>,
    /// When all of them were last extended.
    extended: Mutex<Instant>,
}

impl Default for InHand {
    fn default() -> Self {
        Self { leases: Mutex::default(), extended: Mutex::new(Instant::now()) }
    }
}

impl InHand {
    fn leases(&self) -> MutexGuard<'_, HashMap<JobId, (Lease, LaneId)>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job into hand.
    pub fn take(&self, job: &Job) {
        self.leases().insert(job.id, (job.lease(), job.target.lane()));
    }

    /// Puts a job down, if it is still in hand under this lease.
    pub fn put_down(&self, lease: Lease) {
        let mut leases = self.leases();
        if leases.get(&lease.job).is_some_and(|(held, _)| *held == lease) {
            leases.remove(&lease.job);
        }
    }

    /// Whether a lease is still in hand.
    pub fn holds(&self, lease: Lease) -> bool {
        self.leases().get(&lease.job).is_some_and(|(held, _)| *held == lease)
    }

    fn extended(&self) -> MutexGuard<'_, Instant> {
        self.extended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// The slots a worker with `parallel` of them has, `free` of which are free.
    ///
    /// One in ten, at least one, is kept out of reach of any single lane or tenant, where there are others.
    pub(super) fn slots(&self, parallel: u32, free: u32) -> Slots {
        let mut held: BTreeMap<LaneId, u32> = BTreeMap::new();
        for (_, lane) in self.0.in_hand.leases().values() {
            *held.entry(lane.clone()).or_default() += 1;
        }
        let kept = (parallel / 10).max(1);
        let most = |others: bool| if others && parallel > 1 { parallel - kept } else { parallel };
        let mut tenants: Vec<&String> = self.0.tenants.values().collect();
        tenants.sort_unstable();
        tenants.dedup();
        let tenant = |lane: &LaneId| self.0.tenants.get(lane).cloned().unwrap_or_else(|| lane.0.clone());
        Slots {
            free,
            lane_max: most(self.0.tenants.len() > 1),
            tenant_max: most(tenants.len() > 1),
            held: held.into_iter().map(|(lane, jobs)| (lane.clone(), tenant(&lane), jobs)).collect(),
        }
    }

    /// Whether a lane or a tenant holds as many slots as it may.
    pub(super) fn is_any_lane_full(&self, parallel: u32) -> bool {
        let slots = self.slots(parallel, 0);
        self.lanes_to_skip(&slots).len() > self.0.housekeeping.orphans().len()
    }

    /// The lanes that may give nothing at the moment: full ones, those of full tenants, and those whose
    /// handler this process does not know.
    pub(super) fn lanes_to_skip(&self, slots: &Slots) -> Vec<LaneId> {
        let mut of_tenant: HashMap<&str, u32> = HashMap::new();
        for (_, tenant, jobs) in &slots.held {
            *of_tenant.entry(tenant).or_default() += jobs;
        }
        let is_full = |lane: &&LaneId| slots.held.iter().any(|(held, _, jobs)| held == *lane && *jobs >= slots.lane_max);
        let full_tenant = |tenant: &str| of_tenant.get(tenant).is_some_and(|jobs| *jobs >= slots.tenant_max);
        let full = self.0.tenants.iter().filter(|(lane, tenant)| is_full(lane) || full_tenant(tenant));
        full.map(|(lane, _)| lane.clone()).chain(self.0.housekeeping.orphans()).collect()
    }

    /// How often leases are extended.
    pub(super) fn heartbeat(&self) -> Duration {
        self.0.lease / 3
    }

    /// Extends every lease in hand.
    ///
    /// # Errors
    /// The store did not answer: the leases run out unless it does in time.
    pub(super) async fn extend_leases(&self) -> crate::store::Result<()> {
        let leases: Vec<Lease> = self.0.in_hand.leases().values().map(|(lease, _)| *lease).collect();
        let started = Instant::now();
        let answers = self.health().learn(self.store().extend(&leases, self.0.lease).await)?;
        *self.0.in_hand.extended() = started;
        for (lease, answer) in leases.iter().zip(answers) {
            if answer == Err(Error::LeaseLost) && self.0.in_hand.leases().get(&lease.job).is_some_and(|(l, _)| l == lease) {
                tracing::warn!(job = %lease.job, "A lease was lost while its delivery was under way; another worker has it.");
                self.0.in_hand.put_down(*lease);
            }
        }
        Ok(())
    }

    /// Makes sure that no job of our own is taken for abandoned: before a claim, leases that may have run out
    /// while the store was away are extended first.
    pub(super) async fn refresh_leases(&self) -> crate::store::Result<()> {
        let is_empty = self.0.in_hand.leases().is_empty();
        let late = self.0.in_hand.extended().elapsed() > self.heartbeat() * 2;
        if is_empty {
            *self.0.in_hand.extended() = Instant::now();
        } else if late {
            self.extend_leases().await?;
        }
        Ok(())
    }
}
