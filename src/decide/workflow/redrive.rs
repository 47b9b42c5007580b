//! Redrive: restarts a run that failed or was cancelled, from the step where it stopped or from
//! another one.

use serde_json::json;

use super::Flow;
use super::machine::Context;
use super::walk::Walk;
use crate::model::history::NoteKind;
use crate::model::run::{Change, Stopped};
use crate::model::{Payload, Run, RunStatus};

/// The options of a redrive: where the run starts again, with which payload, and by which
/// definition.
#[derive(Debug, Clone, Default)]
pub struct Redrive<'a> {
    /// The name of the step to start from; `None` means the step where the run stopped.
    pub from: Option<&'a str>,
    /// The payload for that step; `None` means the payload that the step had.
    pub payload: Option<Payload>,
    /// The definition that the run leaves for the one in `Context`; `None` when it keeps its
    /// definition.
    pub old_definition: Option<&'a Flow>,
}

/// Restarts a run that failed or was cancelled, with a fresh limit of steps and a fresh deadline.
///
/// # Errors
/// A sentence: why the run cannot be restarted, or not in this way.
pub fn redrive(run: &Run, wish: &Redrive<'_>, context: &Context<'_>) -> Result<Change, String> {
    if !matches!(run.status, RunStatus::Failed | RunStatus::Cancelled) {
        return Err(format!(
            "only a run that failed or was cancelled can be redriven; this one is {}",
            run.status
        ));
    }
    if run.state.compensated {
        return Err(
            "the run was rolled back and cannot be redriven; send its event again".to_owned()
        );
    }
    let Some(stopped) = run.state.stopped.clone() else {
        return Err(
            "the run failed before it entered a step and cannot be redriven; send its event again"
                .to_owned(),
        );
    };
    let mut walk = Walk::new(run.clone(), context);
    let stopped = match wish.old_definition {
        Some(old) => {
            move_on(&mut walk.change.run, old, context.flow)?;
            Stopped { at: moved(&stopped.at, old, context.flow)?, ..stopped }
        }
        None => stopped,
    };
    let stopped = from(run, wish, stopped, context.flow)?;
    let run = &mut walk.change.run;
    (run.status, run.error, run.finished_at) = (RunStatus::Running, None, None);
    run.state.redrives += 1;
    run.state.caught = false;
    (run.state.visited_before, run.state.allowance) = (run.state.visited, 0);
    let place = context.flow.place(&stopped.at);
    run.state.stopped = Some(stopped);
    let (redrives, gate) = (run.state.redrives, run.state.gate.clone());
    walk.note(
        NoteKind::Redriven,
        None,
        json!({ "redrives": redrives, "from": place, "definition": context.flow.hash }),
    );
    match gate {
        Some(gate) => walk.ask_gate(gate),
        None => walk.begin_run(),
    }
    walk.go();
    Ok(walk.change)
}

/// Decides at which step the run starts again, and with which payload.
fn from(run: &Run, wish: &Redrive<'_>, stopped: Stopped, flow: &Flow) -> Result<Stopped, String> {
    let stopped_in = flow.step(&stopped.at).map(|step| step.name.as_str());
    let new =
        |at, payload| Stopped { at, payload, operation: None, entered_at: None, places: None };
    let Some(name) = wish.from.filter(|name| Some(*name) != stopped_in) else {
        // A step that waits for an answer tells of a token, and there is a new one.
        let tells = flow.step(&stopped.at).is_some_and(|step| step.kind.awaited().is_some());
        return Ok(match &wish.payload {
            // Other bytes are another operation.
            Some(payload) => new(stopped.at, payload.clone()),
            None if tells => new(stopped.at, stopped.payload),
            None => stopped,
        });
    };
    let Some(at) = flow.steps[..flow.main].iter().position(|step| step.name == name) else {
        let names: Vec<&str> =
            flow.steps[..flow.main].iter().map(|step| step.name.as_str()).collect();
        return Err(format!(
            "the workflow has no step '{name}'; its steps are {}",
            names.join(", ")
        ));
    };
    let payload = wish.payload.clone().or_else(|| entered_with(run, name)).ok_or_else(|| {
        format!(
            "step '{name}' was never entered, so it has no stored payload; give a payload, or \
            name an earlier step"
        )
    })?;
    Ok(new(vec![at], payload))
}

/// The payload with which a step was last entered, which is what the step before it left.
fn entered_with(run: &Run, name: &str) -> Option<Payload> {
    let seq = run.state.steps.get(name)?.seq;
    let before = run.state.steps.values().filter(|done| done.seq < seq).max_by_key(|done| done.seq);
    Some(match before {
        Some(done) => done.after.clone().unwrap_or_else(|| Payload::Json(done.output.clone())),
        None => run.state.input.clone(),
    })
}

/// Pins a run to another definition. It fails if a step that the run has entered is missing there,
/// or has another type.
fn move_on(run: &mut Run, old: &Flow, new: &Flow) -> Result<(), String> {
    for step in old.steps.iter().filter(|step| run.state.steps.contains_key(&step.name)) {
        let kind = step.kind.name();
        match new.steps.iter().find(|other| other.name == step.name).map(|other| other.kind.name())
        {
            Some(word) if word == kind => {}
            Some(word) => {
                return Err(format!(
                    "step '{}' was of type {kind} and now is of type {word}; redrive the run \
                     without `latest`, on its own definition",
                    step.name
                ));
            }
            None => return Err(gone(&step.name)),
        }
    }
    for armed in &mut run.state.undoable {
        armed.at = moved(&armed.at, old, new)?;
    }
    run.definition.clone_from(&new.hash);
    Ok(())
}

fn gone(step: &str) -> String {
    format!(
        "the workflow no longer has the step '{step}'; redrive the run without `latest`, on its \
         own definition"
    )
}

/// Finds the place of a step in a new definition, by the names of the step and its container.
fn moved(at: &[usize], old: &Flow, new: &Flow) -> Result<Vec<usize>, String> {
    let mut place = Vec::new();
    for depth in 1..=at.len() {
        let name = old.step(&at[..depth]).map(|step| step.name.as_str()).unwrap_or_default();
        let among = match place.is_empty() {
            true => new.steps.as_slice(),
            false => new.step(&place).map(|step| step.kind.inner()).unwrap_or_default(),
        };
        let found = among.iter().position(|step| step.name == name);
        place.push(found.ok_or_else(|| gone(name))?);
    }
    Ok(place)
}
