//! Prints the moments of the feed as lines, in the order in which they happen.

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use tokio::time::Instant;

use super::print;
use crate::model::time::show_duration;
use crate::observe::feed::{FeedEvent, Next};

/// Prints moments with the time since the timeline began.
pub(super) struct Timeline {
    began: Instant,
    as_json: bool,
}

impl Timeline {
    /// Starts the clock of the timeline. `as_json` prints one JSON object per line instead of lines
    /// for people.
    pub(super) fn begin(as_json: bool) -> Self {
        Self { began: Instant::now(), as_json }
    }

    /// Prints a line that belongs to no moment of the feed, with the elapsed time and a word in
    /// front.
    pub(super) fn say(&self, word: &str, text: &str) {
        self.line(AnsiColor::Cyan.on_default(), word, text);
    }

    /// Prints a moment of the feed, as one line or more.
    pub(super) fn tell(&self, moment: &FeedEvent) {
        if self.as_json {
            print::line(&moment.json().to_string());
            return;
        }
        let (good, bad, plain) =
            (AnsiColor::Green.on_default(), AnsiColor::Yellow.on_default(), Style::new());
        match moment {
            FeedEvent::Accepted { event, source, kind, verified, duplicate, handlers } => {
                if let Some(scheme) = verified {
                    self.line(
                        good,
                        "verified",
                        &format!("the {scheme} signature matches the body"),
                    );
                }
                let again = if *duplicate { " (duplicate: it is not processed again)" } else { "" };
                self.line(
                    good,
                    "accepted",
                    &format!("event {event}, {} from {source}{again}", print::one_line(kind)),
                );
                if !duplicate {
                    let to = if handlers.is_empty() {
                        "no handler matched; the event is stored".to_owned()
                    } else {
                        handlers.join(", ")
                    };
                    self.line(plain, "routed", &format!("to {to}"));
                }
            }
            FeedEvent::Rejected { source, reason } => {
                self.line(bad, "rejected", &format!("a request to {source}: {reason}"))
            }
            FeedEvent::Lane { lane, state, why, .. } => {
                let why = why.as_ref().map_or(String::new(), |why| format!(": {why}"));
                self.line(
                    if why.is_empty() { good } else { bad },
                    "lane",
                    &format!("{lane} is {state}{why}"),
                );
            }
            FeedEvent::Run { workflow, run, status, error, .. } => {
                let why = error
                    .as_ref()
                    .map_or(String::new(), |error| format!(": {}", print::one_line(error)));
                let style = if error.is_none() { good } else { bad };
                self.line(style, "run", &format!("{workflow} {status} ({run}){why}"));
            }
            FeedEvent::Tried { handler, attempt, status, error, took, next, .. } => {
                let answer = match (status, error) {
                    (Some(status), _) => format!("HTTP {status}"),
                    (None, Some(error)) => print::one_line(error),
                    (None, None) => "no response".to_owned(),
                };
                let after = match next {
                    Next::Delivered => ", delivered".to_owned(),
                    Next::RetryIn(after) => {
                        format!(", retry in {}", show_duration(rounded(*after)))
                    }
                    Next::Dead => ", dead".to_owned(),
                    Next::Stale => ", discarded (lease lost)".to_owned(),
                };
                let style = if *next == Next::Delivered { good } else { bad };
                let line = format!("{handler}: {answer} in {}{after}", show_duration(*took));
                self.line(style, &format!("attempt {attempt}"), &line);
            }
        }
    }

    fn line(&self, style: Style, word: &str, text: &str) {
        print::line(&format!(
            "{:>8.3}s  {style}{word:<10}{style:#} {text}",
            self.began.elapsed().as_secs_f64()
        ));
    }
}

/// Rounds to tenths of a second: jitter makes odd milliseconds that nobody reads.
fn rounded(after: Duration) -> Duration {
    let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    if ms < 1_000 { after } else { Duration::from_millis((ms + 50) / 100 * 100) }
}
