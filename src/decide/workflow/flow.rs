//! A definition, compiled from the configuration.

use std::time::Duration;

use url::Url;

use super::catch::Catch;
use super::steps::Kind;
use crate::decide::filter::Filter;
use crate::decide::retry::RetryPolicy;
use crate::decide::template::Template;
use crate::model::Method;

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
    /// Its steps, in order; never empty.
    pub steps: Vec<Step>,
    /// How many visits a run may have.
    pub visits_max: u32,
    /// Steps that fail hand the next one the bare error, as qhook does.
    pub bare_errors: bool,
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
    pub kind: Kind,
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
    pub url: Url,
    /// How.
    pub method: Method,
    /// Headers. They may hold secrets: they are taken from here when the call is made, and never stored.
    pub headers: Vec<(String, String)>,
    /// The body, where it is not the payload itself.
    pub body: Option<Template>,
    /// Total deadline.
    pub timeout: Duration,
    /// Retry policy.
    pub retry: RetryPolicy,
    /// Which statuses are a success; empty is 200 to 299.
    pub expect: Vec<(u16, u16)>,
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
