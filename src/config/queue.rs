//! `queues`: what consumers pull. Checked here; running them comes with the pull API.

use std::time::Duration;

use super::ReadContext;
use super::handler::{read_filter, read_path, read_patterns, read_source};
use super::read::Section;
use crate::decide::filter::Filter;
use crate::decide::pattern::Pattern;
use crate::model::{Path, Secret};

/// A pull queue.
#[derive(Debug, Clone)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// The source it listens to.
    pub source: String,
    /// Which types it wants; empty is all.
    pub events: Vec<Pattern>,
    /// Which payloads it wants.
    pub filter: Option<Filter>,
    /// Under which key it wants an event once.
    pub idempotency_key: Option<Path>,
    /// How long a received message is invisible.
    pub visibility: Duration,
    /// Deliveries before the dead-letter queue.
    pub attempts_max: u32,
    /// The consumers' key; open without.
    pub api_key: Option<Secret>,
}

impl Queue {
    pub(super) fn read(name: &str, mut s: Section<'_>, around: &ReadContext<'_>, handlers: &[String]) -> Option<Self> {
        let who = format!("queue '{name}'");
        if name.contains('/') {
            s.error("bad_name", "", format!("queue name '{name}' must not contain '/'"));
        }
        if handlers.iter().any(|h| h == name) {
            s.error("bad_name", "", format!("queue name '{name}' conflicts with handler of the same name"));
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
                        format!("queue '{name}' has invalid visibility_timeout '{text}'"),
                    );
                    Duration::from_secs(30)
                }
            },
        };
        if !s.has("api_key") {
            s.warn(
                "open_queue",
                "",
                format!("queue '{name}' has no api_key: anyone who reaches the server can take its messages"),
            );
        }
        let queue = (
            read_patterns(&mut s, around.compat),
            read_filter(&mut s, "filter", around.compat),
            read_path(&mut s, "idempotency_key"),
            s.number32("max_attempts").unwrap_or(around.delivery.retry.first().map_or(1, |retry| retry.max.max(1))),
            s.secret("api_key"),
        );
        s.finish();
        let (events, filter, idempotency_key, attempts_max, api_key) = queue;
        Some(Self { name: name.to_owned(), source: source?, events, filter, idempotency_key, visibility, attempts_max, api_key })
    }
}
