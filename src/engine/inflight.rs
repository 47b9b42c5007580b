//! What is in hand: the leases of this process, by lane and tenant, kept alive while work runs; and the
//! slots of its worker, some of them reserved for jobs that are just being stored.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Engine;
use crate::decide::fair::Slots;
use crate::model::{Event, Job, JobId, LaneId, Lease, Run};
use crate::store::{Claimed, Error};

/// A leased job with what it needs, on its way to the worker.
pub struct Handed {
    /// The job.
    pub claimed: Claimed,
    /// Its event.
    pub event: Arc<Event>,
    /// Its run, for a step, as it was after the claim.
    pub run: Option<Arc<Run>>,
}

/// The leases of this process.
pub struct Inflight {
    state: Mutex<State>,
    /// The tenant of each lane the configuration knows.
    tenants: HashMap<LaneId, String>,
    hand_over: mpsc::UnboundedSender<Handed>,
    handed: tokio::sync::Mutex<mpsc::UnboundedReceiver<Handed>>,
}

#[derive(Debug)]
struct State {
    leases: HashMap<JobId, (Lease, LaneId)>,
    /// Leases and reservations, by lane.
    of_lane: BTreeMap<LaneId, u32>,
    reserved: u32,
    /// Slots that a look under way may fill. It counts what each lane holds before it knows what it gets, so that until it has
    /// ended each lane counts as if it got all of them.
    looking: u32,
    /// The slots of the worker that takes jobs straight from their commit; 0 while there is none.
    open: u32,
    /// The claims whose outcome is on its way to the store, which ends their leases.
    ending: HashSet<(JobId, i64)>,
    /// The last look found nothing due, so that a new job overtakes nobody.
    caught_up: bool,
    /// When all leases were last extended.
    extended: Instant,
}

impl State {
    fn held(&self) -> u32 {
        u32::try_from(self.leases.len()).unwrap_or(u32::MAX).saturating_add(self.reserved).saturating_add(self.looking)
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
    /// Nothing in hand; these are the lanes and their tenants.
    pub fn new(tenants: HashMap<LaneId, String>) -> Self {
        let (hand_over, handed) = mpsc::unbounded_channel();
        let state = State {
            leases: HashMap::new(),
            of_lane: BTreeMap::new(),
            reserved: 0,
            looking: 0,
            open: 0,
            ending: HashSet::new(),
            caught_up: false,
            extended: Instant::now(),
        };
        Self { state: Mutex::new(state), tenants, hand_over, handed: tokio::sync::Mutex::new(handed) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job into hand.
    pub fn take(&self, job: &Job) {
        let mut state = self.state();
        let lane = job.target.lane();
        if let Some((_, before)) = state.leases.insert(job.id, (job.lease(), lane.clone())) {
            state.let_go(&before);
        }
        *state.of_lane.entry(lane).or_default() += 1;
    }

    /// Puts a job down, if it is still in hand under this lease.
    pub fn put_down(&self, lease: Lease) {
        let mut state = self.state();
        state.ending.remove(&(lease.job, lease.claim));
        if state.leases.get(&lease.job).is_some_and(|(held, _)| *held == lease)
            && let Some((_, lane)) = state.leases.remove(&lease.job)
        {
            state.let_go(&lane);
        }
    }

    /// Whether a lease is still in hand.
    pub fn holds(&self, lease: Lease) -> bool {
        self.state().leases.get(&lease.job).is_some_and(|(held, _)| *held == lease)
    }

    /// What became of a job is about to be stored. From now on that its lease is gone may be our own doing.
    pub fn ends(&self, lease: Lease) {
        self.state().ending.insert((lease.job, lease.claim));
    }

    /// Puts a job down whose lease the store does not know any more; answers whether somebody else must have it.
    fn is_lost(&self, lease: Lease) -> bool {
        let lost = self.holds(lease) && !self.state().ending.contains(&(lease.job, lease.claim));
        if lost {
            self.put_down(lease);
        }
        lost
    }

    /// Slots that are taken or reserved.
    pub fn held(&self) -> u32 {
        self.state().held()
    }

    /// The free ones of a worker's slots.
    pub fn free(&self, parallel: u32) -> u32 {
        parallel.saturating_sub(self.state().held())
    }

    /// A worker with this many slots takes jobs straight from their commit; 0 ends that.
    pub fn open(&self, parallel: u32) {
        self.state().open = parallel;
    }

    /// A look for due work begins: how many of a worker's slots it may fill, at most `most`. While nobody waits it leaves
    /// half of the free ones to jobs that are just being stored.
    pub fn begin_look(&self, parallel: u32, most: u32) -> u32 {
        let mut state = self.state();
        let free = parallel.saturating_sub(state.held());
        let share = if state.caught_up && state.open > 0 { free.div_ceil(2) } else { free };
        state.looking = share.min(most);
        state.looking
    }

    /// A look has ended, and what it found is in hand.
    pub fn end_look(&self, caught_up: bool) {
        let mut state = self.state();
        (state.looking, state.caught_up) = (0, caught_up);
    }

    /// The slots of a worker, `free` of which are free.
    ///
    /// One in ten, at least one, is kept out of reach of any single lane or tenant, where there are others.
    pub fn slots(&self, parallel: u32, free: u32) -> Slots {
        let held = self.state().of_lane.clone();
        let (lane_max, tenant_max) = self.limits(parallel);
        let held = held.into_iter().map(|(lane, jobs)| (lane.clone(), self.tenant(&lane), jobs)).collect();
        Slots { free, lane_max, tenant_max, quiet: self.quiet(parallel), held }
    }

    /// An eighth of a worker's slots, at least one, and as many of those that a tenant may hold, are kept for lanes that hold nothing,
    /// where there are several lanes.
    fn quiet(&self, parallel: u32) -> u32 {
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

    /// The lanes that may give nothing at the moment: full ones, and those of full tenants.
    pub fn full_lanes(&self, slots: &Slots) -> Vec<LaneId> {
        let mut of_tenant: HashMap<&str, u32> = HashMap::new();
        for (_, tenant, jobs) in &slots.held {
            *of_tenant.entry(tenant).or_default() += jobs;
        }
        let is_full = |lane: &&LaneId| slots.held.iter().any(|(held, _, jobs)| held == *lane && *jobs >= slots.lane_max);
        let full_tenant = |tenant: &str| of_tenant.get(tenant).is_some_and(|jobs| *jobs >= slots.tenant_max);
        let last =
            |tenant: &str| are_last(slots.quiet, slots.free, of_tenant.get(tenant).copied().unwrap_or(0), slots.tenant_max);
        let is_busy = |lane: &&LaneId| slots.held.iter().any(|(held, _, jobs)| held == *lane && *jobs > 0);
        let full =
            self.tenants.iter().filter(|(lane, tenant)| is_full(lane) || full_tenant(tenant) || last(tenant) && is_busy(lane));
        full.map(|(lane, _)| lane.clone()).collect()
    }

    /// Why a job of a lane is not taken by this process's worker although it is due: a sentence; `None` where there is room, or where
    /// no worker runs here.
    pub fn crowded(&self, lane: &LaneId) -> Option<String> {
        let parallel = self.state().open;
        if parallel == 0 {
            return None;
        }
        let (lane_max, tenant_max) = self.limits(parallel);
        let tenant = self.tenant(lane);
        let state = self.state();
        let of_lane = state.of_lane.get(lane).copied().unwrap_or(0);
        let of_tenant: u32 = state.of_lane.iter().filter(|(other, _)| self.tenant(other) == tenant).map(|(_, jobs)| jobs).sum();
        if of_lane >= lane_max {
            return Some(format!("{of_lane} of its lane are under way, which is its share of the worker's {parallel} slots"));
        }
        if of_tenant >= tenant_max {
            return Some(format!("{of_tenant} of its source are under way, which is its share of the worker's {parallel} slots"));
        }
        let (free, quiet) = (parallel.saturating_sub(state.held()), self.quiet(parallel));
        match free {
            0 => Some(format!("all {parallel} slots of the worker are taken")),
            free if of_lane > 0 && are_last(quiet, free, of_tenant, tenant_max) => {
                Some(format!("{of_lane} of its lane are under way, and the last free slots are for lanes that have none"))
            }
            _ => None,
        }
    }

    /// Reserves a slot for a job that is about to be stored; `None` when it has to wait for its turn.
    pub fn reserve(self: &Arc<Self>, lane: &LaneId) -> Option<Reservation> {
        let parallel = self.state().open;
        if parallel == 0 {
            return None;
        }
        let (lane_max, tenant_max) = self.limits(parallel);
        let tenant = self.tenants.get(lane)?;
        let mut state = self.state();
        let of_lane = state.of_lane.get(lane).copied().unwrap_or(0) + state.looking;
        let siblings = state.of_lane.iter().filter(|(other, _)| self.tenants.get(other) == Some(tenant));
        let of_tenant: u32 = siblings.map(|(_, jobs)| jobs).sum::<u32>() + state.looking;
        let free = parallel.saturating_sub(state.held());
        let quiet = self.quiet(parallel);
        let is_kept = state.of_lane.contains_key(lane) && are_last(quiet, free, of_tenant, tenant_max);
        if !state.caught_up || free == 0 || is_kept || of_lane >= lane_max || of_tenant >= tenant_max {
            return None;
        }
        state.reserved += 1;
        *state.of_lane.entry(lane.clone()).or_default() += 1;
        drop(state);
        Some(Reservation { inflight: Arc::clone(self), lane: lane.clone() })
    }

    /// Hands a job over to the worker.
    pub fn hand_over(&self, claimed: Claimed, event: Arc<Event>) {
        self.take(&claimed.job);
        // The receiver lives as long as this does.
        let _ = self.hand_over.send(Handed { claimed, event, run: None });
    }

    /// Where the worker finds what is handed over. One worker at a time.
    pub fn handed(&self) -> Option<tokio::sync::MutexGuard<'_, mpsc::UnboundedReceiver<Handed>>> {
        self.handed.try_lock().ok()
    }
}

/// A slot for a job that is being stored. It is free again when this goes, handed over or not: a job that
/// was handed over holds its slot by its lease.
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
    /// How often leases are extended.
    pub(crate) fn heartbeat(&self) -> Duration {
        self.0.lease / 3
    }

    /// Extends every lease in hand.
    ///
    /// # Errors
    /// The store did not answer: the leases run out unless it does in time.
    pub(crate) async fn extend_leases(&self) -> crate::store::Result<()> {
        let inflight = &self.0.inflight;
        let leases: Vec<Lease> = inflight.state().leases.values().map(|(lease, _)| *lease).collect();
        let started = Instant::now();
        let answers = self.health().learn(self.store().extend(&leases, self.0.lease).await)?;
        inflight.state().extended = started;
        for (lease, answer) in leases.iter().zip(answers) {
            if answer == Err(Error::LeaseLost) && inflight.is_lost(*lease) {
                tracing::warn!(job = %lease.job, "A lease was lost while its delivery was under way; another worker has it.");
            }
        }
        Ok(())
    }

    /// Makes sure that no job of our own is taken for abandoned: before a claim, leases that may have run out
    /// while the store was away are extended first.
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

/// Whether the slots that a tenant could still have, `of_tenant` of its jobs being under way, are those kept for lanes that hold nothing:
/// the last of the worker, or the last of the tenant.
fn are_last(quiet: u32, free: u32, of_tenant: u32, tenant_max: u32) -> bool {
    quiet > 0 && (free <= quiet || of_tenant.saturating_add(quiet) >= tenant_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(list: &[(&str, &str)]) -> Arc<Inflight> {
        let tenants = list.iter().map(|(lane, tenant)| (LaneId::handler(lane), (*tenant).to_owned()));
        let inflight = Arc::new(Inflight::new(tenants.collect()));
        inflight.open(5);
        inflight.end_look(true);
        inflight
    }

    #[test]
    fn reservations_obey_the_limits_and_come_back() {
        let inflight = lanes(&[("a", "x"), ("b", "x"), ("c", "y")]);
        let mut held: Vec<Reservation> = Vec::new();
        while let Some(one) = inflight.reserve(&LaneId::handler("a")) {
            held.push(one);
        }
        assert_eq!(held.len(), 3, "one slot in five is for other tenants, and one for the other lanes of its own");
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
        inflight.end_look(false);
        assert!(inflight.reserve(&LaneId::handler("a")).is_none());
        inflight.end_look(true);
        inflight.open(0);
        assert!(inflight.reserve(&LaneId::handler("a")).is_none());
    }

    #[test]
    fn a_look_and_reservations_share_the_slots_and_keep_one_from_every_lane() {
        let inflight = lanes(&[("a", "t"), ("b", "t")]);
        inflight.open(10);
        let (a, b) = (LaneId::handler("a"), LaneId::handler("b"));
        let held: Vec<Reservation> = (0..4).map_while(|_| inflight.reserve(&a)).collect();
        assert_eq!((held.len(), inflight.begin_look(10, 100)), (4, 3), "half of what is free");
        let meanwhile: Vec<Reservation> = (0..10).map_while(|_| inflight.reserve(&a)).collect();
        assert_eq!(meanwhile.len(), 2, "four held, three that the look may bring, two more: the last one is for idle lanes");
        let other = inflight.reserve(&b);
        assert!(other.is_some() && inflight.reserve(&b).is_none(), "and no more than there are");
        drop((meanwhile, other));
        inflight.end_look(true);
        let more: Vec<Reservation> = (0..10).map_while(|_| inflight.reserve(&a)).collect();
        assert_eq!(more.len(), 5, "the last one is for lanes that hold nothing");
        assert!(inflight.reserve(&b).is_some());
    }

    #[test]
    fn a_lane_at_work_is_not_full_while_there_is_room() {
        for list in [&[("a", "t")][..], &[("a", "t"), ("b", "u")][..]] {
            let inflight = lanes(list);
            inflight.open(8);
            let _held = inflight.reserve(&LaneId::handler("a"));
            assert!(inflight.full_lanes(&inflight.slots(8, inflight.free(8))).is_empty(), "{list:?}");
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
        inflight.ends(lease(1));
        assert!(!inflight.is_lost(lease(1)) && inflight.holds(lease(1)), "its record says what became of it");
        assert!(inflight.is_lost(lease(2)) && !inflight.holds(lease(2)));
        inflight.put_down(lease(1));
        assert!(inflight.state().ending.is_empty() && inflight.state().of_lane.is_empty());
    }
}
