//! What a scenario plays on: the real engine over the store in memory, receivers that wait for
//! their answers, and a clock that only the scenario moves.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::oneshot;

use super::scenario::{
    Answer, Expect, ExpectedRun, Scenario, Step, difference, matches, stands_for,
};
use crate::config::layers::Variables;
use crate::config::problem::did_you_mean;
use crate::config::{Config, Request as Load, load};
use crate::deliver::Deliver;
use crate::engine::{Budget, Chance, Engine, Parts, callback};
use crate::model::Body;
use crate::model::time::parse_duration;
use crate::model::{
    CallPhase, Clock, Failure, Inbound, ManualClock, Outcome, Payload, Request, Response,
    RunStatus, SeededIds, Timestamp,
};
use crate::observe::feed::Feed;
use crate::store::memory::Memory;
use crate::store::{Page, RunFilter, Store};
use crate::wake::local::Local;

/// The clock of every scenario starts on 1 January 2026, midnight UTC.
const BEGIN: Timestamp = Timestamp(1_767_225_600_000);
/// The real time that a scenario may take to come to rest. Events that cause each other never do.
const MOVES_MAX: Duration = Duration::from_secs(20);
/// A scenario is at rest when nothing has changed while every task had this many turns.
const TURNS: u32 = 300;
const EVERYTHING: Budget = Budget::endless(100);

/// A call that waits for its answer.
struct PendingCall {
    /// The handler or `workflow/step`.
    at: String,
    request: Request,
    /// When the call times out, by the clock of the scenario.
    until: Timestamp,
    answer: oneshot::Sender<Outcome>,
}

impl PendingCall {
    fn is_at(&self, at: &str) -> bool {
        stands_for(at, &self.at)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.request
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    fn body(&self) -> Value {
        Payload::read(self.request.body.clone()).into_value()
    }

    /// What differs from the expected call, as a part of a message.
    fn differs(&self, expect: &Expect) -> String {
        let attempt = self.header("X-Tidehook-Attempt").unwrap_or("-").to_owned();
        let body = expect.body.as_ref().and_then(|body| difference("", body, &self.body()));
        let body = body.map(|(key, found)| format!("its body has {found} at `{key}`"));
        let number = expect
            .attempt
            .filter(|n| n.to_string() != attempt)
            .map(|_| format!("it is attempt {attempt}"));
        let header = expect.headers.iter().find(|(name, value)| self.header(name) != Some(value));
        let header = header
            .map(|(name, _)| format!("its `{name}` is {}", self.header(name).unwrap_or("absent")));
        [body, number, header].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn shown(&self) -> String {
        format!("{} with {}", self.at, self.body())
    }
}

struct Receivers {
    clock: ManualClock,
    waiting: Mutex<Vec<PendingCall>>,
    answers: BTreeMap<String, Answer>,
    token: Mutex<Option<String>>,
}

#[async_trait]
impl Deliver for Receivers {
    async fn send(&self, request: Request) -> Outcome {
        let header = |name: &str| {
            request.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone())
        };
        if let Some(token) = header("X-Tidehook-Callback-Token") {
            *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        }
        let (answer, answered) = oneshot::channel();
        let until = self.clock.now().plus(request.timeout);
        let waiting = PendingCall {
            at: header("X-Tidehook-Handler").unwrap_or_default(),
            request,
            until,
            answer,
        };
        if let Some((_, answer)) = self.answers.iter().find(|(at, _)| waiting.is_at(at)) {
            return outcome(answer);
        }
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(waiting);
        answered.await.unwrap_or(Outcome::Released)
    }
}

fn outcome(answer: &Answer) -> Outcome {
    if answer.timeout {
        return Outcome::Failed(Failure::Timeout(CallPhase::Headers));
    }
    Outcome::Answered(Response::of(answer.status, answer.bytes()))
}

/// A scenario that is being played: its engine, its receivers, its clock and the task that works.
pub(super) struct Stage {
    engine: Engine,
    receivers: Arc<Receivers>,
    clock: ManualClock,
    worker: tokio::task::JoinHandle<()>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

/// The configuration of a scenario.
fn configuration(scenario: &Scenario, file: &Path) -> Result<Config, String> {
    let path = file.parent().unwrap_or(Path::new(".")).join(&scenario.config);
    let variables: Variables = scenario.variables.clone();
    let loaded =
        load(&Load { path: Some(path), variables, ..Load::default() }, &crate::ingress::known());
    loaded.config.ok_or_else(|| loaded.problems.render(false).trim_end().to_owned())
}

/// Refuses a scenario that names unknown handlers, steps or statuses: it could pass for the wrong
/// reason.
fn check_names(config: &Config, scenario: &Scenario) -> Result<(), String> {
    let steps = config.workflows.iter().flat_map(|workflow| workflow.flow.places());
    let known: Vec<String> =
        config.handlers.iter().map(|handler| handler.name.clone()).chain(steps).collect();
    let expected =
        scenario.steps.iter().filter_map(|step| step.expect.as_ref()).map(|expect| &expect.at);
    for at in scenario.answers.keys().chain(expected) {
        if !known.iter().any(|place| stands_for(at, place)) {
            let short = known.iter().map(|place| place.rsplit(['/', ':']).next().unwrap_or(place));
            let hint = did_you_mean(at, short).map_or(String::new(), |help| format!("; {help}"));
            return Err(format!("the configuration has no handler and no step named `{at}`{hint}"));
        }
    }
    for run in scenario.steps.iter().filter_map(|step| step.run.as_ref()) {
        if run.is.parse::<RunStatus>().is_err() {
            let words = "queued, running, paused, compensating, completed, failed, cancelled";
            return Err(format!("`is: {}` is not a run status; valid values: {words}", run.is));
        }
    }
    Ok(())
}

impl Stage {
    pub(super) async fn new(scenario: &Scenario, file: &Path) -> Result<Self, String> {
        let clock = ManualClock::at(BEGIN);
        let receivers = Arc::new(Receivers {
            clock: clock.clone(),
            waiting: Mutex::default(),
            answers: scenario.answers.clone(),
            token: Mutex::default(),
        });
        let config = configuration(scenario, file)?;
        check_names(&config, scenario)?;
        let engine = Engine::new(Parts {
            store: Arc::new(Memory::new(Some(clock.clone()))) as Arc<dyn Store>,
            deliver: Arc::clone(&receivers) as Arc<dyn Deliver>,
            wake: Arc::new(Local::default()),
            clock: Arc::new(clock.clone()),
            ids: Arc::new(SeededIds::new(1, &clock)),
            chance: Chance::seeded(1),
            config: Arc::new(config),
            feed: Feed::default(),
        });
        engine.prepare(true).await.map_err(|e| e.to_string())?;
        let working = engine.clone();
        let worker = tokio::spawn(async move {
            loop {
                // The store in memory is always there.
                let _ = working.work(EVERYTHING).await;
                working.woken(Duration::from_secs(1)).await;
            }
        });
        Ok(Self { engine, receivers, clock, worker })
    }

    /// Lets everything happen that needs neither an answer nor the passing of time.
    ///
    /// # Errors
    /// It does not come to rest within 20 s.
    async fn settle(&self) -> Result<(), String> {
        let seen = || {
            let waiting = self.waiting().len();
            (waiting, self.engine.slots_in_use())
        };
        let (mut last, mut still) = (seen(), 0);
        let began = std::time::Instant::now();
        while still < TURNS {
            if began.elapsed() > MOVES_MAX {
                return Err(
                    "the scenario never becomes idle; check for an event that triggers itself"
                        .to_owned(),
                );
            }
            tokio::task::yield_now().await;
            let now = seen();
            let idle = u32::try_from(now.0).is_ok_and(|waiting| waiting == now.1);
            still = if now == last && idle { still + 1 } else { 0 };
            last = now;
        }
        Ok(())
    }

    /// Moves the clock. Calls that wait for an answer keep their leases, and time out when their
    /// deadline passes.
    async fn advance(&self, by: Duration) -> Result<(), String> {
        let end = self.clock.now().plus(by);
        loop {
            let now = self.clock.now();
            if now >= end {
                return Ok(());
            }
            let next = self.waiting().iter().map(|call| call.until).min();
            let step = match next {
                Some(until) => end
                    .since(now)
                    .min(self.engine.heartbeat())
                    .min(until.since(now).max(Duration::from_millis(1))),
                None => end.since(now),
            };
            self.clock.advance(step);
            self.engine.extend_leases().await.map_err(|e| e.to_string())?;
            let now = self.clock.now();
            let (over, waiting): (Vec<_>, Vec<_>) =
                std::mem::take(&mut *self.waiting()).into_iter().partition(|c| c.until <= now);
            self.waiting().extend(waiting);
            for call in over {
                // A worker that is gone needs no answer.
                let _ = call.answer.send(Outcome::Failed(Failure::Timeout(CallPhase::Headers)));
            }
            self.engine.wake().await;
            self.settle().await?;
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<PendingCall>> {
        self.receivers.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plays one step of the scenario; the error says what was not as expected.
    pub(super) async fn play(&mut self, step: &Step) -> Result<(), String> {
        if step.answer.is_some() && step.expect.is_none() {
            return Err("`answer` is only allowed together with `expect`".to_owned());
        }
        if let Some(send) = &step.send {
            if self.engine.config().source(&send.source).is_none() {
                return Err(format!("the configuration has no source `{}`", send.source));
            }
            let inbound = Inbound {
                source: send.source.clone(),
                kind: send.kind.clone(),
                type_aliases: Vec::new(),
                headers: Vec::new(),
                body: Body::new(send.body.to_string()),
                dedupe_key: None,
                idempotency_key: None,
            };
            self.engine.accept(inbound).await.map_err(|e| e.to_string())?;
        }
        if let Some(text) = &step.advance {
            self.advance(parse_duration(text)?).await?;
        }
        self.settle().await?;
        if let Some(expect) = &step.expect {
            self.expect(expect, step.answer.as_ref())?;
        }
        if let Some(said) = &step.callback {
            let token = self.receivers.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let token = token.ok_or(
                "no callback token has been sent yet; expect the call that carries it first",
            )?;
            let answer = match &said.fail {
                Some(why) => callback::Answer::Failed(why.clone()),
                None if said.heartbeat => callback::Answer::Heartbeat,
                None => callback::Answer::Done(Body::new(said.body.to_string())),
            };
            self.engine
                .answer(&token, &answer)
                .await
                .map_err(|why| format!("the callback was refused: {why:?}"))?;
        }
        self.settle().await?;
        if step.quiet == Some(true)
            && let Some(waiting) = self.waiting().first()
        {
            return Err(format!("a call is still waiting for its response: {}", waiting.shown()));
        }
        match &step.run {
            Some(run) => self.run_is(run).await,
            None => Ok(()),
        }
    }

    fn expect(&self, expect: &Expect, answer: Option<&Answer>) -> Result<(), String> {
        let mut waiting = self.waiting();
        let fits = |call: &PendingCall| {
            call.is_at(&expect.at)
                && expect.body.as_ref().is_none_or(|body| matches(body, &call.body()))
                && expect
                    .attempt
                    .is_none_or(|n| call.header("X-Tidehook-Attempt") == Some(&n.to_string()))
                && expect.headers.iter().all(|(name, value)| call.header(name) == Some(value))
        };
        let Some(at) = waiting.iter().position(fits) else {
            if let Some(call) = waiting.iter().find(|call| call.is_at(&expect.at)) {
                return Err(format!(
                    "the call to `{}` is not as expected: {}",
                    expect.at,
                    call.differs(expect)
                ));
            }
            let others: Vec<String> = waiting.iter().map(PendingCall::shown).collect();
            let instead = if others.is_empty() {
                "no call is waiting".to_owned()
            } else {
                format!("waiting calls: {}", others.join("; "))
            };
            return Err(format!("no matching call to `{}`; {instead}", expect.at));
        };
        let call = waiting.remove(at);
        let ok = Answer::default();
        // A worker that is gone needs no answer.
        let _ = call.answer.send(outcome(answer.unwrap_or(&ok)));
        Ok(())
    }

    async fn run_is(&self, expected: &ExpectedRun) -> Result<(), String> {
        let filter =
            RunFilter { workflow: Some(expected.workflow.clone()), ..RunFilter::default() };
        let page = Page { limit: 1, newest_first: true };
        let found = self.engine.store().runs(&filter, page).await.map_err(|e| e.to_string())?;
        let run = found
            .into_iter()
            .next()
            .ok_or_else(|| format!("workflow `{}` has no run", expected.workflow))?;
        let error = run.error.as_ref().map(|error| error.class.clone());
        if run.status.as_str() != expected.is {
            let why = run.error.map_or(String::new(), |error| format!(": {}", error.message));
            return Err(format!("the run is {}{why}", run.status));
        }
        if expected.error.is_some() && expected.error != error {
            return Err(format!("its error is {}", error.unwrap_or_else(|| "none".to_owned())));
        }
        let output = run.state.output.map_or(Value::Null, Payload::into_value);
        match &expected.output {
            Some(wanted) if !matches(wanted, &output) => Err(format!("its output is {output}")),
            _ => Ok(()),
        }
    }
}
