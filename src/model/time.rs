//! Instants, durations as people write them, and clocks that are passed in.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};

/// Milliseconds since 1970-01-01 UTC.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This instant moved ahead; saturates instead of overflowing.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// This instant moved back; saturates instead of overflowing.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// How long after `earlier` this is; zero when it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Whole seconds since 1970, as signature schemes want them.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The instant of a number of seconds since 1970; `None` when it cannot be represented.
    pub fn from_seconds(seconds: i64) -> Option<Self> {
        seconds.checked_mul(1000).map(Self)
    }

    fn date(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_millis(self.0)
    }

    /// RFC 3339 with milliseconds and `Z`.
    pub fn rfc3339(self) -> String {
        match self.date() {
            Some(date) => date.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
            None => self.0.to_string(),
        }
    }

    /// The format of an strftime pattern, in UTC; `None` for a pattern chrono does not know.
    pub fn format(self, pattern: &str) -> Option<String> {
        use std::fmt::Write;
        let mut text = String::new();
        write!(text, "{}", self.date()?.format(pattern)).ok()?;
        Some(text)
    }

    /// Reads RFC 3339 text (`2026-01-31T10:00:00Z`) or the same without zone, taken as UTC.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(date) = DateTime::parse_from_rfc3339(text) {
            return Some(Self(date.timestamp_millis()));
        }
        let naive = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
        Some(Self(naive.and_utc().timestamp_millis()))
    }
}

impl fmt::Display for Timestamp {
    /// UTC text `YYYY-MM-DDTHH:MM:SS.mmm` without zone, the form of the management routes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.date() {
            Some(date) => write!(f, "{}", date.format("%Y-%m-%dT%H:%M:%S%.3f")),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A duration in whole milliseconds, saturating.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The longest duration a configuration may name: ten years.
pub const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Reads a duration as written in YAML: `30s`, `5m`, `2h`, `7d`, `250ms`, or whole seconds.
///
/// # Errors
/// The text is not of that form, or longer than [`LONGEST`].
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let expected = "expected a whole number with a unit, like `30s`, `5m`, `2h`, `7d` or `250ms`";
    if number.is_empty() {
        return Err(format!("`{text}` is not a duration: {expected}"));
    }
    let unit_ms = match unit.trim_start() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("`{text}` is not a duration: {expected}")),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit_ms))
        .map(Duration::from_millis)
        .filter(|d| *d <= LONGEST)
        .ok_or_else(|| format!("`{text}` is too long: the limit is ten years"))
}

/// A duration as people read it: `250ms`, `1.2s`, `30s`, `5m`, `2h 30m`, `3d`.
pub fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..10_000 if !ms.is_multiple_of(1_000) => format!("{:.1}s", duration.as_secs_f64()),
        1_000..60_000 => format!("{}s", ms / 1_000),
        60_000..3_600_000 => with_rest(ms / 60_000, "m", ms / 1_000 % 60, "s"),
        3_600_000..86_400_000 => with_rest(ms / 3_600_000, "h", ms / 60_000 % 60, "m"),
        _ => with_rest(ms / 86_400_000, "d", ms / 3_600_000 % 24, "h"),
    }
}

fn with_rest(big: u128, big_unit: &str, small: u128, small_unit: &str) -> String {
    if small == 0 {
        format!("{big}{big_unit}")
    } else {
        format!("{big}{big_unit} {small}{small_unit}")
    }
}

/// Wall time. The engine's own timing uses the database's clock; this one serves signature windows
/// and ids.
pub trait Clock: Send + Sync {
    /// The present instant, by this clock.
    fn now(&self) -> Timestamp;
}

/// The machine's clock: the only place that reads it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(millis(since))
    }
}

/// A clock for tests, which moves only through `advance` and `set`.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that stands at `at`.
    pub fn at(at: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(at.0)))
    }

    /// Moves the clock ahead by this much, for everyone who holds a clone of it.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(millis(by), Ordering::SeqCst);
    }

    /// Sets the clock to an instant.
    pub fn set(&self, to: Timestamp) {
        self.0.store(to.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_written() {
        for (text, ms) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("45", 45_000),
            ("250ms", 250),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for text in
            ["", "s", "-5s", "5 parsecs", "1.5s", "99999999999999999999", "9999999999d", "5s5m"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_short() {
        for (ms, text) in [
            (250, "250ms"),
            (1_000, "1s"),
            (1_250, "1.2s"),
            (30_000, "30s"),
            (90_000, "1m 30s"),
            (7_200_000, "2h"),
            (90_000_000, "1d 1h"),
        ] {
            assert_eq!(show_duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn instants_survive_their_text_form() {
        let at = Timestamp(1_769_853_600_123);
        assert_eq!(at.to_string(), "2026-01-31T10:00:00.123");
        assert_eq!(Timestamp::parse(&at.to_string()), Some(at));
        assert_eq!(Timestamp::parse(&at.rfc3339()), Some(at));
        assert_eq!(Timestamp::parse("yesterday"), None);
        assert_eq!(Timestamp(i64::MAX).plus(Duration::from_secs(9)), Timestamp(i64::MAX));
    }
}
