//! One step: its call, its data flow, its jumps. Jumps are names until all steps are read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use url::Url;

use super::super::handler::{read_filter, read_method, read_path, read_template};
use super::super::problem::{Place, Severity};
use super::super::read::{Placed, Section};
use super::super::server::{read_retry, read_timeout};
use super::super::{Around, keys, urls};
use crate::decide::filter::Filter;
use crate::decide::retry::RetryPolicy;
use crate::decide::template::Template;
use crate::decide::workflow::catch::{CLASSES, Catch, ErrorName, GROUPS};
use crate::decide::workflow::flow::{Call, Next, ResultPath, Step};
use crate::decide::workflow::steps::Kind;
use crate::decide::workflow::steps::callback::Callback;
use crate::decide::workflow::steps::child::Child;
use crate::decide::workflow::steps::choice::Choice;
use crate::decide::workflow::steps::fail::Fail;
use crate::decide::workflow::steps::map::{Items, Map};
use crate::decide::workflow::steps::parallel::Parallel;
use crate::decide::workflow::steps::set::Set;
use crate::decide::workflow::steps::wait::Wait;
use crate::model::Method;

/// A callback without a limit of its own waits a day.
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// A jump, as written.
#[derive(Debug, Clone)]
pub(super) struct Goto {
    /// How messages name it.
    pub(super) what: String,
    /// Where to.
    pub(super) to: Placed<String>,
}

/// A step whose jumps are names.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) step: Step,
    pub(super) place: Place,
    pub(super) goto: Option<Goto>,
    pub(super) catches: Vec<Option<Goto>>,
    pub(super) choices: Vec<Option<Goto>>,
    pub(super) default: Option<Goto>,
    pub(super) ends: bool,
    pub(super) inner: Vec<Draft>,
    call: Option<(String, Placed<String>)>,
}

impl Draft {
    /// All its jumps.
    pub(super) fn gotos(&self) -> impl Iterator<Item = &Goto> {
        self.goto.iter().chain(self.catches.iter().flatten()).chain(self.choices.iter().flatten()).chain(&self.default)
    }

    /// The step after it is never the next one by itself.
    pub(super) fn jumps(&self) -> bool {
        self.goto.is_some() || matches!(self.step.kind, Kind::Choice(_))
    }

    /// The workflows it calls.
    pub(super) fn calls(&self) -> Vec<(String, Placed<String>)> {
        self.call.iter().cloned().chain(self.inner.iter().flat_map(Self::calls)).collect()
    }

    pub(super) fn read(workflow: &str, at: usize, mut s: Section<'_>, around: &Around<'_>) -> Self {
        let name = s.required_text("name").unwrap_or_else(|| format!("#{}", at + 1));
        let word = s.word("type").unwrap_or_else(|| "http".to_owned());
        let reading = Reading { workflow, name: &name, around };
        let who = format!("workflow '{workflow}' step '{name}'");
        if name.contains('/') || name.contains(':') {
            s.error("bad_name", "name", format!("{who}: a step's name must not contain '/' or ':'"));
        }
        let mut draft = Self {
            place: s.place(),
            goto: None,
            catches: Vec::new(),
            choices: Vec::new(),
            default: None,
            ends: s.bool("end").unwrap_or(false),
            inner: Vec::new(),
            call: None,
            step: Step {
                name: name.clone(),
                kind: Kind::Fail(Fail { error: String::new(), message: String::new() }),
                when: read_filter(&mut s, "if", around.compat),
                input: None,
                result: read_template(&mut s, "result", true),
                result_path: ResultPath::Replace,
                output: read_template(&mut s, "output", true),
                catch: Vec::new(),
                goes_on: s.word("on_failure").is_some_and(|word| word == "continue"),
                next: Next::End,
            },
        };
        draft.step.result_path = read_result_path(&mut s, &who);
        draft.goto = jump(s.placed_text("goto"), format!("{who} goto"));
        for (catch, to) in s.items("catch", |_, c| read_catch(&who, c)) {
            draft.step.catch.push(catch);
            draft.catches.push(jump(to, format!("{who} catch goto")));
        }
        let call = reading.call(&mut s, "");
        // The input of a call is its body, so it should be what the call says it is.
        draft.step.input = read_template(&mut s, "input", call.sends_json && word == "http");
        if let Some(kind) = reading.kind(&word, &mut s, call, &mut draft) {
            draft.step.kind = kind;
        }
        warn_of_strays(&mut s, &word, &who);
        s.finish();
        draft
    }
}

/// What is read around a step.
struct Reading<'a> {
    workflow: &'a str,
    name: &'a str,
    around: &'a Around<'a>,
}

/// A call that may lack its URL.
struct Wished {
    url: Option<Url>,
    method: Method,
    headers: Vec<(String, String)>,
    body: Option<Template>,
    timeout: Duration,
    retry: RetryPolicy,
    expect: Vec<(u16, u16)>,
    sends_json: bool,
}

impl Wished {
    fn with(self, url: Url) -> Call {
        let Self { method, headers, body, timeout, retry, expect, .. } = self;
        Call { url, method, headers, body, timeout, retry, expect }
    }
}

impl Reading<'_> {
    fn call(&self, s: &mut Section<'_>, branch: &str) -> Wished {
        let Self { workflow, name, around } = self;
        let who = format!("handler '{workflow}/{name}{branch}'");
        let url = urls::call(s, "url", &who, around.policy);
        let headers = urls::headers(s, &who);
        let sends_json = headers.iter().all(|(n, v)| !n.eq_ignore_ascii_case("content-type") || v.contains("json"));
        let retries = s.has("retry") || branch.is_empty();
        Wished {
            url,
            method: read_method(s, &who),
            body: if s.has("body") { read_template(s, "body", sends_json) } else { None },
            timeout: read_timeout(s).unwrap_or(around.delivery.timeout),
            retry: if retries { read_retry(s.section("retry"), &around.delivery.retry) } else { around.delivery.retry.clone() },
            expect: if s.has("expect") { read_expect(s.section("expect")) } else { Vec::new() },
            headers,
            sends_json,
        }
    }

    fn kind(&self, word: &str, s: &mut Section<'_>, call: Wished, draft: &mut Draft) -> Option<Kind> {
        let who = format!("workflow '{}' step '{}'", self.workflow, self.name);
        Some(match word {
            "choice" => self.choice(s, draft),
            "parallel" => self.parallel(s, call, draft),
            "map" => self.map(s, call, draft)?,
            "wait" => self.wait(s)?,
            "callback" => {
                let timeout = s.duration("callback_timeout").unwrap_or(CALLBACK_TIMEOUT);
                Kind::Callback(Callback { notify: call.url.clone().map(|url| call.with(url)), timeout: Some(timeout) })
            }
            "workflow" => {
                let Some(calls) = s.placed_text("workflow") else {
                    s.error("missing_key", "", format!("{who} is type 'workflow' but has no workflow name"));
                    return None;
                };
                draft.call = Some((who, calls.clone()));
                Kind::Child(Child { workflow: calls.value })
            }
            "set" => match call.body {
                Some(body) => Kind::Set(Set { body }),
                None => {
                    s.error("missing_key", "", format!("{who} is type 'set' but has no body"));
                    return None;
                }
            },
            "fail" => Kind::Fail(Fail {
                error: s.text("error").unwrap_or_else(|| "failed".to_owned()),
                message: s.text("message").unwrap_or_else(|| format!("step '{}' fails on purpose", self.name)),
            }),
            _ => match call.url.clone() {
                Some(url) => Kind::Call(call.with(url)),
                None => {
                    if !s.has("url") {
                        s.error("missing_key", "", format!("{who} has no url"));
                    }
                    return None;
                }
            },
        })
    }

    fn choice(&self, s: &mut Section<'_>, draft: &mut Draft) -> Kind {
        let (workflow, name) = (self.workflow, self.name);
        let choices = s.items("choices", |_, c| self.read_choice(c));
        if choices.is_empty() {
            s.error("missing_key", "choices", format!("workflow '{workflow}' choice step '{name}' has no choices"));
        }
        let mut conditions = Vec::new();
        for (condition, to) in choices {
            conditions.extend(condition.map(|condition| (condition, 0)));
            draft.choices.push(jump(to, format!("workflow '{workflow}' choice step '{name}' goto")));
        }
        draft.default = jump(s.placed_text("default"), format!("workflow '{workflow}' choice step '{name}' default"));
        Kind::Choice(Choice { choices: conditions, default: draft.default.as_ref().map(|_| 0) })
    }

    fn read_choice(&self, mut s: Section<'_>) -> Option<(Option<Filter>, Option<Placed<String>>)> {
        if s.has("when") == s.has("condition") {
            let what = if s.has("when") { "both `when` and `condition`, which are the same key" } else { "no `when`" };
            let message = format!("workflow '{}' choice step '{}' has a choice with {what}", self.workflow, self.name);
            s.error("missing_key", "", message);
        }
        let when = read_filter(&mut s, "when", self.around.compat);
        let condition = read_filter(&mut s, "condition", self.around.compat);
        s.required_text("goto");
        let goto = s.placed_text("goto");
        s.finish();
        Some((when.or(condition), goto))
    }

    fn parallel(&self, s: &mut Section<'_>, call: Wished, draft: &mut Draft) -> Kind {
        let (workflow, name) = (self.workflow, self.name);
        let mut names = BTreeSet::new();
        let branches = s.items("branches", |_, mut b| {
            let branch = b.required_text("name").unwrap_or_default();
            if !b.has("url") {
                b.error("missing_key", "", format!("handler '{workflow}/{name}:{branch}' has no url"));
            }
            let wished = self.call(&mut b, &format!(":{branch}"));
            if !names.insert(branch.clone()) {
                let message = format!("workflow '{workflow}' parallel step '{name}' has duplicate branch name '{branch}'");
                b.error("duplicate_name", "name", message);
            }
            b.finish();
            // A branch has the step's retry and deadline.
            let wished = Wished { retry: call.retry.clone(), timeout: call.timeout, ..wished };
            let url = wished.url.clone()?;
            Some(plain(branch, Kind::Call(wished.with(url))))
        });
        if branches.is_empty() {
            s.error("missing_key", "branches", format!("workflow '{workflow}' parallel step '{name}' has no branches"));
        }
        draft.inner = Vec::new();
        Kind::Parallel(Parallel { branches })
    }

    fn map(&self, s: &mut Section<'_>, call: Wished, draft: &mut Draft) -> Option<Kind> {
        let (workflow, name) = (self.workflow, self.name);
        if !s.has("items_path") && !s.has("items") {
            s.error("missing_key", "", format!("workflow '{workflow}' map step '{name}' has no items_path"));
        }
        let by_path = read_path(s, "items_path").map(Items::Path);
        let items = by_path.or_else(|| read_template(s, "items", true).map(Items::Template));
        let concurrency = s.number32("max_concurrency").and_then(|n| usize::try_from(n).ok());
        let (tolerated, collects) =
            (s.number32("tolerated_failures").unwrap_or(0), s.word("on_item_failure").is_some_and(|w| w == "collect"));
        let mut input = None;
        let mut call = call;
        if let Some(mut i) = s.optional_section("iterator") {
            let inner = self.call(&mut i, "");
            input = read_template(&mut i, "input", inner.sends_json);
            i.finish();
            call = Wished { url: inner.url.or(call.url), ..inner };
        }
        draft.inner = s.items("steps", |at, inner| Some(Draft::read(workflow, at, inner, self.around)));
        let steps = match call.url.clone() {
            Some(url) if draft.inner.is_empty() => {
                vec![Step { input, ..plain("item".to_owned(), Kind::Call(call.with(url))) }]
            }
            // Filled in when the jumps are resolved.
            _ => Vec::new(),
        };
        if steps.is_empty() && draft.inner.is_empty() && !s.has("url") && !s.has("iterator") {
            s.error("missing_key", "", format!("workflow '{workflow}' map step '{name}' has no url"));
        }
        Some(Kind::Map(Map { items: items?, steps, concurrency, tolerated, collects }))
    }

    fn wait(&self, s: &mut Section<'_>) -> Option<Kind> {
        let (workflow, name) = (self.workflow, self.name);
        let seconds = s.number("seconds").map(|seconds| Wait::For(Duration::from_secs(seconds)));
        let path = read_path(s, "timestamp_path").map(Wait::Until);
        if !s.has("seconds") && !s.has("timestamp_path") {
            let message = format!("workflow '{workflow}' wait step '{name}' needs either 'seconds' or 'timestamp_path'");
            s.error("missing_key", "", message);
        }
        seconds.or(path).map(Kind::Wait)
    }
}

/// A step that only makes a call.
fn plain(name: String, kind: Kind) -> Step {
    Step {
        name,
        kind,
        when: None,
        input: None,
        result: None,
        result_path: ResultPath::Replace,
        output: None,
        catch: Vec::new(),
        goes_on: false,
        next: Next::End,
    }
}

fn jump(to: Option<Placed<String>>, what: String) -> Option<Goto> {
    to.map(|to| Goto { what, to })
}

fn read_result_path(s: &mut Section<'_>, who: &str) -> ResultPath {
    if s.is_null("result_path") {
        let help = "qhook 0.6 read a YAML null as absent; remove the key to replace the payload";
        let message = format!("{who}: `result_path: null` discards the response");
        s.problem(Severity::Warning, "new_reading", "result_path", message, Some(help.into()));
        return ResultPath::Discard;
    }
    let Some(text) = s.text("result_path") else { return ResultPath::Replace };
    ResultPath::parse(&text).unwrap_or_else(|why| {
        s.error("bad_path", "result_path", format!("{who}: {why}"));
        ResultPath::Replace
    })
}

/// Statuses and ranges of them.
fn read_expect(mut s: Section<'_>) -> Vec<(u16, u16)> {
    let mut ranges = Vec::new();
    for status in s.texts("status").unwrap_or_default() {
        match status.value.parse::<ErrorName>() {
            Ok(ErrorName::Status(from, to)) => ranges.push((from, to)),
            _ => {
                let message = format!("`{}` is no status: write one as 409, or a range as 200-299", status.value);
                s.error("bad_status", "status", message);
            }
        }
    }
    if ranges.is_empty() {
        s.error("missing_key", "status", "`expect` names no status".to_owned());
    }
    s.finish();
    ranges
}

fn read_catch(who: &str, mut s: Section<'_>) -> Option<(Catch, Option<Placed<String>>)> {
    if !s.has("errors") {
        s.error("missing_key", "", format!("{who} has a catch without `errors`"));
    }
    let mut errors = Vec::new();
    for error in s.texts("errors").unwrap_or_default() {
        match error.value.parse::<ErrorName>() {
            Ok(name) => errors.push(name),
            Err(_) => {
                let words: Vec<&str> = GROUPS.iter().chain(&CLASSES).copied().collect();
                s.bad_word("errors", &error.value, &words);
            }
        }
    }
    let result_path = s.has("result_path").then(|| read_result_path(&mut s, who));
    s.required_text("goto");
    let goto = s.placed_text("goto");
    s.finish();
    Some((Catch { errors, goto: 0, result_path }, goto))
}

/// Keys that a step's type does not read.
fn warn_of_strays(s: &mut Section<'_>, word: &str, who: &str) {
    for (key, of) in keys::STEP_KEYS_OF {
        if s.has(key) && !of.contains(&word) {
            s.warn("no_effect", key, format!("{who}: `{key}` has no effect on a step of type `{word}`"));
        }
    }
}

/// Jumps by name become jumps by index. Names that lead nowhere were reported.
pub(super) fn resolve(drafts: Vec<Draft>) -> Vec<Step> {
    let index: BTreeMap<String, usize> = drafts.iter().enumerate().rev().map(|(at, d)| (d.step.name.clone(), at)).collect();
    let to = |goto: &Goto| index.get(&goto.to.value).copied().unwrap_or(0);
    let count = drafts.len();
    let one = |(at, draft): (usize, Draft)| {
        let Draft { mut step, goto, catches, choices, default, ends, inner, .. } = draft;
        step.next = match &goto {
            _ if ends => Next::End,
            Some(goto) => Next::Step(to(goto)),
            None if at + 1 < count => Next::Step(at + 1),
            None => Next::End,
        };
        for (catch, goto) in step.catch.iter_mut().zip(&catches) {
            catch.goto = goto.as_ref().map_or(0, to);
        }
        match &mut step.kind {
            Kind::Choice(choice) => {
                for ((_, index), goto) in choice.choices.iter_mut().zip(&choices) {
                    *index = goto.as_ref().map_or(0, to);
                }
                choice.default = default.as_ref().map(to);
            }
            Kind::Map(map) if !inner.is_empty() => map.steps = resolve(inner),
            _ => {}
        }
        step
    };
    drafts.into_iter().enumerate().map(one).collect()
}
