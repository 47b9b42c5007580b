//! Approvals: people's decisions about steps that wait for one.

use serde_json::{Value, json};

use super::Engine;
use super::operate::OperateError;
use crate::decide::workflow::step_type::Approval;
use crate::decide::workflow::{Fact, Flow, advance};
use crate::model::run::{Token, Visit, VisitPhase};
use crate::model::{Body, Payload, Run, RunId, Timestamp};

/// A person's decision about a step: approved or rejected, by whom and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether the person approved; `false` fails the step with `rejected`.
    pub approved: bool,
    /// The name that the person gave. It is checked against the step's approvers, and nothing else
    /// proves it.
    pub by: Option<String>,
    /// A free text from the person. For a rejection it is part of the error message.
    pub comment: Option<String>,
}

/// What the holder of a token is shown before deciding: the step that waits, its data and its
/// approvers.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingApproval {
    /// The run that waits for the decision.
    pub run: RunId,
    /// The name of the run's workflow.
    pub workflow: String,
    /// The name of the step that waits.
    pub step: String,
    /// The names that may decide; empty means everyone who has the token.
    pub approvers: Vec<String>,
    /// The payload that the step was entered with: the data to decide about.
    pub payload: Payload,
}

impl Decision {
    /// Reads a decision from a body: `{"approved", "by", "comment"}`. Only a boolean `approved`
    /// decides.
    ///
    /// # Errors
    /// A sentence for the caller: the body cannot be read, or has other keys or types.
    pub fn read(body: &Body) -> Result<Self, String> {
        Self::fields(body, None)
    }

    /// Reads the rest of a decision whose `approved` is already known from the request's path:
    /// `{"by", "comment"}`, or an empty body.
    ///
    /// # Errors
    /// As [`Decision::read`], and when `approved` in the body contradicts the path.
    pub fn of(approved: bool, body: &Body) -> Result<Self, String> {
        Self::fields(body, Some(approved))
    }

    fn fields(body: &Body, decided: Option<bool>) -> Result<Self, String> {
        let expected =
            "expected an object: {\"approved\": true, \"by\": \"name\", \"comment\": \"text\"}";
        let fields = match Payload::of(body) {
            Payload::Json(Value::Object(fields)) => fields,
            Payload::Json(Value::Null) if decided.is_some() => serde_json::Map::new(),
            _ => return Err(expected.to_owned()),
        };
        // Of repeated keys the last one counts, and another reader's first one might say the
        // opposite.
        if let Some(repeated) = body.parsed_unless_text().and_then(|payload| payload.repeated_key())
        {
            let repeated: String = repeated.chars().take(40).collect();
            return Err(format!("duplicate key `{}`", repeated.escape_debug()));
        }
        if let Some(unknown) =
            fields.keys().find(|key| !["approved", "by", "comment"].contains(&key.as_str()))
        {
            let unknown: String = unknown.chars().take(40).collect();
            return Err(format!("unknown key `{}`; {expected}", unknown.escape_debug()));
        }
        let text = |name: &str| match fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("`{name}` must be a string; {expected}")),
        };
        let approved = match (decided, fields.get("approved")) {
            (Some(decided), None) => decided,
            (Some(decided), Some(Value::Bool(approved))) if *approved == decided => decided,
            (None, Some(Value::Bool(approved))) => *approved,
            (Some(_), Some(_)) => return Err(
                "`approved` in the body contradicts the path: remove it, or use the other route"
                    .to_owned(),
            ),
            (None, _) => return Err(format!("`approved` must be true or false; {expected}")),
        };
        Ok(Self { approved, by: text("by")?, comment: text("comment")? })
    }

    /// The step's result: `{approved, by, at, comment}` for an approval, the error message for a
    /// rejection.
    ///
    /// # Errors
    /// A sentence for the caller: `by` names none of the approvers.
    pub(super) fn result_for(
        &self,
        approval: &Approval,
        now: Timestamp,
    ) -> Result<Result<Payload, String>, String> {
        let may = approval.approvers.is_empty()
            || self.by.as_ref().is_some_and(|by| approval.approvers.contains(by));
        if !may {
            return Err(format!(
                "`by` must name one of the approvers: {}",
                approval.approvers.join(", ")
            ));
        }
        let by = self.by.as_deref().map_or(String::new(), |by| format!(" by {by}"));
        Ok(match self.approved {
            true => Ok(Payload::Json(json!({
                "approved": true,
                "by": self.by,
                "at": now.rfc3339(),
                "comment": self.comment,
            }))),
            false => Err(match &self.comment {
                Some(comment) => format!("rejected{by}: {comment}"),
                None => format!("rejected{by}"),
            }),
        })
    }
}

/// The approval settings of the step that a visit is in; `None` when that step is no approval.
pub(super) fn approval_of<'a>(run: &Run, flow: &'a Flow, visit: u32) -> Option<&'a Approval> {
    flow.step(&run.state.visits.get(&visit)?.at)?.kind.awaited()?.approval.as_ref()
}

/// Whether a visit waits for an answer from outside.
pub(super) fn waits(visit: &Visit) -> bool {
    matches!(
        visit.phase,
        VisitPhase::Answer { .. }
            | VisitPhase::Token { .. }
            | VisitPhase::Call { token: Some(_), .. }
    )
}

impl Engine {
    /// Returns what the holder of a token is asked to decide. This changes nothing and does not use
    /// up the token.
    ///
    /// # Errors
    /// No such token, or its step waits for no decision any more.
    pub async fn pending_approval(&self, token: &str) -> Result<PendingApproval, OperateError> {
        let found = self
            .health()
            .learn(self.store().token(&Token::hash_of(token)).await)?
            .ok_or(OperateError::Missing)?;
        let run = self.store().run(found.run).await?.ok_or(OperateError::Missing)?;
        run.readable().map_err(OperateError::Refused)?;
        let over = || {
            OperateError::Refused(
                "this approval was already decided, or the step no longer waits for it".to_owned(),
            )
        };
        let visit =
            run.state.visits.get(&found.visit).filter(|visit| waits(visit)).ok_or_else(over)?;
        let flow = self.flow_of(&run).await.map_err(super::advance::ChangeError::from)?;
        let approval = approval_of(&run, &flow, found.visit).ok_or(OperateError::Missing)?;
        Ok(PendingApproval {
            run: run.id,
            workflow: run.workflow.clone(),
            step: visit.step.clone(),
            approvers: approval.approvers.clone(),
            payload: visit.payload.clone(),
        })
    }

    /// Decides for a step of a run, named by its step instead of a token.
    ///
    /// # Errors
    /// No such run or no such waiting step, several visits of the step wait, or `by` may not
    /// decide.
    pub async fn decide_step(
        &self,
        id: RunId,
        step: &str,
        decision: &Decision,
    ) -> Result<Run, OperateError> {
        self.operate(id, false, |run, context| {
            let mut named =
                run.state.visits.iter().filter(|(_, visit)| visit.step == step && waits(visit));
            let nobody = || format!("the step '{step}' of this run does not wait for a decision");
            let (seq, _) = named.next().ok_or_else(nobody)?;
            if named.next().is_some() {
                return Err(format!(
                    "several visits of the step '{step}' wait for a decision; \
                    decide each one with its callback token"
                ));
            }
            let approval = approval_of(run, context.flow, *seq).ok_or_else(nobody)?;
            let answer = decision.result_for(approval, context.now)?;
            advance(run, &Fact::CalledBack { visit: *seq, answer }, context).ok_or_else(nobody)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_read_and_told_to_those_who_may() {
        let read = |text: &str| Decision::read(&Body::new(text.as_bytes().to_vec()));
        assert!(read(r#"{"approved": true}"#).unwrap().approved);
        assert!(!read(r#"{"approved": false, "by": "ada"}"#).unwrap().approved);
        let only = Approval { approvers: vec!["ada".to_owned()] };
        assert!(read(r#"{"approved": true}"#).unwrap().result_for(&only, Timestamp(0)).is_err());
        let yes = read(r#"{"approved": true, "by": "ada", "comment": "go"}"#)
            .unwrap()
            .result_for(&only, Timestamp(0))
            .unwrap()
            .unwrap();
        assert_eq!(yes.json().unwrap()["by"], "ada");
        let no = read(r#"{"approved": false, "by": "ada", "comment": "not today"}"#)
            .unwrap()
            .result_for(&only, Timestamp(0))
            .unwrap();
        assert_eq!(no, Err("rejected by ada: not today".to_owned()));
    }

    #[test]
    fn nothing_but_a_boolean_approved_decides() {
        for text in [
            "",
            " ",
            "null",
            "{}",
            "[]",
            "true",
            "yes",
            "\"approve\"",
            r#"{"decision": "reject"}"#,
            r#"{"decision": "approve"}"#,
            r#"{"approve": false}"#,
            r#"{"approve": true}"#,
            r#"{"approved": "true"}"#,
            r#"{"approved": "no"}"#,
            r#"{"approved": 1}"#,
            r#"{"approved": 0}"#,
            r#"{"approved": null}"#,
            r#"{"approved": []}"#,
            r#"{"approved": {}}"#,
            r#"{"approved": true, "decision": "reject"}"#,
            r#"{"Approved": true}"#,
            r#"{"approved": true, "by": 7}"#,
            r#"{"approved": true"#,
        ] {
            let read = Decision::read(&Body::new(text.as_bytes().to_vec()));
            assert!(read.is_err(), "{text}: {read:?}");
        }
    }
}
