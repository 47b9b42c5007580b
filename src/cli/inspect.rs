//! `tidehook inspect`: shows an event with its deliveries and their attempts.

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, encode};
use super::{Done, Global, print};

/// The most characters of a payload that are printed.
const PAYLOAD_CHARS_MAX: usize = 200;

/// Show one event with its deliveries and attempts
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// The id of the event
    event: String,
}

pub(super) async fn run(inspect: &Inspect, global: &Global) -> Done {
    let client = Client::connect(global).await?;
    let mut event = client.get(&format!("/api/events/{}", encode(&inspect.event))).await?;
    let mut jobs = event["jobs"].as_array().cloned().unwrap_or_else(Vec::new);
    for job in &mut jobs {
        let id = job["id"].as_str().unwrap_or("").to_owned();
        let attempts = client.get(&format!("/api/jobs/{}/attempts", encode(&id))).await?;
        job["attempts"] = attempts["attempts"].clone();
    }
    event["jobs"] = json!(jobs);
    if global.json {
        print::json(&event);
        return Ok(());
    }
    let field = |name: &str| print::text(&event[name]);
    print::line(&format!("Event     {}", field("id")));
    print::line(&format!("Source    {}", field("source")));
    print::line(&format!("Type      {}", field("event_type")));
    print::line(&format!("Key       {}", field("unique_key")));
    print::line(&format!("Accepted  {} UTC", field("created_at")));
    print::line(&format!("Payload   {}", payload(&event["payload"])));
    if jobs.is_empty() {
        print::line("\nNo handler matched this event.");
    }
    for job in jobs.iter().filter(|job| job["kind"] != "timer") {
        print::line("");
        show_job(job);
    }
    Ok(())
}

/// Prints a job with its attempts, for people.
pub(super) fn show_job(job: &Value) {
    let field = |name: &str| print::text(&job[name]);
    let (what, to) = match job["kind"].as_str() {
        Some("start") => ("Start", format!("workflow {}", field("handler"))),
        Some("step") => ("Call", format!("step {}", field("handler"))),
        Some("timer") => ("Timer", format!("step {}", field("handler"))),
        _ => ("Delivery", format!("handler {} → {}", field("handler"), field("url"))),
    };
    print::line(&format!("{what:<9} {}", field("id")));
    print::line(&format!("  {to}"));
    let of = job["max_attempts"].as_u64().map_or(String::new(), |max| format!(" of {max}"));
    print::line(&format!("  status  {}, attempt {}{of}", field("status"), field("attempt")));
    // What no attempt tells of: expiry, cancellation, workers that died.
    if let Some(error) = job["last_error"].as_str().filter(|_| job["code"].is_string()) {
        print::line(&format!("  {}: {}", field("code"), print::one_line(error)));
    }
    if let Some(waits) = job["waits"].as_str() {
        print::line(&format!("  waits   {}", print::one_line(waits)));
    }
    for attempt in job["attempts"].as_array().map_or(&[][..], Vec::as_slice) {
        let error = attempt["error"]
            .as_str()
            .map_or(String::new(), |e| format!(": {}", print::one_line(e)));
        let status = attempt["status_code"]
            .as_u64()
            .map_or("no response".to_owned(), |s| format!("HTTP {s}"));
        print::line(&format!(
            "  attempt {}  {}  {}  {status} in {} ms{error}",
            print::text(&attempt["attempt"]),
            print::text(&attempt["created_at"]),
            print::text(&attempt["result"]),
            print::text(&attempt["duration_ms"]),
        ));
    }
}

fn payload(payload: &Value) -> String {
    let text = match payload {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let shown: String = text.chars().take(PAYLOAD_CHARS_MAX).collect();
    let cut = if shown.len() < text.len() { " …" } else { "" };
    format!("{}{cut}", print::one_line(&shown))
}
