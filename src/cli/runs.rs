//! `tidehook runs` and `tidehook run`: list, operate and start runs of workflows.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::client::{Client, encode, query, value};
use super::{Done, Global, print};

#[derive(Debug, Subcommand)]
pub(super) enum Runs {
    /// List runs, newest first
    List {
        /// Only runs in this status: queued, running, paused, compensating, completed, failed,
        /// cancelled
        #[arg(short, long)]
        status: Option<String>,
        /// Only runs of this workflow
        #[arg(short, long)]
        workflow: Option<String>,
        /// Maximum number of runs
        #[arg(short, long, default_value_t = 20)]
        limit: u32,
    },
    /// Show one run with its history
    Show {
        /// The id of the run
        run: String,
    },
    /// Cancel a run: it rolls back if the workflow says so, and its `finally` steps run
    Cancel {
        /// The id of the run
        run: String,
    },
    /// End a run at once, without rollback and without its `finally` steps
    Kill {
        /// The id of the run
        run: String,
    },
    /// Pause a run: it makes no calls until it is resumed; due times do not change
    Pause {
        /// The id of the run
        run: String,
    },
    /// Resume a paused run; a run that a failure paused repeats the failed step
    Resume {
        /// The id of the run
        run: String,
    },
    /// Restart a failed or cancelled run at the step where it stopped
    Redrive {
        /// The id of the run
        run: String,
        /// Restart at this step instead
        #[arg(long, value_name = "STEP")]
        from: Option<String>,
        /// Use the payload in this file instead of the payload the step had; `-` for standard input
        #[arg(short, long, value_name = "FILE")]
        payload: Option<PathBuf>,
        /// Use the workflow definition in the current configuration instead of the one the run
        /// started with
        #[arg(long)]
        latest: bool,
    },
    /// Approve a step that waits for a decision
    Approve(Decision),
    /// Reject a step that waits for a decision
    Reject(Decision),
}

/// The arguments of `approve` and `reject`: which step of which run is decided, by whom and why.
#[derive(Debug, Args)]
pub(super) struct Decision {
    /// The id of the run
    run: String,
    /// The name of the step
    step: String,
    /// The name of the approver
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// A comment on the decision
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

/// Start a workflow run manually
#[derive(Debug, Args)]
pub(super) struct Start {
    /// The name of the workflow
    workflow: String,
    /// Read the payload from this file, `-` for standard input; an empty object if omitted
    #[arg(short, long, value_name = "FILE")]
    payload: Option<PathBuf>,
}

pub(super) async fn run(verb: Runs, global: &Global) -> Done {
    let client = Client::connect(global).await?;
    let answer = match &verb {
        Runs::List { status, workflow, limit } => {
            let parameters = [
                ("status", status.clone()),
                ("workflow", workflow.clone()),
                ("limit", Some(limit.to_string())),
                ("order", Some("desc".to_owned())),
            ];
            client.get(&format!("/api/runs{}", query(&parameters))).await?
        }
        Runs::Show { run } => client.get(&format!("/api/runs/{}", encode(run))).await?,
        Runs::Cancel { run } => client.post(&format!("/api/runs/{}/cancel", encode(run))).await?,
        Runs::Kill { run } => client.post(&format!("/api/runs/{}/kill", encode(run))).await?,
        Runs::Pause { run } => client.post(&format!("/api/runs/{}/pause", encode(run))).await?,
        Runs::Resume { run } => client.post(&format!("/api/runs/{}/resume", encode(run))).await?,
        Runs::Redrive { run, from, payload, latest } => {
            let wish =
                query(&[("from", from.clone()), ("latest", latest.then(|| "true".to_owned()))]);
            let payload = payload.as_deref().map(read).transpose()?.unwrap_or_default();
            if !payload.is_empty()
                && serde_json::from_slice::<serde::de::IgnoredAny>(&payload).is_err()
            {
                print::note(
                    "The payload is not JSON. It is sent as text, and templates find no values in \
                     it.",
                );
            }
            let path = format!("/api/runs/{}/redrive{wish}", encode(run));
            value(client.request(Method::POST, &path, HeaderMap::new(), payload).await?)?
        }
        Runs::Approve(decision) => decide(&client, decision, "approve").await?,
        Runs::Reject(decision) => decide(&client, decision, "reject").await?,
    };
    if global.json {
        print::json(&answer);
        return Ok(());
    }
    match verb {
        Runs::List { .. } => {
            let columns = [
                ("RUN", "id"),
                ("WORKFLOW", "workflow"),
                ("STATUS", "status"),
                ("STEP", "current_step"),
                ("CREATED", "created_at"),
            ];
            print::table(&answer["runs"], &columns, "No runs.");
        }
        Runs::Show { .. } => show(&answer),
        Runs::Cancel { run } if matches!(text(&answer, "status"), "running" | "compensating") => {
            let what = if text(&answer, "status") == "running" {
                "its `finally` steps run"
            } else {
                "its rollback runs"
            };
            print::note(&format!("{} is being cancelled; {what} first.", print::one_line(&run)));
        }
        Runs::Cancel { run }
        | Runs::Kill { run }
        | Runs::Pause { run }
        | Runs::Resume { run }
        | Runs::Redrive { run, .. }
        | Runs::Approve(Decision { run, .. })
        | Runs::Reject(Decision { run, .. }) => {
            print::note(&format!("{} is {}.", print::one_line(&run), text(&answer, "status")));
        }
    }
    Ok(())
}

async fn decide(client: &Client, decision: &Decision, word: &str) -> anyhow::Result<Value> {
    let path =
        format!("/api/runs/{}/steps/{}/{word}", encode(&decision.run), encode(&decision.step));
    let said = json!({ "by": decision.by, "comment": decision.comment });
    value(
        client
            .request(Method::POST, &path, HeaderMap::new(), said.to_string().into_bytes())
            .await?,
    )
}

/// A file's content, or that of standard input.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("standard input cannot be read")?;
        return Ok(bytes);
    }
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

pub(super) async fn start(start: Start, global: &Global) -> Done {
    let payload = start.payload.as_deref().map(read).transpose()?.unwrap_or_else(|| b"{}".to_vec());
    let client = Client::connect(global).await?;
    let path = format!("/api/workflows/{}/runs", encode(&start.workflow));
    let answer = value(client.request(Method::POST, &path, HeaderMap::new(), payload).await?)?;
    match global.json {
        true => print::json(&answer),
        false => print::line(&format!("run_{}", text(&answer, "run_id"))),
    }
    Ok(())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

fn show(run: &Value) {
    let step = run["current_step"].as_str().map_or(String::new(), |step| format!(" at {step}"));
    print::line(&format!(
        "run_{}  {}  {}{step}",
        text(run, "id"),
        text(run, "workflow"),
        text(run, "status")
    ));
    print::line(&format!("  event {}", text(run, "event_id")));
    if let Some(why) = run["error"]["message"].as_str() {
        print::line(&format!("  {}: {}", text(&run["error"], "class"), print::one_line(why)));
    }
    for entry in run["history"].as_array().into_iter().flatten() {
        let step =
            entry["step"].as_str().and_then(|s| s.split_once('/')).map_or("", |(_, step)| step);
        let data = match &entry["data"] {
            Value::Object(fields) if !fields.is_empty() => {
                print::one_line(&entry["data"].to_string())
            }
            _ => String::new(),
        };
        print::line(
            format!("  {}  {:<18} {step:<24} {data}", text(entry, "at"), text(entry, "kind"))
                .trim_end(),
        );
    }
    for open in run["open"].as_array().into_iter().flatten() {
        print::line(&format!(
            "  open: {} waits for {}",
            text(open, "step"),
            text(open, "waits_for")
        ));
        for job in
            open["jobs"].as_array().into_iter().flatten().filter(|job| job["kind"] != "timer")
        {
            let error = job["last_error"]
                .as_str()
                .map_or(String::new(), |e| format!(", last: {}", print::one_line(e)));
            let (id, sent, at) =
                (text(job, "id"), print::text(&job["attempt"]), text(job, "scheduled_at"));
            print::line(&format!(
                "        job {id}: {}, {sent} attempt(s) so far, due {at}{error}",
                text(job, "status")
            ));
        }
    }
}
