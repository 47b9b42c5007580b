//! `tidehook alerts`: tries the channel out over which operators are notified.

use std::time::Duration;

use anyhow::anyhow;
use clap::Subcommand;
use serde_json::Value;

use super::client::Client;
use super::{Done, Global, print};

/// How long a test waits for its result.
const WAIT_MAX: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Subcommand)]
pub(super) enum Alerts {
    /// Send a test over the channel of the section `alerts`, and wait for its result
    Test,
}

pub(super) async fn run(verb: &Alerts, global: &Global) -> Done {
    let Alerts::Test = verb;
    let client = Client::connect(global).await?;
    let sent = client.post("/api/alerts/test").await?;
    let event = sent["event_id"].as_str().ok_or_else(|| anyhow!("the server named no event"))?;
    let began = std::time::Instant::now();
    loop {
        let shown = client.get(&format!("/api/events/{event}/jobs")).await?;
        // Handlers may listen to the same notice.
        let jobs = shown["jobs"].as_array().map_or(&[][..], Vec::as_slice);
        let job = jobs.iter().find(|job| job["kind"] == "alert").unwrap_or(&Value::Null);
        let error = job["last_error"].as_str();
        match (job["status"].as_str(), error) {
            (Some("completed"), _) => {
                if global.json {
                    print::json(job);
                } else {
                    print::note("The alert was delivered.");
                }
                return Ok(());
            }
            (Some("retryable" | "dead"), Some(error)) => {
                return Err(anyhow!(
                    "the alert was not delivered: {}; it is retried, see `tidehook inspect \
                     {event}`",
                    print::one_line(error)
                )
                .into());
            }
            _ if began.elapsed() > WAIT_MAX => {
                return Err(anyhow!(
                    "the alert is stored, and no worker has sent it yet; is a server running? See \
                     `tidehook inspect {event}`"
                )
                .into());
            }
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
