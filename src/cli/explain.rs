//! `tidehook explain`: shows which handlers an event reaches, and why it does not reach the others.

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::Value;

use super::client::{Client, encode};
use super::{Done, Global, context, print};
use crate::http::api::explain::answer;
use crate::ingress;
use crate::model::Body;
use crate::model::EventId;
use crate::model::body::Declared;

/// Show which handlers an event matches, and why the others do not match
///
/// Name a stored event (EVENT), or give SOURCE TYPE PAYLOAD. The routing uses the configuration of
/// this command, so --config can test another version of it.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The id of a stored event, or the name of a source
    event_or_source: String,
    /// The event type; required when the first argument is a source
    kind: Option<String>,
    /// The payload as text, JSON or a form; an empty object when left out
    payload: Option<String>,
}

pub(super) async fn run(explain: Explain, global: &Global) -> Done {
    let config = context::configuration(global, false)?;
    let source_of = |name: &str| {
        config.source(name).ok_or_else(|| anyhow!("the configuration has no source `{name}`"))
    };
    let inbound = match (&explain.kind, explain.event_or_source.parse::<EventId>()) {
        (None, Ok(id)) => {
            let event = Client::connect(global)
                .await?
                .get(&format!("/api/events/{}", encode(&id.to_string())))
                .await?;
            let text = |field: &str| {
                event[field]
                    .as_str()
                    .map(str::to_owned)
                    .with_context(|| format!("the server returned an event without `{field}`"))
            };
            let headers = event["headers"].as_object().into_iter().flatten();
            let headers: Vec<(String, String)> = headers
                .map(|(name, value)| (name.clone(), value.as_str().unwrap_or("").to_owned()))
                .collect();
            let declared = Declared::of(crate::model::event::content_type(&headers));
            let body = match &event["payload"] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            ingress::again(
                source_of(&text("source")?)?,
                &text("event_type")?,
                headers,
                Body::declared(body, declared),
            )
        }
        (None, Err(_)) => {
            return Err(anyhow!("give the id of a stored event, or SOURCE TYPE PAYLOAD").into());
        }
        (Some(kind), _) => {
            if kind.trim().is_empty() {
                return Err(anyhow!("the event type must not be empty").into());
            }
            if explain.payload.is_none() {
                print::note("No payload given; using an empty object.");
            }
            let text = explain.payload.unwrap_or_else(|| "{}".to_owned());
            let body = Body::new(text.clone());
            // A form that was copied from a provider's log is explained as one.
            let is_form = !body.is_json()
                && text
                    .split('&')
                    .all(|pair| pair.split_once('=').is_some_and(|(name, _)| !name.contains(' ')));
            let body = if is_form { Body::declared(text, Declared::Form) } else { body };
            ingress::again(source_of(&explain.event_or_source)?, kind, Vec::new(), body)
        }
    };
    let answer = answer(&config, &config.routes(), &inbound);
    match global.json {
        true => print::json(&answer),
        false => show(&answer),
    }
    Ok(())
}

/// Prints an explanation for people; `send --dry-run` prints the same.
pub(super) fn show(answer: &Value) {
    print::line(&format!("Event type: {}", print::text(&answer["event_type"])));
    if let Some(why) = answer["refused"].as_str() {
        print::line(&format!(
            "  source {} refuses the event: {}",
            print::text(&answer["source"]),
            print::one_line(why)
        ));
    }
    if answer["is_json"] == false {
        print::line("  the payload is not JSON: filters and templates find no values in it");
    }
    let handlers = answer["handlers"].as_array().map_or(&[][..], Vec::as_slice);
    if handlers.is_empty() {
        print::line(&format!(
            "  no handler or workflow listens to source {}",
            print::text(&answer["source"])
        ));
    }
    for handler in handlers {
        let name = print::text(&handler["handler"]);
        match handler["why_not"].as_str() {
            None if handler["fails"].is_string() => {
                print::line(&format!(
                    "  matches   {name}, but the run fails at its start: {}",
                    print::text(&handler["fails"])
                ));
            }
            None => print::line(&format!("  matches   {name}")),
            Some(why) => print::line(&format!("  no match  {name}: {}", print::one_line(why))),
        }
    }
}
