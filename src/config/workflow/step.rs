//! One step: its data flow and its jumps. Jumps are names until all steps are read.
//!
//! `steps` reads what its type adds, `call` what it calls; `resolve` turns names into indexes.

use std::sync::Arc;

use super::super::ReadContext;
use super::super::handler::{read_filter, read_template};
use super::super::problem::{Place, Severity};
use super::super::read::{Placed, Section};
use super::super::server::read_errors;
use super::call::CallSpec;
use super::steps::{Entry, Http};
use crate::decide::retry::RetryPolicy;
use crate::decide::workflow::catch::{Catch, Way, error};
use crate::decide::workflow::flow::{Next, ResultPath, Step};
use crate::decide::workflow::step_type::{Entered, StepType};
use crate::decide::workflow::walk::Walk;
use crate::model::run::RunError;

/// Attempts of a call that undoes a step, unless it says otherwise.
const UNDO_ATTEMPTS: u32 = 10;

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
    /// The steps inside a map, or the branches of a parallel step.
    pub(super) inner: Vec<Self>,
    /// Whether the inner steps lead to each other: those of a map do, branches do not.
    pub(super) inner_leads_on: bool,
    /// What the step sends is JSON, so its `input` must render to JSON.
    pub(super) input_is_json: bool,
    /// The call that undoes it.
    pub(super) undo: Option<Step>,
    /// The workflow that it calls.
    pub(super) call: Option<(String, Placed<String>)>,
}

/// What is read around the steps of a workflow.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    /// The workflow's name.
    pub(super) workflow: &'a str,
    /// The file.
    pub(super) around: &'a ReadContext<'a>,
    /// The retry policies of steps that say nothing else.
    pub(super) retry: &'a [RetryPolicy],
    /// The map that they stand in.
    pub(super) inside: Option<&'a str>,
}

impl Draft {
    /// All its jumps.
    pub(super) fn gotos(&self) -> impl Iterator<Item = &Goto> {
        self.goto.iter().chain(self.catches.iter().flatten()).chain(self.choices.iter().flatten()).chain(&self.default)
    }

    /// The step after it is never the next one by itself.
    pub(super) fn jumps(&self) -> bool {
        self.goto.is_some() || self.step.kind.branches().is_some()
    }

    /// The workflows it calls.
    pub(super) fn calls(&self) -> Vec<(String, Placed<String>)> {
        self.call.iter().cloned().chain(self.inner.iter().flat_map(Self::calls)).collect()
    }

    /// A step that only does one thing.
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

    pub(super) fn read(at: usize, mut s: Section<'_>, of: Of<'_>) -> Self {
        let Of { workflow, around, .. } = of;
        let name = s.required_text("name").unwrap_or_else(|| format!("#{}", at + 1));
        let entry = Entry::of(s.word("type").as_deref());
        let who = format!("workflow '{workflow}' step '{name}'");
        if name.contains('/') || name.contains(':') {
            s.error("bad_name", "name", format!("{who}: a step's name must not contain '/' or ':'"));
        }
        let mut draft = Self::plain(name.clone(), Arc::new(Unreadable), s.place());
        draft.ends = s.bool("end").unwrap_or(false);
        draft.step.when = read_filter(&mut s, "if", around.compat);
        draft.step.result = read_template(&mut s, "result", false);
        draft.step.result_path = read_result_path(&mut s, &who);
        draft.step.output = read_template(&mut s, "output", false);
        draft.step.assign = read_assign(&mut s, &who);
        draft.step.goes_on = s.word("on_failure").is_some_and(|word| word == "continue");
        draft.step.pauses = s.word("on_exhausted").is_some_and(|word| word == "pause");
        if of.inside.is_some() && draft.step.pauses {
            s.warn(
                "no_effect",
                "on_exhausted",
                format!("{who}: inside a map a failed step fails its item; `on_exhausted` belongs on the map"),
            );
        }
        draft.goto = jump(s.placed_text("goto"), format!("{who} goto"));
        if draft.ends && draft.goto.is_some() {
            s.error("twice", "goto", format!("{who} has both `end: true` and `goto`"));
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

/// A step being read.
pub(super) struct Reading<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Its workflow.
    pub(super) of: Of<'a>,
}

impl Reading<'_> {
    /// How messages name the step.
    pub(super) fn who(&self) -> String {
        format!("workflow '{}' step '{}'", self.of.workflow, self.name)
    }

    /// The call that undoes a step or a branch.
    pub(super) fn undo(&self, s: &mut Section<'_>, branch: &str) -> Option<Step> {
        let Of { workflow, around, retry, inside } = self.of;
        let mut undo = s.optional_section("compensate")?;
        let inside = inside.map_or(String::new(), |map| format!("{map}:"));
        let name = format!("{inside}{}{branch}.compensate", self.name);
        let who = format!("handler '{workflow}/{name}'");
        if !undo.has("url") {
            undo.error("missing_key", "", format!("{who} has no url"));
        }
        let retry: Vec<RetryPolicy> = retry.iter().map(|retry| RetryPolicy { max: UNDO_ATTEMPTS, ..retry.clone() }).collect();
        let call = CallSpec::read(&mut undo, &who, around, &retry);
        undo.finish();
        Some(plain(name, Arc::new(Http(call.call()?))))
    }
}

/// A step that only makes a call.
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

/// A jump, if one is written.
pub(super) fn jump(to: Option<Placed<String>>, what: String) -> Option<Goto> {
    to.map(|to| Goto { what, to })
}

fn read_assign(s: &mut Section<'_>, who: &str) -> Option<crate::decide::template::Template> {
    if !s.has("assign") || s.is_null("assign") {
        return None;
    }
    if !s.is_mapping("assign") {
        s.error("wrong_type", "assign", format!("{who}: `assign` must be a mapping of variables to templates"));
        return None;
    }
    read_template(s, "assign", false)
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

/// Where failures go, and by which jump.
pub(super) fn read_catches(s: &mut Section<'_>, who: &str) -> Vec<(Catch, Option<Goto>)> {
    s.items("catch", |_, c| Some(read_catch(who, c)))
}

fn read_catch(who: &str, mut s: Section<'_>) -> (Catch, Option<Goto>) {
    if !s.has("errors") {
        s.error("missing_key", "", format!("{who} has a catch without `errors`"));
    }
    let errors = read_errors(&mut s).unwrap_or_default();
    let result_path = s.has("result_path").then(|| read_result_path(&mut s, who));
    let undoes = s.bool("compensate").unwrap_or(false);
    let goto = match undoes {
        true if s.has("goto") => {
            s.error("twice", "compensate", format!("{who} has a catch with both `goto` and `compensate`"));
            None
        }
        true => None,
        false => {
            s.required_text("goto");
            s.placed_text("goto")
        }
    };
    s.finish();
    let way = if undoes { Way::Undo } else { Way::Step(0) };
    (Catch { errors, way, result_path }, jump(goto, format!("{who} catch goto")))
}
