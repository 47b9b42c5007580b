//! Tracks the jobs in flight: the leases that this process holds, by lane and tenant, and the slots
//! of its worker. Some slots are reserved for jobs that are just being stored.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Engine;
use crate::decide::fair::{Slots, SlotsInUse};
use crate::model::{Event, Job, JobId, LaneId, Lease, Run};
use crate::store::{Claimed, Error};

/// A leased job with what its execution needs, on its way to the worker.
pub struct ReadyJob {
    /// The job with its lease, and what the claim knows about its lane.
    pub claimed: Claimed,
    /// The event that the job delivers, read with the job, so that execution needs no query for it.
    pub event: Arc<Event>,
    /// The run, for a job of a step, as it was read after the claim. `None` for other jobs.
    pub run: Option<Arc<Run>>,
}

/// The leases and slots of this process. The engine extends these leases while jobs run.
pub struct Inflight {
    state: Mutex<State>,
    /// The tenant of each lane that the configuration knows.
    tenants: HashMap<LaneId, String>,
    handoff: mpsc::UnboundedSender<ReadyJob>,
    ready_jobs: tokio::sync::Mutex<mpsc::UnboundedReceiver<ReadyJob>>,
}

#[derive(Debug)]
struct State {
    leases: HashMap<JobId, (Lease, LaneId)>,
    /// How many slots each lane takes, by leases and reservations.
    of_lane: BTreeMap<LaneId, u32>,
    reserved: u32,
    /// Slots that the claim under way may fill. Until it ends nobody knows which lanes get them, so
    /// each lane counts as if it got all of them.
    claiming: u32,
    /// The slots of the worker that takes jobs straight from their commit; 0 while there is none.
    worker_slots: u32,
    /// Claims whose outcome is being recorded. Recording ends the lease, so for these a lost lease
    /// is no surprise.
    ending: HashSet<(JobId, i64)>,
    /// The last claim found nothing due. Only then may a new job start at once, because it
    /// overtakes no other.
    caught_up: bool,
    /// When all leases were last extended, or last known to need no extension.
    extended: Instant,
}

impl State {
    /// Slots that jobs take, or are about to take by the commit that stores them.
    fn taken(&self) -> u32 {
        u32::try_from(self.leases.len()).unwrap_or(u32::MAX).saturating_add(self.reserved)
    }

    /// The same, with those that the claim under way may fill.
    fn in_use(&self) -> u32 {
        self.taken().saturating_add(self.claiming)
    }

    fn let_go(&mut self, lane: &LaneId) {
        if let Some(count) = self.of_lane.get_mut(lane) {
            *count -= 1;
            if *count == 0 {
                self.of_lane.remove(lane);
            }
        }
    }
}

impl Inflight {
    /// Starts with no job in flight. `tenants` holds every lane of the configuration.
    pub fn new(tenants: HashMap<LaneId, String>) -> Self {
        let (handoff, ready_jobs) = mpsc::unbounded_channel();
        let state = State {
            leases: HashMap::new(),
            of_lane: BTreeMap::new(),
            reserved: 0,
            claiming: 0,
            worker_slots: 0,
            ending: HashSet::new(),
            caught_up: false,
            extended: Instant::now(),
        };
        Self {
            state: Mutex::new(state),
            tenants,
            handoff,
            ready_jobs: tokio::sync::Mutex::new(ready_jobs),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a claimed job, so that its lease is extended until the job is forgotten.
    pub fn register(&self, job: &Job) {
        let mut state = self.state();
        let lane = job.target.lane();
        if let Some((_, before)) = state.leases.insert(job.id, (job.lease(), lane.clone())) {
            state.let_go(&before);
        }
        *state.of_lane.entry(lane).or_default() += 1;
    }

    /// Forgets a job and frees its slot, if it is still held under this lease. What is stored does
    /// not change.
    pub fn forget(&self, lease: Lease) {
        let mut state = self.state();
        state.ending.remove(&(lease.job, lease.claim));
        if state.leases.get(&lease.job).is_some_and(|(held, _)| *held == lease)
            && let Some((_, lane)) = state.leases.remove(&lease.job)
        {
            state.let_go(&lane);
        }
    }

    /// Whether this process still holds a lease, as far as it knows.
    pub fn holds(&self, lease: Lease) -> bool {
        self.state().leases.get(&lease.job).is_some_and(|(held, _)| *held == lease)
    }

    /// Marks that a job's outcome is about to be recorded. If its lease is gone from now on, the
    /// record itself may have ended it.
    pub fn mark_recording(&self, lease: Lease) {
        self.state().ending.insert((lease.job, lease.claim));
    }

    /// Handles a lease that the store no longer knows. Returns true, and forgets the job, if
    /// another worker must have claimed it.
    fn forget_if_lost(&self, lease: Lease) -> bool {
        let lost = self.holds(lease) && !self.state().ending.contains(&(lease.job, lease.claim));
        if lost {
            self.forget(lease);
        }
        lost
    }

    /// How many slots are in use, reserved, or promised to a claim under way.
    pub fn in_use(&self) -> u32 {
        self.state().in_use()
    }

    /// How many of a worker's `parallel` slots are free.
    pub fn free(&self, parallel: u32) -> u32 {
        parallel.saturating_sub(self.state().in_use())
    }

    /// Whether at least half of the worker's slots are free, so that a job may keep its slot a
    /// little longer. False where no worker takes jobs straight from their commit.
    pub fn has_room(&self) -> bool {
        let state = self.state();
        state.worker_slots > 0 && state.in_use().saturating_mul(2) <= state.worker_slots
    }

    /// Sets how many slots the worker has that takes jobs straight from their commit; 0 means that
    /// there is none.
    pub fn set_slots(&self, parallel: u32) {
        self.state().worker_slots = parallel;
    }

    /// Begins a claim: returns how many of the worker's slots it may fill, at most `most`. While no
    /// due job waits, it leaves half of the free slots to jobs that are just being stored.
    pub fn begin_claim(&self, parallel: u32, most: u32) -> u32 {
        let mut state = self.state();
        let free = parallel.saturating_sub(state.in_use());
        let share = if state.caught_up && state.worker_slots > 0 { free.div_ceil(2) } else { free };
        state.claiming = share.min(most);
        state.claiming
    }

    /// Ends a claim whose jobs are registered. `caught_up` says that it found nothing due.
    pub fn end_claim(&self, caught_up: bool) {
        let mut state = self.state();
        (state.claiming, state.caught_up) = (0, caught_up);
    }

    /// Describes a worker's slots for a claim that may take `most` jobs.
    ///
    /// Where there are several lanes or tenants, none of them can take the last tenth of the slots,
    /// at least one.
    pub fn slots(&self, parallel: u32, most: u32) -> Slots {
        let (of_lane, taken) = {
            let state = self.state();
            (state.of_lane.clone(), state.taken())
        };
        let (lane_max, tenant_max) = self.limits(parallel);
        let in_use = of_lane
            .into_iter()
            .map(|(lane, slots)| SlotsInUse { tenant: self.tenant(&lane), lane, slots })
            .collect();
        Slots {
            most,
            free: parallel.saturating_sub(taken),
            lane_max,
            tenant_max,
            kept_for_idle_lanes: self.kept_for_idle_lanes(parallel),
            in_use,
        }
    }

    /// How many slots are kept for lanes without a job in flight: an eighth of the worker's slots,
    /// at least one, where there are several lanes. The same number is kept within a tenant's
    /// share.
    fn kept_for_idle_lanes(&self, parallel: u32) -> u32 {
        if self.tenants.len() > 1 && parallel >= 4 { (parallel / 8).max(1) } else { 0 }
    }

    fn limits(&self, parallel: u32) -> (u32, u32) {
        let kept = (parallel / 10).max(1);
        let most = |others: bool| if others && parallel > 1 { parallel - kept } else { parallel };
        let mut tenants = self.tenants.values();
        let first = tenants.next();
        let several_tenants = tenants.any(|tenant| Some(tenant) != first);
        (most(self.tenants.len() > 1), most(several_tenants))
    }

    fn tenant(&self, lane: &LaneId) -> String {
        self.tenants.get(lane).cloned().unwrap_or_else(|| lane.0.clone())
    }

    /// Lanes that a claim must skip: those that hold all they may, and those whose tenant does.
    pub fn full_lanes(&self, slots: &Slots) -> Vec<LaneId> {
        let mut of_tenant: HashMap<&str, u32> = HashMap::new();
        for used in &slots.in_use {
            *of_tenant.entry(&used.tenant).or_default() += used.slots;
        }
        let is_full = |lane: &&LaneId| {
            slots.in_use.iter().any(|used| used.lane == **lane && used.slots >= slots.lane_max)
        };
        let full_tenant =
            |tenant: &str| of_tenant.get(tenant).is_some_and(|jobs| *jobs >= slots.tenant_max);
        let last = |tenant: &str| {
            are_last(
                slots.kept_for_idle_lanes,
                slots.free,
                of_tenant.get(tenant).copied().unwrap_or(0),
                slots.tenant_max,
            )
        };
        let is_busy =
            |lane: &&LaneId| slots.in_use.iter().any(|used| used.lane == **lane && used.slots > 0);
        let full = self.tenants.iter().filter(|(lane, tenant)| {
            is_full(lane) || full_tenant(tenant) || last(tenant) && is_busy(lane)
        });
        full.map(|(lane, _)| lane.clone()).collect()
    }

    /// Why this process's worker does not take a due job of a lane now, as a sentence. `None` where
    /// there is room, or where no worker runs here.
    pub fn why_no_slot(&self, lane: &LaneId) -> Option<String> {
        let parallel = self.state().worker_slots;
        if parallel == 0 {
            return None;
        }
        let (lane_max, tenant_max) = self.limits(parallel);
        let tenant = self.tenant(lane);
        let state = self.state();
        let of_lane = state.of_lane.get(lane).copied().unwrap_or(0);
        let of_tenant: u32 = state
            .of_lane
            .iter()
            .filter(|(other, _)| self.tenant(other) == tenant)
            .map(|(_, jobs)| jobs)
            .sum();
        if of_lane >= lane_max {
            return Some(format!(
                "its lane has {of_lane} deliveries in flight, its full share of the worker's \
                 {parallel} slots"
            ));
        }
        if of_tenant >= tenant_max {
            return Some(format!(
                "its source has {of_tenant} deliveries in flight, its full share of the worker's \
                 {parallel} slots"
            ));
        }
        let (free, kept_for_idle_lanes) =
            (parallel.saturating_sub(state.in_use()), self.kept_for_idle_lanes(parallel));
        match free {
            0 => Some(format!("all {parallel} slots of the worker are in use")),
            free if of_lane > 0 && are_last(kept_for_idle_lanes, free, of_tenant, tenant_max) => {
                Some(format!(
                    "its lane has {of_lane} deliveries in flight, and the last free slots are \
                     reserved for lanes that have none"
                ))
            }
            _ => None,
        }
    }

    /// Reserves a slot for a job that is about to be stored. `None` means that the job must wait in
    /// the table for its turn.
    pub fn reserve(self: &Arc<Self>, lane: &LaneId) -> Option<Reservation> {
        let parallel = self.state().worker_slots;
        if parallel == 0 {
            return None;
        }
        let (lane_max, tenant_max) = self.limits(parallel);
        let tenant = self.tenants.get(lane)?;
        let mut state = self.state();
        let of_lane = state.of_lane.get(lane).copied().unwrap_or(0) + state.claiming;
        let siblings =
            state.of_lane.iter().filter(|(other, _)| self.tenants.get(other) == Some(tenant));
        let of_tenant: u32 = siblings.map(|(_, jobs)| jobs).sum::<u32>() + state.claiming;
        let free = parallel.saturating_sub(state.in_use());
        let kept_for_idle_lanes = self.kept_for_idle_lanes(parallel);
        let is_kept = state.of_lane.contains_key(lane)
            && are_last(kept_for_idle_lanes, free, of_tenant, tenant_max);
        if !state.caught_up
            || free == 0
            || is_kept
            || of_lane >= lane_max
            || of_tenant >= tenant_max
        {
            return None;
        }
        state.reserved += 1;
        *state.of_lane.entry(lane.clone()).or_default() += 1;
        drop(state);
        Some(Reservation { inflight: Arc::clone(self), lane: lane.clone() })
    }

    /// Passes a leased job to the worker, and registers its lease.
    pub fn pass_to_worker(&self, claimed: Claimed, event: Arc<Event>) {
        self.register(&claimed.job);
        // The receiver lives as long as this does.
        let _ = self.handoff.send(ReadyJob { claimed, event, run: None });
    }

    /// The receiving end of the jobs that are passed in memory. `None` when another worker has it.
    pub fn ready_jobs(
        &self,
    ) -> Option<tokio::sync::MutexGuard<'_, mpsc::UnboundedReceiver<ReadyJob>>> {
        self.ready_jobs.try_lock().ok()
    }
}

/// A reserved slot for a job that is being stored. Dropping it frees the slot; a job that was
/// passed to the worker holds a slot by its lease.
pub struct Reservation {
    inflight: Arc<Inflight>,
    lane: LaneId,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.inflight.state();
        state.reserved -= 1;
        state.let_go(&self.lane);
    }
}

impl Engine {
    /// How often leases are extended: three times within the length of a lease.
    pub(crate) fn heartbeat(&self) -> Duration {
        self.0.lease / 3
    }

    /// Extends every lease that this process holds. Jobs whose lease was lost are forgotten.
    ///
    /// # Errors
    /// The store did not answer. The leases run out unless a later call succeeds in time.
    pub(crate) async fn extend_leases(&self) -> crate::store::Result<()> {
        let inflight = &self.0.inflight;
        let leases: Vec<Lease> =
            inflight.state().leases.values().map(|(lease, _)| *lease).collect();
        let started = Instant::now();
        // Without leases the store is not called: an empty call would say nothing about its health.
        if leases.is_empty() {
            inflight.state().extended = started;
            return Ok(());
        }
        let answers = self.health().learn(self.store().extend(&leases, self.0.lease).await)?;
        inflight.state().extended = started;
        for (lease, answer) in leases.iter().zip(answers) {
            if answer == Err(Error::LeaseLost) && inflight.forget_if_lost(*lease) {
                tracing::warn!(job = %lease.job, "A lease was lost while its delivery was in \
                    flight. Another worker has claimed the job.");
            }
        }
        Ok(())
    }

    /// Extends the leases before a claim, if they may have run out while the store was unavailable.
    /// Otherwise the claim could take this process's own running jobs for abandoned ones.
    pub(super) async fn refresh_leases(&self) -> crate::store::Result<()> {
        let late = {
            let mut state = self.0.inflight.state();
            if state.leases.is_empty() {
                state.extended = Instant::now();
            }
            state.extended.elapsed() > self.heartbeat() * 2
        };
        if late {
            self.extend_leases().await?;
        }
        Ok(())
    }
}

/// Whether the slots that are left for a tenant are only those kept for lanes without a job in
/// flight. `of_tenant` is how many jobs the tenant has in flight.
fn are_last(kept_for_idle_lanes: u32, free: u32, of_tenant: u32, tenant_max: u32) -> bool {
    kept_for_idle_lanes > 0
        && (free <= kept_for_idle_lanes
            || of_tenant.saturating_add(kept_for_idle_lanes) >= tenant_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(list: &[(&str, &str)]) -> Arc<Inflight> {
        let tenants =
            list.iter().map(|(lane, tenant)| (LaneId::handler(lane), (*tenant).to_owned()));
        let inflight = Arc::new(Inflight::new(tenants.collect()));
        inflight.set_slots(5);
        inflight.end_claim(true);
        inflight
    }

    #[test]
    fn reservations_obey_the_limits_and_come_back() {
        let inflight = lanes(&[("a", "x"), ("b", "x"), ("c", "y")]);
        let mut held: Vec<Reservation> = Vec::new();
        while let Some(one) = inflight.reserve(&LaneId::handler("a")) {
            held.push(one);
        }
        assert_eq!(
            held.len(),
            3,
            "one slot in five is for other tenants, and one for the other lanes of its own"
        );
        held.extend(inflight.reserve(&LaneId::handler("b")));
        assert_eq!(held.len(), 4);
        assert!(inflight.reserve(&LaneId::handler("b")).is_none(), "and no more for its tenant");
        held.extend(inflight.reserve(&LaneId::handler("c")));
        assert_eq!((held.len(), inflight.free(5)), (5, 0));
        held.clear();
        assert_eq!(inflight.free(5), 5);
        assert!(inflight.reserve(&LaneId::handler("nobody")).is_none());
    }

    #[test]
    fn nothing_is_reserved_ahead_of_those_who_wait() {
        let inflight = lanes(&[("a", "x")]);
        inflight.end_claim(false);
        assert!(inflight.reserve(&LaneId::handler("a")).is_none());
        inflight.end_claim(true);
        inflight.set_slots(0);
        assert!(inflight.reserve(&LaneId::handler("a")).is_none());
    }

    #[test]
    fn a_look_and_reservations_share_the_slots_and_keep_one_from_every_lane() {
        let inflight = lanes(&[("a", "t"), ("b", "t")]);
        inflight.set_slots(10);
        let (a, b) = (LaneId::handler("a"), LaneId::handler("b"));
        let held: Vec<Reservation> = (0..4).map_while(|_| inflight.reserve(&a)).collect();
        assert_eq!((held.len(), inflight.begin_claim(10, 100)), (4, 3), "half of what is free");
        let meanwhile: Vec<Reservation> = (0..10).map_while(|_| inflight.reserve(&a)).collect();
        assert_eq!(
            meanwhile.len(),
            2,
            "four held, three that the look may bring, two more: the last one is for idle lanes"
        );
        let other = inflight.reserve(&b);
        assert!(other.is_some() && inflight.reserve(&b).is_none(), "and no more than there are");
        drop((meanwhile, other));
        inflight.end_claim(true);
        let more: Vec<Reservation> = (0..10).map_while(|_| inflight.reserve(&a)).collect();
        assert_eq!(more.len(), 5, "the last one is for lanes that hold nothing");
        assert!(inflight.reserve(&b).is_some());
    }

    #[test]
    fn a_lane_at_work_is_not_full_while_there_is_room() {
        for list in [&[("a", "t")][..], &[("a", "t"), ("b", "u")][..]] {
            let inflight = lanes(list);
            inflight.set_slots(8);
            let _held = inflight.reserve(&LaneId::handler("a"));
            assert!(
                inflight.full_lanes(&inflight.slots(8, inflight.free(8))).is_empty(),
                "{list:?}"
            );
        }
    }

    #[test]
    fn a_lease_that_ends_with_its_own_record_is_not_lost() {
        let inflight = lanes(&[("a", "t")]);
        let lease = |n: u128| Lease { job: JobId(ulid::Ulid(n)), claim: 1 };
        for n in [1, 2] {
            inflight.state().leases.insert(lease(n).job, (lease(n), LaneId::handler("a")));
        }
        *inflight.state().of_lane.entry(LaneId::handler("a")).or_default() += 2;
        inflight.mark_recording(lease(1));
        assert!(
            !inflight.forget_if_lost(lease(1)) && inflight.holds(lease(1)),
            "its record says what became of it"
        );
        assert!(inflight.forget_if_lost(lease(2)) && !inflight.holds(lease(2)));
        inflight.forget(lease(1));
        assert!(inflight.state().ending.is_empty() && inflight.state().of_lane.is_empty());
    }
}
