//! `tidehook tail`: events and outcomes as they happen in a running server.

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::Value;

use super::client::Client;
use super::signals::Signals;
use super::{Done, Global, print};

/// Follow events and outcomes as they happen
#[derive(Debug, Args)]
pub(super) struct Tail {
    /// Only events and refused requests of this source
    #[arg(short, long)]
    source: Option<String>,
    /// Only what concerns this handler
    #[arg(long)]
    handler: Option<String>,
    /// Only what ended like this: delivered, retry, dead or stale
    #[arg(long, value_name = "RESULT")]
    status: Option<String>,
    /// End after this many lines
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

pub(super) async fn run(tail: Tail, global: &Global) -> Done {
    let mut signals = Signals::listen()?;
    let mut lines = Client::connect(global).await?.lines("/api/tail").await?;
    let mut shown = 0;
    while tail.count.is_none_or(|count| shown < count) {
        let line = tokio::select! {
            line = lines.next() => line?,
            () = signals.stop() => return Ok(()),
        };
        let line = line.ok_or_else(|| anyhow!("the server has ended"))?;
        // An empty line shows that the connection lives.
        if line.trim().is_empty() {
            continue;
        }
        let moment: Value = serde_json::from_str(&line).context("the server sent a line that is no JSON")?;
        if tail.wants(&moment) {
            shown += 1;
            print::line(&if global.json { line } else { sentence(&moment) });
        }
    }
    Ok(())
}

impl Tail {
    fn wants(&self, moment: &Value) -> bool {
        let is = |field: &str, wanted: &Option<String>| wanted.as_ref().is_none_or(|w| moment[field] == w.as_str());
        let of_handler = self.handler.as_ref().is_none_or(|wanted| {
            let among = moment["handlers"].as_array().is_some_and(|all| all.iter().any(|h| h == wanted.as_str()));
            among || moment["handler"] == wanted.as_str()
        });
        is("source", &self.source) && of_handler && is("next", &self.status)
    }
}

fn sentence(moment: &Value) -> String {
    let text = |field: &str| print::text(&moment[field]);
    match moment["moment"].as_str() {
        Some("accepted") => {
            let again = if moment["duplicate"] == true { " again" } else { "" };
            let handlers = moment["handlers"].as_array().map_or(&[][..], Vec::as_slice);
            let to = handlers.iter().map(print::text).collect::<Vec<_>>().join(", ");
            let to = if to.is_empty() { "nobody".to_owned() } else { to };
            format!("accepted{again}  {}  {} from {} to {to}", text("event"), text("type"), text("source"))
        }
        Some("rejected") => format!("rejected  a request to {}: {}", text("source"), text("reason")),
        Some("tried") => {
            let answer = moment["status"].as_u64().map_or_else(|| text("error"), |status| format!("HTTP {status}"));
            let (handler, attempt) = (text("handler"), text("attempt"));
            format!("{}  {}  {handler} attempt {attempt}: {answer} in {} ms", text("next"), text("event"), text("took_ms"))
        }
        _ => print::one_line(&moment.to_string()),
    }
}
