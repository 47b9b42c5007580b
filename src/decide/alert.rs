//! Alerts: what happens, as an event that people can be notified of, and how each channel words it.
//!
//! Formats: Slack's incoming webhooks (`text`), Discord's webhooks (`embeds`), PagerDuty's Events
//! API v2 (`routing_key`, `event_action`, `payload`), and `generic`, which is the event's body.

use serde_json::{Value, json};

use crate::model::Secret;

/// The source of events about tidehook itself. Names that begin with two underscores are reserved.
pub const SOURCE: &str = "__tidehook";
/// What the names of sources and event types of this program begin with.
pub const RESERVED: &str = "__";

/// The kinds of alert that `alerts.on` names, each with the types of the events behind it.
pub const KINDS: [(&str, &[&str]); 8] = [
    ("dlq", &["__delivery.dead", "__message.dead"]),
    ("verification_failure", &["__source.refused"]),
    ("circuit_opened", &["__lane.tripped"]),
    ("workflow_failed", &["__run.failed"]),
    ("compensation_failed", &["__compensation.failed"]),
    ("db_unhealthy", &["__database.unhealthy"]),
    ("custom", &["__test"]),
    ("event_ttl_expired", &["__events.expired"]),
];

/// The longest value that is shown to people, in characters.
const VALUE_CHARS_MAX: usize = 300;

/// Where alerts go, and in which format.
#[derive(Debug, Clone)]
pub enum Channel {
    /// The event's body as it is.
    Generic,
    /// A message of a Slack incoming webhook.
    Slack,
    /// An embed of a Discord webhook.
    Discord,
    /// An event of PagerDuty's Events API v2, with the integration key.
    PagerDuty(Secret),
}

/// How one kind of alert is worded.
struct Wording {
    icon: &'static str,
    title: &'static str,
    colour: u32,
    severity: &'static str,
}

fn wording(kind: &str) -> Wording {
    let of = |icon, title, colour, severity| Wording { icon, title, colour, severity };
    match kind {
        "dlq" => of("rotating_light", "Job moved to DLQ", 0xFF_0000, "error"),
        "verification_failure" => {
            of("warning", "Signature verification failed", 0xFF_A500, "warning")
        }
        "circuit_opened" => of("zap", "Circuit breaker opened", 0xFF_4500, "error"),
        "workflow_failed" => of("x", "Workflow failed", 0xFF_0000, "error"),
        "compensation_failed" => of("rotating_light", "Rollback failed", 0xFF_0000, "critical"),
        "db_unhealthy" => of("fire", "Database unhealthy", 0xFF_0000, "critical"),
        "event_ttl_expired" => of("hourglass", "Events expired by TTL", 0xFF_A500, "warning"),
        _ => of("gear", "tidehook", 0x34_98DB, "info"),
    }
}

/// The fields that people are shown, with their labels.
const LABELS: [(&str, &str); 9] = [
    ("job_id", "Job"),
    ("handler", "Handler"),
    ("attempts", "Attempts"),
    ("source", "Source"),
    ("workflow", "Workflow"),
    ("run_id", "Run"),
    ("count", "Count"),
    ("error", "Error"),
    ("suppressed", "Suppressed"),
];

/// The labelled values of a notice. Text from outside cannot end its quotes or start a line.
fn values(notice: &Value) -> Vec<(&'static str, String)> {
    let shown = |value: &Value| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.chars()
            .take(VALUE_CHARS_MAX)
            .map(|c| if c.is_control() || c == '`' { '\'' } else { c })
            .collect()
    };
    let value = |(field, label): &(&str, &'static str)| {
        notice.get(*field).filter(|value| !value.is_null()).map(|value| (*label, shown(value)))
    };
    LABELS.iter().filter_map(value).collect()
}

/// The body of an alert for a channel. `notice` is the event's body, with its kind in `alert` and a
/// sentence in `message`.
pub fn body(channel: &Channel, notice: &Value) -> Value {
    let kind = notice["alert"].as_str().unwrap_or("custom");
    let Wording { icon, title, colour, severity } = wording(kind);
    let values = values(notice);
    let lines = |line: &dyn Fn(&str, &str) -> String| {
        let lines: Vec<String> = match values.is_empty() {
            true => vec![notice["message"].as_str().unwrap_or("").to_owned()],
            false => values.iter().map(|(label, value)| line(label, value)).collect(),
        };
        lines.join("\n")
    };
    match channel {
        Channel::Generic => notice.clone(),
        Channel::Slack => {
            // Slack reads `<!channel>` and links within these signs.
            let escaped =
                |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let lines = lines(&|label, value| format!("• {label}: `{}`", escaped(value)));
            json!({ "text": format!(":{icon}: *{title}*\n{lines}") })
        }
        Channel::Discord => {
            let lines = lines(&|label, value| format!("**{label}:** `{value}`"));
            json!({ "embeds": [{ "title": title, "description": lines, "color": colour }] })
        }
        Channel::PagerDuty(key) => {
            let subject = ["handler", "workflow", "source"]
                .iter()
                .find_map(|field| notice[*field].as_str())
                .unwrap_or("tidehook");
            json!({
                "routing_key": key.expose(),
                "event_action": "trigger",
                "dedup_key": format!("tidehook/{kind}/{subject}"),
                "payload": {
                    "summary": notice["message"],
                    "source": "tidehook",
                    "severity": severity,
                    "component": subject,
                    "class": kind,
                    "custom_details": notice,
                },
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead() -> Value {
        json!({
            "alert": "dlq", "job_id": "J1", "handler": "billing", "attempts": 5,
            "error": "HTTP `500`\n<!channel>", "suppressed": null,
            "message": "Job J1 moved to DLQ after 5 attempts (handler: billing)",
        })
    }

    #[test]
    fn each_channel_gets_the_words_that_its_readers_know() {
        assert_eq!(body(&Channel::Generic, &dead()), dead());
        assert_eq!(
            body(&Channel::Slack, &dead())["text"],
            ":rotating_light: *Job moved to DLQ*\n• Job: `J1`\n• Handler: `billing`\n• Attempts: \
             `5`\n• Error: `HTTP '500''&lt;!channel&gt;`"
        );
        let embed = body(&Channel::Discord, &dead())["embeds"][0].clone();
        assert_eq!(
            (&embed["title"], &embed["color"]),
            (&json!("Job moved to DLQ"), &json!(0xFF_0000))
        );
        assert!(embed["description"].as_str().unwrap().starts_with("**Job:** `J1`\n"));
        let pager = body(&Channel::PagerDuty(Secret::new("made-up".to_owned())), &dead());
        assert_eq!(pager["dedup_key"], "tidehook/dlq/billing");
        assert_eq!(
            (&pager["event_action"], &pager["routing_key"]),
            (&json!("trigger"), &json!("made-up"))
        );
        assert_eq!(pager["payload"]["severity"], "error");
    }

    #[test]
    fn an_alert_without_fields_is_its_message() {
        let custom = json!({ "alert": "custom", "message": "hello" });
        assert_eq!(body(&Channel::Slack, &custom)["text"], ":gear: *tidehook*\nhello");
    }
}
