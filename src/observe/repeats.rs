//! Limits lines of the log that repeat: the first few of each kind and minute are written, the
//! others are counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The window in which the lines of a kind are limited.
const MINUTE: Duration = Duration::from_secs(60);

/// Counts the lines of each kind. Kinds are names of the configuration or words of a closed list,
/// so there are few.
#[derive(Debug)]
pub struct Repeats<K> {
    most: u32,
    lines: Mutex<BTreeMap<K, Lines>>,
}

#[derive(Debug)]
struct Lines {
    since: Instant,
    written: u32,
    left_out: u64,
}

impl<K: Ord + Clone> Repeats<K> {
    /// Allows `most` lines of each kind a minute.
    pub fn new(most: u32) -> Self {
        Self { most, lines: Mutex::default() }
    }

    /// Whether a line of this kind is to be written: `Some` with how many were left out before it,
    /// or `None` to leave it out.
    pub fn should_log(&self, kind: &K) -> Option<u64> {
        let mut all = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(kind) {
            Some(lines) if lines.since.elapsed() < MINUTE => {
                if lines.written == self.most {
                    lines.left_out += 1;
                    return None;
                }
                lines.written += 1;
                Some(0)
            }
            before => {
                let left_out = before.map_or(0, |lines| lines.left_out);
                all.insert(kind.clone(), Lines { since: Instant::now(), written: 1, left_out: 0 });
                Some(left_out)
            }
        }
    }

    /// The kinds whose minute is over and that had lines left out, with their number. Each is
    /// returned once.
    pub fn over(&self) -> Vec<(K, u64)> {
        let mut all = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut over = Vec::new();
        all.retain(|kind, lines| {
            let is_over = lines.since.elapsed() >= MINUTE;
            if is_over && lines.left_out > 0 {
                over.push((kind.clone(), lines.left_out));
            }
            !is_over
        });
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_few_lines_a_minute_are_written_and_the_others_counted() {
        let repeats = Repeats::new(2);
        let written = |kind: &str| repeats.should_log(&kind.to_owned());
        assert_eq!(
            [written("a"), written("a"), written("a"), written("b"), written("a")],
            [Some(0), Some(0), None, Some(0), None]
        );
        assert!(repeats.over().is_empty());
        tokio::time::advance(MINUTE).await;
        assert_eq!(written("a"), Some(2), "the next line says what was left out");
        assert!([written("a"), written("a")] == [Some(0), None]);
        tokio::time::advance(MINUTE).await;
        assert_eq!(repeats.over(), [("a".to_owned(), 1)]);
        assert!(repeats.over().is_empty());
    }
}
