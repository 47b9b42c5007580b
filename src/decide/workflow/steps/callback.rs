//! `callback` and `approval`: an answer from outside. The token is there before anyone is told of it, so an answer that
//! overtakes the notify's own response counts.

use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::catch::error;
use super::super::fact::Fact;
use super::super::flow::{Call, Step};
use super::super::walk::Walk;
use super::{Entered, Heard};
use crate::model::run::{Due, RunError, Token, VisitPhase};

/// A step that waits for an answer.
#[derive(Debug, Clone)]
pub struct Callback {
    /// Who is told the token.
    pub notify: Option<Call>,
    /// How long the answer may take, from the moment the notify is through.
    pub timeout: Duration,
    /// How long whoever works on it may be silent.
    pub heartbeat: Option<Duration>,
    /// The answer is a person's decision.
    pub approval: Option<Approval>,
}

/// A person's decision.
#[derive(Debug, Clone)]
pub struct Approval {
    /// Who may decide; empty is everyone who has the token or may use the API.
    pub approvers: Vec<String>,
}

/// The stored form of a token.
pub fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

impl Callback {
    pub(super) fn enter(&self, walk: &mut Walk<'_>, seq: u32) -> Entered {
        let token = walk.here.draw.token();
        let run = walk.change.run.id;
        walk.change.tokens.push(Token { hash: hash(&token), run, visit: seq, answer: None });
        walk.note("TokenIssued", Some(seq), json!({}));
        if self.notify.is_some() {
            walk.call(seq);
            return Entered::Waits(VisitPhase::Call { token: Some(token), polls: 0 });
        }
        let beat = self.expect(walk, seq);
        Entered::Waits(VisitPhase::Token { token, beat })
    }

    /// From here on the answer, and signs of life, are waited for.
    fn expect(&self, walk: &mut Walk<'_>, seq: u32) -> Option<crate::model::JobId> {
        walk.wake_at(seq, Due::After(self.timeout));
        self.heartbeat.and_then(|heartbeat| walk.wake_at(seq, Due::After(heartbeat)))
    }

    pub(super) fn hear(&self, walk: &mut Walk<'_>, seq: u32, step: &Step, fact: &Fact) -> Result<Heard, RunError> {
        match fact {
            Fact::Answered { .. } => {
                let beat = self.expect(walk, seq);
                if let Some(visit) = walk.visit(seq) {
                    visit.phase = VisitPhase::Answer { beat };
                }
                Ok(Heard::Waits)
            }
            Fact::Failed { error, .. } => Err(error.clone()),
            Fact::CalledBack { answer: Ok(payload), .. } => {
                walk.note("CallbackReceived", Some(seq), json!({}));
                Ok(Heard::Done(payload.clone(), None))
            }
            Fact::CalledBack { answer: Err(why), .. } => {
                let class = if self.approval.is_some() { "rejected" } else { "callback_failed" };
                Err(error(class, why.clone()))
            }
            Fact::Heartbeat { .. } => {
                self.beat(walk, seq);
                Ok(Heard::Waits)
            }
            Fact::Elapsed { job, .. } => Err(self.too_late(walk, seq, step, *job)),
            _ => Ok(Heard::Waits),
        }
    }

    fn too_late(&self, walk: &mut Walk<'_>, seq: u32, step: &Step, job: crate::model::JobId) -> RunError {
        let beat = match walk.visit(seq).map(|visit| &visit.phase) {
            Some(VisitPhase::Answer { beat } | VisitPhase::Token { beat, .. }) => *beat,
            _ => None,
        };
        let name = &step.name;
        if let (Some(silence), true) = (self.heartbeat, beat == Some(job)) {
            return error("heartbeat_timeout", format!("step '{name}': no sign of life within {} s", silence.as_secs()));
        }
        let seconds = self.timeout.as_secs();
        match self.approval {
            Some(_) => error("approval_timeout", format!("step '{name}': no decision within {seconds} s")),
            None => error("callback_timeout", format!("step '{name}': no callback within {seconds} s")),
        }
    }

    /// A sign of life: silence is counted from here on.
    fn beat(&self, walk: &mut Walk<'_>, seq: u32) {
        let Some(heartbeat) = self.heartbeat else { return };
        let old = match walk.visit(seq).map(|visit| &visit.phase) {
            Some(VisitPhase::Answer { beat } | VisitPhase::Token { beat, .. }) => *beat,
            _ => None,
        };
        if let (Some(old), Some(visit)) = (old, walk.visit(seq)) {
            visit.jobs.retain(|job| *job != old);
            walk.cancel_jobs(&[old]);
        }
        let next = walk.wake_at(seq, Due::After(heartbeat));
        if let Some(VisitPhase::Answer { beat } | VisitPhase::Token { beat, .. }) = walk.visit(seq).map(|visit| &mut visit.phase)
        {
            *beat = next;
        }
        walk.note("HeartbeatReceived", Some(seq), json!({}));
    }
}
