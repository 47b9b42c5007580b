//! The directory: finds what a target names, and says why a lane is parked where nothing is found.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::targets::kind_of_lane;
use crate::config::source::Cron;
use crate::config::{Alerts, Config, Handler, Queue};
use crate::model::LaneId;
use crate::model::job::PARKED_PREFIX;

/// What the targets of a configuration stand for, by name.
#[derive(Debug)]
pub struct Directory {
    handlers: HashMap<String, Handler>,
    queues: HashMap<String, Arc<Queue>>,
    workflows: HashSet<String>,
    crons: HashMap<String, Cron>,
    alerts: Option<Arc<Alerts>>,
}

impl Directory {
    /// The directory of a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            handlers: config.handlers.iter().map(|h| (h.name.clone(), h.clone())).collect(),
            queues: config.queues.iter().map(|q| (q.name.clone(), Arc::clone(q))).collect(),
            crons: config
                .sources
                .iter()
                .filter_map(|s| Some((s.name.clone(), s.cron.clone()?)))
                .collect(),
            alerts: config.alerts.clone(),
            workflows: config.workflows.iter().map(|w| w.name.clone()).collect(),
        }
    }

    /// The handler with this name.
    pub fn handler(&self, name: &str) -> Option<&Handler> {
        self.handlers.get(name)
    }

    /// The queue with this name.
    pub fn queue(&self, name: &str) -> Option<&Arc<Queue>> {
        self.queues.get(name)
    }

    /// Where operators are notified.
    pub fn alerts(&self) -> Option<&Alerts> {
        self.alerts.as_deref()
    }

    /// When the cron source with this name fires.
    pub fn cron(&self, source: &str) -> Option<&Cron> {
        self.crons.get(source)
    }

    /// Whether there is a workflow with this name.
    pub fn has_workflow(&self, name: &str) -> bool {
        self.workflows.contains(name)
    }

    /// Why nobody here serves the jobs of a lane, as a sentence that begins with "parked: "; `None`
    /// if they are served.
    pub fn why_parked(&self, lane: &LaneId) -> Option<String> {
        let (word, name) = lane.0.split_once(':').unwrap_or((&lane.0, ""));
        let Some(kind) = kind_of_lane(word) else {
            return Some(format!(
                "{PARKED_PREFIX}this version of tidehook does not serve the lane `{lane}`"
            ));
        };
        let missing = kind.missing(self, name)?;
        Some(format!("{PARKED_PREFIX}{missing}; add it again, or cancel its open jobs"))
    }
}
