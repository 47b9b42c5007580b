//! `tidehook events`: lists the events that were accepted.

use clap::Subcommand;

use super::client::{Client, query};
use super::{Done, Global, print};

#[derive(Debug, Subcommand)]
pub(super) enum Events {
    /// List events, newest first
    List {
        /// Only events of this source
        #[arg(short, long)]
        source: Option<String>,
        /// Only events of this type
        #[arg(short = 't', long = "type")]
        kind: Option<String>,
        /// Only events accepted at or after this time
        #[arg(long)]
        since: Option<String>,
        /// Only events accepted at or before this time
        #[arg(long)]
        until: Option<String>,
        /// Maximum number of events
        #[arg(short, long, default_value_t = 20)]
        limit: u32,
        /// Continue the list after this event id
        #[arg(long)]
        after: Option<String>,
    },
}

pub(super) async fn run(verb: Events, global: &Global) -> Done {
    let Events::List { source, kind, since, until, limit, after } = verb;
    let query = query(&[
        ("source", source),
        ("event_type", kind),
        ("since", since),
        ("until", until),
        ("limit", Some(limit.to_string())),
        ("after", after),
        ("order", Some("desc".to_owned())),
    ]);
    let answer = Client::connect(global).await?.get(&format!("/api/events{query}")).await?;
    match global.json {
        true => print::json(&answer),
        false => {
            let columns = [
                ("ID", "id"),
                ("SOURCE", "source"),
                ("TYPE", "event_type"),
                ("KEY", "unique_key"),
                ("ACCEPTED (UTC)", "created_at"),
            ];
            print::table(&answer["events"], &columns, "No events.");
        }
    }
    Ok(())
}
