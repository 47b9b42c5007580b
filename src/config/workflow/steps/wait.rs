//! The `wait` step: waits for a time, or until an instant that the payload holds.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Entry, refuse_both};
use crate::config::handler::read_path;
use crate::config::keys::{Key, Takes, key};
use crate::config::read::Section;
use crate::config::workflow::step::{Draft, Reading};
use crate::decide::workflow::catch::error;
use crate::decide::workflow::fact::Fact;
use crate::decide::workflow::flow::Step;
use crate::decide::workflow::step_type::{Entered, Handled, StepType};
use crate::decide::workflow::walk::Walk;
use crate::model::history::NoteKind;
use crate::model::json::Ref;
use crate::model::run::{Due, RunError, VisitPhase};
use crate::model::{Path, Timestamp};

/// The latest time that is accepted: the end of the year 9999, in seconds since 1970.
const LATEST: i64 = 253_402_300_799;

/// A number from here on is read as milliseconds, a smaller one as seconds.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

const KEYS: &[Key] = &[
    key("seconds", Takes::Number(0, 315_360_000), "wait: time to wait, in seconds"),
    key("timestamp_path", Takes::Text, "wait: path of the timestamp to wait for"),
];

pub(super) static ENTRY: Entry = Entry { name: "wait", keys: &[KEYS], in_map: true, read };

fn read(reading: &Reading<'_>, s: &mut Section<'_>, _: &mut Draft) -> Option<Arc<dyn StepType>> {
    let seconds = s.number("seconds").map(|seconds| Wait::For(Duration::from_secs(seconds)));
    let path = read_path(s, "timestamp_path").map(Wait::Until);
    refuse_both(s, &reading.who(), "seconds", "timestamp_path");
    if !s.has("seconds") && !s.has("timestamp_path") {
        let (workflow, name) = (reading.of.workflow, reading.name);
        let message = format!(
            "workflow '{workflow}' wait step '{name}' needs either 'seconds' or 'timestamp_path'"
        );
        s.error("missing_key", "", message);
    }
    Some(Arc::new(seconds.or(path)?))
}

/// A step that waits for time to pass.
#[derive(Debug)]
enum Wait {
    /// This long, counted from the entry into the step.
    For(Duration),
    /// Until the instant at a path: an RFC 3339 text, or seconds or milliseconds since 1970.
    Until(Path),
}

impl StepType for Wait {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn enter(&self, walk: &mut Walk<'_>, seq: u32, step: &Step) -> Result<Entered, RunError> {
        let due = match self {
            Self::For(time) => Due::After(*time),
            Self::Until(path) => {
                let visit = walk.visit(seq);
                let found =
                    visit.and_then(|v| v.payload.view().ok()).and_then(|payload| path.one(payload));
                Due::At(instant(found.map(Ref::to_value).as_ref(), step, path)?)
            }
        };
        walk.wake_at(seq, due);
        let until = match due {
            Due::After(time) => walk.now().plus(time),
            Due::At(at) => at,
        };
        walk.note(NoteKind::WaitStarted, Some(seq), json!({ "until": until.rfc3339() }));
        Ok(Entered::Waits(VisitPhase::Time))
    }

    fn handle(&self, _: &mut Walk<'_>, _: u32, _: &Step, _: &Fact) -> Result<Handled, RunError> {
        Ok(Handled::Passed)
    }
}

/// Reads an instant from the payload. A value that cannot be read fails the step; it never means
/// "now".
fn instant(found: Option<&Value>, step: &Step, path: &Path) -> Result<Timestamp, RunError> {
    // What an event holds may be of any length; a message is for people.
    let short = |text: &str| text.chars().take(40).collect::<String>();
    let bad = |what: String| {
        error("bad_timestamp", format!("step '{}': {what} at {}", step.name, path.text()))
    };
    match found {
        None | Some(Value::Null) => Err(bad("there is no timestamp".to_owned())),
        Some(Value::String(text)) => {
            let at = Timestamp::parse(text).filter(|at| (0..=LATEST).contains(&at.seconds()));
            at.ok_or_else(|| bad(format!("`{}` is not an RFC 3339 timestamp", short(text))))
        }
        Some(Value::Number(number)) => {
            let seconds = number.as_i64().or_else(|| {
                // Fractions of a second are cut.
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "checked against the range first"
                )]
                number
                    .as_f64()
                    .filter(|n| (0.0..=253_402_300_799_000.0).contains(n))
                    .map(|n| n as i64)
            });
            // So many seconds are three thousand years from now: they are milliseconds.
            let at = seconds.and_then(|n| match n {
                0..MILLISECONDS_FROM => Timestamp::from_seconds(n),
                n if n / 1000 <= LATEST => Some(Timestamp(n)),
                _ => None,
            });
            at.filter(|at| at.0 >= 0).ok_or_else(|| {
                bad(format!(
                    "{} is not a valid Unix time in seconds or milliseconds",
                    short(&number.to_string())
                ))
            })
        }
        Some(other) => Err(bad(format!("`{}` is not a timestamp", short(&other.to_string())))),
    }
}
