//! What people do to runs: start one by hand, call one off, take one up again.

use bytes::Bytes;

use super::Engine;
use super::accept::{NotAccepted, Planned, Receipt};
use super::advance::{Entropy, NoChange};
use crate::decide::plan::Plan;
use crate::decide::workflow::redrive::{Redrive, redrive};
use crate::decide::workflow::{Fact, Here, advance};
use crate::model::Body;
use crate::model::job::NewJob;
use crate::model::run::Change;
use crate::model::{Inbound, JobId, Payload, Run, RunId, Target, Timestamp};
use crate::store::Error;

/// How a run is taken up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// From this step instead of the one where it stopped.
    pub from: Option<String>,
    /// With this payload instead of the one that the step had.
    pub payload: Option<Bytes>,
    /// On the definition of the configuration instead of its own.
    pub latest: bool,
}

/// The source of events that start a run by hand.
pub const BY_HAND: &str = "by-hand";

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDone {
    /// There is no such thing.
    Missing,
    /// It cannot be done to it as it is: a sentence.
    Refused(String),
    /// The store did not take it.
    Store(Error),
}

impl From<Error> for NotDone {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<NoChange> for NotDone {
    fn from(none: NoChange) -> Self {
        match none {
            NoChange::Store(error) => Self::Store(error),
            NoChange::Parked(why) => Self::Refused(why),
        }
    }
}

impl Engine {
    /// Starts a run by hand. The answer names the run, which exists a moment later.
    ///
    /// # Errors
    /// Why not: no such workflow, or the event cannot be accepted.
    pub async fn start_run(
        &self,
        workflow: &str,
        payload: Body,
        content_type: Option<&str>,
    ) -> Result<(Receipt, RunId), Result<NotAccepted, NotDone>> {
        if self.config().workflow(workflow).is_none() {
            return Err(Err(NotDone::Missing));
        }
        let inbound = Inbound {
            source: BY_HAND.to_owned(),
            kind: workflow.to_owned(),
            aliases: Vec::new(),
            headers: content_type.map(|kind| ("content-type".to_owned(), kind.to_owned())).into_iter().collect(),
            body: payload,
            dedupe_key: None,
            idempotency_key: None,
        };
        let id = JobId::next(&*self.0.parts.ids);
        let job = NewJob { id, target: Target::Workflow(workflow.to_owned()), key: None, start: false };
        let plan = Plan { jobs: vec![job], misses: Vec::new() };
        let receipt = self.accept_planned(Planned { inbound, plan }).await.map_err(Ok)?;
        Ok((receipt, RunId::of(id)))
    }

    /// Calls a run off. Nothing of it is sent any more; what is under way ends without effect.
    ///
    /// # Errors
    /// Why not.
    pub async fn cancel_run(&self, id: RunId) -> Result<Run, NotDone> {
        self.wish_of(
            id,
            true,
            &Fact::Cancelled,
            "only a run that is under way can be cancelled; one that is being undone can only be killed",
        )
        .await
    }

    /// Ends a run at once: nothing is undone, and its last steps do not run.
    ///
    /// # Errors
    /// Why not.
    pub async fn kill_run(&self, id: RunId) -> Result<Run, NotDone> {
        self.wish_of(id, true, &Fact::Killed, "only an open run can be killed").await
    }

    /// Holds a run: nothing of it is sent until it is resumed; due times are kept.
    ///
    /// # Errors
    /// Why not.
    pub async fn pause_run(&self, id: RunId) -> Result<Run, NotDone> {
        self.wish_of(id, false, &Fact::Paused, "only a run that goes on can be paused").await
    }

    /// Lets a run go on that is paused. One that was paused by a failure repeats what failed.
    ///
    /// # Errors
    /// Why not.
    pub async fn resume_run(&self, id: RunId) -> Result<Run, NotDone> {
        self.wish_of(id, false, &Fact::Resumed, "only a paused run can be resumed").await
    }

    /// Tells a run what a person wants of it; `only` says which runs that can be done to.
    async fn wish_of(&self, id: RunId, ends: bool, fact: &Fact, only: &str) -> Result<Run, NotDone> {
        self.operate(id, ends, |run, here| advance(run, fact, here).ok_or_else(|| format!("{only}; this one is {}", run.status)))
            .await
    }

    /// Takes up a run that failed or was called off, from the step where it stopped unless something else is wished.
    ///
    /// # Errors
    /// Why not.
    pub async fn redrive_run(&self, id: RunId, wish: &Wish) -> Result<Run, NotDone> {
        let payload = wish.payload.clone().map(Payload::read);
        if !wish.latest {
            let redriven = |run: &Run, here: &Here<'_>| {
                redrive(run, &Redrive { from: wish.from.as_deref(), payload: payload.clone(), leaves: None }, here)
            };
            return self.operate(id, false, redriven).await;
        }
        let run = self.store().run(id).await?.ok_or(NotDone::Missing)?;
        let old = self.flow_of(&run).await.map_err(NoChange::from)?;
        let gone = || NotDone::Refused(format!("the configuration has no workflow `{}`", run.workflow));
        let new = self.config().workflow(&run.workflow).map(|workflow| workflow.flow.clone()).ok_or_else(gone)?;
        let redriven = |run: &Run, here: &Here<'_>| {
            let here = Here { flow: &new, now: here.now, draw: here.draw };
            redrive(run, &Redrive { from: wish.from.as_deref(), payload: payload.clone(), leaves: Some(&old) }, &here)
        };
        self.operate(id, true, redriven).await
    }

    pub(super) async fn operate(
        &self,
        id: RunId,
        ends: bool,
        decide: impl Fn(&Run, &Here<'_>) -> Result<Change, String>,
    ) -> Result<Run, NotDone> {
        loop {
            let run = self.store().run(id).await?.ok_or(NotDone::Missing)?;
            let flow = if ends { self.flow_to_end(&run).await } else { self.flow_of(&run).await };
            let flow = flow.map_err(|e| NotDone::from(NoChange::from(e)))?;
            let now = self.store().now().await?;
            let change = decide(&run, &Here { flow: &flow, now, draw: &Entropy(self) }).map_err(NotDone::Refused)?;
            match self.make(change, now).await {
                // Someone else changed it meanwhile: decide again.
                Err(NotDone::Store(Error::MovedOn)) => {}
                Err(error) => return Err(error),
                Ok(()) => return self.store().run(id).await?.ok_or(NotDone::Missing),
            }
        }
    }

    /// Makes a change that no job causes.
    pub(super) async fn make(&self, change: Change, now: Timestamp) -> Result<(), NotDone> {
        let change = self.with_children(change, now).await?;
        let answers = self.health().learn(self.store().change(std::slice::from_ref(&change)).await)?;
        match answers.into_iter().next() {
            Some(Ok(())) => {
                self.after_change(&change, false).await;
                Ok(())
            }
            Some(Err(error)) => Err(NotDone::Store(error)),
            None => Err(NotDone::Store(Error::Corrupt("the store gave no answer".to_owned()))),
        }
    }
}
