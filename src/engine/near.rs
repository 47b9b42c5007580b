//! Near misses: events that a handler of their source did not get, and the clause that said no. Counted by
//! handler and clause, the last ones kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::decide::plan::{Miss, Unmatched};
use crate::model::EventId;
use crate::observe::metrics;

/// So many are kept.
const KEPT: usize = 100;
/// So many characters of a value that was seen.
const SEEN_CHARS_MAX: usize = 200;

/// A handler that did not get an event.
#[derive(Debug, Clone, PartialEq)]
pub struct NearMiss {
    /// The event.
    pub event: EventId,
    /// The handler.
    pub handler: String,
    /// The clause that said no; `events` for the patterns.
    pub clause: String,
    /// What the clause saw, cut to a readable length.
    pub saw: Option<String>,
}

/// What was missed in this process.
#[derive(Debug, Default)]
pub struct NearMisses(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    counts: BTreeMap<(String, String), u64>,
    last: VecDeque<NearMiss>,
}

impl NearMisses {
    /// Remembers the misses of an accepted event.
    pub fn remember(&self, event: EventId, misses: Vec<Miss>) {
        if misses.is_empty() {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Miss { target, why } in misses {
            let handler = target.name().to_owned();
            let (clause, saw) = match why {
                Unmatched::Source => continue,
                Unmatched::Events => ("events".to_owned(), None),
                Unmatched::Filter(refused) => (refused.clause, refused.saw.map(|value| shown(&value))),
            };
            metrics::near_miss(&handler, if clause == "events" { "events" } else { "filter" });
            *kept.counts.entry((handler.clone(), clause.clone())).or_default() += 1;
            if kept.last.len() == KEPT {
                kept.last.pop_front();
            }
            kept.last.push_back(NearMiss { event, handler, clause, saw });
        }
    }

    /// How often, by handler and clause.
    pub fn counts(&self) -> Vec<(String, String, u64)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.counts.iter().map(|((handler, clause), count)| (handler.clone(), clause.clone(), *count)).collect()
    }

    /// The last ones, the newest first.
    pub fn last(&self) -> Vec<NearMiss> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last.iter().rev().cloned().collect()
    }
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(SEEN_CHARS_MAX).collect()
}
