//! `wait`: for a while, or until an instant of the payload.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::catch::error;
use super::super::flow::Step;
use super::super::walk::Walk;
use super::Entered;
use crate::model::json::Ref;
use crate::model::run::{Due, RunError, VisitPhase};
use crate::model::{Path, Timestamp};

/// No instant is later: the end of the year 9999.
const LATEST: i64 = 253_402_300_799;

/// From here on a number counts milliseconds.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// A wait.
#[derive(Debug, Clone)]
pub enum Wait {
    /// This long.
    For(Duration),
    /// Until the instant at a path: an RFC 3339 text, or seconds or milliseconds since 1970.
    Until(Path),
}

impl Wait {
    pub(super) fn enter(&self, walk: &mut Walk<'_>, seq: u32, step: &Step) -> Result<Entered, RunError> {
        let due = match self {
            Self::For(time) => Due::After(*time),
            Self::Until(path) => {
                let visit = walk.change.run.state.visits.get(&seq);
                let found = visit.and_then(|v| v.payload.view().ok()).and_then(|payload| path.one(payload));
                Due::At(instant(found.map(Ref::to_value).as_ref(), step, path)?)
            }
        };
        walk.wake_at(seq, due);
        let until = match due {
            Due::After(time) => walk.here.now.plus(time),
            Due::At(at) => at,
        };
        walk.note("WaitStarted", Some(seq), json!({ "until": until.rfc3339() }));
        Ok(Entered::Waits(VisitPhase::Time))
    }
}

/// Reads an instant. What cannot be read is a failure, never "now".
fn instant(found: Option<&Value>, step: &Step, path: &Path) -> Result<Timestamp, RunError> {
    // What an event holds may be of any length; a message is for people.
    let short = |text: &str| text.chars().take(40).collect::<String>();
    let bad = |what: String| error("bad_timestamp", format!("step '{}': {what} at {}", step.name, path.text()));
    match found {
        None | Some(Value::Null) => Err(bad("there is no timestamp".to_owned())),
        Some(Value::String(text)) => {
            let at = Timestamp::parse(text).filter(|at| (0..=LATEST).contains(&at.seconds()));
            at.ok_or_else(|| bad(format!("`{}` is no RFC 3339 timestamp", short(text))))
        }
        Some(Value::Number(number)) => {
            let seconds = number.as_i64().or_else(|| {
                // Fractions of a second are cut.
                #[expect(clippy::cast_possible_truncation, reason = "checked against the range first")]
                number.as_f64().filter(|n| (0.0..=253_402_300_799_000.0).contains(n)).map(|n| n as i64)
            });
            // So many seconds are three thousand years from now: they are milliseconds.
            let at = seconds.and_then(|n| match n {
                0..MILLISECONDS_FROM => Timestamp::from_seconds(n),
                n if n / 1000 <= LATEST => Some(Timestamp(n)),
                _ => None,
            });
            at.filter(|at| at.0 >= 0)
                .ok_or_else(|| bad(format!("{} are neither Unix seconds nor milliseconds", short(&number.to_string()))))
        }
        Some(other) => Err(bad(format!("`{}` is no timestamp", short(&other.to_string())))),
    }
}
