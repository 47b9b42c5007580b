//! An alert: a notice to operators in the words of their channel. What becomes of it is no news.

use async_trait::async_trait;

use super::step::StepContext;
use super::{Doing, FALLBACK, TargetKind};
use crate::config::alert::NAME;
use crate::decide::alert::body;
use crate::decide::settle::OutcomeRules;
use crate::deliver::compose::{Signing, compose};
use crate::engine::Engine;
use crate::engine::directory::Directory;
use crate::engine::execute::Execution;
use crate::engine::notices::DESTINATION;
use crate::model::{Body, Event, Failure, Job, Outcome, Request};

/// Notices to operators, over the channel of the configuration.
pub struct Alert;

#[async_trait]
impl TargetKind for Alert {
    fn sends(&self) -> bool {
        true
    }

    fn missing(&self, directory: &Directory, name: &str) -> Option<String> {
        (directory.alerts().is_none() || name != NAME)
            .then(|| "the configuration has no section `alerts`".to_owned())
    }

    async fn execute(
        &self,
        engine: &Engine,
        Doing { job, event, end, .. }: Doing<'_>,
    ) -> (Outcome, Option<StepContext>) {
        match request(engine, job, event) {
            Some(request) => (engine.send(request, end).await, None),
            None => (Outcome::Released, None),
        }
    }

    fn rules<'a>(&self, engine: &'a Engine, _: &Job, ran: &'a Execution) -> OutcomeRules<'a> {
        let retry = engine
            .directory()
            .alerts()
            .map_or(std::slice::from_ref(&*FALLBACK), |alerts| &alerts.handler.retry);
        OutcomeRules { retry, before: &ran.before, ..OutcomeRules::of(&FALLBACK) }
    }
}

/// The request of an alert; `None` when the configuration has no channel.
pub(in crate::engine) fn request(
    engine: &Engine,
    job: &Job,
    event: &Event,
) -> Option<Result<Request, Failure>> {
    let alerts = engine.directory().alerts()?;
    let notice = match event.body.view() {
        Ok(notice) => notice.to_value(),
        Err(why) => return Some(Err(Failure::Compose(why.why.clone()))),
    };
    let worded = Event {
        body: Body::new(body(&alerts.channel, &notice).to_string().into_bytes()),
        ..event.clone()
    };
    let around = Signing {
        signing_key: None,
        qhook_headers: engine.config().compat.qhook_headers,
        now: engine.clock().now(),
    };
    let composed = compose(job, &worded, &alerts.handler, around);
    Some(composed.map(|request| Request { destination: DESTINATION.to_owned(), ..request }))
}
