//! Definitions of workflows, compiled: those of the configuration, and older ones that runs are still pinned to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Engine;
use crate::config::{Config, Workflow};
use crate::decide::workflow::Flow;
use crate::model::Run;
use crate::store::Definition;

/// Compiled definitions by hash.
#[derive(Default)]
pub struct Flows(Mutex<HashMap<String, Arc<Flow>>>);

/// Why a definition cannot be had.
#[derive(Debug, Clone)]
pub enum NoFlow {
    /// The store does not answer.
    Store(crate::store::Error),
    /// It is not there, or cannot be compiled any more.
    Unusable(String),
}

impl Flows {
    /// Those of a configuration.
    pub fn of(config: &Config) -> Self {
        let flows = config.workflows.iter().map(|w| (w.flow.hash.clone(), Arc::new(w.flow.clone())));
        Self(Mutex::new(flows.collect()))
    }

    fn get(&self, hash: &str) -> Option<Arc<Flow>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }
}

impl Engine {
    /// Keeps the definitions of the configuration, so that runs outlive a change of it.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn define(&self) -> crate::store::Result<()> {
        let definition =
            |w: &Workflow| Definition { hash: w.flow.hash.clone(), name: w.name.clone(), body: w.definition.clone() };
        let definitions: Vec<Definition> = self.config().workflows.iter().map(definition).collect();
        self.store().define(&definitions).await
    }

    /// A run's definition, or what is left of one that cannot be used any more: enough to end the run.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn flow_to_end(&self, run: &Run) -> Result<Arc<Flow>, NoFlow> {
        match self.flow(&run.definition).await {
            Err(NoFlow::Unusable(why)) => {
                tracing::warn!(run = %run.id, why, "A run is ended without its definition.");
                Ok(Arc::new(Flow::without_steps(&run.workflow, &run.definition)))
            }
            other => other,
        }
    }

    /// The definition by which a run goes on.
    ///
    /// # Errors
    /// Why it cannot be had, or why the run cannot go on.
    pub(super) async fn flow_of(&self, run: &Run) -> Result<Arc<Flow>, NoFlow> {
        run.readable().map_err(NoFlow::Unusable)?;
        self.flow(&run.definition).await
    }

    /// A definition by its hash.
    ///
    /// # Errors
    /// Why it cannot be had.
    async fn flow(&self, hash: &str) -> Result<Arc<Flow>, NoFlow> {
        if let Some(flow) = self.0.flows.get(hash) {
            return Ok(flow);
        }
        let found = self.store().definition(hash).await.map_err(NoFlow::Store)?;
        let Some(definition) = found else {
            return Err(NoFlow::Unusable(format!("the definition {hash} is not in the database")));
        };
        let unusable = |why: String| {
            let name = &definition.name;
            NoFlow::Unusable(format!("workflow `{name}` as it was when the run started cannot be used any more: {why}"))
        };
        let workflow = self.config().compile(&definition.name, &definition.body).map_err(unusable)?;
        if workflow.flow.hash != hash {
            return Err(unusable("its text does not have its hash".to_owned()));
        }
        // Lanes of steps that the configuration no longer names.
        self.store().upsert_lanes(&workflow.lanes()).await.map_err(NoFlow::Store)?;
        let flow = Arc::new(workflow.flow);
        self.0.flows.0.lock().unwrap_or_else(PoisonError::into_inner).insert(hash.to_owned(), Arc::clone(&flow));
        Ok(flow)
    }
}
