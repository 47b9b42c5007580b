//! Counts refused requests by source and reason, without their bodies, so that a flood of them
//! costs one row.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Engine;
use super::notices::Notice;
use crate::model::json::Unreadable;
use crate::model::{Inbound, Timestamp};
use crate::observe::feed::FeedEvent;
use crate::observe::metrics;
use crate::observe::repeats::Repeats;
use crate::store::{Rejection, Result};

type Key = (String, &'static str);

/// The counts of refused requests that are not stored yet.
#[derive(Debug)]
pub struct Rejections {
    counts: Mutex<BTreeMap<Key, u64>>,
    logged: Repeats<Key>,
}

impl Default for Rejections {
    fn default() -> Self {
        Self { counts: Mutex::default(), logged: Repeats::new(1) }
    }
}

impl Engine {
    /// Counts a refused request and logs the first of its kind in a minute. `source` must be a
    /// configured source, so that the table stays small.
    pub fn reject(&self, source: &str, reason: &'static str) {
        let key = (source.to_owned(), reason);
        *self
            .0
            .rejections
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key.clone())
            .or_default() += 1;
        metrics::rejected(source, reason);
        self.feed().publish(|| FeedEvent::Rejected { source: source.to_owned(), reason });
        if let Some(left_out) = self.0.rejections.logged.should_log(&key) {
            // Whoever forges requests must not decide how many alerts are sent.
            if reason.starts_with("signature_") {
                let (engine, notice) = (self.clone(), Notice::refused(source, reason, left_out));
                tokio::spawn(async move { engine.tell(notice).await });
            }
            tracing::warn!(
                source,
                reason,
                left_out,
                "A request was refused. Repeats are counted and logged once a minute."
            );
        }
    }

    /// Reports a body that a filter, template or key needed to read and could not.
    pub(super) fn unreadable(&self, inbound: &Inbound, why: &Unreadable) {
        metrics::unreadable(&inbound.source, why.word);
        let key = (inbound.source.clone(), why.word);
        if let Some(left_out) = self.0.rejections.logged.should_log(&key) {
            let (source, kind, reason) = (&inbound.source, &inbound.kind, why.word);
            tracing::warn!(source, kind, reason, left_out, %why, "A body cannot be parsed. \
                Filters and templates find no values in it.");
        }
    }

    /// Stores the counts. If the store does not take them, they are kept for the next call.
    pub(super) async fn store_rejections(&self) -> Result<()> {
        let counts = std::mem::take(
            &mut *self.0.rejections.counts.lock().unwrap_or_else(PoisonError::into_inner),
        );
        if counts.is_empty() {
            return Ok(());
        }
        let rejection = |((source, reason), count): (&Key, &u64)| Rejection {
            source: source.clone(),
            reason: (*reason).to_owned(),
            count: *count,
            last_at: Timestamp(0),
        };
        let stored = self.store().reject(&counts.iter().map(rejection).collect::<Vec<_>>()).await;
        if stored.is_err() {
            let mut kept = self.0.rejections.counts.lock().unwrap_or_else(PoisonError::into_inner);
            for (key, count) in counts {
                *kept.entry(key).or_default() += count;
            }
        }
        stored
    }
}
