//! Writes the log to standard error: each line is a sentence for people with fields for queries.

use std::sync::OnceLock;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged unless `RUST_LOG` says otherwise: tidehook's own lines from the level INFO on.
fn by_default() -> Targets {
    Targets::new().with_target("tidehook", Level::INFO)
}

/// The format of log lines on standard error, from `TIDEHOOK_LOG_FORMAT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Plain lines for people; the default of a server.
    Text,
    /// One JSON object per line, for machines that collect logs.
    Json,
}

impl Format {
    /// The format that `TIDEHOOK_LOG_FORMAT` names: `json` in any case, else text.
    pub fn named(word: Option<&str>) -> Self {
        if word.is_some_and(|w| w.eq_ignore_ascii_case("json")) { Self::Json } else { Self::Text }
    }
}

/// The format that logging was started with; empty before.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// Whether standard error is for machines: then everything written there is one JSON object per
/// line.
pub fn is_json() -> bool {
    FORMAT.get() == Some(&Format::Json)
}

/// Starts logging. `filter` selects what is logged, as `tidehook=debug,sqlx=warn`. A second call
/// changes nothing.
pub fn start(format: Format, filter: Option<&str>, colour: bool) {
    let _ = FORMAT.set(format);
    let (filter, bad) = match filter.map(str::parse::<Targets>) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (by_default(), Some(error)),
        None => (by_default(), None),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false);
    let started = match format {
        Format::Text => registry.with(lines).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    if let (Ok(()), Some(error)) = (started, bad) {
        tracing::warn!(%error, "RUST_LOG is invalid. The default log filter is used; fix or unset \
            RUST_LOG.");
    }
}
