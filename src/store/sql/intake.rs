//! Accepting events: keys, events, jobs and counters in one transaction.
//!
//! Three kinds of idempotency keys share the table `keys`, and `scope` keeps them apart: those that
//! callers send as `Idempotency-Key`, the event ids of providers, and those that handlers and
//! workflows compute from the event (`idempotency_key` in the file).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::dialect::Dialect;
use super::rows::{IdNumberRow, KeyRow, MadeRow, StartedRow};
use super::statement::{Rows, Sql, sql};
use super::{Extent, SqlStore, each};
use crate::model::key::within_limits;
use crate::model::time::millis;
use crate::model::{EventId, JobId, Timestamp};
use crate::store::{Accepted, Each, Intake, NewEvent};

const INSERT_KEYS: &str = "INSERT INTO keys (scope, word, event_id, fingerprint, expires_at)
    SELECT r.scope, r.word, r.event_id, r.fingerprint, {now} + r.ttl
    FROM {rows: scope text, word text, event_id text, fingerprint text, ttl int} AS r WHERE true
    ON CONFLICT (scope, word) DO NOTHING";
const READ_KEYS: &str =
    "SELECT k.scope, k.word, k.event_id, k.fingerprint, k.expires_at, {now} AS now
    FROM keys k JOIN {rows: scope text, word text} AS r ON k.scope = r.scope AND k.word = r.word
    WHERE {only k.scope} AND {only k.word}";
const DELETE_KEYS: &str = "DELETE FROM keys WHERE (scope, word) IN (SELECT r.scope, r.word
        FROM {rows: scope text, word text} AS r) AND {only scope} AND {only word}";
/// Stores events. Returns the ids that were new, and when they were stored.
macro_rules! insert_events {
    () => {
        "INSERT INTO events (id, source, kind, headers, body, unique_key, created_at)
    SELECT r.id, r.source, r.kind, r.headers, r.body, r.unique_key, {now}
    FROM {rows: id text, source text, kind text, headers text, body bytes, unique_key text} AS r
        WHERE true
    ON CONFLICT (id) DO NOTHING RETURNING id, created_at AS at"
    };
}
/// Stores jobs. Returns the ids that were new, with their claim. `lease` is set for a job that may
/// start with this commit. It does so only if its lane is open, has no rate limit and remembers no
/// failure; otherwise the job waits for a claim, which checks the lane under its lock.
macro_rules! insert_jobs {
    () => {
        "INSERT INTO jobs
    (id, event_id, target_kind, target_name, lane, state, attempt, lost, claim, due_at, created_at,
        expires_at)
    SELECT r.id, r.event_id, r.target_kind, r.target_name, r.lane,
        CASE WHEN l.id IS NULL THEN 'pending' ELSE 'leased' END, 0, 0, CASE WHEN l.id IS NULL
            THEN 0 ELSE 1 END,
        {now} + CASE WHEN l.id IS NULL THEN 0 ELSE r.lease END, {now}, {now} + r.ttl
    FROM {rows: id text, event_id text, target_kind text, target_name text, lane text, ttl int,
        lease int} AS r
    LEFT JOIN lanes l ON l.id = r.lane AND r.lease IS NOT NULL
        AND l.paused = 0 AND l.open_until IS NULL AND l.failures = 0 AND l.ramp = 0
            AND l.rate IS NULL
    WHERE true
    ON CONFLICT (id) DO NOTHING RETURNING id, claim"
    };
}
pub(super) use {insert_events, insert_jobs};

const INSERT_EVENTS: &str = insert_events!();
const INSERT_JOBS: &str = insert_jobs!();
pub(super) const COUNT: &str = "INSERT INTO counters (name, shard, value) VALUES (?, ?, ?)
    ON CONFLICT (name, shard) DO UPDATE SET value = counters.value + excluded.value";

pub(super) const ALL: &[&str] =
    &[INSERT_KEYS, READ_KEYS, DELETE_KEYS, INSERT_EVENTS, INSERT_JOBS, COUNT];

/// A key that a new event tries to take.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct WantedKey {
    scope: String,
    word: String,
    event: EventId,
    fingerprint: Option<String>,
    ttl_ms: i64,
}

/// The event that holds a key at the moment.
struct KeyHolder {
    event: EventId,
    fingerprint: Option<String>,
}

type KeyHolders = HashMap<(String, String), KeyHolder>;

#[async_trait]
impl<D: Dialect> Intake for SqlStore<D> {
    async fn accept(&self, new_events: &[NewEvent]) -> Each<Accepted> {
        each(new_events, |new_events| {
            let store = self.clone();
            async move {
                // Without keys there is one statement to make, where the database can do that: it
                // is its own transaction.
                let is_alone = D::STORE.is_some() && new_events.iter().all(has_no_keys);
                let extent = if is_alone { Extent::Statement } else { Extent::Transaction };
                let answers = store
                    .run_owned(extent, move |store, conn| {
                        let new_events = new_events.clone();
                        Box::pin(async move { accept::<D>(conn, &store, &new_events).await })
                    })
                    .await?;
                Ok(answers.into_iter().map(Ok).collect())
            }
        })
        .await
    }
}

fn has_no_keys(new_event: &NewEvent) -> bool {
    new_event.inbound.dedupe_key.is_none()
        && new_event.inbound.idempotency_key.is_none()
        && new_event.plan.jobs.iter().all(|job| job.key.is_none())
}

async fn accept<D: Dialect>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    new_events: &[NewEvent],
) -> sqlx::Result<Vec<Accepted>> {
    let clock = store.clock();
    // First the keys that stand for whole events, then those of single consumers.
    let mut answers: Vec<Option<Accepted>> = vec![None; new_events.len()];
    let event_keys: Vec<Vec<WantedKey>> = new_events.iter().map(event_wants).collect();
    let holders =
        take_keys::<D>(conn, clock, event_keys.iter().flatten().cloned().collect()).await?;
    for (at, wants) in event_keys.iter().enumerate() {
        answers[at] = wants.iter().find_map(|want| taken(want, &holders));
    }

    let consumer_keys: Vec<Vec<Option<WantedKey>>> =
        new_events.iter().map(consumer_wants).collect();
    let open = |at: &usize| answers[*at].is_none();
    let wants = (0..new_events.len())
        .filter(open)
        .flat_map(|at| consumer_keys[at].iter().flatten().cloned());
    let holders = take_keys::<D>(conn, clock, wants.collect()).await?;
    let mut stored: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut given_up = Vec::new();
    for at in 0..new_events.len() {
        if answers[at].is_some() {
            continue;
        }
        let seen =
            |job: usize| consumer_keys[at][job].as_ref().and_then(|want| taken(want, &holders));
        let jobs: Vec<usize> =
            (0..new_events[at].plan.jobs.len()).filter(|job| seen(*job).is_none()).collect();
        let first_seen = (0..new_events[at].plan.jobs.len()).find_map(seen);
        match (jobs.is_empty(), first_seen) {
            // Every consumer has seen it: the event is a duplicate, and leaves no key of its own
            // behind.
            (true, Some(duplicate)) => {
                given_up.extend(event_keys[at].iter().cloned());
                answers[at] = Some(duplicate);
            }
            _ => stored.push((at, jobs)),
        }
    }
    if !given_up.is_empty() {
        delete_keys::<D>(conn, names(&given_up)).await?;
    }
    let inserted = insert::<D>(conn, store, new_events, &stored, &consumer_keys).await?;
    for (at, jobs) in stored {
        let event = new_events[at].id;
        let jobs: Vec<JobId> =
            jobs.into_iter().map(|job| new_events[at].plan.jobs[job].id).collect();
        let started =
            jobs.iter().copied().filter(|id| inserted.started.contains(&id.to_string())).collect();
        let stored_at = inserted.at.get(&event.to_string()).copied().unwrap_or(0);
        answers[at] = Some(Accepted::New { event, jobs, started, at: Timestamp(stored_at) });
    }
    Ok(first_ids(new_events, answers))
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

/// Takes the keys that are free, replaces those that have expired, and answers who holds each.
async fn take_keys<D: Dialect>(
    conn: &mut D::Connection,
    clock: Option<i64>,
    mut wants: Vec<WantedKey>,
) -> sqlx::Result<KeyHolders> {
    if wants.is_empty() {
        return Ok(KeyHolders::new());
    }
    // In one order everywhere, so that two slices cannot wait for each other's keys. The sort is
    // stable: of two items with one key the first of the slice gets it.
    wants.sort_by(|a, b| (&a.scope, &a.word).cmp(&(&b.scope, &b.word)));
    loop {
        sql::<D>(INSERT_KEYS).bind(clock).rows(want_rows(&wants)).run(conn).await?;
        let rows: Vec<KeyRow> =
            keyed::<D>(sql(READ_KEYS).bind(clock), &names(&wants)).all(conn).await?;
        let ours: BTreeSet<String> = wants.iter().map(|w| w.event.to_string()).collect();
        let expired: Vec<WantedKey> = rows
            .iter()
            .filter(|row| row.expires_at <= row.now && !ours.contains(&row.event_id))
            .filter_map(|row| {
                wants.iter().find(|w| w.scope == row.scope && w.word == row.word).cloned()
            })
            .collect();
        if expired.is_empty() {
            return rows.into_iter().map(holder).collect();
        }
        delete_keys::<D>(conn, names(&expired)).await?;
    }
}

/// Scope and word of each key.
type Names = BTreeSet<(String, String)>;

fn names(wants: &[WantedKey]) -> Names {
    wants.iter().map(|w| (w.scope.clone(), w.word.clone())).collect()
}

/// Binds keys twice: as a table, and as the lists that narrow the statement to them.
fn keyed<D: Dialect>(statement: Sql<D>, keys: &Names) -> Sql<D> {
    let rows = Rows::default()
        .text(keys.iter().map(|(scope, _)| scope))
        .text(keys.iter().map(|(_, word)| word));
    let scopes: BTreeSet<&String> = keys.iter().map(|(scope, _)| scope).collect();
    statement.rows(rows).only(scopes).only(keys.iter().map(|(_, word)| word))
}

/// Deletes keys. Answers how many.
pub(super) async fn delete_keys<D: Dialect>(
    conn: &mut D::Connection,
    keys: Names,
) -> sqlx::Result<u64> {
    if keys.is_empty() {
        return Ok(0);
    }
    keyed::<D>(sql(DELETE_KEYS), &keys).run(conn).await
}

fn holder(row: KeyRow) -> sqlx::Result<((String, String), KeyHolder)> {
    let event = row.event_id.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    Ok(((row.scope, row.word), KeyHolder { event, fingerprint: row.fingerprint }))
}

/// The answer to an event whose wanted key another event holds: a duplicate, or a conflict if the
/// bodies differ. `None` if the key is its own or free.
fn taken(want: &WantedKey, holders: &KeyHolders) -> Option<Accepted> {
    let holder = holders.get(&(want.scope.clone(), want.word.clone()))?;
    if holder.event == want.event {
        return None;
    }
    let same = want.fingerprint.is_none() || want.fingerprint == holder.fingerprint;
    Some(if same { Accepted::Duplicate(holder.event) } else { Accepted::Conflict(holder.event) })
}

fn event_wants(new_event: &NewEvent) -> Vec<WantedKey> {
    let inbound = &new_event.inbound;
    let ttl_ms = millis(new_event.key_ttl);
    let mut wants = Vec::new();
    if let Some(key) = &inbound.idempotency_key {
        let fingerprint = Some(hex::encode(Sha256::digest(inbound.body.bytes())));
        let scope = format!("call:{}|{}", inbound.source, inbound.kind);
        wants.push(WantedKey {
            scope: within_limits(&scope),
            word: within_limits(key),
            event: new_event.id,
            fingerprint,
            ttl_ms,
        });
    }
    if let Some(key) = &inbound.dedupe_key {
        let scope = format!("provider:{}|{}", inbound.source, inbound.kind);
        wants.push(WantedKey {
            scope: within_limits(&scope),
            word: within_limits(key),
            event: new_event.id,
            fingerprint: None,
            ttl_ms,
        });
    }
    wants
}

fn consumer_wants(new_event: &NewEvent) -> Vec<Option<WantedKey>> {
    let ttl_ms = millis(new_event.key_ttl);
    let want = |scope: &str, word: &str| WantedKey {
        scope: within_limits(scope),
        word: within_limits(word),
        event: new_event.id,
        fingerprint: None,
        ttl_ms,
    };
    new_event
        .plan
        .jobs
        .iter()
        .map(|job| job.key.as_ref().map(|(scope, key)| want(scope, key)))
        .collect()
}

fn want_rows(wants: &[WantedKey]) -> Rows {
    Rows::default()
        .text(wants.iter().map(|w| w.scope.clone()))
        .text(wants.iter().map(|w| w.word.clone()))
        .text(wants.iter().map(|w| w.event.to_string()))
        .maybe_text(wants.iter().map(|w| w.fingerprint.clone()))
        .int(wants.iter().map(|w| w.ttl_ms))
}

/// What one slice has stored.
#[derive(Default)]
struct Inserted {
    /// When each event was stored, by event id, in milliseconds since 1970.
    at: HashMap<String, i64>,
    /// The ids of jobs that this commit put under lease.
    started: BTreeSet<String>,
}

async fn insert<D: Dialect>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    new_events: &[NewEvent],
    stored: &[(usize, Vec<usize>)],
    keys: &[Vec<Option<WantedKey>>],
) -> sqlx::Result<Inserted> {
    if stored.is_empty() {
        return Ok(Inserted::default());
    }
    let clock = store.clock();
    let each = || stored.iter().map(|(at, _)| &new_events[*at]);
    let headers =
        each().map(|o| serde_json::to_string(&o.inbound.headers)).collect::<Result<Vec<_>, _>>();
    let unique = stored.iter().map(|(at, _)| {
        let inbound = &new_events[*at].inbound;
        let consumer = keys[*at].iter().flatten().next().map(|w| w.word.clone());
        inbound
            .dedupe_key
            .clone()
            .or_else(|| inbound.idempotency_key.clone())
            .map(|k| within_limits(&k))
            .or(consumer)
    });
    let events = Rows::default()
        .text(each().map(|o| o.id.to_string()))
        .text(each().map(|o| o.inbound.source.clone()))
        .text(each().map(|o| o.inbound.kind.clone()))
        .text(headers.map_err(|e| sqlx::Error::Encode(Box::new(e)))?)
        .bytes(each().map(|o| o.inbound.body.bytes().to_vec()))
        .maybe_text(unique);
    let jobs: Vec<(&NewEvent, usize)> =
        stored.iter().flat_map(|(at, jobs)| jobs.iter().map(|j| (&new_events[*at], *j))).collect();
    let targets = || jobs.iter().map(|(o, j)| &o.plan.jobs[*j].target);
    let rows = Rows::default()
        .text(jobs.iter().map(|(o, j)| o.plan.jobs[*j].id.to_string()))
        .text(jobs.iter().map(|(o, _)| o.id.to_string()))
        .text(targets().map(|t| t.kind()))
        .text(targets().map(|t| t.stored_name()))
        .text(targets().map(|t| t.lane().0))
        .maybe_int(jobs.iter().map(|(o, _)| o.event_ttl.map(millis)))
        .maybe_int(jobs.iter().map(|(o, j)| o.plan.jobs[*j].start.then(|| millis(o.lease))));
    if let Some(text) = D::STORE {
        let store_all =
            sql::<D>(text).bind(clock).rows(events).bind(clock).bind(clock).bind(clock).rows(rows);
        let made: Vec<MadeRow> = store_all.bind(store.shard()).all(conn).await?;
        let started =
            made.iter().filter(|row| row.claim == Some(1)).map(|row| row.id.clone()).collect();
        return Ok(Inserted {
            at: made.into_iter().filter_map(|row| Some((row.id, row.at?))).collect(),
            started,
        });
    }
    let stored: Vec<IdNumberRow> =
        sql::<D>(INSERT_EVENTS).bind(clock).rows(events).all(conn).await?;
    let at = stored.into_iter().map(|r| (r.id, r.at)).collect();
    if jobs.is_empty() {
        return Ok(Inserted { at, started: BTreeSet::new() });
    }
    // A repeated slice inserts nothing, so it counts nothing.
    let inserted: Vec<StartedRow> =
        sql::<D>(INSERT_JOBS).bind(clock).bind(clock).bind(clock).rows(rows).all(conn).await?;
    let mut counts =
        BTreeMap::from([("created", i64::try_from(inserted.len()).unwrap_or(i64::MAX))]);
    count::<D>(conn, store.shard(), &mut counts).await?;
    Ok(Inserted {
        at,
        started: inserted.into_iter().filter(|r| r.claim == 1).map(|r| r.id).collect(),
    })
}

/// Adds to the totals, always in the order of their names, so that two transactions cannot deadlock
/// on them.
pub(super) async fn count<D: Dialect>(
    conn: &mut D::Connection,
    shard: i64,
    counts: &mut BTreeMap<&'static str, i64>,
) -> sqlx::Result<()> {
    for (name, by) in counts.iter().filter(|(_, by)| **by != 0) {
        sql::<D>(COUNT).bind((*name).to_owned()).bind(shard).bind(*by).run(conn).await?;
    }
    Ok(())
}
