//! Compiled workflow definitions: those of the present configuration, and older ones that runs are
//! still pinned to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Engine;
use crate::config::{Config, Workflow};
use crate::decide::workflow::Flow;
use crate::model::Run;
use crate::store::Definition;

/// A cache of compiled definitions by their hash. Definitions that leave the configuration stay in
/// it until the process ends.
#[derive(Default)]
pub struct Flows(Mutex<HashMap<String, Arc<Flow>>>);

/// Why a run's definition cannot be used.
#[derive(Debug, Clone)]
pub enum FlowError {
    /// The store does not answer.
    Store(crate::store::Error),
    /// The definition is not in the database, or this version cannot compile it. The text says
    /// which.
    Unusable(String),
}

impl Flows {
    /// Starts the cache with the definitions of a configuration.
    pub fn of(config: &Config) -> Self {
        let flows =
            config.workflows.iter().map(|w| (w.flow.hash.clone(), Arc::new(w.flow.clone())));
        Self(Mutex::new(flows.collect()))
    }

    fn get(&self, hash: &str) -> Option<Arc<Flow>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }
}

impl Engine {
    /// Stores the definitions of the configuration, so that a run can continue after its definition
    /// has changed.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn define(&self) -> crate::store::Result<()> {
        let definition = |w: &Workflow| Definition {
            hash: w.flow.hash.clone(),
            name: w.name.clone(),
            body: w.definition.clone(),
        };
        let definitions: Vec<Definition> = self.config().workflows.iter().map(definition).collect();
        self.store().define(&definitions).await
    }

    /// Returns a run's definition. If that is unusable, it returns a stub without steps, which is
    /// enough to end the run.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn flow_to_end(&self, run: &Run) -> Result<Arc<Flow>, FlowError> {
        match self.flow(&run.definition).await {
            Err(FlowError::Unusable(why)) => {
                tracing::warn!(run = %run.id, why, "A run is ended although its definition cannot \
                    be used.");
                Ok(Arc::new(Flow::without_steps(&run.workflow, &run.definition)))
            }
            other => other,
        }
    }

    /// Returns the definition that a run continues with.
    ///
    /// # Errors
    /// Why the definition is unusable, or why the run's state cannot be read.
    pub(super) async fn flow_of(&self, run: &Run) -> Result<Arc<Flow>, FlowError> {
        run.readable().map_err(FlowError::Unusable)?;
        self.flow(&run.definition).await
    }

    /// Returns the definition with a hash, from the cache or from the database.
    ///
    /// # Errors
    /// Why the definition cannot be used.
    async fn flow(&self, hash: &str) -> Result<Arc<Flow>, FlowError> {
        if let Some(flow) = self.0.flows.get(hash) {
            return Ok(flow);
        }
        let found = self.store().definition(hash).await.map_err(FlowError::Store)?;
        let Some(definition) = found else {
            return Err(FlowError::Unusable(format!(
                "the workflow definition {hash} is not in the database"
            )));
        };
        let unusable = |why: String| {
            let name = &definition.name;
            FlowError::Unusable(format!(
                "the version of workflow `{name}` that the run started with cannot be used any \
                 more: {why}"
            ))
        };
        let workflow =
            self.config().compile(&definition.name, &definition.body).map_err(unusable)?;
        if workflow.flow.hash != hash {
            return Err(unusable("its stored text does not match its hash".to_owned()));
        }
        // Lanes of steps that the configuration no longer names.
        self.store().upsert_lanes(&workflow.lanes()).await.map_err(FlowError::Store)?;
        let flow = Arc::new(workflow.flow);
        self.0
            .flows
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(hash.to_owned(), Arc::clone(&flow));
        Ok(flow)
    }
}
