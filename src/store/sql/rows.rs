//! The rows that statements read, and how they become values of the model.
//!
//! Columns keep the names that the first schema gave them. Where the model says it differently:
//!
//! | Column | Field of the model |
//! |---|---|
//! | `jobs.lost`, `jobs.deaths` | `Job::interrupted`, `Job::crashes` |
//! | `jobs.begun` | the claim that has begun to send its request |
//! | `jobs.due_at` of a leased job | the end of its lease |
//! | `lanes.turn` | `Lane::last_served_at` |
//! | `lanes.probe_until` | `Breaker::not_before` |
//! | `lanes.tokens`, `lanes.refilled_at` | the bucket of the rate limit |
//! | table `tokens` | the tokens of callbacks and approvals |
//! | `token` of a statement's parameters | the number of a claim (`Lease::claim`) |
//! | `keys.word`, `keys.fingerprint` | an idempotency key, and the hash of the body it came with |
//! | table `gates` | the queues of runs that share a `concurrency` key |

use std::time::Duration;

use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};

use super::values::Rows;
use crate::model::Body;
use crate::model::FailureCode;
use crate::model::body::Declared;
use crate::model::event::content_type;
use crate::model::history::HistoryEntry;
use crate::model::json::stored;
use crate::model::lane::{Breaker, BreakerRules, Bucket};
use crate::model::run::Token;
use crate::model::{Attempt, AttemptResult, Event, Job, Lane, LaneId, Run, Target, Timestamp};
use crate::store::Rejection;
use crate::store::error::{Error, Result};

/// Declares row types with named columns, readable from every database that knows their types.
macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident { $($column:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name { $(#[doc = "The column of this name."] pub $column: $type,)* }

        impl<'r, R: Row> FromRow<'r, R> for $name
        where
            &'static str: ColumnIndex<R>,
            $($type: Decode<'r, R::Database> + Type<R::Database>,)*
        {
            fn from_row(row: &'r R) -> sqlx::Result<Self> {
                Ok(Self { $($column: row.try_get(stringify!($column))?,)* })
            }
        }
    )*};
}

rows! {
    /// An event, with or without its body.
    EventRow {
        id: String, source: String, kind: String, headers: String, body: Vec<u8>,
        unique_key: Option<String>, created_at: i64,
    }
    /// A job as it stands, for lists and single reads.
    JobRow {
        id: String, event_id: String, target_kind: String, target_name: String, state: String,
        attempt: i64, lost: i64,
        deaths: i64, claim: i64, due_at: i64, created_at: i64, finished_at: Option<i64>,
        last_error: Option<String>,
    }
    /// A job that was just claimed, with the state it had before and the database's clock.
    DueRow {
        id: String, event_id: String, target_kind: String, target_name: String, lane: String,
        attempt: i64, lost: i64,
        deaths: i64, begun: Option<i64>, claim: i64, due_at: i64, created_at: i64, was: String,
        now: i64,
    }
    /// One attempt in the history of a job.
    AttemptRow {
        number: i64, claim: i64, ending: String, code: Option<String>, status: Option<i64>,
        error: Option<String>,
        duration_ms: i64, response: Vec<u8>, at: i64,
    }
    /// A lane with its breaker and bucket, and the database's clock at the time.
    LaneRow {
        id: String, tenant: String, paused: i64, failures: i64, open_until: Option<i64>,
        probe_until: Option<i64>, ramp: i64,
        rate: Option<i64>, tokens: f64, refilled_at: i64, turn: i64, rules: Option<String>,
        ready: i64, rest: i64, now: i64,
    }
    /// An idempotency key, the event that holds it, and the database's clock at the time.
    KeyRow {
        scope: String, word: String, event_id: String, fingerprint: Option<String>, expires_at: i64,
        now: i64,
    }
    /// The id of a row that a statement found or changed.
    IdRow { id: String }
    /// An id with a number: an instant in most statements, a count where open jobs are counted.
    IdNumberRow { id: String, at: i64 }
    /// A job of an old event, or a run with the instant until which its workflow keeps it.
    EndedRow {
        id: String, event_id: String, state: String, finished_at: Option<i64>,
        kept_until: Option<i64>, now: i64,
    }
    /// What a queue holds, by its lane.
    QueueCountsRow {
        id: String, visible: i64, in_flight: i64, delayed_count: i64, oldest_at: Option<i64>,
    }
    /// An id with an instant, if there is one.
    MaybeNumberRow { id: String, at: Option<i64> }
    /// The mark of a copy: what this database is to it, and the other database.
    MoveRow { role: String, other: String }
    /// One thing that a single statement has stored: an event with its instant, or a job with its
    /// claim.
    MadeRow { id: String, at: Option<i64>, claim: Option<i64> }
    /// A version of a workflow's definition.
    DefinitionRow { hash: String, name: String, body: String }
    /// A run, with its state and error as JSON.
    RunRow {
        id: String, workflow: String, definition: String, event_id: String,
        parent_run: Option<String>, parent_visit: Option<i64>,
        status: String, error: Option<String>, version: i64, state: String, created_at: i64,
        finished_at: Option<i64>,
    }
    /// A run's version, which fences changes, and the number of its history lines.
    VersionRow { id: String, version: i64, noted: i64 }
    /// One line in the history of a run.
    EntryRow {
        seq: i64, at: i64, kind: String, step: Option<String>, visit: Option<i64>, data: String,
    }
    /// A callback token, by its hash.
    TokenRow { hash: String, run_id: String, visit: i64, answer: Option<String> }
    /// A gate, with its state as JSON.
    GateRow { id: String, version: i64, state: String }
    /// A single text, such as the name of a table or of a setting.
    NameRow { name: String }
    /// A single number, such as a count.
    CountRow { n: i64 }
    /// The database's clock, in milliseconds since 1970.
    NowRow { now: i64 }
    /// One of the totals, summed over its shards.
    TotalRow { name: String, value: i64 }
    /// Refused requests of one source, for one reason.
    RejectionRow { source: String, reason: String, count: i64, last_at: i64 }
}

/// A stored instant.
pub(super) fn timestamp(ms: i64) -> Timestamp {
    Timestamp(ms)
}

fn corrupt(what: &str, value: &str) -> Error {
    Error::permanent(format!("stored {what} `{value}` cannot be read"))
}

/// A stored 64-bit number as 32 bits, clamped to the range.
pub(super) fn u32_of(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

fn target(kind: &str, name: &str) -> Result<Target> {
    Target::from_parts(kind, name).ok_or_else(|| corrupt("target", kind))
}

impl TryFrom<EventRow> for Event {
    type Error = Error;

    fn try_from(row: EventRow) -> Result<Self> {
        let headers: Vec<(String, String)> =
            serde_json::from_str(&row.headers).map_err(|_| corrupt("headers", &row.id))?;
        let body = Body::declared(row.body, Declared::of(content_type(&headers)));
        Ok(Self {
            id: row.id.parse().map_err(|_| corrupt("event id", &row.id))?,
            headers,
            source: row.source,
            kind: row.kind,
            body,
            unique_key: row.unique_key,
            created_at: timestamp(row.created_at),
        })
    }
}

impl TryFrom<JobRow> for Job {
    type Error = Error;

    fn try_from(row: JobRow) -> Result<Self> {
        Ok(Self {
            id: row.id.parse().map_err(|_| corrupt("job id", &row.id))?,
            event: row.event_id.parse().map_err(|_| corrupt("event id", &row.event_id))?,
            target: target(&row.target_kind, &row.target_name)?,
            state: row.state.parse().map_err(|_| corrupt("job state", &row.state))?,
            attempt: u32_of(row.attempt),
            interrupted: u32_of(row.lost),
            crashes: u32_of(row.deaths),
            claim: row.claim,
            due_at: timestamp(row.due_at),
            created_at: timestamp(row.created_at),
            finished_at: row.finished_at.map(timestamp),
            last_error: row.last_error,
        })
    }
}

/// Changes a due job that was read to what it is once it is claimed, for databases that do not
/// return what an update changed.
pub fn leased(row: &mut DueRow, lease_ms: i64) {
    let interrupted = i64::from(row.was == "leased");
    row.deaths += i64::from(row.was == "leased" && row.begun == Some(row.claim));
    row.claim += 1;
    row.attempt += interrupted;
    row.lost += interrupted;
    row.due_at = row.now + lease_ms;
}

/// The rows of the statement `lease`: `job`, `until`, `sent`, `interrupted`, `crashes`.
pub fn leases(rows: &[DueRow]) -> Rows {
    Rows::default()
        .text("job", rows.iter().map(|r| r.id.clone()))
        .int("until", rows.iter().map(|r| r.due_at))
        .int("sent", rows.iter().map(|r| r.attempt))
        .int("interrupted", rows.iter().map(|r| r.lost))
        .int("crashes", rows.iter().map(|r| r.deaths))
}

impl TryFrom<DueRow> for Job {
    type Error = Error;

    fn try_from(row: DueRow) -> Result<Self> {
        JobRow {
            id: row.id,
            event_id: row.event_id,
            target_kind: row.target_kind,
            target_name: row.target_name,
            state: "leased".to_owned(),
            attempt: row.attempt,
            lost: row.lost,
            deaths: row.deaths,
            claim: row.claim,
            due_at: row.due_at,
            created_at: row.created_at,
            finished_at: None,
            last_error: None,
        }
        .try_into()
    }
}

impl TryFrom<AttemptRow> for Attempt {
    type Error = Error;

    fn try_from(row: AttemptRow) -> Result<Self> {
        Ok(Self {
            number: u32_of(row.number),
            claim: row.claim,
            ending: AttemptResult::from_stored(&row.ending)
                .ok_or_else(|| corrupt("ending", &row.ending))?,
            code: row.code.as_deref().map(FailureCode::from_stored),
            status: row.status.and_then(|s| u16::try_from(s).ok()),
            error: row.error,
            duration: Duration::from_millis(row.duration_ms.max(0).unsigned_abs()),
            response: row.response,
            at: timestamp(row.at),
        })
    }
}

impl From<LaneRow> for Lane {
    fn from(row: LaneRow) -> Self {
        let bucket = row.rate.map(|rate| Bucket {
            rate: u32_of(rate),
            tokens: row.tokens,
            refilled_at: timestamp(row.refilled_at),
        });
        let id = LaneId(row.id);
        Self {
            tenant: row.tenant,
            paused: row.paused != 0,
            breaker: Breaker {
                failures: u32_of(row.failures),
                open_until: row.open_until.map(timestamp),
                not_before: row.probe_until.map(timestamp),
                ramp: u32_of(row.ramp),
            },
            // A lane that was written before there were rules has those of the defaults.
            rules: row.rules.map(|text| rules(&id, &text)).unwrap_or_default(),
            bucket,
            last_served_at: timestamp(row.turn),
            id,
        }
    }
}

/// Reads a lane's breaker rules. If they cannot be read, the lane works on with the defaults:
/// failing here would stop every lane.
fn rules(lane: &LaneId, text: &str) -> BreakerRules {
    stored(text).unwrap_or_else(|why| {
        let lane = &lane.0;
        tracing::warn!(lane, %why, "The stored circuit breaker rules of a lane cannot be read. The \
            defaults apply; a restart stores the rules again.");
        BreakerRules::default()
    })
}

impl TryFrom<RunRow> for Run {
    type Error = Error;

    fn try_from(row: RunRow) -> Result<Self> {
        let run = |id: &str| id.parse().map_err(|_| corrupt("run id", id));
        let parent = match (&row.parent_run, row.parent_visit) {
            (Some(id), Some(visit)) => Some((run(id)?, u32_of(visit))),
            _ => None,
        };
        // What cannot be read of one run concerns no other.
        let error = row.error.map(|text| {
            serde_json::from_str(&text).map_err(|why| format!("its error cannot be read: {why}"))
        });
        let state = stored(&row.state).map_err(|why| format!("its state cannot be read: {why}"));
        let unreadable = state
            .as_ref()
            .err()
            .cloned()
            .or_else(|| error.as_ref().and_then(|error| error.as_ref().err().cloned()));
        if let Some(why) = &unreadable {
            tracing::error!(
                run = row.id,
                why,
                "A stored run cannot be read and cannot continue. Fix its row in the database, or \
                 end the run with `tidehook runs kill`."
            );
        }
        let error = error.and_then(std::result::Result::ok);
        Ok(Self {
            id: run(&row.id)?,
            state: state.unwrap_or_default(),
            unreadable,
            workflow: row.workflow,
            definition: row.definition,
            event: row.event_id.parse().map_err(|_| corrupt("event id", &row.event_id))?,
            parent,
            status: row.status.parse().map_err(|_| corrupt("run status", &row.status))?,
            error,
            version: row.version,
            created_at: timestamp(row.created_at),
            finished_at: row.finished_at.map(timestamp),
        })
    }
}

impl TryFrom<EntryRow> for HistoryEntry {
    type Error = Error;

    fn try_from(row: EntryRow) -> Result<Self> {
        Ok(Self {
            seq: row.seq,
            at: timestamp(row.at),
            kind: row.kind,
            step: row.step,
            visit: row.visit.map(u32_of),
            data: stored(&row.data).map_err(|_| corrupt("history", &row.data))?,
        })
    }
}

impl TryFrom<TokenRow> for Token {
    type Error = Error;

    fn try_from(row: TokenRow) -> Result<Self> {
        let run = row.run_id.parse().map_err(|_| corrupt("run id", &row.run_id))?;
        Ok(Self { hash: row.hash, run, visit: u32_of(row.visit), answer: row.answer })
    }
}

impl From<RejectionRow> for Rejection {
    fn from(row: RejectionRow) -> Self {
        Self {
            source: row.source,
            reason: row.reason,
            count: row.count.max(0).unsigned_abs(),
            last_at: timestamp(row.last_at),
        }
    }
}
