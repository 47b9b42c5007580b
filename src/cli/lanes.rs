//! `tidehook lanes`: destinations, and what keeps their deliveries waiting.

use clap::Subcommand;

use super::client::{Client, encode};
use super::{Done, Global, print};

#[derive(Debug, Subcommand)]
pub(super) enum Lanes {
    /// List the destinations
    List,
    /// Deliver nothing to a handler until it is resumed; due times are kept
    Pause {
        /// The handler
        handler: String,
    },
    /// Deliver to a handler again; a tripped breaker lets one delivery through at once and closes when it succeeds
    Resume {
        /// The handler
        handler: String,
    },
}

pub(super) async fn run(verb: Lanes, global: &Global) -> Done {
    let client = Client::connect(global).await?;
    let answer = match &verb {
        Lanes::List => client.get("/api/lanes").await?,
        Lanes::Pause { handler } => client.post(&format!("/api/lanes/{}/pause", lane(handler))).await?,
        Lanes::Resume { handler } => client.post(&format!("/api/lanes/{}/resume", lane(handler))).await?,
    };
    match (&verb, global.json) {
        (_, true) => print::json(&answer),
        (Lanes::List, false) => {
            let columns = [
                ("LANE", "id"),
                ("STATE", "state"),
                ("FAILURES", "failures"),
                ("TRIPPED UNTIL", "tripped_until"),
                ("RATE", "rate_limit"),
                ("WAITS", "why"),
            ];
            print::table(&answer["lanes"], &columns, "There are no lanes.");
        }
        (Lanes::Pause { handler }, false) => print::note(&format!("{} is paused.", print::one_line(handler))),
        (Lanes::Resume { handler }, false) => {
            print::note(&format!(
                "{} is resumed; if its breaker was tripped, one delivery is tried now.",
                print::one_line(handler)
            ));
        }
    }
    Ok(())
}

/// A handler's lane; a lane's full name is taken as it is.
fn lane(handler: &str) -> String {
    let id = if handler.contains(':') { handler.to_owned() } else { crate::model::LaneId::handler(handler).0 };
    encode(&id)
}
