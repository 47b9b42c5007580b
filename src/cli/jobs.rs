//! `tidehook jobs`: lists, shows, retries and cancels deliveries.

use clap::Subcommand;

use super::client::{Client, encode, query};
use super::{Done, Global, print};

#[derive(Debug, Subcommand)]
pub(super) enum Jobs {
    /// List deliveries, newest first
    List {
        /// Only deliveries in this status: available, running, retryable, parked, completed, dead
        /// or cancelled
        #[arg(short, long)]
        status: Option<String>,
        /// Only deliveries of this handler
        #[arg(long)]
        handler: Option<String>,
        /// Maximum number of deliveries
        #[arg(short, long, default_value_t = 20)]
        limit: u32,
        /// Continue the list after this delivery id
        #[arg(long)]
        after: Option<String>,
    },
    /// Show one delivery, or one call of a run, with its attempts
    Show {
        /// The id of the delivery
        id: String,
    },
    /// Retry dead deliveries with a fresh attempt count: one by id (also a cancelled one), or all
    Retry {
        /// The id of the delivery; all dead deliveries if omitted
        id: Option<String>,
        /// Only deliveries of this handler
        #[arg(long, conflicts_with = "id")]
        handler: Option<String>,
    },
    /// Cancel one open delivery, or all open deliveries of a handler
    Cancel {
        /// The id of the delivery
        #[arg(required_unless_present = "handler")]
        id: Option<String>,
        /// Cancel all open deliveries of this handler, even if it is no longer in the configuration
        #[arg(long, conflicts_with = "id")]
        handler: Option<String>,
    },
}

pub(super) async fn run(verb: Jobs, global: &Global) -> Done {
    let client = Client::connect(global).await?;
    match verb {
        Jobs::List { status, handler, limit, after } => {
            let query = query(&[
                ("status", status),
                ("handler", handler),
                ("limit", Some(limit.to_string())),
                ("after", after),
                ("order", Some("desc".to_owned())),
            ]);
            let answer = client.get(&format!("/api/jobs{query}")).await?;
            match global.json {
                true => print::json(&answer),
                false => {
                    let columns = [
                        ("ID", "id"),
                        ("HANDLER", "handler"),
                        ("STATUS", "status"),
                        ("ATTEMPT", "attempt"),
                        ("MAX", "max_attempts"),
                        ("DUE (UTC)", "scheduled_at"),
                        ("LAST ERROR", "last_error"),
                        ("WAITS", "waits"),
                    ];
                    print::table(&answer["jobs"], &columns, "No deliveries.");
                }
            }
        }
        Jobs::Show { id } => {
            let job =
                client.get(&format!("/api/jobs/{}?include_attempts=true", encode(&id))).await?;
            match global.json {
                true => print::json(&job),
                false => super::inspect::show_job(&job),
            }
        }
        Jobs::Retry { id, handler } => {
            let path = match &id {
                Some(id) => format!("/api/jobs/{}/retry", encode(id)),
                None => format!(
                    "/api/jobs/retry{}",
                    query(&[("status", Some("dead".to_owned())), ("handler", handler)])
                ),
            };
            let answer = client.post(&path).await?;
            match global.json {
                true => print::json(&answer),
                false => print::line(&format!(
                    "{} dead job(s) queued for retry.",
                    print::text(&answer["retried"])
                )),
            }
        }
        Jobs::Cancel { id, handler } => {
            let path = match &id {
                Some(id) => format!("/api/jobs/{}/cancel", encode(id)),
                None => format!("/api/jobs/cancel{}", query(&[("handler", handler)])),
            };
            let answer = client.post(&path).await?;
            match (global.json, id) {
                (true, _) => print::json(&answer),
                (false, Some(_)) => {
                    print::line(&format!("{} was cancelled.", print::text(&answer["id"])))
                }
                (false, None) => print::line(&format!(
                    "{} open delivery(s) cancelled.",
                    print::text(&answer["cancelled"])
                )),
            }
        }
    }
    Ok(())
}
