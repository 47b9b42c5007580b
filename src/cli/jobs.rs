//! `tidehook jobs`: deliveries.

use clap::Subcommand;

use super::client::{Client, encode, query};
use super::{Done, Global, print};

#[derive(Debug, Subcommand)]
pub(super) enum Jobs {
    /// List deliveries, the newest first
    List {
        /// available, running, retryable, parked, completed, dead or cancelled
        #[arg(short, long)]
        status: Option<String>,
        /// Only of this handler
        #[arg(long)]
        handler: Option<String>,
        /// At most this many
        #[arg(short, long, default_value_t = 20)]
        limit: u32,
        /// Go on after this delivery
        #[arg(long)]
        after: Option<String>,
    },
    /// Show a delivery, or a call of a run, with its attempts
    Show {
        /// The delivery
        id: String,
    },
    /// Try dead deliveries again with a fresh budget: one (a cancelled one, too), or all
    Retry {
        /// The delivery; without it, all dead ones
        id: Option<String>,
        /// Only of this handler
        #[arg(long, conflicts_with = "id")]
        handler: Option<String>,
    },
    /// Call an open delivery off, or all of a handler
    Cancel {
        /// The delivery
        #[arg(required_unless_present = "handler")]
        id: Option<String>,
        /// All open deliveries of this handler, also of one that the configuration no longer names
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
            let job = client.get(&format!("/api/jobs/{}?include_attempts=true", encode(&id))).await?;
            match global.json {
                true => print::json(&job),
                false => super::inspect::show_job(&job),
            }
        }
        Jobs::Retry { id, handler } => {
            let path = match &id {
                Some(id) => format!("/api/jobs/{}/retry", encode(id)),
                None => format!("/api/jobs/retry{}", query(&[("status", Some("dead".to_owned())), ("handler", handler)])),
            };
            let answer = client.post(&path).await?;
            match global.json {
                true => print::json(&answer),
                false => print::line(&format!("{} dead job(s) queued for retry.", print::text(&answer["retried"]))),
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
                (false, Some(_)) => print::line(&format!("{} is cancelled.", print::text(&answer["id"]))),
                (false, None) => print::line(&format!("{} open job(s) cancelled.", print::text(&answer["cancelled"]))),
            }
        }
    }
    Ok(())
}
