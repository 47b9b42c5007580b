//! What a step makes of the payload: input, result path, output; what an error adds to it.

use std::cell::Cell;

use serde_json::{Map, Value, json};

use super::catch::error;
use super::flow::{Flow, ResultPath, Step};
use crate::decide::operand::Scope;
use crate::decide::template::Template;
use crate::model::run::{Run, RunError, RunState};
use crate::model::{Payload, Timestamp};

/// What expressions of a visit see.
pub struct View<'a> {
    /// The payload, with what was kept of earlier results in place of what is missing.
    payload: Option<Value>,
    plain: &'a Payload,
    context: Value,
    now: Timestamp,
    seed: u128,
}

impl<'a> View<'a> {
    /// The view of a visit's payload. `extra` is added to `$$`.
    pub fn new(run: &'a Run, visit: u32, step: &str, payload: &'a Payload, now: Timestamp, extra: &[(&str, Value)]) -> Self {
        let state = &run.state;
        let mut context = json!({
            "run": { "id": run.id.to_string(), "workflow": run.workflow, "version": run.definition,
                     "started_at": run.created_at.rfc3339() },
            "input": state.input.clone().into_value(),
            "event": { "id": run.event.to_string() },
            "step": { "name": step, "visit": visit },
            "steps": steps(state),
            "vars": state.vars,
        });
        if let Some(context) = context.as_object_mut() {
            context.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        }
        let payload_with_kept = payload.json().map(|value| with_kept(value, &state.kept));
        // The same for every visit of one operation.
        let operation = state.visits.get(&visit).and_then(|v| v.operation).unwrap_or(visit);
        Self { payload: payload_with_kept, plain: payload, context, now, seed: run.id.0.0.wrapping_add(u128::from(operation)) }
    }

    /// The view of a response: what it lacks is missing.
    pub fn without_kept(self) -> Self {
        Self { payload: self.plain.json().cloned(), ..self }
    }

    /// The scope of conditions: the payload as it is.
    pub fn plain(&self) -> Scope<'_> {
        Scope { payload: self.plain.json(), context: &self.context, now: self.now, seed: self.seed, drawn: Cell::new(0) }
    }

    /// Renders a template. A payload that is not JSON passes templates by, as in qhook.
    ///
    /// # Errors
    /// The step's error.
    pub fn render(&self, template: &Template) -> Result<Option<Payload>, RunError> {
        if self.payload.is_none() {
            return Ok(None);
        }
        let scope =
            Scope { payload: self.payload.as_ref(), context: &self.context, now: self.now, seed: self.seed, drawn: Cell::new(0) };
        let rendered = template.render(&scope).map_err(|why| error("template", why))?;
        Ok(Some(Payload::of(rendered.body.as_bytes())))
    }
}

fn steps(state: &RunState) -> Value {
    let one = |done: &crate::model::run::Done| json!({ "status": done.status, "output": done.output, "response": { "status": done.response_status }, "visits": done.visits });
    Value::Object(state.steps.iter().map(|(name, done)| (name.clone(), one(done))).collect())
}

/// A root that a later response has wiped shows the value last stored under it.
fn with_kept(payload: &Value, kept: &Map<String, Value>) -> Value {
    let mut fields = match payload {
        Value::Object(fields) => fields.clone(),
        // An empty response has wiped everything.
        Value::Null if !kept.is_empty() => Map::new(),
        other => return other.clone(),
    };
    for (key, value) in kept {
        fields.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Value::Object(fields)
}

/// The payload after a response.
pub fn merge(payload: Payload, result: Payload, path: &ResultPath) -> Payload {
    match path {
        ResultPath::Replace => result,
        ResultPath::Discard => payload,
        ResultPath::Set(keys) => {
            // Text has no place in JSON: it becomes null, as in qhook.
            let value = result.json().cloned().unwrap_or(Value::Null);
            let mut root = match payload {
                Payload::Json(Value::Object(fields)) => Value::Object(fields),
                // JSON that is no object has no place for it, as in qhook.
                Payload::Json(other) => return Payload::Json(other),
                Payload::Text(_) => Value::Object(Map::new()),
            };
            set(&mut root, keys, value);
            Payload::Json(root)
        }
    }
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

/// The payload that a failed step hands on.
pub fn with_error(flow: &Flow, payload: Payload, failure: &RunError, step: &Step, path: Option<&ResultPath>) -> Payload {
    let bare = json!({ "error": failure.message, "failed_step": step.name, "job_id": failure.job });
    if let Some(path) = path {
        return merge(payload, Payload::Json(full(failure, bare)), path);
    }
    if flow.bare_errors {
        return Payload::Json(bare);
    }
    let full = full(failure, bare);
    match (payload, full) {
        (Payload::Json(Value::Object(mut fields)), Value::Object(error)) => {
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

/// The payload after a failed step that goes on: as if it had answered with the error, the payload kept.
pub fn going_on(flow: &Flow, payload: Payload, failure: &RunError, step: &Step) -> Payload {
    let answer = json!({ "error": failure.message, "failed_step": step.name });
    match &step.result_path {
        ResultPath::Discard => payload,
        ResultPath::Set(_) => merge(payload, Payload::Json(answer), &step.result_path),
        ResultPath::Replace => with_error(flow, payload, failure, step, None),
    }
}

fn full(failure: &RunError, mut bare: Value) -> Value {
    if let Some(fields) = bare.as_object_mut() {
        fields.insert("error_type".to_owned(), json!(failure.class));
        fields.insert("status".to_owned(), json!(failure.status));
        fields.insert("attempts".to_owned(), json!(failure.attempts));
    }
    bare
}

/// Whether the payload has the parameters.
///
/// # Errors
/// A sentence that names the first one that is missing or of another type.
pub fn check_params(flow: &Flow, payload: &Payload) -> Result<(), String> {
    let workflow = &flow.name;
    let fields = payload.json().and_then(Value::as_object);
    if fields.is_none() && !flow.params.is_empty() {
        return Err(format!("workflow '{workflow}' has params, so its payload must be a JSON object"));
    }
    for param in &flow.params {
        let (name, kind) = (&param.name, param.kind.as_str());
        let Some(value) = fields.and_then(|fields| fields.get(name)).filter(|value| !value.is_null()) else {
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
            return Err(format!("workflow '{workflow}' param '{name}' expected type '{kind}', got {is}"));
        }
    }
    Ok(())
}
