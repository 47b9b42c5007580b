//! A slot of a cron source: its tick is an event, and the commit that stores the event stores the
//! job of the next slot, so that one chain of jobs runs the schedule for all processes.

use async_trait::async_trait;

use super::step::StepContext;
use super::{Doing, TargetKind};
use crate::engine::Engine;
use crate::engine::directory::Directory;
use crate::model::{Outcome, Target};

/// Ticks of cron sources, one job for each.
pub struct Slot;

#[async_trait]
impl TargetKind for Slot {
    fn missing(&self, directory: &Directory, name: &str) -> Option<String> {
        directory
            .cron(name)
            .is_none()
            .then(|| format!("the configuration has no cron source `{name}`"))
    }

    async fn execute(&self, engine: &Engine, doing: Doing<'_>) -> (Outcome, Option<StepContext>) {
        let Target::Slot(slot) = &doing.job.target else { return (Outcome::NothingToSend, None) };
        (engine.fire(slot, doing.now).await, None)
    }
}
