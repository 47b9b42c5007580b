//! Which lanes claims look at: jobs that become due wake their lanes, and a claim decides when it
//! looks at each lane again (`decide::look`).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::driver::Driver;
use super::pool::SqlStore;
use super::rows::{IdRow, LaneRow, MaybeNumberRow, NameRow};
use super::values::Rows;
use crate::decide::look::{Found, after_claim};
use crate::model::Timestamp;
use crate::store::ClaimRequest;

/// Lanes to be looked at in time, for jobs that become due. Each lane has one row: its earliest
/// job counts.
#[derive(Debug, Default)]
pub(in crate::store) struct Wakes(BTreeMap<String, (Option<i64>, Option<i64>)>);

impl Wakes {
    /// A job of this lane is due after a delay, in milliseconds.
    pub(in crate::store) fn after(&mut self, lane: String, delay: i64) {
        let (_, known) = self.0.entry(lane).or_default();
        *known = Some(known.map_or(delay, |known| known.min(delay)));
    }

    /// A job of this lane is due at an instant.
    pub(in crate::store) fn at(&mut self, lane: String, due: i64) {
        let (known, _) = self.0.entry(lane).or_default();
        *known = Some(known.map_or(due, |known| known.min(due)));
    }

    fn rows(&self) -> Rows {
        Rows::default()
            .text("lane", self.0.keys())
            .maybe_int("due", self.0.values().map(|(due, _)| *due))
            .maybe_int("delay", self.0.values().map(|(_, delay)| *delay))
    }
}

/// Has the lanes looked at in time.
pub(in crate::store) async fn wake<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    wakes: &Wakes,
) -> sqlx::Result<()> {
    match wakes.0.is_empty() {
        true => Ok(()),
        false => D::wake(store, conn, wakes.rows()).await,
    }
}

/// Has these lanes looked at now.
pub(super) async fn wake_now<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    lanes: impl IntoIterator<Item = String>,
) -> sqlx::Result<()> {
    let mut wakes = Wakes::default();
    lanes.into_iter().for_each(|lane| wakes.after(lane, 0));
    wake(conn, store, &wakes).await
}

/// Has the lanes of these jobs looked at now.
pub(super) async fn wake_lanes_of<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    jobs: Vec<String>,
) -> sqlx::Result<()> {
    let lanes: Vec<NameRow> = store.sql("lanes_of_ids").list("ids", jobs).all(conn).await?;
    wake_now(conn, store, lanes.into_iter().map(|row| row.name)).await
}

/// The lanes that a claim looks at, in their turn.
#[derive(Clone)]
pub(super) struct Picked {
    pub(super) lanes: Vec<LaneRow>,
    /// Whether there is one lane to look at and no other.
    pub(super) is_alone: bool,
}

/// The lanes that a claim looks at: tenants in turn, then the lanes of each, the one that waits
/// longest first.
pub(super) async fn pick<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    request: &ClaimRequest,
) -> sqlx::Result<Picked> {
    let most = request.slots.most;
    if !request.only.is_empty() {
        let skip = request.skip.iter().map(|lane| lane.0.clone());
        let only = request.only.iter().map(ToString::to_string);
        let lanes = store.sql("lanes_of_jobs").list("only", only).list("skip", skip);
        let lanes = lanes.bind("most", most).all(conn).await?;
        return Ok(Picked { lanes, is_alone: false });
    }
    // One more than can be served tells whether a lane is alone.
    let more = most.saturating_add(1);
    let behind = store.last_tenant();
    let skip: Vec<String> = request.skip.iter().map(|lane| lane.0.clone()).collect();
    let mut of_tenant: Vec<(String, Vec<LaneRow>)> = Vec::new();
    let mut lanes = D::pick(store, conn, &behind, &skip, more).await?;
    let mut fresh = store.take_fresh();
    fresh.retain(|id| !skip.contains(id) && lanes.iter().all(|lane| lane.id != *id));
    if !fresh.is_empty() {
        lanes.extend(store.sql("lanes_by_id").list("ids", fresh).all::<LaneRow>(conn).await?);
    }
    for lane in lanes {
        match of_tenant.iter_mut().find(|(tenant, _)| *tenant == lane.tenant) {
            Some((_, lanes)) => lanes.push(lane),
            None => of_tenant.push((lane.tenant.clone(), vec![lane])),
        }
    }
    let known: BTreeSet<String> = of_tenant
        .iter()
        .flat_map(|(_, lanes)| lanes)
        .filter(|lane| lane.ready == 0)
        .map(|lane| lane.id.clone())
        .collect();
    let is_alone = of_tenant.iter().map(|(_, lanes)| lanes.len()).sum::<usize>() == 1;
    let (lanes, last) = in_turn(of_tenant, most);
    if let Some(last) = last {
        store.set_last_tenant(last);
    }
    // What there is no room for now comes up again.
    store.note_fresh(known.into_iter().filter(|id| lanes.iter().all(|lane| lane.id != *id)));
    Ok(Picked { lanes, is_alone })
}

/// The same in several statements, for databases that cannot do it in one.
pub(super) async fn pick_by_tenant<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    behind: &str,
    skip: &[String],
    most: u32,
) -> sqlx::Result<Vec<LaneRow>> {
    let wanted = usize::try_from(most).unwrap_or(usize::MAX);
    let mut tenants = ready_tenants(conn, store, behind.to_owned(), most).await?;
    if tenants.len() < wanted && !behind.is_empty() {
        let first = ready_tenants(conn, store, String::new(), most).await?;
        tenants.extend(first.into_iter().filter(|tenant| tenant.as_str() <= behind));
        tenants.truncate(wanted);
    }
    let mut lanes: Vec<LaneRow> = Vec::new();
    for tenant in tenants {
        let of_tenant = store.sql("ready_lanes").bind("tenant", tenant);
        let of_tenant = of_tenant.list("skip", skip).bind("most", most);
        lanes.extend(of_tenant.all::<LaneRow>(conn).await?);
    }
    let timed = store.sql("timed_lanes").list("skip", skip).bind("most", most);
    lanes.extend(timed.all::<LaneRow>(conn).await?);
    Ok(lanes)
}

async fn ready_tenants<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    behind: String,
    most: u32,
) -> sqlx::Result<Vec<String>> {
    let tenants = store.sql("ready_tenants").bind("behind", behind).bind("most", most);
    let tenants: Vec<NameRow> = tenants.all(conn).await?;
    Ok(tenants.into_iter().map(|row| row.name).collect())
}

/// One lane of each tenant, then the next of each, at most so many. Answers the tenant that came
/// last, too.
fn in_turn(of_tenant: Vec<(String, Vec<LaneRow>)>, most: u32) -> (Vec<LaneRow>, Option<String>) {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut queues: Vec<(String, std::vec::IntoIter<LaneRow>)> =
        of_tenant.into_iter().map(|(tenant, lanes)| (tenant, lanes.into_iter())).collect();
    let mut picked = Vec::new();
    let mut last = None;
    loop {
        let before = picked.len();
        for (tenant, lanes) in &mut queues {
            if picked.len() == most {
                return (picked, last);
            }
            if let Some(lane) = lanes.next() {
                picked.push(lane);
                last = Some(tenant.clone());
            }
        }
        if picked.len() == before {
            return (picked, last);
        }
    }
}

/// What a claim found in one lane, and how the lane came up.
pub(super) struct Seen {
    pub(super) lane: String,
    pub(super) ready: bool,
    pub(super) rest: u8,
    pub(super) found: Find,
}

/// As [`Found`], before it is known when the next job is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Find {
    More,
    Less,
    Closed { until: Option<Timestamp> },
}

/// Decides when to look again at the lanes of a claim. Lanes that somebody else has locked are left
/// as they are: whoever that is decides, or they come up again.
pub(super) async fn settle<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    mut seen: Vec<Seen>,
    is_alone: bool,
    now: Timestamp,
) -> sqlx::Result<()> {
    // A lane that is alone is at the end of the line already.
    if let [Seen { ready: true, rest: 0, found: Find::More, .. }] = seen.as_slice()
        && is_alone
    {
        return Ok(());
    }
    if seen.is_empty() {
        return Ok(());
    }
    let ids = seen.iter().map(|seen| seen.lane.clone());
    let free: Vec<IdRow> = store.sql("lock_free_lanes").list("ids", ids).all(conn).await?;
    let free: BTreeSet<String> = free.into_iter().map(|row| row.id).collect();
    seen.retain(|seen| free.contains(&seen.lane));
    let less: Vec<String> =
        seen.iter().filter(|seen| seen.found == Find::Less).map(|s| s.lane.clone()).collect();
    let mut next: HashMap<String, Option<i64>> = HashMap::new();
    if !less.is_empty() {
        let rows: Vec<MaybeNumberRow> = store.sql("next_due").list("ids", less).all(conn).await?;
        next.extend(rows.into_iter().map(|row| (row.id, row.at)));
    }
    if seen.is_empty() {
        return Ok(());
    }
    let looks: Vec<_> = seen
        .iter()
        .map(|seen| {
            let found = match seen.found {
                Find::More => Found::More,
                Find::Closed { until } => Found::Closed { until },
                Find::Less => {
                    Found::Less { next: next.get(&seen.lane).copied().flatten().map(Timestamp) }
                }
            };
            after_claim(found, seen.ready, seen.rest, now)
        })
        .collect();
    let rows = Rows::default()
        .text("lane", seen.iter().map(|seen| &seen.lane))
        .int("ready", looks.iter().map(|look| i64::from(look.ready)))
        .maybe_int("look_at", looks.iter().map(|look| look.at.map(|at| at.0)))
        .int("rest", looks.iter().map(|look| i64::from(look.rest)));
    store.sql("set_looks").bind("rows", rows).run(conn).await.map(|_| ())
}
