//! Near misses: events that a handler of their source did not get, with the clause of its filter
//! that was false. They are counted by handler and clause, and the latest are kept in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::decide::plan::{SkippedConsumer, Unmatched};
use crate::model::EventId;
use crate::observe::metrics;

/// How many near misses are kept; the oldest one is dropped first.
const KEPT: usize = 100;
/// How many characters of a value are kept.
const SEEN_CHARS_MAX: usize = 200;

/// One near miss: a handler that did not get an event of its source.
#[derive(Debug, Clone, PartialEq)]
pub struct NearMiss {
    /// The accepted event that did not match.
    pub event: EventId,
    /// The handler or workflow that did not get the event.
    pub handler: String,
    /// The clause of the filter that was false; `events` where no type pattern matched.
    pub clause: String,
    /// The value on the left side of that clause, cut to a readable length; `None` where it was
    /// missing, or for `events`.
    pub saw: Option<String>,
}

/// How often one clause of a handler refused an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMissCount {
    /// The handler that did not get the events.
    pub handler: String,
    /// `events`, or the text of the clause of its filter.
    pub clause: String,
    /// How many events, since the process started.
    pub count: u64,
}

/// The near misses of this process since it started.
#[derive(Debug, Default)]
pub struct NearMisses(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    counts: BTreeMap<(String, String), u64>,
    last: VecDeque<NearMiss>,
}

impl NearMisses {
    /// Records the near misses of an event after it was accepted.
    pub fn remember(&self, event: EventId, misses: Vec<SkippedConsumer>) {
        if misses.is_empty() {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for SkippedConsumer { target, why } in misses {
            let handler = target.name().to_owned();
            let (clause, saw) = match why {
                Unmatched::Source => continue,
                Unmatched::Events => ("events".to_owned(), None),
                Unmatched::Filter(refused) => {
                    (refused.clause, refused.saw.map(|value| shown(&value)))
                }
            };
            metrics::near_miss(&handler, if clause == "events" { "events" } else { "filter" });
            *kept.counts.entry((handler.clone(), clause.clone())).or_default() += 1;
            if kept.last.len() == KEPT {
                kept.last.pop_front();
            }
            kept.last.push_back(NearMiss { event, handler, clause, saw });
        }
    }

    /// How many near misses there were, by handler and clause.
    pub fn counts(&self) -> Vec<NearMissCount> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.counts
            .iter()
            .map(|((handler, clause), count)| NearMissCount {
                handler: handler.clone(),
                clause: clause.clone(),
                count: *count,
            })
            .collect()
    }

    /// The latest near misses, the newest first.
    pub fn last(&self) -> Vec<NearMiss> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last.iter().rev().cloned().collect()
    }
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(SEEN_CHARS_MAX).collect()
}
