//! `callback`: waits for an answer from outside. The token exists before anyone receives it, so an
//! answer that overtakes the response to the notification counts.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{Entry, own_call};
use crate::config::keys::{Key, Takes, key};
use crate::config::read::Section;
use crate::config::workflow::call::CallSpec;
use crate::config::workflow::keys::{self, NOTIFY};
use crate::config::workflow::step::{Draft, Reading};
use crate::decide::workflow::catch::error;
use crate::decide::workflow::fact::Fact;
use crate::decide::workflow::flow::{Call, Step};
use crate::decide::workflow::step_type::{Awaited, Entered, Handled, StepType};
use crate::decide::workflow::walk::Walk;
use crate::model::JobId;
use crate::model::history::NoteKind;
use crate::model::run::{Due, RunError, Token, VisitPhase};

/// How long an answer may take unless the step says otherwise: a day.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

const KEYS: &[Key] = &[
    key(
        "callback_timeout",
        Takes::Duration,
        "callback: how long to wait for the callback (1d; a number without a unit is seconds)",
    ),
    key("heartbeat", Takes::Duration, "callback: maximum time between heartbeats (off)"),
];

/// The key of the call that carries the token. `approval` has it too.
pub(super) const NOTIFY_KEYS: &[Key] = &[key(
    "notify",
    Takes::Section(&NOTIFY),
    "approval, callback: the call that announces the step",
)];

pub(super) static ENTRY: Entry = Entry {
    name: "callback",
    keys: &[
        KEYS,
        NOTIFY_KEYS,
        keys::REQUEST,
        keys::CALL,
        keys::RETRY,
        keys::TIMEOUT,
        keys::RESULT,
        keys::PAUSE,
        keys::UNDO,
    ],
    in_map: true,
    read,
};

fn read(reading: &Reading<'_>, s: &mut Section<'_>, _: &mut Draft) -> Option<Arc<dyn StepType>> {
    let own = own_call(reading, s);
    let awaited = Awaited {
        timeout: s.duration("callback_timeout").unwrap_or(ANSWER_TIMEOUT),
        approval: None,
    };
    let heartbeat = s.duration("heartbeat").filter(|silence| !silence.is_zero());
    let notify = if s.has("notify") { notify(reading, s) } else { own.call() };
    Some(Arc::new(Callback { awaited, heartbeat, notify }))
}

/// The call that carries the token.
pub(super) fn notify(reading: &Reading<'_>, s: &mut Section<'_>) -> Option<Call> {
    let who = format!("handler '{}/{}'", reading.of.workflow, reading.name);
    let mut notify = s.optional_section("notify")?;
    if !notify.has("url") {
        notify.error(
            "missing_key",
            "",
            format!("{who} notify has no url: add `url`, the address to call"),
        );
    }
    let call = CallSpec::read(&mut notify, &who, reading.of.around, reading.of.retry);
    notify.finish();
    call.call()
}

/// The settings of a `callback` or `approval` step, which waits for an answer from outside.
#[derive(Debug)]
pub(super) struct Callback {
    pub(super) awaited: Awaited,
    /// How long whoever works on the answer may be silent; `None`: any time.
    pub(super) heartbeat: Option<Duration>,
    /// The call that carries the token; without one the token is only in the API.
    pub(super) notify: Option<Call>,
}

impl Callback {
    /// Starts the timers of the answer and of the next heartbeat.
    fn expect(&self, walk: &mut Walk<'_>, seq: u32) -> Option<JobId> {
        walk.wake_at(seq, Due::After(self.awaited.timeout));
        self.heartbeat.and_then(|heartbeat| walk.wake_at(seq, Due::After(heartbeat)))
    }

    fn too_late(&self, walk: &mut Walk<'_>, seq: u32, step: &Step, job: JobId) -> RunError {
        let beat = heartbeat_timer(walk, seq).and_then(|beat| *beat);
        let name = &step.name;
        if let (Some(silence), true) = (self.heartbeat, beat == Some(job)) {
            return error(
                "heartbeat_timeout",
                format!("step '{name}': no heartbeat within {} s", silence.as_secs()),
            );
        }
        let seconds = self.awaited.timeout.as_secs();
        match self.awaited.approval {
            Some(_) => {
                error("approval_timeout", format!("step '{name}': no decision within {seconds} s"))
            }
            None => {
                error("callback_timeout", format!("step '{name}': no callback within {seconds} s"))
            }
        }
    }

    /// Restarts the heartbeat's timer.
    fn beat(&self, walk: &mut Walk<'_>, seq: u32) {
        let Some(heartbeat) = self.heartbeat else { return };
        if let Some(old) = heartbeat_timer(walk, seq).and_then(|beat| *beat)
            && let Some(visit) = walk.visit(seq)
        {
            visit.jobs.retain(|job| *job != old);
            walk.cancel_jobs(&[old]);
        }
        let next = walk.wake_at(seq, Due::After(heartbeat));
        if let Some(beat) = heartbeat_timer(walk, seq) {
            *beat = next;
        }
        walk.note(NoteKind::HeartbeatReceived, Some(seq), json!({}));
    }
}

/// The timer of the next heartbeat of a visit that waits for its answer.
fn heartbeat_timer<'w>(walk: &'w mut Walk<'_>, seq: u32) -> Option<&'w mut Option<JobId>> {
    match walk.visit(seq).map(|visit| &mut visit.phase) {
        Some(VisitPhase::Answer { beat } | VisitPhase::Token { beat, .. }) => Some(beat),
        _ => None,
    }
}

impl StepType for Callback {
    fn name(&self) -> &'static str {
        if self.awaited.approval.is_some() { super::approval::ENTRY.name } else { ENTRY.name }
    }

    fn enter(&self, walk: &mut Walk<'_>, seq: u32, _: &Step) -> Result<Entered, RunError> {
        let token = walk.new_token();
        let run = walk.change.run.id;
        walk.change.tokens.push(Token {
            hash: Token::hash_of(&token),
            run,
            visit: seq,
            answer: None,
        });
        walk.note(NoteKind::TokenIssued, Some(seq), json!({}));
        if self.notify.is_some() {
            walk.call(seq);
            return Ok(Entered::Waits(VisitPhase::Call { token: Some(token), polls: 0 }));
        }
        let beat = self.expect(walk, seq);
        Ok(Entered::Waits(VisitPhase::Token { token, beat }))
    }

    fn handle(
        &self,
        walk: &mut Walk<'_>,
        seq: u32,
        step: &Step,
        fact: &Fact,
    ) -> Result<Handled, RunError> {
        match fact {
            Fact::Answered { .. } => {
                let beat = self.expect(walk, seq);
                if let Some(visit) = walk.visit(seq) {
                    visit.phase = VisitPhase::Answer { beat };
                }
                Ok(Handled::Waits)
            }
            Fact::Failed { error, .. } => Err(error.clone()),
            Fact::CalledBack { answer: Ok(payload), .. } => {
                walk.note(NoteKind::CallbackReceived, Some(seq), json!({}));
                Ok(Handled::Done(payload.clone(), None))
            }
            Fact::CalledBack { answer: Err(why), .. } => {
                let class =
                    if self.awaited.approval.is_some() { "rejected" } else { "callback_failed" };
                Err(error(class, why.clone()))
            }
            Fact::Heartbeat { .. } => {
                self.beat(walk, seq);
                Ok(Handled::Waits)
            }
            Fact::Elapsed { job, .. } => Err(self.too_late(walk, seq, step, *job)),
            _ => Ok(Handled::Waits),
        }
    }

    fn call(&self) -> Option<&Call> {
        self.notify.as_ref()
    }

    fn awaited(&self) -> Option<&Awaited> {
        Some(&self.awaited)
    }

    fn has_response(&self) -> bool {
        true
    }
}
