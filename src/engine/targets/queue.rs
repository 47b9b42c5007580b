//! A pull queue: consumers receive its messages and acknowledge them, see
//! [`crate::engine::pull`]. Workers never take them.

use async_trait::async_trait;

use super::TargetKind;
use crate::engine::directory::Directory;

/// Messages of pull queues.
pub struct Queue;

#[async_trait]
impl TargetKind for Queue {
    fn missing(&self, directory: &Directory, name: &str) -> Option<String> {
        directory.queue(name).is_none().then(|| format!("the configuration has no queue `{name}`"))
    }
}
