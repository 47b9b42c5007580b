//! `tidehook tail`: prints events and outcomes as they happen in a running server.

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::Value;

use super::client::{Client, query};
use super::{Done, Global, print};
use crate::container::signals::Signals;
use crate::observe::feed::ENDINGS;

/// Follow events and their outcomes live
#[derive(Debug, Args)]
pub(super) struct Tail {
    /// Only events of this source
    #[arg(short, long)]
    source: Option<String>,
    /// Only this handler or workflow, including its steps
    #[arg(long)]
    handler: Option<String>,
    /// Only attempts (the first four values) or runs (the others) with this result
    #[arg(long, value_name = "RESULT", value_parser = ENDINGS)]
    status: Option<String>,
    /// Exit after this many lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

pub(super) async fn run(tail: Tail, global: &Global) -> Done {
    let mut signals = Signals::listen()?;
    let wanted =
        query(&[("source", tail.source), ("handler", tail.handler), ("status", tail.status)]);
    let mut lines = Client::connect(global).await?.lines(&format!("/api/tail{wanted}")).await?;
    let mut shown = 0;
    while tail.count.is_none_or(|count| shown < count) {
        let line = tokio::select! {
            line = lines.next() => line?,
            () = signals.stop() => return Ok(()),
        };
        let line = line.ok_or_else(|| anyhow!("the server closed the connection"))?;
        // An empty line shows that the connection lives.
        if line.trim().is_empty() {
            continue;
        }
        let moment: Value =
            serde_json::from_str(&line).context("the server sent a line that is not JSON")?;
        shown += 1;
        print::line(&if global.json { line } else { sentence(&moment) });
    }
    Ok(())
}

fn sentence(moment: &Value) -> String {
    let text = |field: &str| print::text(&moment[field]);
    match moment["moment"].as_str() {
        Some("accepted") => {
            let again = if moment["duplicate"] == true { " again" } else { "" };
            let handlers = moment["handlers"].as_array().map_or(&[][..], Vec::as_slice);
            let to = handlers.iter().map(print::text).collect::<Vec<_>>().join(", ");
            let to = if to.is_empty() { "no handler".to_owned() } else { to };
            format!(
                "accepted{again}  {}  {} from {} to {to}",
                text("event"),
                text("type"),
                text("source")
            )
        }
        Some("rejected") => {
            format!("rejected  a request to {}: {}", text("source"), text("reason"))
        }
        Some("lane") => {
            let why =
                if moment["why"].is_null() { String::new() } else { format!(": {}", text("why")) };
            format!("lane {}  {}{why}", text("state"), text("lane"))
        }
        Some("run") => {
            let why = if moment["error"].is_null() {
                String::new()
            } else {
                format!(": {}", text("error"))
            };
            format!(
                "{}  {}  run {} of {}{why}",
                text("status"),
                text("event"),
                text("run"),
                text("workflow")
            )
        }
        Some("tried") => {
            let answer = moment["status"]
                .as_u64()
                .map_or_else(|| text("error"), |status| format!("HTTP {status}"));
            let (handler, attempt) = (text("handler"), text("attempt"));
            format!(
                "{}  {}  {handler} attempt {attempt}: {answer} in {} ms",
                text("next"),
                text("event"),
                text("took_ms")
            )
        }
        _ => print::one_line(&moment.to_string()),
    }
}
