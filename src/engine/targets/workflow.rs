//! The start of a run. Nothing is sent: the run begins with the commit that ends the job.

use async_trait::async_trait;

use super::TargetKind;
use crate::engine::directory::Directory;

/// Starts of runs, by events or by hand.
pub struct Workflow;

#[async_trait]
impl TargetKind for Workflow {
    fn changes_run(&self) -> bool {
        true
    }

    fn missing(&self, directory: &Directory, name: &str) -> Option<String> {
        (!directory.has_workflow(name))
            .then(|| format!("the configuration has no workflow `{name}`"))
    }
}
