//! Idempotency keys of new events: who came first decides what is stored.
//!
//! Three kinds share the table `keys`, and `scope` keeps them apart: those that callers send as
//! `Idempotency-Key`, the event ids of providers, and those that handlers and workflows compute
//! from the event (`idempotency_key` in the file).

use std::collections::{BTreeSet, HashMap};

use sha2::{Digest, Sha256};

use super::driver::Driver;
use super::pool::SqlStore;
use super::rows::KeyRow;
use super::values::Rows;
use crate::model::EventId;
use crate::model::key::within_limits;
use crate::model::time::millis;
use crate::store::{Accepted, NewEvent};

/// A key that a new event tries to take.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WantedKey {
    scope: String,
    /// The key itself.
    pub(super) word: String,
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

/// What is stored of one new event.
pub(super) struct Stored {
    /// Its place in the slice.
    pub(super) at: usize,
    /// The places of those of its jobs that are stored.
    pub(super) jobs: Vec<usize>,
}

/// What the keys say about a slice.
pub(super) struct Decided {
    /// The answers that are known already: duplicates and conflicts.
    pub(super) answers: Vec<Option<Accepted>>,
    /// What is stored of the others.
    pub(super) stored: Vec<Stored>,
    /// The keys of the consumers, per event and job.
    pub(super) consumer_keys: Vec<Vec<Option<WantedKey>>>,
}

/// Whether nothing about an event can be a duplicate.
pub(in crate::store) fn has_no_keys(new_event: &NewEvent) -> bool {
    new_event.inbound.dedupe_key.is_none()
        && new_event.inbound.idempotency_key.is_none()
        && new_event.plan.jobs.iter().all(|job| job.key.is_none())
}

/// Takes the keys of a slice and decides what is stored of it.
pub(super) async fn decide<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    new_events: &[NewEvent],
) -> sqlx::Result<Decided> {
    // First the keys that stand for whole events, then those of single consumers.
    let mut answers: Vec<Option<Accepted>> = vec![None; new_events.len()];
    let event_keys: Vec<Vec<WantedKey>> = new_events.iter().map(event_wants).collect();
    let holders = take(conn, store, event_keys.iter().flatten().cloned().collect()).await?;
    for (at, wants) in event_keys.iter().enumerate() {
        answers[at] = wants.iter().find_map(|want| taken(want, &holders));
    }

    let consumer_keys: Vec<Vec<Option<WantedKey>>> =
        new_events.iter().map(consumer_wants).collect();
    let open = |at: &usize| answers[*at].is_none();
    let wants = (0..new_events.len())
        .filter(open)
        .flat_map(|at| consumer_keys[at].iter().flatten().cloned());
    let holders = take(conn, store, wants.collect()).await?;
    let mut stored: Vec<Stored> = Vec::new();
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
            _ => stored.push(Stored { at, jobs }),
        }
    }
    delete(conn, store, names(&given_up)).await?;
    Ok(Decided { answers, stored, consumer_keys })
}

/// Takes the keys that are free, replaces those that have expired, and answers who holds each.
async fn take<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    mut wants: Vec<WantedKey>,
) -> sqlx::Result<KeyHolders> {
    if wants.is_empty() {
        return Ok(KeyHolders::new());
    }
    // In one order everywhere, so that two slices cannot wait for each other's keys. The sort is
    // stable: of two items with one key the first of the slice gets it.
    wants.sort_by(|a, b| (&a.scope, &a.word).cmp(&(&b.scope, &b.word)));
    loop {
        store.sql("insert_keys").bind("rows", want_rows(&wants)).run(conn).await?;
        let rows: Vec<KeyRow> =
            store.sql("read_keys").bind("rows", name_rows(&names(&wants))).all(conn).await?;
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
        delete(conn, store, names(&expired)).await?;
    }
}

/// Scope and word of each key.
pub(super) type Names = BTreeSet<(String, String)>;

fn names(wants: &[WantedKey]) -> Names {
    wants.iter().map(|w| (w.scope.clone(), w.word.clone())).collect()
}

fn name_rows(keys: &Names) -> Rows {
    Rows::default()
        .text("scope", keys.iter().map(|(scope, _)| scope))
        .text("word", keys.iter().map(|(_, word)| word))
}

/// Deletes keys. Answers how many.
pub(super) async fn delete<D: Driver>(
    conn: &mut D::Connection,
    store: &SqlStore<D>,
    keys: Names,
) -> sqlx::Result<u64> {
    if keys.is_empty() {
        return Ok(0);
    }
    store.sql("delete_keys").bind("rows", name_rows(&keys)).run(conn).await
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
        .text("scope", wants.iter().map(|w| w.scope.clone()))
        .text("word", wants.iter().map(|w| w.word.clone()))
        .text("event_id", wants.iter().map(|w| w.event.to_string()))
        .maybe_text("fingerprint", wants.iter().map(|w| w.fingerprint.clone()))
        .int("ttl", wants.iter().map(|w| w.ttl_ms))
}
