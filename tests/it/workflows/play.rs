//! An engine by hand, or functions, with receivers that answer by a script.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tidehook::config::Config;
use tidehook::deliver::Deliver;
use tidehook::engine::{Budget, Engine, Parts};
use tidehook::model::Body;
use tidehook::model::history::HistoryEntry;
use tidehook::model::{CallPhase, Failure, Inbound, Outcome, Request, Response, Run, RunId};
use tidehook::store::{Page, RunFilter};
use tidehook::wake::Wake;
use tidehook::wake::local::Local;

use crate::support::engines;
use crate::support::functions::inside::{Inside, wake};
use crate::support::functions::queue::Queue;
use crate::support::stores::{Fresh, Kind, fresh};
use crate::support::world::config;

/// A call as a receiver saw it.
#[derive(Debug, Clone)]
pub struct Called {
    /// The URL without scheme: `ci:3000/build`.
    pub to: String,
    pub body: String,
    pub headers: Vec<(String, String)>,
}

impl Called {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// What a receiver answers.
#[derive(Debug, Clone)]
pub enum Reply {
    Status(u16, String),
    TimesOut,
}

pub fn ok(body: &str) -> Reply {
    Reply::Status(200, body.to_owned())
}

pub fn status(status: u16) -> Reply {
    Reply::Status(status, "{}".to_owned())
}

#[derive(Default)]
pub struct Receivers {
    calls: Mutex<Vec<Called>>,
    /// By URL without scheme; the last reply of a list stays.
    replies: Mutex<HashMap<String, VecDeque<Reply>>>,
}

#[async_trait]
impl Deliver for Receivers {
    async fn send(&self, request: Request) -> Outcome {
        let to = request.url.as_str().split_once("://").unwrap().1.to_owned();
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        self.calls.lock().unwrap().push(Called { to: to.clone(), body, headers: request.headers });
        let mut replies = self.replies.lock().unwrap();
        let reply = match replies.get_mut(&to) {
            Some(list) if list.len() > 1 => list.pop_front(),
            Some(list) => list.front().cloned(),
            None => None,
        };
        match reply.unwrap_or_else(|| ok("{}")) {
            Reply::Status(status, body) => Outcome::Answered(Response::of(status, body)),
            Reply::TimesOut => Outcome::Failed(Failure::Timeout(CallPhase::Headers)),
        }
    }
}

pub struct Play {
    pub engine: Engine,
    pub receivers: Arc<Receivers>,
    pub fresh: Arc<Fresh>,
    seed: u64,
    /// Who works, if not the engine itself.
    functions: Option<Inside>,
}

/// How a test of workflows runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// An engine that works by itself.
    Engine(Kind),
    /// An engine that takes in and is asked, over Postgres; functions that work.
    Functions,
}

const EVERYTHING: Budget = Budget::endless(10);
const ALL: Page = Page { limit: 1000, newest_first: false };

/// All of them.
pub const WAYS: [Runtime; 5] = [
    Runtime::Engine(Kind::Memory),
    Runtime::Engine(Kind::Sqlite),
    Runtime::Engine(Kind::Postgres),
    Runtime::Engine(Kind::Mariadb),
    Runtime::Functions,
];

impl Play {
    /// `None` where there is no server for the store.
    pub async fn new(way: Runtime, text: &str) -> Option<Self> {
        let kind = if let Runtime::Engine(kind) = way { kind } else { Kind::Postgres };
        let fresh = Arc::new(fresh(kind).await?);
        Some(Self::over(fresh, Arc::default(), way == Runtime::Functions, text, 1).await)
    }

    /// Another engine on the same store: after a restart, or beside the first.
    pub async fn again(&self, text: &str) -> Self {
        let (fresh, receivers) = (Arc::clone(&self.fresh), Arc::clone(&self.receivers));
        Self::over(fresh, receivers, self.functions.is_some(), text, self.seed + 100).await
    }

    async fn over(
        fresh: Arc<Fresh>,
        receivers: Arc<Receivers>,
        as_functions: bool,
        text: &str,
        seed: u64,
    ) -> Self {
        let build = |wake, seed| build(&fresh, config(text), &receivers, wake, seed);
        let (engine, functions) = if as_functions {
            let queue = Queue::start_on(fresh.clock.clone()).await;
            let (ticker, worker) =
                (build(wake(&queue), seed + 1).await, build(wake(&queue), seed + 2).await);
            (build(wake(&queue), seed).await, Some(Inside::new(queue, ticker, worker)))
        } else {
            (build(Arc::new(Local::default()), seed).await, None)
        };
        Self { engine, receivers, fresh, seed, functions }
    }

    /// Replies of a receiver, in order; the last one stays.
    pub fn script(&self, to: &str, replies: Vec<Reply>) -> &Self {
        self.receivers.replies.lock().unwrap().insert(to.to_owned(), replies.into());
        self
    }

    /// Sends an event and works off what is due.
    pub async fn send(&self, source: &str, kind: &str, body: &str) -> &Self {
        let inbound = Inbound {
            source: source.into(),
            kind: kind.into(),
            type_aliases: Vec::new(),
            headers: Vec::new(),
            body: Body::new(body.to_owned()),
            dedupe_key: None,
            idempotency_key: None,
        };
        self.engine.accept(inbound).await.unwrap();
        self.work().await;
        self
    }

    /// Works until nothing is due.
    pub async fn work(&self) {
        match &self.functions {
            Some(functions) => functions.work().await,
            None => drop(self.engine.work(EVERYTHING).await.unwrap()),
        }
    }

    pub async fn advance(&self, by: Duration) {
        self.fresh.clock.advance(by);
        match &self.functions {
            Some(functions) => functions.look().await,
            None => self.work().await,
        }
    }

    pub fn calls(&self) -> Vec<Called> {
        self.receivers.calls.lock().unwrap().clone()
    }

    /// Who was called, in order.
    pub fn called(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.to).collect()
    }

    pub async fn runs(&self) -> Vec<Run> {
        self.engine.store().runs(&RunFilter::default(), ALL).await.unwrap()
    }

    /// The only run.
    pub async fn the_run(&self) -> Run {
        let mut runs = self.runs().await;
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs.remove(0)
    }

    pub async fn history(&self, run: RunId) -> Vec<HistoryEntry> {
        self.engine.store().history(run).await.unwrap()
    }

    /// The token that the last notify carried.
    pub fn token(&self) -> String {
        let calls = self.calls();
        let call = calls
            .iter()
            .rev()
            .find(|call| call.header("X-Tidehook-Callback-Token").is_some())
            .unwrap();
        call.header("X-Tidehook-Callback-Token").unwrap().to_owned()
    }
}

async fn build(
    fresh: &Fresh,
    config: Config,
    receivers: &Arc<Receivers>,
    wake: Arc<dyn Wake>,
    seed: u64,
) -> Engine {
    let deliver = Arc::clone(receivers) as Arc<dyn Deliver>;
    let store = Arc::clone(&fresh.store);
    let parts = engines::parts(store, deliver, &fresh.clock, Arc::new(config), seed);
    let engine = Engine::new(Parts { wake, ..parts });
    engine.prepare(false).await.unwrap();
    engine
}

/// Runs a test in every way there is.
#[macro_export]
macro_rules! in_every_way {
    ($text:expr, $test:expr) => {
        for way in $crate::workflows::play::WAYS {
            if let Some(play) = $crate::workflows::play::Play::new(way, $text).await {
                $test(play).await;
            }
        }
    };
}
