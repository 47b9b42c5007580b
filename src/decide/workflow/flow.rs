//! A workflow definition in compiled form, as the configuration describes it.

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

/// A workflow definition, compiled. A run keeps the definition that it started with.
#[derive(Debug, Clone)]
pub struct Flow {
    /// The workflow's name in the configuration.
    pub name: String,
    /// The hash of the definition's text, before variables were replaced. Runs are pinned to it.
    pub hash: String,
    /// How long a run may take, waits included; `None` means no limit.
    pub timeout: Option<Duration>,
    /// The parameters that the payload must have when a run starts.
    pub params: Vec<Param>,
    /// All steps in one list: the workflow's own, then those of `finally`, then the calls that roll
    /// steps back.
    pub steps: Vec<Step>,
    /// How many of these are the workflow's own steps.
    pub main: usize,
    /// The index of the first step of `finally`; `None` without one.
    pub finally: Option<usize>,
    /// Whether a run that fails or is cancelled rolls back its completed steps.
    pub undoes: bool,
    /// What happens after failures that no step catches.
    pub catch: Vec<Catch>,
    /// Renders the output of a completed run; without it, the output is the last payload.
    pub output: Option<Template>,
    /// How many runs may be under way at once; `None` means any number.
    pub concurrency: Option<Concurrency>,
    /// How long finished runs are kept, by how they ended.
    pub retention: Retention,
    /// How many steps a run may enter in all, which stops endless loops. Containers raise the
    /// limit.
    pub visits_max: u32,
    /// Whether a failed step passes only the bare error on as the payload, as qhook does.
    pub bare_errors: bool,
}

/// The limit of concurrent runs of a workflow.
#[derive(Debug, Clone)]
pub struct Concurrency {
    /// Renders the concurrency key. Runs with the same key count together; without a template, all
    /// runs of the workflow do.
    pub key: Option<Template>,
    /// How many runs with the same key may be under way at once.
    pub limit: usize,
    /// What happens to a run that exceeds the limit.
    pub on_limit: OnLimit,
}

/// What happens to a run that exceeds the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLimit {
    /// The new run waits until one of the others ends.
    Queue,
    /// The new run is cancelled before it enters a step.
    Skip,
    /// The new run takes the place of the oldest running one, which is cancelled.
    CancelRunning,
    /// The new run waits, and the runs that waited before it are cancelled.
    ReplaceQueued,
}

/// How long finished runs are kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// For runs that completed; `None` keeps them as long as other events.
    pub completed: Option<Duration>,
    /// For runs that failed or were cancelled; `None` keeps them as long as other events.
    pub failed: Option<Duration>,
}

/// A parameter of a workflow: a top-level key that the payload must or may have.
#[derive(Debug, Clone)]
pub struct Param {
    /// The top-level key of the payload.
    pub name: String,
    /// `string`, `number`, `boolean`, `object` or `array`.
    pub kind: String,
    /// Whether it must be there.
    pub required: bool,
}

/// One step of a workflow, with everything the configuration says about it.
#[derive(Debug, Clone)]
pub struct Step {
    /// The step's name, unique in its list. Expressions read its results as `$$.steps.NAME`.
    pub name: String,
    /// The type of the step and the settings of that type.
    pub kind: Arc<dyn StepType>,
    /// The step is skipped unless this condition holds.
    pub when: Option<Filter>,
    /// Builds the payload that the step itself sees from the run's payload; without it, the step
    /// sees the payload as it is.
    pub input: Option<Template>,
    /// Selects a part of the response as the step's result.
    pub result: Option<Template>,
    /// Where the result is put into the payload.
    pub result_path: ResultPath,
    /// Renders the payload that the step leaves, after the result was put into it.
    pub output: Option<Template>,
    /// Renders an object; its fields become variables of the run.
    pub assign: Option<Template>,
    /// The index of the step that rolls this one back; `None` when it needs no rollback.
    pub undo: Option<usize>,
    /// Whether a failure that nobody catches pauses the run instead of ending it.
    pub pauses: bool,
    /// The `catch` entries of the step. The first one that takes a failure decides.
    pub catch: Vec<Catch>,
    /// Whether the run continues after a failure that nobody catches, with the error in place of
    /// the response.
    pub goes_on: bool,
    /// Where the run goes when the step is done. A `choice` goes to the step that its condition
    /// names instead.
    pub next: Next,
}

/// What comes after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The step with this index.
    Step(usize),
    /// The list of steps ends context: the run ends, or the enclosing container gets the result.
    End,
}

/// How a step's result is put into the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultPath {
    /// It replaces the payload.
    Replace,
    /// The result is set in the payload at this place, given as keys from the root.
    Set(Vec<String>),
    /// The payload stays as it was, and the result is not kept in it.
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
                let keys: Vec<String> =
                    path.strip_prefix("$.").unwrap_or(path).split('.').map(str::to_owned).collect();
                let key = path.strip_prefix("$.").unwrap_or(path);
                if keys.iter().any(String::is_empty) || key.contains(['[', ']', '*', '$']) {
                    return Err(format!(
                        "`{path}` is not a valid result path: write `$`, `$.name`, `$.name.inner` \
                         or `null`"
                    ));
                }
                Ok(Self::Set(keys))
            }
        }
    }
}

/// An HTTP call of a step, compiled: the request, its retries and what counts as a success.
#[derive(Debug, Clone)]
pub struct Call {
    /// The URL to call, before `query` is added.
    pub url: Address,
    /// The URL for display, without values that came from variables or look like tokens.
    pub shown_url: String,
    /// Parameters that are added to the URL's query.
    pub query: Vec<(String, Template)>,
    /// The HTTP method of the request.
    pub method: Method,
    /// The headers to send. Like everything here they may hold secrets, so they are rendered when
    /// the call is made and never stored.
    pub headers: Vec<(String, Template)>,
    /// Renders the body; without it, the payload is the body.
    pub body: Option<Template>,
    /// How long one attempt may take in all, from connecting to the last byte of the response.
    pub timeout: Duration,
    /// The policies for failed attempts. The first one that lists a failure decides.
    pub retry: Vec<RetryPolicy>,
    /// Which responses count as a success.
    pub expect: Expect,
    /// For a step that polls: when to call again, and how often. `None` makes one call.
    pub poll: Option<Poll>,
    /// The idempotency key that the request carries.
    pub key: CallKey,
    /// A request that may have arrived is never sent again.
    pub at_most_once: bool,
    /// How much of each exchange is stored with the attempt.
    pub log: Log,
    /// Fields of responses that are masked before they are stored, each as keys from the root.
    pub redact: Vec<Vec<String>>,
    /// The path in a response where the receiver names its error.
    pub error_path: Path,
    /// How the body of the response is interpreted.
    pub reads: Reads,
}

/// How the body of a response is interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reads {
    /// As JSON if it is JSON, as text otherwise.
    #[default]
    Auto,
    /// As JSON; anything else is a failure.
    Json,
    /// As text, even where it is JSON.
    Text,
}

/// The URL of a call: fixed in the configuration, or rendered from data.
#[derive(Debug, Clone)]
pub enum Address {
    /// A complete URL, written in the configuration.
    Fixed(Url),
    /// Rendered when the call is made, and checked against the address policy then.
    Template {
        /// The template of the URL.
        text: Template,
        /// Whether its host comes from data. Then it is checked as a stranger's URL, which reaches
        /// public addresses only.
        is_foreign: bool,
    },
}

/// Which responses count as a success.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    /// Successful statuses, as inclusive ranges; empty means 200 to 299.
    pub status: Vec<(u16, u16)>,
    /// A condition that the response must meet as well.
    pub when: Option<Filter>,
}

/// A call that is repeated until a response meets a condition.
#[derive(Debug, Clone)]
pub struct Poll {
    /// The condition on the response that ends the polling.
    pub until: Filter,
    /// The time between the end of one call and the next.
    pub every: Duration,
    /// After this many calls without the awaited answer, the step fails with `poll_timeout`.
    pub max: u32,
}

/// Which idempotency key a call carries, by which the receiver recognizes repeats.
#[derive(Debug, Clone)]
pub enum CallKey {
    /// One key for all attempts of a visit, so that a retry is recognized as the same call.
    Visit,
    /// A new key for each attempt.
    Attempt,
    /// The request carries no idempotency key.
    None,
    /// The rendered text of this template.
    Template(Template),
}

impl Flow {
    /// A definition without steps. It stands in for one that cannot be used any more, so that its
    /// runs can still be ended.
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

    /// Returns the step at a place: an index in the list, then an index inside a container.
    pub fn step(&self, at: &[usize]) -> Option<&Step> {
        let (first, rest) = at.split_first()?;
        rest.iter().try_fold(self.steps.get(*first)?, |step, index| step.kind.inner().get(*index))
    }

    /// Returns the call that the step at a place makes; `None` if it makes none.
    pub fn call(&self, at: &[usize]) -> Option<&Call> {
        self.step(at)?.kind.call()
    }

    /// The names of all places as `workflow/step`, those inside containers included.
    pub fn places(&self) -> Vec<String> {
        let inner = |step: &Step| {
            let of = step.name.clone();
            step.kind
                .inner()
                .iter()
                .map(move |inner| format!("{of}:{}", inner.name))
                .collect::<Vec<_>>()
        };
        let names = self
            .steps
            .iter()
            .flat_map(|step| std::iter::once(step.name.clone()).chain(inner(step)));
        names.map(|name| format!("{}/{name}", self.name)).collect()
    }

    /// The name of a place as `workflow/step`.
    pub fn place(&self, at: &[usize]) -> String {
        let names: Vec<&str> = (1..=at.len())
            .filter_map(|n| self.step(&at[..n]))
            .map(|step| step.name.as_str())
            .collect();
        format!("{}/{}", self.name, names.join(":"))
    }
}
