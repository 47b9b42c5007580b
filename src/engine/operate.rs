//! Operators' requests about runs: start, cancel, kill, pause, resume and redrive.

use bytes::Bytes;

use super::Engine;
use super::accept::{NotAccepted, Planned, Receipt};
use super::advance::{ChangeError, Entropy};
use crate::decide::plan::Plan;
use crate::decide::workflow::redrive::{Redrive, redrive};
use crate::decide::workflow::{Context, Fact, advance};
use crate::model::Body;
use crate::model::job::NewJob;
use crate::model::run::Change;
use crate::model::{Inbound, JobId, Payload, Run, RunId, Target, Timestamp};
use crate::store::Error;

/// The options of a redrive that an operator may set. The default repeats the step where the run
/// stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedriveOptions {
    /// The name of the step to start from; `None` means the step where the run stopped.
    pub from: Option<String>,
    /// The payload for that step; `None` means the payload that the step had.
    pub payload: Option<Bytes>,
    /// Use the definition in the present configuration instead of the one that the run is pinned
    /// to.
    pub latest: bool,
}

/// The source name of events that start a run by hand. No configured source has to exist for it.
pub const BY_HAND: &str = "by-hand";

/// Why an operator's request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperateError {
    /// The run, workflow or token does not exist.
    Missing,
    /// The present state does not allow it. The text says why.
    Refused(String),
    /// The store could not be read or written.
    Store(Error),
}

/// Why a run was not started by hand.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// The configuration has no workflow of this name.
    #[error("no such workflow")]
    NoSuchWorkflow,
    /// Its event was not accepted.
    #[error(transparent)]
    NotAccepted(#[from] NotAccepted),
}

impl From<Error> for OperateError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<ChangeError> for OperateError {
    fn from(none: ChangeError) -> Self {
        match none {
            ChangeError::Store(error) => Self::Store(error),
            ChangeError::Unusable(why) => Self::Refused(why),
        }
    }
}

impl Engine {
    /// Starts a run by hand. The returned id is final, but the run exists only after a worker has
    /// executed its first job.
    ///
    /// # Errors
    /// There is no such workflow, or the event cannot be accepted.
    pub async fn start_run(
        &self,
        workflow: &str,
        payload: Body,
        content_type: Option<&str>,
    ) -> Result<(Receipt, RunId), NotStarted> {
        if self.config().workflow(workflow).is_none() {
            return Err(NotStarted::NoSuchWorkflow);
        }
        let inbound = Inbound {
            source: BY_HAND.to_owned(),
            kind: workflow.to_owned(),
            type_aliases: Vec::new(),
            headers: content_type
                .map(|kind| ("content-type".to_owned(), kind.to_owned()))
                .into_iter()
                .collect(),
            body: payload,
            dedupe_key: None,
            idempotency_key: None,
        };
        let id = JobId::next(&*self.0.parts.ids);
        let job = NewJob {
            id,
            target: Target::Workflow(workflow.to_owned()),
            key: None,
            due: None,
            start: false,
        };
        let plan = Plan { jobs: vec![job], misses: Vec::new() };
        let receipt = self
            .accept_planned(Planned { inbound, plan })
            .await
            .map_err(NotStarted::NotAccepted)?;
        Ok((receipt, RunId::of(id)))
    }

    /// Cancels a run. Its open jobs are not sent any more, and a call in flight has no effect on
    /// it. If the workflow says so, completed steps are rolled back; then the steps of `finally`
    /// run.
    ///
    /// # Errors
    /// No such run, it is not under way, or the store failed.
    pub async fn cancel_run(&self, id: RunId) -> Result<Run, OperateError> {
        self.apply_request(
            id,
            true,
            &Fact::Cancelled,
            "only a run in progress can be cancelled; a run that is rolling back can only be \
             killed",
        )
        .await
    }

    /// Ends a run at once, without rollback and without the steps of `finally`.
    ///
    /// # Errors
    /// No such run, it has ended already, or the store failed.
    pub async fn kill_run(&self, id: RunId) -> Result<Run, OperateError> {
        self.apply_request(id, true, &Fact::Killed, "only a run that is not finished can be killed")
            .await
    }

    /// Pauses a run. Nothing of it is sent until it is resumed; due times are kept.
    ///
    /// # Errors
    /// No such run, it cannot be paused as it is, or the store failed.
    pub async fn pause_run(&self, id: RunId) -> Result<Run, OperateError> {
        self.apply_request(id, false, &Fact::Paused, "only a run in progress can be paused").await
    }

    /// Resumes a paused run. If a failure paused it, the failed step is repeated.
    ///
    /// # Errors
    /// No such run, it is not paused, or the store failed.
    pub async fn resume_run(&self, id: RunId) -> Result<Run, OperateError> {
        self.apply_request(id, false, &Fact::Resumed, "only a paused run can be resumed").await
    }

    /// Applies an operator's request to a run. `only` begins the error message if the run's status
    /// does not allow it; `ends` allows it for a run whose definition is unusable.
    async fn apply_request(
        &self,
        id: RunId,
        ends: bool,
        fact: &Fact,
        only: &str,
    ) -> Result<Run, OperateError> {
        self.operate(id, ends, |run, context| {
            advance(run, fact, context).ok_or_else(|| format!("{only}; this one is {}", run.status))
        })
        .await
    }

    /// Restarts a run that failed or was cancelled, from the step where it stopped unless the
    /// request names another.
    ///
    /// # Errors
    /// No such run, it cannot be restarted in this way, or the store failed.
    pub async fn redrive_run(&self, id: RunId, wish: &RedriveOptions) -> Result<Run, OperateError> {
        let payload = wish.payload.clone().map(Payload::read);
        if !wish.latest {
            let redriven = |run: &Run, context: &Context<'_>| {
                redrive(
                    run,
                    &Redrive {
                        from: wish.from.as_deref(),
                        payload: payload.clone(),
                        old_definition: None,
                    },
                    context,
                )
            };
            return self.operate(id, false, redriven).await;
        }
        let run = self.store().run(id).await?.ok_or(OperateError::Missing)?;
        let old = self.flow_of(&run).await.map_err(ChangeError::from)?;
        let gone = || {
            OperateError::Refused(format!("the configuration has no workflow `{}`", run.workflow))
        };
        let new = self
            .config()
            .workflow(&run.workflow)
            .map(|workflow| workflow.flow.clone())
            .ok_or_else(gone)?;
        let redriven = |run: &Run, context: &Context<'_>| {
            let context = Context { flow: &new, now: context.now, draw: context.draw };
            redrive(
                run,
                &Redrive {
                    from: wish.from.as_deref(),
                    payload: payload.clone(),
                    old_definition: Some(&old),
                },
                &context,
            )
        };
        self.operate(id, true, redriven).await
    }

    pub(super) async fn operate(
        &self,
        id: RunId,
        ends: bool,
        decide: impl Fn(&Run, &Context<'_>) -> Result<Change, String>,
    ) -> Result<Run, OperateError> {
        loop {
            let run = self.store().run(id).await?.ok_or(OperateError::Missing)?;
            let flow = if ends { self.flow_to_end(&run).await } else { self.flow_of(&run).await };
            let flow = flow.map_err(|e| OperateError::from(ChangeError::from(e)))?;
            let now = self.store().now().await?;
            let change = decide(&run, &Context { flow: &flow, now, draw: &Entropy(self) })
                .map_err(OperateError::Refused)?;
            match self.commit_change(change, now).await {
                // Someone else changed it meanwhile: decide again.
                Err(OperateError::Store(Error::MovedOn)) => {}
                Err(error) => return Err(error),
                Ok(()) => return self.store().run(id).await?.ok_or(OperateError::Missing),
            }
        }
    }

    /// Commits a change of a run that no job caused, then wakes workers for its jobs.
    pub(super) async fn commit_change(
        &self,
        change: Change,
        now: Timestamp,
    ) -> Result<(), OperateError> {
        let change = self.with_children(change, now).await?;
        let answers =
            self.health().learn(self.store().change(std::slice::from_ref(&change)).await)?;
        match answers.into_iter().next() {
            Some(Ok(())) => {
                self.after_change(&change, false).await;
                Ok(())
            }
            Some(Err(error)) => Err(OperateError::Store(error)),
            None => Err(OperateError::Store(Error::permanent(
                "the store returned too few results".to_owned(),
            ))),
        }
    }
}
