//! Refused requests: counted by source and reason, without their bodies. A flood of them costs one row.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::model::Timestamp;
use crate::observe::feed::Moment;
use crate::observe::metrics;
use crate::store::{Rejection, Result};

/// One line per source and reason in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);

type Key = (String, &'static str);

/// Refused requests since they were last stored.
#[derive(Debug, Default)]
pub struct Rejections {
    counts: Mutex<BTreeMap<Key, u64>>,
    logged: Mutex<BTreeMap<Key, (Instant, u64)>>,
}

impl Engine {
    /// Counts a refused request. `source` is one of the configured ones, so the table stays small.
    pub fn reject(&self, source: &str, reason: &'static str) {
        let key = (source.to_owned(), reason);
        *self.0.rejections.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default() += 1;
        metrics::rejected(source, reason);
        self.feed().tell(|| Moment::Rejected { source: source.to_owned(), reason });
        let mut logged = self.0.rejections.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let suppressed = match logged.get_mut(&key) {
            Some((at, suppressed)) if at.elapsed() < LOG_EVERY => {
                *suppressed += 1;
                return;
            }
            Some((_, suppressed)) => *suppressed,
            None => 0,
        };
        logged.insert(key, (Instant::now(), 0));
        tracing::warn!(source, reason, suppressed, "A request was refused; repeats are counted and told once a minute.");
    }

    /// Stores the counts; they are kept when the store does not take them.
    pub(super) async fn store_rejections(&self) -> Result<()> {
        let counts = std::mem::take(&mut *self.0.rejections.counts.lock().unwrap_or_else(PoisonError::into_inner));
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
