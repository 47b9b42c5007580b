//! Wake-ups between the tasks of one process, in memory.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Wake, Wakeup};

/// The most future wake-ups that are remembered. Jobs beyond that are found by the regular polling.
const LATER_MAX: usize = 10_000;

/// Wake-ups of one process.
#[derive(Debug, Default)]
pub struct Local {
    now: Notify,
    /// Signals that an earlier instant may have been added.
    moved: Notify,
    later: Mutex<BTreeSet<Instant>>,
}

impl Local {
    /// Wakes a waiter now. If nobody waits, the next waiter returns at once.
    pub(super) fn look(&self) {
        self.now.notify_one();
    }

    fn look_after(&self, after: Duration) {
        let Some(at) = Instant::now().checked_add(after) else { return };
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        if later.len() < LATER_MAX {
            later.insert(at);
        }
        drop(later);
        // A waiter that sleeps beyond the new instant looks again.
        self.moved.notify_one();
    }

    /// The earliest remembered instant.
    fn next(&self) -> Option<Instant> {
        self.later.lock().unwrap_or_else(PoisonError::into_inner).first().copied()
    }

    /// Forgets the instants that have passed.
    fn forget_past(&self) {
        let now = Instant::now();
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        while later.first().is_some_and(|at| *at <= now) {
            later.pop_first();
        }
    }
}

#[async_trait]
impl Wake for Local {
    async fn wake(&self, due: &[Wakeup]) {
        if due.iter().any(|wakeup| wakeup.after.is_zero()) {
            self.look();
        }
        due.iter()
            .filter(|wakeup| !wakeup.after.is_zero())
            .for_each(|wakeup| self.look_after(wakeup.after));
    }

    async fn woken(&self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        loop {
            let until = self.next().map_or(deadline, |at| at.min(deadline));
            tokio::select! {
                biased;
                () = self.now.notified() => break,
                () = self.moved.notified() => {}
                () = tokio::time::sleep_until(until) => break,
            }
        }
        self.forget_past();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wake_up_before_the_wait_is_not_lost() {
        let local = Local::default();
        local.wake(&[Wakeup::LOOK]).await;
        let start = Instant::now();
        local.woken(Duration::from_secs(60)).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        local.woken(Duration::from_secs(60)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wake_up_in_the_future_comes_at_its_time() {
        let local = Local::default();
        let start = Instant::now();
        local.wake(&[Wakeup { after: Duration::from_secs(7), ..Wakeup::LOOK }]).await;
        local.woken(Duration::from_secs(60)).await;
        // The timer of the runtime rounds up to the next millisecond.
        assert_eq!(start.elapsed().as_secs(), 7);
        local.woken(Duration::from_secs(60)).await;
        assert_eq!(start.elapsed().as_secs(), 67);
    }
}
