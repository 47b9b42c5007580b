//! Logs: a sentence for people, fields for queries, on standard error.

use std::sync::OnceLock;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged unless `RUST_LOG` says otherwise.
fn by_default() -> Targets {
    Targets::new().with_target("tidehook", Level::INFO)
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Format {
    /// The value of `TIDEHOOK_LOG_FORMAT`.
    pub fn from_word(word: Option<&str>) -> Self {
        if word.is_some_and(|w| w.eq_ignore_ascii_case("json")) { Self::Json } else { Self::Text }
    }
}

/// How lines look since logging was started.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// Whether standard error is for machines: one JSON object per line, whatever is said.
pub fn is_json() -> bool {
    FORMAT.get() == Some(&Format::Json)
}

/// Starts logging: what a filter lets through, `tidehook=debug,sqlx=warn` for instance. A second call changes nothing.
pub fn start(format: Format, filter: Option<&str>, colour: bool) {
    let _ = FORMAT.set(format);
    let (filter, bad) = match filter.map(str::parse::<Targets>) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (by_default(), Some(error)),
        None => (by_default(), None),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour).with_target(false);
    let started = match format {
        Format::Text => registry.with(lines).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    if let (Ok(()), Some(error)) = (started, bad) {
        tracing::warn!(%error, "RUST_LOG cannot be read; logging as by default.");
    }
}
