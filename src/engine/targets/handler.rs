//! A handler: one HTTP call delivers the event. Its settings are read when the call is made, so a
//! changed configuration applies to what waits.

use async_trait::async_trait;

use super::step::StepContext;
use super::{Doing, FALLBACK, TargetKind};
use crate::decide::settle::{DEATHS_MAX, OutcomeRules};
use crate::deliver::compose::{Signing, compose};
use crate::engine::Engine;
use crate::engine::directory::Directory;
use crate::engine::execute::Execution;
use crate::model::{Job, Outcome, Run};

/// Deliveries to handlers of the configuration.
pub struct Handler;

#[async_trait]
impl TargetKind for Handler {
    fn sends(&self) -> bool {
        true
    }

    fn crashes_max(&self) -> u32 {
        DEATHS_MAX
    }

    fn has_breaker(&self) -> bool {
        true
    }

    fn missing(&self, directory: &Directory, name: &str) -> Option<String> {
        directory
            .handler(name)
            .is_none()
            .then(|| format!("the configuration has no handler `{name}`"))
    }

    async fn has_policies(&self, engine: &Engine, job: &Job, _: Option<&Run>) -> bool {
        engine.handler(job.target.name()).is_some_and(|handler| handler.retry.len() > 1)
    }

    async fn execute(
        &self,
        engine: &Engine,
        Doing { job, event, end, .. }: Doing<'_>,
    ) -> (Outcome, Option<StepContext>) {
        // Its lane was skipped unless the handler was there; a job that slipped through is
        // given back.
        let Some(handler) = engine.handler(job.target.name()) else {
            return (Outcome::Released, None);
        };
        let delivery = &engine.config().delivery;
        let around = Signing {
            signing_key: delivery.signing_key.as_ref().map(|key| key.0.as_slice()),
            qhook_headers: engine.config().compat.qhook_headers,
            now: engine.clock().now(),
        };
        (engine.send(compose(job, event, handler, around), end).await, None)
    }

    fn rules<'a>(&self, engine: &'a Engine, job: &Job, ran: &'a Execution) -> OutcomeRules<'a> {
        let retry = engine
            .handler(job.target.name())
            .map_or(std::slice::from_ref(&*FALLBACK), |handler| &handler.retry);
        OutcomeRules { retry, before: &ran.before, ..OutcomeRules::of(&FALLBACK) }
    }
}
