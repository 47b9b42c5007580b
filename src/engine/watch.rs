//! Watches the lanes and reports when one stops or opens again, whichever process caused it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::Engine;
use super::notices::Notice;
use crate::model::LaneId;
use crate::model::lane::Waits;
use crate::observe::feed::FeedEvent;
use crate::store::Result;

/// Why each lane was held back at the last look, as a stable name. Open lanes are left out.
#[derive(Debug, Default)]
pub struct LaneStates(Mutex<HashMap<LaneId, &'static str>>);

impl Engine {
    /// Reads the lanes, and reports those whose state has changed since the last look. A lane that
    /// only waits for its rate limit counts as open.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn watch_lanes(&self) -> Result<()> {
        let (lanes, now) = (self.store().lanes().await?, self.store().now().await?);
        // A used-up rate is the ordinary life of a lane that has one.
        let waits = lanes.iter().filter_map(|lane| Some((lane, lane.waits(now)?)));
        let waits: HashMap<LaneId, Waits> = waits
            .filter(|(_, waits)| !matches!(waits, Waits::Rate(_)))
            .map(|(lane, waits)| (lane.id.clone(), waits))
            .collect();
        let before = {
            let mut watched = self.0.watched.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(
                &mut *watched,
                waits.iter().map(|(lane, waits)| (lane.clone(), waits.as_str())).collect(),
            )
        };
        for (lane, waits) in &waits {
            if before.get(lane) != Some(&waits.as_str()) {
                tracing::warn!(%lane, state = waits.as_str(), why = %waits, "A lane is holding \
                    back its deliveries.");
                self.report_lane(lane, waits.as_str(), Some(waits.to_string()));
                if let (Waits::Tripped(until), Some(handler)) =
                    (waits, lane.0.strip_prefix("handler:"))
                {
                    self.tell(Notice::tripped(handler, *until)).await;
                }
            }
        }
        for lane in before.keys().filter(|lane| !waits.contains_key(*lane)) {
            tracing::info!(%lane, "A lane delivers again.");
            self.report_lane(lane, "open", None);
        }
        Ok(())
    }

    fn report_lane(&self, lane: &LaneId, state: &'static str, why: Option<String>) {
        let handler = lane.0.strip_prefix("handler:").map(str::to_owned);
        self.feed().publish(|| FeedEvent::Lane { lane: lane.to_string(), handler, state, why });
    }
}
