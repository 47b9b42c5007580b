//! `callback`: an answer from outside. The token is there before anyone is told of it, so an answer that overtakes the
//! notify's own response counts.

use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::catch::error;
use super::super::fact::Fact;
use super::super::flow::{Call, Step};
use super::super::walk::Walk;
use super::{Entered, Heard};
use crate::model::run::{Due, Phase, RunError, Token};

/// A callback.
#[derive(Debug, Clone)]
pub struct Callback {
    /// Who is told the token.
    pub notify: Option<Call>,
    /// How long the answer may take, from the moment the notify is through.
    pub timeout: Option<Duration>,
}

/// The stored form of a token.
pub fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

impl Callback {
    pub(super) fn enter(&self, walk: &mut Walk<'_>, seq: u32, _: &Step) -> Result<Entered, RunError> {
        let token = walk.here.draw.token();
        let run = walk.change.run.id;
        walk.change.tokens.push(Token { hash: hash(&token), run, visit: seq, answer: None });
        walk.note("TokenIssued", Some(seq), json!({}));
        if self.notify.is_some() {
            walk.call(seq);
            return Ok(Entered::Waits(Phase::Call { body: None, token: Some(token) }));
        }
        self.expect(walk, seq);
        Ok(Entered::Waits(Phase::Token { token }))
    }

    fn expect(&self, walk: &mut Walk<'_>, seq: u32) {
        if let Some(timeout) = self.timeout {
            walk.wake_at(seq, Due::After(timeout));
        }
    }

    pub(super) fn hear(&self, walk: &mut Walk<'_>, seq: u32, step: &Step, fact: &Fact) -> Result<Heard, RunError> {
        match fact {
            Fact::Answered { .. } => {
                self.expect(walk, seq);
                if let Some(visit) = walk.visit(seq) {
                    visit.phase = Phase::Answer;
                }
                Ok(Heard::Waits)
            }
            Fact::Failed { error, .. } => Err(error.clone()),
            Fact::CalledBack { answer: Ok(payload), .. } => {
                walk.note("CallbackReceived", Some(seq), json!({}));
                Ok(Heard::Done(payload.clone(), None))
            }
            Fact::CalledBack { answer: Err(why), .. } => Err(error("callback_failed", why.clone())),
            Fact::Elapsed { .. } => {
                let seconds = self.timeout.unwrap_or_default().as_secs();
                Err(error("callback_timeout", format!("step '{}': no callback within {seconds} s", step.name)))
            }
            Fact::ChildEnded { .. } | Fact::Cancelled => Ok(Heard::Waits),
        }
    }
}
