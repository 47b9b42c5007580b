//! An instant that a run waits for: the end of a wait, a timeout or a deadline, or word from a
//! child run. Nothing is sent: the run goes on with the commit that ends the job.

use async_trait::async_trait;

use super::TargetKind;
use crate::engine::directory::Directory;

/// Timers of runs, which have no call.
pub struct Timer;

#[async_trait]
impl TargetKind for Timer {
    fn changes_run(&self) -> bool {
        true
    }

    /// A run keeps the definition that it started with.
    fn missing(&self, _: &Directory, _: &str) -> Option<String> {
        None
    }
}
