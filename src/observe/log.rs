//! Logs: a sentence for people, fields for queries, on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged unless `RUST_LOG` says otherwise.
const DEFAULT: &str = "tidehook=info";

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

/// Starts logging. A second call changes nothing.
pub fn start(format: Format, filter: Option<&str>, colour: bool) {
    let (filter, bad) = match filter.map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(DEFAULT), Some(error)),
        None => (EnvFilter::new(DEFAULT), None),
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
