//! The section `queues`: messages that consumers fetch themselves.

use std::time::Duration;

use super::ReadContext;
use super::handler::{read_filter, read_path, read_patterns, read_source};
use super::read::Section;
use crate::decide::filter::Filter;
use crate::decide::pattern::Pattern;
use crate::model::{Path, Secret};

/// A queue whose messages consumers fetch themselves.
#[derive(Debug, Clone)]
pub struct Queue {
    /// The key of its entry under `queues`; no handler may have the same name, and it holds no
    /// slash.
    pub name: String,
    /// The source whose events become messages.
    pub source: String,
    /// The patterns of event types that it gets; an empty list means all types.
    pub events: Vec<Pattern>,
    /// The condition on the payload; `None` accepts every payload.
    pub filter: Option<Filter>,
    /// The path of an idempotency key: of several events with the same key, the queue gets one.
    pub idempotency_key: Option<Path>,
    /// How long a message that a consumer received is hidden from others; 30 s by default.
    pub visibility: Duration,
    /// The deliveries of a message before it is moved to the dead-letter queue.
    pub attempts_max: u32,
    /// The bearer key of its consumers; `None` leaves the queue open, which is warned of.
    pub api_key: Option<Secret>,
}

impl Queue {
    pub(super) fn read(
        name: &str,
        mut s: Section<'_>,
        around: &ReadContext<'_>,
        handlers: &[String],
    ) -> Option<Self> {
        let who = format!("queue '{name}'");
        if name.contains('/') {
            s.error(
                "bad_name",
                "",
                format!("queue name '{name}' must not contain '/': rename the queue"),
            );
        }
        if handlers.iter().any(|h| h == name) {
            s.error(
                "bad_name",
                "",
                format!(
                    "queue name '{name}' conflicts with handler of the same name: rename one of \
                     them"
                ),
            );
        }
        let source = read_source(&mut s, &who, around);
        let visibility = match s.text("visibility_timeout") {
            None => Duration::from_secs(30),
            Some(text) => match crate::model::time::parse_duration(&text) {
                Ok(duration) if !duration.is_zero() => duration,
                _ => {
                    s.error(
                        "out_of_range",
                        "visibility_timeout",
                        format!(
                            "queue '{name}' has invalid visibility_timeout '{text}': use a \
                            duration longer than 0, like `30s`"
                        ),
                    );
                    Duration::from_secs(30)
                }
            },
        };
        if !s.has("api_key") {
            s.warn(
                "open_queue",
                "",
                format!(
                    "queue '{name}' has no api_key: everyone who can reach the server can \
                    receive its messages; set `api_key`"
                ),
            );
        }
        let queue = (
            read_patterns(&mut s, around.compat),
            read_filter(&mut s, "filter", around.compat),
            read_path(&mut s, "idempotency_key"),
            s.number32("max_attempts")
                .unwrap_or(around.delivery.retry.first().map_or(1, |retry| retry.max.max(1))),
            s.secret("api_key"),
        );
        s.finish();
        let (events, filter, idempotency_key, attempts_max, api_key) = queue;
        Some(Self {
            name: name.to_owned(),
            source: source?,
            events,
            filter,
            idempotency_key,
            visibility,
            attempts_max,
            api_key,
        })
    }
}
