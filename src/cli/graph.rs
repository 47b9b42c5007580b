//! `tidehook graph`: draws a workflow in the terminal, as a Mermaid flowchart or as JSON.

use std::collections::BTreeSet;
use std::fmt::Write;

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, encode};
use super::{Done, Global, context, print};
use crate::decide::workflow::Flow;
use crate::decide::workflow::flow::Step;
use crate::decide::workflow::graph::{Cause, Edge, Place, edges};

/// Draw a workflow with its rollback edges; with --run, mark the path of that run
#[derive(Debug, Args)]
pub(super) struct Graph {
    /// The name of the workflow
    workflow: String,
    /// The id of a run: mark the steps that it entered
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Print a Mermaid flowchart
    #[arg(long, conflicts_with = "json")]
    mermaid: bool,
}

pub(super) async fn run(graph: &Graph, global: &Global) -> Done {
    let config = context::configuration(global, false)?;
    let workflow = context::workflow(&config, &graph.workflow)?;
    let taken = match &graph.run {
        Some(id) => entered(
            &Client::connect(global).await?.get(&format!("/api/runs/{}", encode(id))).await?,
        ),
        None => BTreeSet::new(),
    };
    let events: Vec<&str> =
        workflow.events.iter().map(crate::decide::pattern::Pattern::text).collect();
    let start = match &workflow.source {
        Some(source) => format!(
            "{source}: {}",
            if events.is_empty() { "*".to_owned() } else { events.join(", ") }
        ),
        None => "called".to_owned(),
    };
    if global.json {
        print::json(&data(&workflow.flow, &start, &taken));
        return Ok(());
    }
    let text = if graph.mermaid {
        mermaid(&workflow.flow, &start, &taken)
    } else {
        plain(&workflow.flow, &start, &taken)
    };
    print::line(text.trim_end());
    Ok(())
}

/// The names of the steps that a run entered, from its history. A step inside a map counts as its
/// map.
fn entered(run: &Value) -> BTreeSet<String> {
    let history = run["history"].as_array().into_iter().flatten();
    let steps = history
        .filter(|entry| entry["kind"] == "StepEntered")
        .filter_map(|entry| entry["step"].as_str());
    let name = |place: &str| {
        place.split_once('/').and_then(|(_, step)| step.split(':').next()).map(str::to_owned)
    };
    steps.filter_map(name).collect()
}

fn what(step: &Step) -> String {
    match step.kind.call() {
        Some(call) => format!("{} {} {}", step.kind.name(), call.method, call.shown_url),
        None => match step.kind.inner() {
            [] => step.kind.name().to_owned(),
            inner => {
                let names: Vec<&str> = inner.iter().map(|inner| inner.name.as_str()).collect();
                format!("{} ({})", step.kind.name(), names.join(", "))
            }
        },
    }
}

/// The steps and the edges between them, for `--json`.
fn data(flow: &Flow, start: &str, taken: &BTreeSet<String>) -> Value {
    let name = |place: Place| match place {
        Place::Step(at) => flow.steps.get(at).map(|step| step.name.as_str()),
        Place::AnyStep | Place::End => None,
    };
    let steps = flow.steps.iter().map(|step| {
        let inner: Vec<&str> = step.kind.inner().iter().map(|inner| inner.name.as_str()).collect();
        json!({
            "name": step.name,
            "type": step.kind.name(),
            "method": step.kind.call().map(|call| call.method.to_string()),
            "url": step.kind.call().map(|call| &call.shown_url),
            "inner": inner,
            "entered": taken.contains(&step.name),
        })
    });
    let edges = edges(flow).into_iter().map(|Edge { from, to, when, what }| {
        let cause = match what {
            Cause::Next => "next",
            Cause::Failure => "failure",
            Cause::Undo => "undo",
        };
        // No step to start from is any step, and none to go to is the end.
        json!({ "from": name(from), "to": name(to), "when": when, "cause": cause })
    });
    json!({
        "workflow": flow.name,
        "start": start,
        "steps": steps.collect::<Vec<_>>(),
        "edges": edges.collect::<Vec<_>>(),
    })
}

/// A drawing for a terminal: one line per step, followed by the edges that leave it.
fn plain(flow: &Flow, start: &str, taken: &BTreeSet<String>) -> String {
    let edges = edges(flow);
    let width = flow.steps.iter().map(|step| step.name.chars().count()).max().unwrap_or(0);
    let mut out = format!("{} ({start})\n", flow.name);
    for (at, step) in flow.steps.iter().enumerate() {
        let mark = if taken.contains(&step.name) { "●" } else { "○" };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{mark} {:<width$}  {}", step.name, what(step));
        for edge in edges.iter().filter(|edge| edge.from == Place::Step(at)) {
            let _ = writeln!(out, "  {:<width$}  {}", "", way(flow, edge));
        }
    }
    for edge in edges.iter().filter(|edge| edge.from == Place::AnyStep) {
        let _ = writeln!(out, "  {:<width$}  {}", "any step", way(flow, edge));
    }
    out
}

fn way(flow: &Flow, Edge { to, when, what, .. }: &Edge) -> String {
    let to = match to {
        Place::Step(to) => flow.steps.get(*to).map_or("?", |step| step.name.as_str()),
        Place::AnyStep | Place::End => "end",
    };
    let arrow = match what {
        Cause::Next => "╰─",
        Cause::Failure => "╰┄ on",
        Cause::Undo => "╰┈",
    };
    let when = if when.is_empty() { String::new() } else { format!(" {when}") };
    format!("{arrow}{when} → {to}")
}

/// A Mermaid flowchart; failures are dotted, steps that a run entered are filled.
fn mermaid(flow: &Flow, start: &str, taken: &BTreeSet<String>) -> String {
    let quoted = |text: &str| text.replace('"', "#quot;");
    let mut out = format!("flowchart TD\n  start([\"{}\"]) --> s0\n", quoted(start));
    for (at, step) in flow.steps.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  s{at}[\"{}<br/>{}\"]", quoted(&step.name), quoted(&what(step)));
    }
    let place = |place: Place| match place {
        Place::Step(at) => format!("s{at}"),
        Place::AnyStep => "any([any step])".to_owned(),
        Place::End => "finish([end])".to_owned(),
    };
    for Edge { from, to, when, what } in edges(flow) {
        let line = if what == Cause::Next { "-->" } else { "-.->" };
        let label =
            if when.is_empty() { String::new() } else { format!("|\"{}\"|", quoted(&when)) };
        let _ = writeln!(out, "  {} {line}{label} {}", place(from), place(to));
    }
    let marked: Vec<String> = flow
        .steps
        .iter()
        .enumerate()
        .filter(|(_, step)| taken.contains(&step.name))
        .map(|(at, _)| format!("s{at}"))
        .collect();
    if !marked.is_empty() {
        let _ = writeln!(out, "  classDef taken fill:#bde5c8\n  class {} taken", marked.join(","));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::from_texts;
    use crate::config::problem::Text;
    use crate::config::{External, Problems};

    const TEXT: &str = r#"
sources: { app: { type: event } }
workflows:
  w:
    source: app
    steps:
      - { name: a, url: "https://a.example.com/", catch: [{ errors: [4xx, timeout], goto: undo }] }
      - { name: c, type: choice, choices: [{ when: "$.x == 1", goto: a }], default: b }
      - { name: b, type: wait, seconds: 1, end: true }
      - { name: undo, url: "https://undo.example.com/" }
"#;

    fn flow() -> Flow {
        let texts = vec![Text { name: "t".into(), content: TEXT.into() }];
        let config = from_texts(
            texts,
            &Default::default(),
            false,
            &External::default(),
            &mut Problems::default(),
        );
        config.unwrap().workflows[0].flow.clone()
    }

    #[test]
    fn the_drawing_shows_every_way_rollback_included() {
        let text = plain(&flow(), "app: *", &BTreeSet::from(["a".to_owned()]));
        for line in [
            "● a     http POST https://a.example.com/",
            "╰┄ on 4xx, timeout → undo",
            "╰─ $.x == 1 → a",
            "╰─ otherwise → b",
            "○ b     wait",
            "╰─ → end",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn the_flowchart_dots_failures_and_fills_what_was_taken() {
        let text = mermaid(&flow(), "app: *", &BTreeSet::from(["a".to_owned()]));
        for line in [
            "s0 -.->|\"4xx, timeout\"| s3",
            "s1 -->|\"$.x == 1\"| s0",
            "s3 --> finish([end])",
            "class s0 taken",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
