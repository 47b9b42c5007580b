//! Shares a worker's free slots among lanes. Neither a lane nor a tenant may hold all of them, so
//! that a receiver that hangs never stops the others.

use std::collections::BTreeMap;

use crate::model::{Lane, LaneId};

/// How many slots of a worker the jobs of one lane occupy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotsInUse {
    /// The lane whose jobs are in flight.
    pub lane: LaneId,
    /// The lane's tenant.
    pub tenant: String,
    /// How many of its jobs are in flight, or are about to be.
    pub slots: u32,
}

/// The slots of one worker: how many jobs it may still claim, and how many of them each lane and
/// tenant may hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// How many jobs one claim may take: the free slots, or fewer where the batch size says so.
    pub most: u32,
    /// How many slots of the worker are free, those that the claim fills included.
    pub free: u32,
    /// The most one lane may hold.
    pub lane_max: u32,
    /// The most the lanes of one tenant may hold together.
    pub tenant_max: u32,
    /// How many free slots are kept for lanes that hold none, so that receivers that hang do not
    /// stop those that answer.
    pub kept_for_idle_lanes: u32,
    /// The slots in use: lane, tenant, and how many.
    pub in_use: Vec<SlotsInUse>,
}

impl Slots {
    /// Slots without limits per lane and tenant, and with none in use.
    pub fn free(free: u32) -> Self {
        Self {
            most: free,
            free,
            lane_max: u32::MAX,
            tenant_max: u32::MAX,
            kept_for_idle_lanes: 0,
            in_use: Vec::new(),
        }
    }

    /// Begins to share the free slots among this many lanes that have due jobs.
    pub fn among(&self, lanes: usize) -> SlotShares<'_> {
        let lanes = u32::try_from(lanes.max(1)).unwrap_or(u32::MAX);
        let mut of_lane: BTreeMap<LaneId, u32> = BTreeMap::new();
        let mut of_tenant: BTreeMap<String, u32> = BTreeMap::new();
        for used in &self.in_use {
            *of_lane.entry(used.lane.clone()).or_default() += used.slots;
            *of_tenant.entry(used.tenant.clone()).or_default() += used.slots;
        }
        SlotShares {
            slots: self,
            left: self.most,
            free: self.free,
            share: (self.most / lanes).max(1),
            of_lane,
            of_tenant,
        }
    }
}

/// Free slots while they are being shared out, lane by lane.
#[derive(Debug)]
pub struct SlotShares<'a> {
    slots: &'a Slots,
    /// How many jobs the claim may still take.
    left: u32,
    /// How many slots of the worker are still free.
    free: u32,
    share: u32,
    of_lane: BTreeMap<LaneId, u32>,
    of_tenant: BTreeMap<String, u32>,
}

impl SlotShares<'_> {
    /// How many jobs this lane may give now.
    pub fn most(&self, lane: &Lane) -> u32 {
        let room = |most: u32, held: Option<&u32>| most.saturating_sub(held.copied().unwrap_or(0));
        let lane_room = room(self.slots.lane_max, self.of_lane.get(&lane.id));
        let tenant_room = room(self.slots.tenant_max, self.of_tenant.get(&lane.tenant));
        let is_quiet = self.of_lane.get(&lane.id).is_none_or(|held| *held == 0);
        // Of the worker's slots and of the tenant's alike: where one tenant has receivers that
        // hang, its others answer all the same.
        let open = |room: u32| {
            room.saturating_sub(self.slots.kept_for_idle_lanes).max(u32::from(is_quiet && room > 0))
        };
        let shared = open(self.free).min(open(tenant_room)).min(lane_room);
        shared.min(self.left).min(self.share)
    }

    /// Counts the slots that a lane has got, so that the next lanes see what is left.
    pub fn took(&mut self, lane: &Lane, slots: u32) {
        self.left = self.left.saturating_sub(slots);
        self.free = self.free.saturating_sub(slots);
        *self.of_lane.entry(lane.id.clone()).or_default() += slots;
        *self.of_tenant.entry(lane.tenant.clone()).or_default() += slots;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(lane: LaneId, tenant: &str, slots: u32) -> SlotsInUse {
        SlotsInUse { lane, tenant: tenant.to_owned(), slots }
    }
    use crate::model::Timestamp;

    fn lane(name: &str, tenant: &str) -> Lane {
        Lane {
            id: LaneId::handler(name),
            tenant: tenant.into(),
            paused: false,
            breaker: crate::model::lane::Breaker::default(),
            rules: crate::model::lane::BreakerRules::default(),
            bucket: None,
            last_served_at: Timestamp(0),
        }
    }

    #[test]
    fn no_tenant_gets_the_last_slot() {
        let slots = Slots {
            most: 5,
            free: 5,
            lane_max: 4,
            tenant_max: 4,
            kept_for_idle_lanes: 0,
            in_use: Vec::new(),
        };
        let lanes: Vec<Lane> = (0..10).map(|n| lane(&n.to_string(), "a")).collect();
        let mut sharing = slots.among(lanes.len());
        let mut given = 0;
        for lane in &lanes {
            let most = sharing.most(lane);
            sharing.took(lane, most);
            given += most;
        }
        assert_eq!(given, 4, "ten lanes that hold nothing, each its first");
        assert_eq!(sharing.most(&lane("x", "b")), 1);
    }

    #[test]
    fn a_batch_smaller_than_what_is_kept_for_others_is_claimed_whole() {
        let slots = Slots {
            most: 10,
            free: 80,
            lane_max: 72,
            tenant_max: 80,
            kept_for_idle_lanes: 10,
            in_use: vec![used(LaneId::handler("busy"), "a", 1)],
        };
        assert_eq!(slots.among(1).most(&lane("busy", "a")), 10);
    }

    #[test]
    fn the_last_free_slots_are_for_lanes_that_hold_nothing() {
        let slots = Slots {
            most: 3,
            free: 3,
            lane_max: 9,
            tenant_max: 9,
            kept_for_idle_lanes: 3,
            in_use: vec![
                used(LaneId::handler("hangs"), "a", 5),
                used(LaneId::handler("too"), "a", 2),
            ],
        };
        let mut sharing = slots.among(4);
        assert_eq!(sharing.most(&lane("hangs", "a")), 0);
        assert_eq!(sharing.most(&lane("fast", "a")), 1);
        sharing.took(&lane("fast", "a"), 1);
        assert_eq!((sharing.most(&lane("fast", "a")), sharing.most(&lane("other", "a"))), (0, 1));
    }

    #[test]
    fn the_last_slots_of_a_tenant_are_for_its_lanes_that_hold_nothing() {
        let in_use = vec![used(LaneId::handler("hangs"), "a", 8)];
        let slots =
            Slots { most: 2, free: 2, lane_max: 9, tenant_max: 9, kept_for_idle_lanes: 1, in_use };
        let sharing = slots.among(2);
        assert_eq!((sharing.most(&lane("hangs", "a")), sharing.most(&lane("fast", "a"))), (0, 1));
        assert_eq!(sharing.most(&lane("x", "b")), 1);
    }

    #[test]
    fn what_is_held_already_counts() {
        let slots = Slots {
            most: 6,
            free: 6,
            lane_max: 3,
            tenant_max: 8,
            kept_for_idle_lanes: 0,
            in_use: vec![used(LaneId::handler("x"), "a", 2)],
        };
        assert_eq!(slots.among(1).most(&lane("x", "a")), 1);
        assert_eq!(slots.among(2).most(&lane("y", "a")), 3);
    }
}
