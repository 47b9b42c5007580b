//! What the type of a step adds to it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::handler::{read_filter, read_path, read_template};
use super::super::problem::{Severity, did_you_mean};
use super::super::read::{Placed, Section};
use super::call::CallSpec;
use super::step::{Draft, Of, jump};
use crate::config::SourceKind;
use crate::decide::filter::Filter;
use crate::decide::workflow::flow::Call;
use crate::decide::workflow::steps::StepKind;
use crate::decide::workflow::steps::callback::{Approval, Callback};
use crate::decide::workflow::steps::child::Child;
use crate::decide::workflow::steps::choice::Choice;
use crate::decide::workflow::steps::emit::Emit;
use crate::decide::workflow::steps::fail::Fail;
use crate::decide::workflow::steps::map::{Items, Map};
use crate::decide::workflow::steps::parallel::Parallel;
use crate::decide::workflow::steps::set::Set;
use crate::decide::workflow::steps::wait::Wait;

/// An answer from outside without a limit of its own is waited for a day.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// A step being read.
pub(super) struct Reading<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Its workflow.
    pub(super) of: Of<'a>,
}

impl Reading<'_> {
    fn who(&self) -> String {
        format!("workflow '{}' step '{}'", self.of.workflow, self.name)
    }

    /// Reads what the type adds; `None` when something that it needs is missing, which was reported.
    pub(super) fn kind(&self, word: &str, s: &mut Section<'_>, call: CallSpec, draft: &mut Draft) -> Option<StepKind> {
        let who = self.who();
        Some(match word {
            "choice" => self.choice(s, draft),
            "parallel" => self.parallel(s, &call, draft),
            "map" => self.map(s, call, draft)?,
            "wait" => self.wait(s)?,
            "callback" => StepKind::Callback(Callback {
                timeout: s.duration("callback_timeout").unwrap_or(ANSWER_TIMEOUT),
                heartbeat: s.duration("heartbeat").filter(|silence| !silence.is_zero()),
                approval: None,
                notify: if s.has("notify") { self.notify(s) } else { call.call() },
            }),
            "approval" => StepKind::Callback(Callback {
                timeout: s.duration("timeout").unwrap_or(ANSWER_TIMEOUT),
                heartbeat: None,
                approval: Some(Approval { approvers: read_approvers(s) }),
                notify: self.notify(s),
            }),
            "workflow" => {
                let Some(calls) = s.placed_text("workflow") else {
                    s.error("missing_key", "", format!("{who} is type 'workflow' but has no workflow name"));
                    return None;
                };
                draft.call = Some((who, calls.clone()));
                // A run that failed is not run again unless the step says so.
                let retry = if s.has("retry") { call.retry } else { Vec::new() };
                StepKind::Child(Child { workflow: calls.value, retry })
            }
            "set" => {
                if call.body.is_none() && draft.step.assign.is_none() {
                    s.error("missing_key", "", format!("{who} is type 'set' but has no body"));
                    return None;
                }
                StepKind::Set(Set { body: call.body })
            }
            "emit" => self.emit(s, call)?,
            "fail" => StepKind::Fail(Fail {
                message: fixed_text(s, "message").unwrap_or_else(|| format!("step '{}' fails on purpose", self.name)),
                error: fixed_text(s, "error").unwrap_or_else(|| "failed".to_owned()),
            }),
            _ => {
                if !s.has("url") {
                    s.error("missing_key", "", format!("{who} has no url"));
                }
                StepKind::Call(call.call()?)
            }
        })
    }

    /// The call that tells of a wait for an answer.
    fn notify(&self, s: &mut Section<'_>) -> Option<Call> {
        let Of { workflow, around, retry, .. } = self.of;
        let who = format!("handler '{workflow}/{}'", self.name);
        let mut notify = s.optional_section("notify")?;
        if !notify.has("url") {
            notify.error("missing_key", "", format!("{who} notify has no url"));
        }
        let call = CallSpec::read(&mut notify, &who, around, retry, true);
        notify.finish();
        call.call()
    }

    fn emit(&self, s: &mut Section<'_>, call: CallSpec) -> Option<StepKind> {
        let who = self.who();
        let event = fixed_text(s, "event").or_else(|| s.required_text("event"));
        let source = s.required_text("source")?;
        let sources = self.of.around.sources;
        match sources.get(&source) {
            Some(SourceKind::Event) => {}
            Some(_) => {
                let message = format!("{who}: the source '{source}' takes no events from here; it must be of type `event`");
                s.error("wrong_source", "source", message);
            }
            None => {
                let help = did_you_mean(&source, sources.keys().map(String::as_str));
                let message = format!("{who} references unknown source '{source}'");
                s.problem(Severity::Error, "unknown_source", "source", message, help);
            }
        }
        Some(StepKind::Emit(Emit { source, event: event?, body: call.body, retry: call.retry }))
    }

    fn choice(&self, s: &mut Section<'_>, draft: &mut Draft) -> StepKind {
        let (workflow, name) = (self.of.workflow, self.name);
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
        StepKind::Choice(Choice { choices: conditions, default: draft.default.as_ref().map(|_| 0) })
    }

    fn read_choice(&self, mut s: Section<'_>) -> Option<(Option<Filter>, Option<Placed<String>>)> {
        if s.has("when") == s.has("condition") {
            let what = if s.has("when") { "both `when` and `condition`, which are the same key" } else { "no `when`" };
            let message = format!("workflow '{}' choice step '{}' has a choice with {what}", self.of.workflow, self.name);
            s.error("missing_key", "", message);
        }
        let when = read_filter(&mut s, "when", self.of.around.compat);
        let condition = read_filter(&mut s, "condition", self.of.around.compat);
        s.required_text("goto");
        let goto = s.placed_text("goto");
        s.finish();
        Some((when.or(condition), goto))
    }

    fn parallel(&self, s: &mut Section<'_>, call: &CallSpec, draft: &mut Draft) -> StepKind {
        let (workflow, name) = (self.of.workflow, self.name);
        let mut names = BTreeSet::new();
        draft.inner = s.items("branches", |_, mut b| {
            let branch = b.required_text("name").unwrap_or_default();
            if !b.has("url") {
                b.error("missing_key", "", format!("handler '{workflow}/{name}:{branch}' has no url"));
            }
            // A branch has the step's retry and deadline.
            let who = format!("handler '{workflow}/{name}:{branch}'");
            let mut wished = CallSpec::read(&mut b, &who, self.of.around, &call.retry, true);
            wished.timeout = call.timeout;
            let undo = self.undo(&mut b, &format!(":{branch}"));
            if !names.insert(branch.clone()) {
                let message = format!("workflow '{workflow}' parallel step '{name}' has duplicate branch name '{branch}'");
                b.error("duplicate_name", "name", message);
            }
            let place = b.place();
            b.finish();
            Some(Draft { undo, ..Draft::plain(branch, StepKind::Call(wished.call()?), place) })
        });
        if draft.inner.is_empty() {
            s.error("missing_key", "branches", format!("workflow '{workflow}' parallel step '{name}' has no branches"));
        }
        // Filled in when the jumps are resolved.
        StepKind::Parallel(Parallel { branches: Vec::new() })
    }

    fn map(&self, s: &mut Section<'_>, call: CallSpec, draft: &mut Draft) -> Option<StepKind> {
        let (workflow, name) = (self.of.workflow, self.name);
        if !s.has("items_path") && !s.has("items") {
            s.error("missing_key", "", format!("workflow '{workflow}' map step '{name}' has neither items_path nor items"));
        }
        refuse_both(s, &self.who(), "items_path", "items");
        let by_path = read_path(s, "items_path").map(Items::Path);
        let items = by_path.or_else(|| read_template(s, "items", false).map(Items::Template));
        draft.inner = self.each_item(s, call, draft);
        if draft.inner.is_empty() && !s.has("url") && !s.has("iterator") && !s.has("steps") {
            s.error(
                "missing_key",
                "",
                format!("workflow '{workflow}' map step '{name}' has no url, and neither steps nor a workflow"),
            );
        }
        Some(StepKind::Map(Map {
            items: items?,
            // Filled in when the jumps are resolved.
            steps: Vec::new(),
            concurrency: s.number32("max_concurrency").and_then(|n| usize::try_from(n).ok()),
            tolerated: read_tolerated(s),
            tolerated_percent: s.number32("tolerated_failure_percent").unwrap_or(0),
            collects: s.word("on_item_failure").is_some_and(|w| w == "collect"),
        }))
    }

    /// What is done for each item: steps, another workflow, or a call.
    fn each_item(&self, s: &mut Section<'_>, call: CallSpec, draft: &mut Draft) -> Vec<Draft> {
        let Of { workflow, around, .. } = self.of;
        if s.has("steps") {
            let of = Of { inside: Some(self.name), ..self.of };
            return s.items("steps", |at, inner| Some(Draft::read(at, inner, of)));
        }
        let item = |kind, place| Draft::plain("item".to_owned(), kind, place);
        if let Some(calls) = s.placed_text("workflow") {
            let retry = if s.has("retry") { call.retry } else { Vec::new() };
            let place = calls.place;
            draft.call = Some((self.who(), calls.clone()));
            return vec![item(StepKind::Child(Child { workflow: calls.value, retry }), place)];
        }
        let (mut input, mut call) = (None, call);
        if let Some(mut i) = s.optional_section("iterator") {
            let who = format!("handler '{workflow}/{}'", self.name);
            let mut inner = CallSpec::read(&mut i, &who, around, &call.retry, true);
            input = read_template(&mut i, "input", inner.sends_json);
            i.finish();
            inner.url = inner.url.or(call.url);
            call = inner;
        }
        let place = s.place();
        let Some(call) = call.call() else { return Vec::new() };
        let mut draft = item(StepKind::Call(call), place);
        draft.step.input = input;
        vec![draft]
    }

    fn wait(&self, s: &mut Section<'_>) -> Option<StepKind> {
        let (workflow, name) = (self.of.workflow, self.name);
        let seconds = s.number("seconds").map(|seconds| Wait::For(Duration::from_secs(seconds)));
        let path = read_path(s, "timestamp_path").map(Wait::Until);
        refuse_both(s, &self.who(), "seconds", "timestamp_path");
        if !s.has("seconds") && !s.has("timestamp_path") {
            let message = format!("workflow '{workflow}' wait step '{name}' needs either 'seconds' or 'timestamp_path'");
            s.error("missing_key", "", message);
        }
        seconds.or(path).map(StepKind::Wait)
    }
}

/// Two keys that say the same thing differently: one of them would have no effect.
fn refuse_both(s: &mut Section<'_>, who: &str, one: &str, other: &str) {
    if s.has(one) && s.has(other) {
        s.error("twice", other, format!("{who} has both `{one}` and `{other}`, of which one alone counts: leave the other out"));
    }
}

/// A text in which no placeholder is read: one that stands there is refused, because it would be sent as it is written.
fn fixed_text(s: &mut Section<'_>, key: &str) -> Option<String> {
    let text = s.text(key)?;
    if text.contains("{{") {
        let help = "write the text out, or put the value into the payload";
        s.problem(Severity::Error, "bad_template", key, format!("`{key}` takes no placeholders"), Some(help.into()));
    }
    Some(text)
}

/// Names of people: nothing is filled in.
fn read_approvers(s: &mut Section<'_>) -> Vec<String> {
    let names: Vec<String> = s.texts("approvers").unwrap_or_default().into_iter().map(|name| name.value).collect();
    if let Some(name) = names.iter().find(|name| name.contains("{{")) {
        s.error("bad_template", "approvers", format!("`{name}` is a placeholder, and `approvers` takes names as they are"));
    }
    names
}

/// How many failed items a map bears. A map that collects failures bears all of them, so that a bound beside it would have no effect.
fn read_tolerated(s: &mut Section<'_>) -> u32 {
    let is_bounded = s.has("tolerated_failures") || s.has("tolerated_failure_percent");
    if is_bounded && s.text("on_item_failure").is_some_and(|word| word == "collect") {
        let help = "with `collect` every failure becomes an item of the result and none fails the step: leave one of the two out";
        let message = "`on_item_failure: collect` and a bound of tolerated failures exclude each other";
        s.problem(Severity::Error, "twice", "on_item_failure", message, Some(help.into()));
    }
    s.number32("tolerated_failures").unwrap_or(0)
}
