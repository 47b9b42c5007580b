//! The `Pull` verbs in SQL.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::driver::{Driver, Take, Want};
use super::intake::count;
use super::outcomes::unacknowledged_rows;
use super::pool::SqlStore;
use super::rows::{DueRow, IdNumberRow, IdRow, JobRow, QueueCountsRow};
use super::work::cancel_open;
use crate::decide::settle::not_acknowledged;
use crate::model::time::millis;
use crate::model::{Job, JobId, JobState, LaneId, Timestamp};
use crate::store::error::Result;
use crate::store::{Pull, QueueCounts, Receive, Received};

/// How often one receive goes on when dead messages took the places of live ones.
const TAKES_MAX: u32 = 10;
/// How often a queue is asked that has visible messages and gives none: others have locked them.
const LOCKED_TAKES_MAX: u32 = 3;
/// The pause before it is asked again.
const LOCKED_PAUSE: Duration = Duration::from_millis(3);

#[async_trait]
impl<D: Driver> Pull for SqlStore<D> {
    async fn receive(&self, requests: &[Receive]) -> Result<Vec<Received>> {
        // First without a transaction, so that an empty queue costs one query.
        let wanted = requests.to_vec();
        let next = self
            .read(move |store, conn| {
                let wanted = wanted.clone();
                Box::pin(async move {
                    let mut next = Vec::with_capacity(wanted.len());
                    for request in wanted {
                        let first = store.sql("next_message").bind("lane", request.lane.0);
                        next.push(first.first::<IdNumberRow>(conn).await?.map(|row| row.at));
                    }
                    Ok(next)
                })
            })
            .await?;
        let is_visible = |next: &Option<i64>| next.is_some_and(|after| after <= 0);
        let due: Vec<Receive> = requests
            .iter()
            .zip(&next)
            .filter(|(_, next)| is_visible(next))
            .map(|(request, _)| request.clone())
            .collect();
        let mut taken = self.take_messages(due).await?.into_iter();
        let after = |next: Option<i64>| {
            next.map(|after| Duration::from_millis(u64::try_from(after).unwrap_or(0)))
        };
        Ok(next
            .into_iter()
            .map(|next| match is_visible(&next) {
                true => taken.next().unwrap_or_default(),
                false => Received { next_in: after(next), ..Received::default() },
            })
            .collect())
    }

    async fn bury(&self, lane: &LaneId, attempts_max: u32, most: u32) -> Result<Vec<Job>> {
        let bound = lane.0.clone();
        let found: Vec<IdRow> = self
            .read(move |store, conn| {
                let find = store.sql("unacknowledged").bind("lane", bound.clone());
                let find = find.bind("attempts_max", attempts_max).bind("most", most);
                Box::pin(async move { find.all(conn).await })
            })
            .await?;
        let only: Vec<JobId> = found.iter().filter_map(|row| row.id.parse().ok()).collect();
        if only.is_empty() {
            return Ok(Vec::new());
        }
        let request =
            Receive { lane: lane.clone(), most, visibility: Duration::ZERO, attempts_max };
        let received = self
            .write(move |store, conn| {
                let (request, only) = (request.clone(), only.clone());
                Box::pin(async move { receive(conn, &store, &request, &only).await })
            })
            .await?;
        Ok(received.dead)
    }

    async fn queue_counts(&self, lanes: &[LaneId]) -> Result<BTreeMap<LaneId, QueueCounts>> {
        let ids: Vec<String> = lanes.iter().map(|lane| lane.0.clone()).collect();
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (open, dead) = self
            .read(move |store, conn| {
                let ids = ids.clone();
                Box::pin(async move {
                    let open: Vec<QueueCountsRow> =
                        store.sql("queue_counts").list("lanes", &ids).all(conn).await?;
                    let dead: Vec<IdNumberRow> =
                        store.sql("dead_messages").list("lanes", &ids).all(conn).await?;
                    Ok((open, dead))
                })
            })
            .await?;
        let number = |n: i64| u64::try_from(n).unwrap_or(0);
        let mut counts: BTreeMap<LaneId, QueueCounts> =
            lanes.iter().map(|lane| (lane.clone(), QueueCounts::default())).collect();
        for row in open {
            counts.insert(
                LaneId(row.id),
                QueueCounts {
                    visible: number(row.visible),
                    in_flight: number(row.in_flight),
                    delayed: number(row.delayed_count),
                    dead: 0,
                    oldest_at: row.oldest_at.map(Timestamp),
                },
            );
        }
        for row in dead {
            counts.entry(LaneId(row.id)).or_default().dead = number(row.at);
        }
        Ok(counts)
    }

    async fn messages(&self, ids: &[JobId]) -> Result<BTreeMap<JobId, Job>> {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let rows: Vec<JobRow> = self
            .read(move |store, conn| {
                let find = store.sql("jobs").then(" AND target_kind = 'queue' AND id IN (:ids...)");
                let find = find.list("ids", &ids);
                Box::pin(async move { find.all(conn).await })
            })
            .await?;
        rows.into_iter().map(|row| Job::try_from(row).map(|job| (job.id, job))).collect()
    }

    async fn peek(&self, lane: &LaneId, dead: bool, most: u32) -> Result<Vec<Job>> {
        let lane = lane.0.clone();
        let rows: Vec<JobRow> = self
            .read(move |store, conn| {
                let which = if dead { "peek_dead" } else { "peek_open" };
                let find = store.sql(which).bind("lane", lane.clone()).bind("most", most);
                Box::pin(async move { find.all(conn).await })
            })
            .await?;
        rows.into_iter().map(Job::try_from).collect()
    }

    async fn drain(&self, lane: &LaneId, most: u32) -> Result<u64> {
        let lane = lane.0.clone();
        self.write(move |store, conn| {
            let lane = lane.clone();
            Box::pin(async move { cancel_open(conn, &store, lane, most).await })
        })
        .await
    }
}

impl<D: Driver> SqlStore<D> {
    /// Takes messages of queues that have visible ones. A queue may seem empty although it is not:
    /// MySQL locks the first row behind the end of a range for a moment, which may be the only
    /// message of the next queue. So what gives nothing is asked again.
    async fn take_messages(&self, due: Vec<Receive>) -> Result<Vec<Received>> {
        let mut taken: Vec<Received> = vec![Received::default(); due.len()];
        for again in 0..LOCKED_TAKES_MAX {
            let is_empty =
                |received: &Received| received.messages.is_empty() && received.dead.is_empty();
            let missing: Vec<usize> = (0..due.len()).filter(|at| is_empty(&taken[*at])).collect();
            if missing.is_empty() {
                break;
            }
            if again > 0 {
                tokio::time::sleep(LOCKED_PAUSE).await;
            }
            let asked: Vec<Receive> = missing.iter().map(|at| due[*at].clone()).collect();
            let found = self
                .write(move |store, conn| {
                    let asked = asked.clone();
                    Box::pin(async move {
                        let mut taken = Vec::with_capacity(asked.len());
                        for request in &asked {
                            taken.push(receive(conn, &store, request, &[]).await?);
                        }
                        Ok(taken)
                    })
                })
                .await?;
            for (at, received) in missing.into_iter().zip(found) {
                taken[at] = received;
            }
        }
        Ok(taken)
    }
}

/// Takes visible messages of a queue, or those of `only`. What has used up its attempts is made
/// dead, and other messages take its place.
async fn receive<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    request: &Receive,
    only: &[JobId],
) -> sqlx::Result<Received> {
    let mut received = Received::default();
    for _ in 0..TAKES_MAX {
        let have = u32::try_from(received.messages.len()).unwrap_or(u32::MAX);
        let most = request.most.saturating_sub(have);
        let wants = [Want { lane: request.lane.0.clone(), most }];
        let take = Take { wants: &wants, only, lease_ms: millis(request.visibility) };
        let rows = D::take(store, conn, take).await?;
        let expired: Vec<&DueRow> = rows.iter().filter(|row| row.was == "leased").collect();
        if !expired.is_empty() {
            let attempts = unacknowledged_rows(&expired);
            store.sql("insert_attempts").bind("rows", attempts).run(conn).await?;
        }
        let is_full = rows.len() >= usize::try_from(most).unwrap_or(usize::MAX);
        let is_used_up = |row: &DueRow| row.attempt >= i64::from(request.attempts_max);
        let (dead, live): (Vec<DueRow>, Vec<DueRow>) = rows.into_iter().partition(is_used_up);
        let ids: Vec<String> = dead.iter().map(|row| row.id.clone()).collect();
        let jobs = |rows: Vec<DueRow>| rows.into_iter().map(Job::try_from);
        let unreadable = |error: &crate::store::Error| {
            tracing::error!(%error, "A message cannot be read from the database.");
        };
        received.messages.extend(jobs(live).filter_map(|job| job.inspect_err(unreadable).ok()));
        if ids.is_empty() {
            break;
        }
        let error = not_acknowledged(request.attempts_max);
        store.sql("bury").bind("error", error.clone()).list("ids", &ids).run(conn).await?;
        let by = i64::try_from(ids.len()).unwrap_or(i64::MAX);
        count(conn, store, BTreeMap::from([("finished", by), ("dead", by)])).await?;
        received.dead.extend(
            jobs(dead).filter_map(|job| job.inspect_err(unreadable).ok()).map(|job| Job {
                state: JobState::Dead,
                last_error: Some(error.clone()),
                ..job
            }),
        );
        if !is_full || !only.is_empty() {
            break;
        }
    }
    Ok(received)
}
