//! Workflows: definitions, runs, their history, gates and callback tokens.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Each, Page};
use crate::model::history::HistoryEntry;
use crate::model::run::{Change, Gate, Token};
use crate::model::{EventId, Run, RunId, RunStatus};
use crate::store::error::Result;

/// One version of a workflow's definition, as written: variables and secrets are not replaced yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// SHA-256 of the body, in hexadecimal. Runs name their definition by it.
    pub hash: String,
    /// The name of the workflow. Several definitions can have the same one.
    pub name: String,
    /// The definition as JSON. Secrets and other variables are still references in it.
    pub body: String,
}

/// Which runs a list holds. Every field that is set narrows it further.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Only runs of the workflow with this name.
    pub workflow: Option<String>,
    /// Only runs that are in this status now.
    pub status: Option<RunStatus>,
    /// Only what this event caused, the work of child runs included; `None` is every event.
    pub event: Option<EventId>,
    /// Only ids that come after this one in the order of the page. `None` starts at the first.
    pub after: Option<RunId>,
}

/// Stores workflow definitions and runs, and reads them back.
#[async_trait]
pub trait Runs: Send + Sync {
    /// Stores definitions. One whose hash is stored already changes nothing.
    async fn define(&self, definitions: &[Definition]) -> Result<()>;
    /// A definition by its hash; `None` if it was never stored.
    async fn definition(&self, hash: &str) -> Result<Option<Definition>>;
    /// Runs by their ids; those that do not exist are left out.
    async fn runs_by_id(&self, ids: &[RunId]) -> Result<BTreeMap<RunId, Run>>;
    /// One run by its id; `None` if it does not exist.
    async fn run(&self, id: RunId) -> Result<Option<Run>> {
        Ok(self.runs_by_id(&[id]).await?.remove(&id))
    }
    /// Runs that match the filter, in the order of their ids.
    async fn runs(&self, filter: &RunFilter, page: Page) -> Result<Vec<Run>>;
    /// The history of a run, oldest first.
    async fn history(&self, run: RunId) -> Result<Vec<HistoryEntry>>;
    /// A gate (the queue of one concurrency key) with its version: which runs are inside and which
    /// wait. Version 0 and an empty gate if there is none yet.
    async fn gate(&self, id: &str) -> Result<(i64, Gate)>;
    /// A callback token by the SHA-256 of its text; `None` if there is no such token.
    async fn token(&self, hash: &str) -> Result<Option<Token>>;
    /// Applies changes that no job causes: an answer from outside, or an operator's request.
    /// `MovedOn` when the run has changed since it was read. A new run whose id is taken is an
    /// error, and nothing changes. Changes that a job causes are part of [`super::Work::record`].
    async fn change(&self, changes: &[Change]) -> Each<()>;
}
