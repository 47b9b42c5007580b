//! Accepting events: what of a slice is stored, as values for the driver's statements, and what is
//! answered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;

use super::driver::Driver;
pub(in crate::store) use super::keys::has_no_keys;
use super::keys::{self, Decided, Stored};
#[cfg(feature = "mysql")]
use super::looks::Wakes;
use super::pool::SqlStore;
use super::retry::each;
use super::rows::MadeRow;
use super::values::Rows;
use crate::model::key::within_limits;
use crate::model::time::millis;
use crate::model::{EventId, JobId, Timestamp};
use crate::store::error::Result;
use crate::store::{Accepted, Each, Intake, NewEvent};

#[async_trait]
impl<D: Driver> Intake for SqlStore<D> {
    async fn accept(&self, new_events: &[NewEvent]) -> Each<Accepted> {
        each(new_events, |new_events| async move {
            let answers = D::accept(self, Arc::clone(&new_events)).await?;
            self.note_fresh(waiting(&new_events, &answers));
            Ok(answers.into_iter().map(Ok).collect())
        })
        .await
    }
}

/// The lanes of jobs that were stored and wait for a claim.
fn waiting(new_events: &[NewEvent], answers: &[Accepted]) -> BTreeSet<String> {
    let mut lanes = BTreeSet::new();
    for (event, answer) in new_events.iter().zip(answers) {
        if let Accepted::New { jobs, started, .. } = answer {
            let waits = |id: &JobId| jobs.contains(id) && !started.contains(id);
            let waiting = event.plan.jobs.iter().filter(|job| waits(&job.id));
            lanes.extend(waiting.map(|job| job.target.lane().0));
        }
    }
    lanes
}

/// A slice of new events, and what of it is stored.
pub(in crate::store) struct Slice<'a> {
    new_events: &'a [NewEvent],
    decided: Decided,
}

/// What was stored of a slice.
#[derive(Default)]
pub(in crate::store) struct Inserted {
    /// When each event was stored, by event id, in milliseconds since 1970.
    pub at: HashMap<String, i64>,
    /// The ids of jobs that this commit put under lease.
    pub started: BTreeSet<String>,
}

impl<'a> Slice<'a> {
    /// A slice of events without keys: all of it is stored.
    pub(in crate::store) fn without_keys(new_events: &'a [NewEvent]) -> Self {
        let stored = |(at, event): (usize, &NewEvent)| Stored {
            at,
            jobs: (0..event.plan.jobs.len()).collect(),
        };
        let decided = Decided {
            answers: vec![None; new_events.len()],
            stored: new_events.iter().enumerate().map(stored).collect(),
            consumer_keys: vec![Vec::new(); new_events.len()],
        };
        Self { new_events, decided }
    }

    /// Takes the keys of a slice. What another event holds a key of is not stored.
    pub(in crate::store) async fn with_keys<D: Driver>(
        conn: &mut D::Connection,
        store: &SqlStore<D>,
        new_events: &'a [NewEvent],
    ) -> sqlx::Result<Self> {
        Ok(Self { new_events, decided: keys::decide(conn, store, new_events).await? })
    }

    fn stored(&self) -> impl Iterator<Item = &'a NewEvent> {
        self.decided.stored.iter().map(|stored| &self.new_events[stored.at])
    }

    /// Each event that is stored, with the place of each of its jobs that is.
    fn jobs(&self) -> Vec<(&'a NewEvent, usize)> {
        let of_event = |stored: &Stored| {
            let event = &self.new_events[stored.at];
            stored.jobs.iter().map(move |job| (event, *job)).collect::<Vec<_>>()
        };
        self.decided.stored.iter().flat_map(of_event).collect()
    }

    /// The rows of `events`: `id`, `source`, `kind`, `headers`, `body`, `unique_key`.
    pub(in crate::store) fn event_rows(&self) -> sqlx::Result<Rows> {
        let headers = self
            .stored()
            .map(|o| serde_json::to_string(&o.inbound.headers))
            .collect::<std::result::Result<Vec<_>, _>>();
        let unique = self.decided.stored.iter().map(|stored| {
            let inbound = &self.new_events[stored.at].inbound;
            let consumer = self.decided.consumer_keys[stored.at].iter().flatten().next();
            inbound
                .dedupe_key
                .clone()
                .or_else(|| inbound.idempotency_key.clone())
                .map(|k| within_limits(&k))
                .or(consumer.map(|w| w.word.clone()))
        });
        Ok(Rows::default()
            .text("id", self.stored().map(|o| o.id.to_string()))
            .text("source", self.stored().map(|o| o.inbound.source.clone()))
            .text("kind", self.stored().map(|o| o.inbound.kind.clone()))
            .text("headers", headers.map_err(|e| sqlx::Error::Encode(Box::new(e)))?)
            .blob("body", self.stored().map(|o| o.inbound.body.bytes().to_vec()))
            .maybe_text("unique_key", unique))
    }

    /// The rows of `jobs`: `id`, `event_id`, `target_kind`, `target_name`, `lane`, `ttl`, `due`,
    /// and `lease` for a job that may start with this commit, if its lane lets it.
    pub(in crate::store) fn job_rows(&self, may_start: impl Fn(&str) -> bool) -> Rows {
        let jobs = self.jobs();
        let targets = || jobs.iter().map(|(o, j)| &o.plan.jobs[*j].target);
        Rows::default()
            .text("id", jobs.iter().map(|(o, j)| o.plan.jobs[*j].id.to_string()))
            .text("event_id", jobs.iter().map(|(o, _)| o.id.to_string()))
            .text("target_kind", targets().map(|t| t.kind()))
            .text("target_name", targets().map(|t| t.stored_name()))
            .text("lane", targets().map(|t| t.lane().0))
            .maybe_int(
                "ttl",
                jobs.iter().map(|(o, j)| {
                    // What waits for its time on purpose does not expire.
                    o.event_ttl.filter(|_| o.plan.jobs[*j].due.is_none()).map(millis)
                }),
            )
            .maybe_int("due", jobs.iter().map(|(o, j)| o.plan.jobs[*j].due.map(|at| at.0)))
            .maybe_int(
                "lease",
                jobs.iter().map(|(o, j)| {
                    let job = &o.plan.jobs[*j];
                    (job.start && may_start(&job.target.lane().0)).then(|| millis(o.lease))
                }),
            )
    }

    /// The jobs that may start with this commit: event, job and lane.
    #[cfg(feature = "mysql")]
    pub(in crate::store) fn starting(&self) -> Vec<(String, String, String)> {
        let jobs = self.jobs().into_iter().map(|(event, job)| (event, &event.plan.jobs[job]));
        jobs.filter(|(_, job)| job.start)
            .map(|(event, job)| (event.id.to_string(), job.id.to_string(), job.target.lane().0))
            .collect()
    }

    /// The lanes of those jobs.
    #[cfg(feature = "mysql")]
    pub(in crate::store) fn starting_lanes(&self) -> BTreeSet<String> {
        self.starting().into_iter().map(|(_, _, lane)| lane).collect()
    }

    /// The lanes to be looked at for those of the jobs that were new: at once, or when the lease of
    /// a job ends that was started.
    #[cfg(feature = "mysql")]
    pub(in crate::store) fn wakes(
        &self,
        made: &BTreeSet<String>,
        started: &BTreeSet<String>,
    ) -> Wakes {
        let mut wakes = Wakes::default();
        for (event, job) in self.jobs() {
            let job = &event.plan.jobs[job];
            let id = job.id.to_string();
            if made.contains(&id) {
                let lane = job.target.lane().0;
                match job.due {
                    Some(at) => wakes.at(lane, at.0),
                    None if started.contains(&id) => wakes.after(lane, millis(event.lease)),
                    None => wakes.after(lane, 0),
                }
            }
        }
        wakes
    }

    /// The answers, once the slice is stored.
    pub(in crate::store) fn answers(self, inserted: &Inserted) -> Vec<Accepted> {
        let Self { new_events, decided: Decided { mut answers, stored, .. } } = self;
        for Stored { at, jobs } in stored {
            let event = new_events[at].id;
            let jobs: Vec<JobId> =
                jobs.into_iter().map(|job| new_events[at].plan.jobs[job].id).collect();
            let started = |id: &JobId| inserted.started.contains(&id.to_string());
            let started = jobs.iter().copied().filter(started).collect();
            let stored_at = inserted.at.get(&event.to_string()).copied().unwrap_or(0);
            answers[at] = Some(Accepted::New { event, jobs, started, at: Timestamp(stored_at) });
        }
        first_ids(new_events, answers)
    }
}

/// Points duplicates at the first event. An event may be a duplicate of one in the same slice that
/// is a duplicate itself.
fn first_ids(new_events: &[NewEvent], answers: Vec<Option<Accepted>>) -> Vec<Accepted> {
    let mut firsts: HashMap<EventId, EventId> = HashMap::new();
    for (new_event, answer) in new_events.iter().zip(&answers) {
        if let Some(Accepted::Duplicate(first)) = answer {
            firsts.insert(new_event.id, *first);
        }
    }
    let resolve = |mut id: EventId| {
        while let Some(first) = firsts.get(&id) {
            id = *first;
        }
        id
    };
    answers
        .into_iter()
        .zip(new_events)
        .map(|(answer, new_event)| match answer {
            Some(Accepted::Duplicate(id)) => Accepted::Duplicate(resolve(id)),
            Some(Accepted::Conflict(id)) => Accepted::Conflict(resolve(id)),
            Some(new) => new,
            None => Accepted::New {
                event: new_event.id,
                jobs: Vec::new(),
                started: Vec::new(),
                at: Timestamp(0),
            },
        })
        .collect()
}

/// Stores events, jobs and totals by one text.
pub(in crate::store) async fn accept<D: Driver>(
    store: &SqlStore<D>,
    events: Arc<[NewEvent]>,
) -> Result<Vec<Accepted>> {
    // Without keys there is nothing else to do, and the text is its own transaction.
    if events.iter().all(has_no_keys) {
        return store
            .statement(move |store, conn| {
                let events = Arc::clone(&events);
                Box::pin(
                    async move { insert(&store, conn, Slice::without_keys(&events), true).await },
                )
            })
            .await;
    }
    store
        .write(move |store, conn| {
            let events = Arc::clone(&events);
            Box::pin(async move {
                let slice = Slice::with_keys(conn, &store, &events).await?;
                insert(&store, conn, slice, false).await
            })
        })
        .await
}

/// Stores a slice by one text; `is_alone` if that is all of the transaction.
pub(in crate::store) async fn insert<D: Driver>(
    store: &SqlStore<D>,
    conn: &mut D::Connection,
    slice: Slice<'_>,
    is_alone: bool,
) -> sqlx::Result<Vec<Accepted>> {
    let (events, jobs) = (slice.event_rows()?, slice.job_rows(|_| true));
    if events.is_empty() {
        return Ok(slice.answers(&Inserted::default()));
    }
    let made = store.sql("store").bind("events", events).bind("jobs", jobs);
    let made = if is_alone { made.alone() } else { made };
    let made: Vec<MadeRow> = made.bind("shard", store.shard()).all(conn).await?;
    let started = made.iter().filter(|row| row.claim == Some(1)).map(|row| row.id.clone());
    let started = started.collect();
    let at = made.into_iter().filter_map(|row| Some((row.id, row.at?))).collect();
    Ok(slice.answers(&Inserted { at, started }))
}

/// Adds to the totals, always in the order of their names, so that two transactions cannot deadlock
/// on them.
pub(in crate::store) async fn count<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    counts: BTreeMap<&'static str, i64>,
) -> sqlx::Result<()> {
    let shard = store.shard();
    for (name, by) in counts.into_iter().filter(|(_, by)| *by != 0) {
        store.sql("count").bind("name", name).bind("shard", shard).bind("by", by).run(conn).await?;
    }
    Ok(())
}
