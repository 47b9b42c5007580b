//! `tidehook cron`: lists the schedules of the configuration, and shows when they fire next.

use anyhow::anyhow;
use clap::Subcommand;
use serde_json::{Value, json};

use super::{Done, Global, context, print};
use crate::config::source::Cron as Schedule;
use crate::model::{Clock, SystemClock, Timestamp};

#[derive(Debug, Subcommand)]
pub(super) enum Cron {
    /// List the cron sources with their next times
    List,
    /// Show the next times at which a cron source fires
    Next {
        /// The cron source, as the configuration names it
        source: String,
        /// How many of them to show at most
        #[arg(short = 'n', long, default_value_t = 10)]
        count: usize,
    },
}

pub(super) fn run(verb: &Cron, global: &Global) -> Done {
    let config = context::configuration(global, false)?;
    let now = SystemClock.now();
    let sources =
        || config.sources.iter().filter_map(|s| Some((s.name.as_str(), s.cron.as_ref()?)));
    match verb {
        Cron::List => {
            let of = |(name, cron): (&str, &Schedule)| {
                let next = cron.schedule.after(now);
                json!({
                    "source": name,
                    "next": next.map(Timestamp::rfc3339),
                    "local": next.map(|at| cron.schedule.local(at)),
                })
            };
            let list = Value::Array(sources().map(of).collect());
            match global.json {
                true => print::json(&json!({ "schedules": list })),
                false => {
                    let columns = [("SOURCE", "source"), ("NEXT", "local"), ("UTC", "next")];
                    print::table(&list, &columns, "No cron sources.");
                }
            }
        }
        Cron::Next { source, count } => {
            let Some((_, cron)) = sources().find(|(name, _)| name == source) else {
                let known: Vec<&str> = sources().map(|(name, _)| name).collect();
                let known = match known.is_empty() {
                    true => "the configuration has none".to_owned(),
                    false => format!("there are: {}", known.join(", ")),
                };
                let name = print::one_line(source);
                return Err(anyhow!("no cron source is called `{name}`; {known}").into());
            };
            let mut slots = Vec::new();
            let mut at = now;
            while let Some(next) = cron.schedule.after(at).filter(|_| slots.len() < *count) {
                slots.push(json!({
                    "at": next.rfc3339(), "local": cron.schedule.local(next),
                }));
                at = next;
            }
            let list = Value::Array(slots);
            match global.json {
                true => print::json(&json!({ "source": source, "next": list })),
                false => {
                    let columns = [("LOCAL TIME", "local"), ("UTC", "at")];
                    print::table(&list, &columns, "It never fires again.");
                }
            }
        }
    }
    Ok(())
}
