//! How data flows through a step: `input`, `result`, `result_path` and `output`, and what an error
//! adds to the payload.

use std::cell::{Cell, OnceCell};

use serde_json::{Map, Value, json};

use super::catch::error;
use super::flow::{Flow, ResultPath, Step};
use crate::decide::filter::Filter;
use crate::decide::operand::Scope;
use crate::decide::template::Template;
use crate::model::json::Ref;
use crate::model::path::Root;
use crate::model::run::{Close, Run, RunError, RunState, Visit, VisitPhase};
use crate::model::{Path, Payload, Timestamp};

/// What the expressions of a visit can read.
pub struct ExpressionScope<'a> {
    run: &'a Run,
    seq: u32,
    step: &'a str,
    payload: &'a Payload,
    now: Timestamp,
    extra: Vec<(&'static str, Value)>,
    uses_kept: bool,
    /// The value of `$$`, built when an expression first reads it.
    context: OnceCell<Value>,
    /// The payload, with values that earlier steps stored and later responses have removed.
    /// Templates read this one.
    filled: OnceCell<Value>,
}

impl<'a> ExpressionScope<'a> {
    /// Creates the view of a visit over a payload: its own, or one that the step is just building.
    pub fn of(run: &'a Run, seq: u32, step: &'a str, payload: &'a Payload) -> Self {
        let now = run.state.visits.get(&seq).map_or(run.created_at, |visit| visit.entered_at);
        Self {
            run,
            seq,
            step,
            payload,
            now,
            extra: Vec::new(),
            uses_kept: true,
            context: OnceCell::new(),
            filled: OnceCell::new(),
        }
    }

    /// Adds a value to the context, where expressions read it as `$$.KEY`.
    pub fn with(mut self, key: &'static str, value: Value) -> Self {
        self.extra.push((key, value));
        self
    }

    /// The same view without values of earlier steps. It serves to read a response, where a missing
    /// field must stay missing.
    pub fn without_kept(self) -> Self {
        Self { uses_kept: false, ..self }
    }

    /// Whether a condition holds. Conditions see the payload as it is, without values of earlier
    /// steps.
    pub fn holds(&self, condition: &Filter) -> bool {
        condition.holds(&self.scope(self.payload.view(), &condition.paths()))
    }

    /// Renders a template into a new payload.
    ///
    /// # Errors
    /// The step's error: a function refused its arguments, or the template reads a payload that
    /// cannot be read.
    pub fn render(&self, template: &Template) -> Result<Payload, RunError> {
        let rendered = template
            .render(&self.scope(self.filled(), &template.paths()))
            .map_err(|why| error("template", why))?;
        Ok(Payload::read(rendered.body.into_bytes()))
    }

    /// Renders the text of a URL or a header. Unlike in other templates, a placeholder without a
    /// value is an error.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn render_plain(
        &self,
        template: &Template,
        fit: impl Fn(&str, bool) -> Result<String, String>,
    ) -> Result<String, String> {
        template.render_plain(&self.scope(self.filled(), &template.paths()), fit)
    }

    fn scope<'s>(&'s self, payload: Result<Ref<'s>, &'s str>, paths: &[&Path]) -> Scope<'s> {
        let reads_context = paths.iter().any(|path| path.root() == Root::Context);
        let context =
            if reads_context { self.context.get_or_init(|| self.context()) } else { &Value::Null };
        // The same for every visit of one operation.
        let operation = self.visit().and_then(|visit| visit.operation).unwrap_or(self.seq);
        let seed = self.run.id.0.0.wrapping_add(u128::from(operation));
        Scope { payload, context, now: self.now, seed, drawn: Cell::new(0) }
    }

    fn visit(&self) -> Option<&'a Visit> {
        self.run.state.visits.get(&self.seq)
    }

    fn filled(&self) -> Result<Ref<'_>, &str> {
        let Some(payload) = self
            .payload
            .json()
            .filter(|_| self.uses_kept && !self.run.state.last_results.is_empty())
        else {
            return self.payload.view();
        };
        Ok(Ref::Value(self.filled.get_or_init(|| with_kept(payload, &self.run.state.last_results))))
    }

    fn context(&self) -> Value {
        let (run, state) = (self.run, &self.run.state);
        let outcome = state.ending.as_ref().map(|ending| ending.how.status().as_str());
        let mut event = json!({ "id": run.event.to_string() });
        if let (Some(event), Some(about)) = (event.as_object_mut(), state.event_context.as_object())
        {
            event.extend(about.clone());
        }
        let mut context = json!({
            "run": { "id": run.id.to_string(), "workflow": run.workflow, "version": run.definition,
                     "started_at": run.created_at.rfc3339(), "redrives": state.redrives,
                     "outcome": outcome },
            "input": state.input.clone().into_value(),
            "event": event,
            "step": { "name": self.step, "visit": self.seq, "started_at": self.now.rfc3339() },
            "steps": steps(state),
            "vars": self.visit().and_then(|visit| visit.vars.as_ref()).unwrap_or(&state.vars),
        });
        let mut set = |key: &str, value: Value| {
            context.as_object_mut().and_then(|c| c.insert(key.to_owned(), value))
        };
        if let Some(Close::Failed(why)) = state.ending.as_ref().map(|ending| &ending.how) {
            set("error", described(why));
        }
        if let Some(visit) = self.visit() {
            if let Some(item) = item(state, visit) {
                set("item", item);
            }
            if let Some(done) =
                state.undoable.iter().find(|armed| Some(armed.visit) == visit.undoes)
            {
                set(
                    "step",
                    json!({
                        "name": self.step,
                        "visit": self.seq,
                        "input": done.input,
                        "output": done.output,
                    }),
                );
                if let Some(place) = done.place {
                    set("item", json!({ "index": place }));
                }
            }
        }
        for (key, value) in &self.extra {
            set(key, value.clone());
        }
        context
    }
}

/// The item that a visit inside a container works on.
fn item(state: &RunState, visit: &Visit) -> Option<Value> {
    let (container, place) = visit.within?;
    let value = match &state.visits.get(&container)?.phase {
        VisitPhase::Inside { items, .. } => items.get(place).cloned(),
        _ => None,
    };
    Some(json!({ "index": place, "value": value }))
}

fn steps(state: &RunState) -> Value {
    let one = |done: &crate::model::run::Done| {
        json!({
            "status": done.status,
            "output": done.output,
            "response": { "status": done.response_status },
            "visits": done.visits,
        })
    };
    Value::Object(state.steps.iter().map(|(name, done)| (name.clone(), one(done))).collect())
}

/// Adds the values that earlier steps stored to a payload from which a later response has removed
/// them.
fn with_kept(payload: &Value, kept: &Map<String, Value>) -> Value {
    let mut fields = match payload {
        Value::Object(fields) => fields.clone(),
        // An empty response has wiped everything.
        Value::Null => Map::new(),
        other => return other.clone(),
    };
    for (key, value) in kept {
        fields.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Value::Object(fields)
}

/// Puts a step's result into the payload at `path`. A text becomes a JSON string.
///
/// # Errors
/// The payload is not an object, so nothing can be set in it without losing data.
pub fn merge(payload: Payload, result: Payload, path: &ResultPath) -> Result<Payload, RunError> {
    Ok(match path {
        ResultPath::Replace => result,
        ResultPath::Discard => payload,
        ResultPath::Set(keys) => {
            let mut root = match payload {
                Payload::Json(Value::Object(fields)) => Value::Object(fields),
                // There is nothing in it that could be lost.
                Payload::Json(Value::Null) => Value::Object(Map::new()),
                Payload::Text(text) if text.trim().is_empty() => Value::Object(Map::new()),
                other => {
                    let what = match &other {
                        Payload::Text(_) => "a string",
                        Payload::Unreadable { .. } => "not parseable",
                        Payload::Json(Value::Array(_)) => "a list",
                        Payload::Json(_) => "not an object",
                    };
                    let message = format!(
                        "the payload is {what}, so `result_path: $.{}` cannot be set in it",
                        keys.join(".")
                    );
                    return Err(error("template", message));
                }
            };
            set(&mut root, keys, result.into_value());
            Payload::Json(root)
        }
    })
}

fn set(at: &mut Value, keys: &[String], value: Value) {
    let Some((key, rest)) = keys.split_first() else {
        *at = value;
        return;
    };
    if !at.is_object() {
        *at = Value::Object(Map::new());
    }
    if let Value::Object(fields) = at {
        set(fields.entry(key.clone()).or_insert(Value::Null), rest, value);
    }
}

/// The payload after a failed step, with a description of the error: set at `path`, or else added
/// to its fields.
pub fn with_error(
    flow: &Flow,
    payload: Payload,
    failure: &RunError,
    path: Option<&ResultPath>,
) -> Payload {
    if let Some(path) = path {
        let described = Payload::Json(described(failure));
        // A failure is told whatever it is told over: where it has no place in the payload, it is
        // the payload.
        return merge(payload, described.clone(), path).unwrap_or(described);
    }
    if flow.bare_errors {
        return Payload::Json(
            json!({ "error": failure.message, "failed_step": failure.step, "job_id": failure.job }),
        );
    }
    match (payload, described(failure)) {
        (Payload::Json(Value::Object(mut fields)), Value::Object(error)) => {
            // The name that an earlier failure had is not this one's.
            if failure.app.is_none() && fields.contains_key("failed_step") {
                fields.shift_remove("error_name");
            }
            fields.extend(error);
            Payload::Json(Value::Object(fields))
        }
        (payload, Value::Object(mut error)) => {
            error.insert("input".to_owned(), payload.into_value());
            Payload::Json(Value::Object(error))
        }
        (payload, _) => payload,
    }
}

/// The payload after a failed step that goes on: the error takes the place of the response.
pub fn going_on(flow: &Flow, payload: Payload, failure: &RunError, step: &Step) -> Payload {
    let answer = json!({ "error": failure.message, "failed_step": step.name });
    match &step.result_path {
        ResultPath::Discard => payload,
        ResultPath::Set(_) => {
            let answer = Payload::Json(answer);
            merge(payload, answer.clone(), &step.result_path).unwrap_or(answer)
        }
        ResultPath::Replace => with_error(flow, payload, failure, None),
    }
}

/// An error as payloads and expressions see it.
pub fn described(failure: &RunError) -> Value {
    let mut error = json!({
        "error": failure.message, "failed_step": failure.step, "job_id": failure.job,
        "error_type": failure.class,
        "status": failure.status, "attempts": failure.attempts,
    });
    if let Some(name) = &failure.app {
        error["error_name"] = json!(name);
    }
    error
}

/// Checks that the payload has the parameters that the workflow declares.
///
/// # Errors
/// A sentence that names the first parameter that is missing or of another type.
pub fn check_params(flow: &Flow, payload: &Payload) -> Result<(), String> {
    let workflow = &flow.name;
    let fields = payload.json().and_then(Value::as_object);
    if fields.is_none() && !flow.params.is_empty() {
        return Err(format!(
            "workflow '{workflow}' has params, so its payload must be a JSON object"
        ));
    }
    for param in &flow.params {
        let (name, kind) = (&param.name, param.kind.as_str());
        let Some(value) =
            fields.and_then(|fields| fields.get(name)).filter(|value| !value.is_null())
        else {
            if param.required {
                return Err(format!("workflow '{workflow}' missing required param '{name}'"));
            }
            continue;
        };
        let is = match value {
            Value::Number(_) => "number",
            Value::Bool(_) => "boolean",
            Value::Object(_) => "object",
            Value::Array(_) => "array",
            Value::String(_) | Value::Null => "string",
        };
        if is != kind {
            return Err(format!(
                "workflow '{workflow}' param '{name}' expected type '{kind}', got {is}"
            ));
        }
    }
    Ok(())
}
