//! `tidehook lanes`: lists destinations with what keeps their deliveries waiting, pauses and
//! resumes them.

use clap::Subcommand;

use super::client::{Client, encode};
use super::{Done, Global, print};

#[derive(Debug, Subcommand)]
pub(super) enum Lanes {
    /// List the lanes, with their state and why they wait
    List,
    /// Pause deliveries to a handler until it is resumed; due times do not change
    Pause {
        /// The name of the handler
        handler: String,
    },
    /// Resume deliveries to a handler; if its circuit breaker is open, one probe is sent now and a
    /// success closes the breaker
    Resume {
        /// The name of the handler
        handler: String,
    },
}

pub(super) async fn run(verb: Lanes, global: &Global) -> Done {
    let client = Client::connect(global).await?;
    let answer = match &verb {
        Lanes::List => client.get("/api/lanes").await?,
        Lanes::Pause { handler } => {
            client.post(&format!("/api/lanes/{}/pause", lane(handler))).await?
        }
        Lanes::Resume { handler } => {
            client.post(&format!("/api/lanes/{}/resume", lane(handler))).await?
        }
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
            print::table(&answer["lanes"], &columns, "No lanes.");
        }
        (Lanes::Pause { handler }, false) => {
            print::note(&format!("{} was paused.", print::one_line(handler)))
        }
        (Lanes::Resume { handler }, false) => {
            print::note(&format!(
                "{} was resumed. If its circuit breaker was open, one delivery is sent now as a \
                 probe.",
                print::one_line(handler)
            ));
        }
    }
    Ok(())
}

/// The lane id, encoded for a path: a name without a colon is a handler's, one with a colon is an
/// id already.
fn lane(handler: &str) -> String {
    let id = if handler.contains(':') {
        handler.to_owned()
    } else {
        crate::model::LaneId::handler(handler).0
    };
    encode(&id)
}
