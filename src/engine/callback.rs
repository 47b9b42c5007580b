//! Callbacks: an outside system answers a waiting step with the step's token. A token takes one
//! answer.

use sha2::{Digest, Sha256};

use super::Engine;
use super::advance::{ChangeError, Entropy};
use super::approval::{Decision, approval_of, waits};
use super::operate::OperateError;
use crate::decide::workflow::{Context, Fact, advance};
use crate::model::run::Token;
use crate::model::{Body, Payload, RunId};
use crate::store::Error;

/// The length of a token: 256 bits in base32.
const TOKEN_CHARS: usize = 52;

/// What the holder of a token reports about the work that the step waits for.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The work is done; the body becomes the step's response.
    Done(Body),
    /// The work failed, for this reason. The step fails with `callback_failed`.
    Failed(String),
    /// The work is still under way. This resets the step's heartbeat timeout and does not use up
    /// the token.
    Heartbeat,
}

/// What happened to an answer that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// The run whose step took the answer.
    pub run: RunId,
    /// The same answer was given before, so this one changed nothing.
    pub duplicate: bool,
}

/// Why an answer is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAnswered {
    /// The token does not exist, or the text has not the form of a token.
    Unknown,
    /// A different answer was given before.
    Conflict,
    /// The step waits for an approval, and the body is no decision. The text says what is expected.
    Unclear(String),
    /// The step no longer waits: it timed out, or its run ended or moved on.
    Gone,
    /// The answer could not be applied for a reason that any operation on a run may have, such as
    /// an unavailable store.
    OperateError(OperateError),
}

/// Whether a text has the form of a token: 52 ASCII letters or digits.
pub fn is_token(text: &str) -> bool {
    text.len() == TOKEN_CHARS && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

impl Answer {
    fn fingerprint(&self) -> String {
        let (word, bytes) = match self {
            Self::Done(body) => ("done:", &body.bytes()[..]),
            Self::Failed(why) => ("failed:", why.as_bytes()),
            Self::Heartbeat => ("beat:", &[][..]),
        };
        hex::encode(Sha256::digest([word.as_bytes(), bytes].concat()))
    }
}

impl Engine {
    /// Applies an answer to the step that a token belongs to. It retries if the run changes
    /// meanwhile.
    ///
    /// # Errors
    /// Why the answer is not taken; the run is unchanged.
    pub async fn answer(&self, token: &str, answer: &Answer) -> Result<Answered, NotAnswered> {
        if !is_token(token) {
            return Err(NotAnswered::Unknown);
        }
        let store_failed = |error| NotAnswered::OperateError(OperateError::from(error));
        let (hash, fingerprint) = (Token::hash_of(token), answer.fingerprint());
        loop {
            let found =
                self.health().learn(self.store().token(&hash).await).map_err(store_failed)?;
            let Some(found) = found else { return Err(NotAnswered::Unknown) };
            match &found.answer {
                Some(_) if matches!(answer, Answer::Heartbeat) => return Err(NotAnswered::Gone),
                Some(before) if *before == fingerprint => {
                    return Ok(Answered { run: found.run, duplicate: true });
                }
                Some(_) => return Err(NotAnswered::Conflict),
                None => {}
            }
            let Some(run) = self.store().run(found.run).await.map_err(store_failed)? else {
                return Err(NotAnswered::Unknown);
            };
            let flow = self
                .flow_of(&run)
                .await
                .map_err(|e| NotAnswered::OperateError(ChangeError::from(e).into()))?;
            let now = self.store().now().await.map_err(store_failed)?;
            let said = |said| Fact::CalledBack { visit: found.visit, answer: said };
            let fact = match (answer, approval_of(&run, &flow, found.visit)) {
                (Answer::Heartbeat, _) => Fact::Heartbeat { visit: found.visit },
                (Answer::Done(body), Some(approval)) => {
                    let decision = Decision::read(body).map_err(NotAnswered::Unclear)?;
                    said(
                        decision
                            .result_for(approval, now)
                            .map_err(|why| NotAnswered::OperateError(OperateError::Refused(why)))?,
                    )
                }
                (Answer::Done(body), None) => said(Ok(Payload::of(body))),
                // A decision must be explicit: failing the step here would bypass the approvers.
                (Answer::Failed(_), Some(_)) => {
                    let why = "the step waits for a decision: send `approved` (true or false) to \
                        /callback/TOKEN";
                    return Err(NotAnswered::Unclear(why.to_owned()));
                }
                (Answer::Failed(why), None) => said(Err(why.clone())),
            };
            let Some(mut change) =
                advance(&run, &fact, &Context { flow: &flow, now, draw: &Entropy(self) })
            else {
                // A sign of life where none is asked for is welcome, and changes nothing.
                let waits = run.state.visits.get(&found.visit).is_some_and(waits);
                if matches!(answer, Answer::Heartbeat) && waits && !run.status.is_closed() {
                    return Ok(Answered { run: found.run, duplicate: false });
                }
                // Someone else's answer may have come between the two looks.
                let again = self.store().token(&hash).await.map_err(store_failed)?;
                if again.is_some_and(|token| token.answer.is_some()) {
                    continue;
                }
                return Err(NotAnswered::Gone);
            };
            if !matches!(answer, Answer::Heartbeat) {
                change.spent = Some(Token { answer: Some(fingerprint.clone()), ..found.clone() });
            }
            match self.commit_change(change, now).await {
                Ok(()) => return Ok(Answered { run: found.run, duplicate: false }),
                // Someone else was first, or the run went on: look again.
                Err(OperateError::Store(Error::MovedOn)) => {}
                Err(error) => return Err(NotAnswered::OperateError(error)),
            }
        }
    }
}
