//! A pull queue: consumers receive its messages and acknowledge them, see
//! [`crate::engine::pull`]. Workers never take them.

use async_trait::async_trait;

use super::step::StepContext;
use super::{Doing, TargetKind};
use crate::engine::Engine;
use crate::engine::directory::Directory;
use crate::model::Outcome;

/// Messages of pull queues.
pub struct Queue;

#[async_trait]
impl TargetKind for Queue {
    /// A worker that has got a message gives it back.
    async fn execute(&self, _: &Engine, _: Doing<'_>) -> (Outcome, Option<StepContext>) {
        (Outcome::Released, None)
    }

    fn missing(&self, directory: &Directory, name: &str) -> Option<String> {
        directory.queue(name).is_none().then(|| format!("the configuration has no queue `{name}`"))
    }
}
