//! Reads one step of a workflow: its data flow and its jumps, which are names until all steps are
//! read.
//!
//! `steps` reads what its type adds, `call` the call it makes, and `resolve` turns the names of
//! jumps into indexes.

use std::sync::Arc;

use super::super::ReadContext;
use super::super::handler::{read_filter, read_template};
use super::super::problem::{Place, Severity};
use super::super::read::{Placed, Section};
use super::super::server::read_errors;
use super::call::CallSpec;
use super::steps::{Entry, Http};
use crate::decide::retry::RetryPolicy;
use crate::decide::workflow::catch::{Catch, CatchTarget, error};
use crate::decide::workflow::flow::{Next, ResultPath, Step};
use crate::decide::workflow::step_type::{Entered, StepType};
use crate::decide::workflow::walk::Walk;
use crate::model::run::RunError;

/// The attempts of a call that undoes a step, unless it sets its own.
const UNDO_ATTEMPTS: u32 = 10;

/// A jump whose target is still a name: `goto`, a catch, a choice or a default.
#[derive(Debug, Clone)]
pub(super) struct Goto {
    /// The subject of messages about this jump, as `workflow 'w' step 's' goto`.
    pub(super) what: String,
    /// The name of the step to go on with, and its place in the file.
    pub(super) to: Placed<String>,
}

/// A step that was read, with jumps that are still names.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) step: Step,
    pub(super) place: Place,
    pub(super) goto: Option<Goto>,
    pub(super) catches: Vec<Option<Goto>>,
    pub(super) choices: Vec<Option<Goto>>,
    pub(super) default: Option<Goto>,
    pub(super) ends: bool,
    /// The steps inside a map, or the branches of a parallel step.
    pub(super) inner: Vec<Self>,
    /// Whether the inner steps lead to each other: those of a map do, branches do not.
    pub(super) inner_leads_on: bool,
    /// What the step sends is JSON, so its `input` must render to JSON.
    pub(super) input_is_json: bool,
    /// The call that undoes the step in a rollback.
    pub(super) undo: Option<Step>,
    /// The workflow that it calls: who calls, for messages, and the called name with its place.
    pub(super) call: Option<(String, Placed<String>)>,
}

/// The surroundings of a step that is being read.
#[derive(Clone, Copy)]
pub(super) struct StepScope<'a> {
    pub(super) workflow: &'a str,
    /// What was read before the workflows: sources, address policy, defaults and compatibility.
    pub(super) around: &'a ReadContext<'a>,
    /// The retry policies of steps that set none.
    pub(super) retry: &'a [RetryPolicy],
    /// The name of the map that the steps stand in; `None` outside a map.
    pub(super) inside: Option<&'a str>,
}

impl Draft {
    /// Every jump of the step: `goto`, catches, choices and the default of a choice.
    pub(super) fn gotos(&self) -> impl Iterator<Item = &Goto> {
        self.goto
            .iter()
            .chain(self.catches.iter().flatten())
            .chain(self.choices.iter().flatten())
            .chain(&self.default)
    }

    /// Whether the next step of the list never follows by itself: after a `goto`, a choice or a
    /// failure.
    pub(super) fn jumps(&self) -> bool {
        self.goto.is_some() || self.step.kind.branches().is_some()
    }

    /// The workflows that it and its inner steps call.
    pub(super) fn calls(&self) -> Vec<(String, Placed<String>)> {
        self.call.iter().cloned().chain(self.inner.iter().flat_map(Self::calls)).collect()
    }

    /// A step of this kind without jumps, conditions or data flow.
    pub(super) fn plain(name: String, kind: Arc<dyn StepType>, place: Place) -> Self {
        Self {
            step: plain(name, kind),
            place,
            goto: None,
            catches: Vec::new(),
            choices: Vec::new(),
            default: None,
            ends: false,
            inner: Vec::new(),
            inner_leads_on: false,
            input_is_json: false,
            undo: None,
            call: None,
        }
    }

    pub(super) fn read(at: usize, mut s: Section<'_>, of: StepScope<'_>) -> Self {
        let StepScope { workflow, around, .. } = of;
        let name = s.required_text("name").unwrap_or_else(|| format!("#{}", at + 1));
        let entry = Entry::of(s.one_of("type").as_deref());
        let who = format!("workflow '{workflow}' step '{name}'");
        if name.contains('/') || name.contains(':') {
            s.error(
                "bad_name",
                "name",
                format!("{who}: the name of a step must not contain '/' or ':'"),
            );
        }
        let mut draft = Self::plain(name.clone(), Arc::new(Unreadable), s.place());
        draft.ends = s.bool("end").unwrap_or(false);
        draft.step.when = read_filter(&mut s, "if", around.compat);
        draft.step.result = read_template(&mut s, "result", false);
        draft.step.result_path = read_result_path(&mut s, &who);
        draft.step.output = read_template(&mut s, "output", false);
        draft.step.assign = read_assign(&mut s, &who);
        draft.step.goes_on = s.one_of("on_failure").is_some_and(|word| word == "continue");
        draft.step.pauses = s.one_of("on_exhausted").is_some_and(|word| word == "pause");
        if of.inside.is_some() && draft.step.pauses {
            s.warn(
                "no_effect",
                "on_exhausted",
                format!(
                    "{who}: `on_exhausted` has no effect inside a map, where a failed step \
                    fails its item: set it on the map step"
                ),
            );
        }
        draft.goto = jump(s.placed_text("goto"), format!("{who} goto"));
        if draft.ends && draft.goto.is_some() {
            s.error(
                "twice",
                "goto",
                format!("{who} has both `end: true` and `goto`: remove one of them"),
            );
        }
        for (catch, to) in read_catches(&mut s, &who) {
            draft.step.catch.push(catch);
            draft.catches.push(to);
        }
        let reading = Reading { name: &name, of };
        draft.undo = reading.undo(&mut s, "");
        if let Some(kind) = entry.read(&reading, &mut s, &mut draft) {
            draft.step.kind = kind;
        }
        // The input of a call is its body, so it must be what the call's content type says.
        draft.step.input = read_template(&mut s, "input", draft.input_is_json);
        entry.warn_of_strays(&mut s, &who);
        s.finish();
        draft
    }
}

/// Stands in for a step that could not be read, which was reported.
#[derive(Debug)]
struct Unreadable;

impl StepType for Unreadable {
    fn name(&self) -> &'static str {
        "unreadable"
    }

    fn enter(&self, _: &mut Walk<'_>, _: u32, step: &Step) -> Result<Entered, RunError> {
        Err(error("unknown_step", format!("step '{}' could not be read", step.name)))
    }
}

/// The names that messages need while the keys of one step are read.
pub(super) struct Reading<'a> {
    /// The step's name, or `#3` for the third one when it has none.
    pub(super) name: &'a str,
    /// The surroundings that all steps of the workflow share.
    pub(super) of: StepScope<'a>,
}

impl Reading<'_> {
    /// How messages name the step.
    pub(super) fn who(&self) -> String {
        format!("workflow '{}' step '{}'", self.of.workflow, self.name)
    }

    /// Reads `compensate`: the call that undoes a step, or one branch of it.
    pub(super) fn undo(&self, s: &mut Section<'_>, branch: &str) -> Option<Step> {
        let StepScope { workflow, around, retry, inside } = self.of;
        let mut undo = s.optional_section("compensate")?;
        let inside = inside.map_or(String::new(), |map| format!("{map}:"));
        let name = format!("{inside}{}{branch}.compensate", self.name);
        let who = format!("handler '{workflow}/{name}'");
        if !undo.has("url") {
            undo.error(
                "missing_key",
                "",
                format!("{who} has no url: add `url`, the address to call"),
            );
        }
        let retry: Vec<RetryPolicy> =
            retry.iter().map(|retry| RetryPolicy { max: UNDO_ATTEMPTS, ..retry.clone() }).collect();
        let call = CallSpec::read(&mut undo, &who, around, &retry);
        undo.finish();
        Some(plain(name, Arc::new(Http(call.call()?))))
    }
}

/// A compiled step of this kind without jumps, conditions or data flow.
fn plain(name: String, kind: Arc<dyn StepType>) -> Step {
    Step {
        name,
        kind,
        when: None,
        input: None,
        result: None,
        result_path: ResultPath::Replace,
        output: None,
        assign: None,
        undo: None,
        pauses: false,
        catch: Vec::new(),
        goes_on: false,
        next: Next::End,
    }
}

/// A jump, if its target is written.
pub(super) fn jump(to: Option<Placed<String>>, what: String) -> Option<Goto> {
    to.map(|to| Goto { what, to })
}

fn read_assign(s: &mut Section<'_>, who: &str) -> Option<crate::decide::template::Template> {
    if !s.has("assign") || s.is_null("assign") {
        return None;
    }
    if !s.is_mapping("assign") {
        s.error(
            "wrong_type",
            "assign",
            format!("{who}: `assign` must be a mapping of variable names to templates"),
        );
        return None;
    }
    read_template(s, "assign", false)
}

fn read_result_path(s: &mut Section<'_>, who: &str) -> ResultPath {
    if s.is_null("result_path") {
        let help = "qhook 0.6 ignored a YAML null here; to replace the payload with the response, \
            remove the key";
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

/// Reads `catch`: which failures are caught, and the jumps they take.
pub(super) fn read_catches(s: &mut Section<'_>, who: &str) -> Vec<(Catch, Option<Goto>)> {
    s.items("catch", |_, c| Some(read_catch(who, c)))
}

fn read_catch(who: &str, mut s: Section<'_>) -> (Catch, Option<Goto>) {
    if !s.has("errors") {
        s.error(
            "missing_key",
            "",
            format!("{who} has a catch without `errors`: list the failures it catches, or `all`"),
        );
    }
    let errors = read_errors(&mut s).unwrap_or_default();
    let result_path = s.has("result_path").then(|| read_result_path(&mut s, who));
    let undoes = s.bool("compensate").unwrap_or(false);
    let goto = match undoes {
        true if s.has("goto") => {
            s.error(
                "twice",
                "compensate",
                format!("{who} has a catch with both `goto` and `compensate`: remove one of them"),
            );
            None
        }
        true => None,
        false => {
            s.required_text("goto");
            s.placed_text("goto")
        }
    };
    s.finish();
    let way = if undoes { CatchTarget::Undo } else { CatchTarget::Step(0) };
    (Catch { errors, way, result_path }, jump(goto, format!("{who} catch goto")))
}
