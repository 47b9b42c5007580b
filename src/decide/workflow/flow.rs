//! A definition, compiled from the configuration.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::catch::Catch;
use super::step_type::StepType;
use crate::decide::filter::Filter;
use crate::decide::retry::RetryPolicy;
use crate::decide::settle::Log;
use crate::decide::template::Template;
use crate::model::{Method, Path};

/// Runs nest this deep at most: a run at this depth cannot start another one.
pub const DEPTH_MAX: u32 = 16;

/// A workflow, compiled.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Its name.
    pub name: String,
    /// The hash of what was written, before variables were replaced.
    pub hash: String,
    /// How long a run may take, waits included.
    pub timeout: Option<Duration>,
    /// Keys that the payload must have.
    pub params: Vec<Param>,
    /// Its steps, in order; behind them those of `finally`, and the calls that undo steps.
    pub steps: Vec<Step>,
    /// How many of them are the workflow's own.
    pub main: usize,
    /// The index of the first step of `finally`.
    pub finally: Option<usize>,
    /// A run that fails undoes what its steps did.
    pub undoes: bool,
    /// Where failures go that no step catches.
    pub catch: Vec<Catch>,
    /// What a run comes to, instead of its last payload.
    pub output: Option<Template>,
    /// How many runs at once.
    pub concurrency: Option<Concurrency>,
    /// How long runs are kept, by how they ended.
    pub retention: Retention,
    /// How many visits a run may have.
    pub visits_max: u32,
    /// Steps that fail hand the next one the bare error, as qhook does.
    pub bare_errors: bool,
}

/// How many runs of a workflow at once.
#[derive(Debug, Clone)]
pub struct Concurrency {
    /// Those with the same key count together; without one, all do.
    pub key: Option<Template>,
    /// So many.
    pub limit: usize,
    /// What becomes of one too many.
    pub on_limit: OnLimit,
}

/// What becomes of a run that is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLimit {
    /// It waits for its turn.
    Queue,
    /// It is called off.
    Skip,
    /// The oldest running one is called off.
    CancelRunning,
    /// It waits, and those that waited before it are called off.
    ReplaceQueued,
}

/// How long runs are kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// Those that completed.
    pub completed: Option<Duration>,
    /// Those that failed or were called off.
    pub failed: Option<Duration>,
}

/// A key that the payload must have.
#[derive(Debug, Clone)]
pub struct Param {
    /// The key.
    pub name: String,
    /// `string`, `number`, `boolean`, `object` or `array`.
    pub kind: String,
    /// Whether it must be there.
    pub required: bool,
}

/// A step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: Arc<dyn StepType>,
    /// It is passed over unless this holds.
    pub when: Option<Filter>,
    /// Narrows the payload.
    pub input: Option<Template>,
    /// Selects from the response.
    pub result: Option<Template>,
    /// Where the response goes.
    pub result_path: ResultPath,
    /// Applied to the payload after the merge.
    pub output: Option<Template>,
    /// Variables of the run that it sets.
    pub assign: Option<Template>,
    /// The index of the call that undoes it.
    pub undo: Option<usize>,
    /// A failure that nobody catches pauses the run.
    pub pauses: bool,
    /// Where failures go, in order.
    pub catch: Vec<Catch>,
    /// A failure that nobody catches is taken for an answer.
    pub goes_on: bool,
    /// What comes after it.
    pub next: Next,
}

/// What comes after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The step with this index.
    Step(usize),
    /// Nothing.
    End,
}

/// Where a response goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultPath {
    /// It replaces the payload.
    Replace,
    /// It is set at this place of the payload: keys from the root.
    Set(Vec<String>),
    /// It is discarded.
    Discard,
}

impl ResultPath {
    /// Reads `$`, `$.a.b` or `null`.
    ///
    /// # Errors
    /// A sentence: it is none of them.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "$" | "" => Ok(Self::Replace),
            "null" => Ok(Self::Discard),
            path => {
                let keys: Vec<String> = path.strip_prefix("$.").unwrap_or(path).split('.').map(str::to_owned).collect();
                let key = path.strip_prefix("$.").unwrap_or(path);
                if keys.iter().any(String::is_empty) || key.contains(['[', ']', '*', '$']) {
                    return Err(format!("`{path}` is no place in a payload: write `$`, `$.name`, `$.name.inner` or `null`"));
                }
                Ok(Self::Set(keys))
            }
        }
    }
}

/// An HTTP call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Where to.
    pub url: Address,
    /// The same for people: without what came from a variable or looks like a token.
    pub shown_url: String,
    /// What is added to its query.
    pub query: Vec<(String, Template)>,
    /// How.
    pub method: Method,
    /// Headers. Like everything here they may hold secrets: they are rendered when the call is made, and never stored.
    pub headers: Vec<(String, Template)>,
    /// The body, where it is not the payload itself.
    pub body: Option<Template>,
    /// Total deadline.
    pub timeout: Duration,
    /// Retry policies.
    pub retry: Vec<RetryPolicy>,
    /// What counts as a success.
    pub expect: Expect,
    /// Asked again until the answer is there.
    pub poll: Option<Poll>,
    /// Under which key receivers know it again.
    pub key: CallKey,
    /// What may have arrived is never sent again.
    pub once: bool,
    /// What is kept of it.
    pub log: Log,
    /// Places of responses that are not kept with attempts.
    pub redact: Vec<Vec<String>>,
    /// Where the receiver's own name of a failure stands in its response.
    pub error_path: Path,
    /// How its response is read.
    pub reads: Reads,
}

/// How a response is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reads {
    /// As JSON if it is JSON, as text otherwise.
    #[default]
    Auto,
    /// As JSON; anything else is a failure.
    Json,
    /// As text.
    Text,
}

/// Where a call goes.
#[derive(Debug, Clone)]
pub enum Address {
    /// Always the same.
    Fixed(Url),
    /// Rendered when the call is made, and judged then.
    Template {
        /// What is rendered.
        text: Template,
        /// Its host comes from the payload, so it is judged as a stranger's.
        is_foreign: bool,
    },
}

/// What counts as a success.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    /// Statuses, as ranges; empty is 200 to 299.
    pub status: Vec<(u16, u16)>,
    /// A condition on the response.
    pub when: Option<Filter>,
}

/// A call that is made again until the answer is there.
#[derive(Debug, Clone)]
pub struct Poll {
    /// The condition on the response.
    pub until: Filter,
    /// The time between two calls.
    pub every: Duration,
    /// So many calls at most.
    pub max: u32,
}

/// Under which key receivers know a call again.
#[derive(Debug, Clone)]
pub enum CallKey {
    /// The same for all attempts of a visit.
    Visit,
    /// Another one for each attempt.
    Attempt,
    /// None is sent.
    None,
    /// This.
    Template(Template),
}

impl Flow {
    /// What is left of a definition that cannot be used any more: enough to end its runs.
    pub fn without_steps(name: &str, hash: &str) -> Self {
        Self {
            name: name.to_owned(),
            hash: hash.to_owned(),
            timeout: None,
            params: Vec::new(),
            steps: Vec::new(),
            main: 0,
            finally: None,
            undoes: false,
            catch: Vec::new(),
            output: None,
            concurrency: None,
            retention: Retention::default(),
            visits_max: 0,
            bare_errors: false,
        }
    }

    /// The step at a place: an index, then an index inside a container.
    pub fn step(&self, at: &[usize]) -> Option<&Step> {
        let (first, rest) = at.split_first()?;
        rest.iter().try_fold(self.steps.get(*first)?, |step, index| step.kind.inner().get(*index))
    }

    /// The call that is made at a place, if one is.
    pub fn call(&self, at: &[usize]) -> Option<&Call> {
        self.step(at)?.kind.call()
    }

    /// `workflow/step` of every place, inner ones included.
    pub fn places(&self) -> Vec<String> {
        let inner = |step: &Step| {
            let of = step.name.clone();
            step.kind.inner().iter().map(move |inner| format!("{of}:{}", inner.name)).collect::<Vec<_>>()
        };
        let names = self.steps.iter().flat_map(|step| std::iter::once(step.name.clone()).chain(inner(step)));
        names.map(|name| format!("{}/{name}", self.name)).collect()
    }

    /// `workflow/step` of a place.
    pub fn place(&self, at: &[usize]) -> String {
        let names: Vec<&str> = (1..=at.len()).filter_map(|n| self.step(&at[..n])).map(|step| step.name.as_str()).collect();
        format!("{}/{}", self.name, names.join(":"))
    }
}
