//! Writes the metrics of a process that nobody can scrape to the log, in CloudWatch's embedded
//! metric format.
//!
//! Each line of JSON holds what one set of labels gained since the last time, under the names that
//! `/metrics` has. The format:
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::metrics;
use crate::model::{Clock, SystemClock, Timestamp};

/// The most values of one metric that the format allows in a line.
const VALUES_MAX: usize = 100;

/// The counters as they were written last, so that the next line holds only the increase.
static LAST: Mutex<BTreeMap<Series, f64>> = Mutex::new(BTreeMap::new());

/// A time series: the name of a metric with its labels.
type Series = (String, Vec<(String, String)>);

/// Writes what has changed since the last call to standard output, which Lambda puts into its log.
/// `function` becomes one more label.
pub fn write(function: &str) {
    let now = read(&metrics::render(&[], false));
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let changed = changes(&last, &now);
    if changed.is_empty() {
        return;
    }
    *last = now;
    drop(last);
    let mut out = std::io::stdout().lock();
    for line in lines(&changed, function, SystemClock.now().0) {
        // A log that is gone is no reason to fail an invocation.
        let _ = writeln!(out, "{line}");
    }
}

/// The samples in Prometheus's text format, as [`metrics::render`] writes it, by series.
fn read(text: &str) -> BTreeMap<Series, f64> {
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        Some(((name.to_owned(), read_labels(labels)?), value.parse().ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn read_labels(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let (mut value, mut chars) = (String::new(), rest.char_indices());
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name.trim_start_matches(',').to_owned(), value));
        text = &rest[end + 1..];
    }
    Some(labels)
}

/// The series that have grown, with the increase. A series that is new has grown from 0.
fn changes(last: &BTreeMap<Series, f64>, now: &BTreeMap<Series, f64>) -> BTreeMap<Series, f64> {
    let grown = |(series, value): (&Series, &f64)| {
        let by = value - last.get(series).copied().unwrap_or(0.0);
        (by > 0.0).then(|| (series.clone(), by))
    };
    now.iter().filter_map(grown).collect()
}

/// One metric of a line: an increase, or values with how often each occurred.
enum Metric {
    Count(f64),
    Values(Vec<(f64, f64)>),
}

fn lines(changed: &BTreeMap<Series, f64>, function: &str, at: i64) -> Vec<String> {
    let mut by_labels: BTreeMap<Vec<(String, String)>, BTreeMap<String, Metric>> = BTreeMap::new();
    let mut below: BTreeMap<Series, f64> = BTreeMap::new();
    for ((name, labels), by) in sorted(changed) {
        if name.ends_with("_sum") || name.ends_with("_count") {
            continue;
        }
        let Some(histogram) = name.strip_suffix("_bucket") else {
            by_labels.entry(labels.clone()).or_default().insert(name.clone(), Metric::Count(*by));
            continue;
        };
        // Buckets are counted from below: what one holds itself is what it holds more than the one
        // before it.
        let (bound, labels): (Vec<_>, Vec<_>) =
            labels.iter().cloned().partition(|(label, _)| label == "le");
        let before = below.entry((histogram.to_owned(), labels.clone())).or_default();
        let own = by - *before;
        *before = *by;
        let bound = bound
            .first()
            .and_then(|(_, bound)| bound.parse::<f64>().ok())
            .filter(|bound| bound.is_finite());
        let metric = by_labels
            .entry(labels)
            .or_default()
            .entry(histogram.to_owned())
            .or_insert_with(|| Metric::Values(Vec::new()));
        if let (Metric::Values(values), true) = (metric, own > 0.0) {
            let beyond = values.last().map_or(1.0, |(last, _)| last * 2.0);
            values.push((bound.unwrap_or(beyond), own));
        }
    }
    by_labels.into_iter().map(|(labels, metrics)| line(labels, metrics, function, at)).collect()
}

/// The series with buckets in the order of their upper bounds, the rest last.
fn sorted(changed: &BTreeMap<Series, f64>) -> Vec<(&Series, &f64)> {
    let mut all: Vec<_> = changed.iter().collect();
    let bound = |series: &Series| {
        series.1.iter().find(|(label, _)| label == "le").and_then(|(_, b)| b.parse::<f64>().ok())
    };
    all.sort_by(|(a, _), (b, _)| {
        bound(a).unwrap_or(f64::INFINITY).total_cmp(&bound(b).unwrap_or(f64::INFINITY))
    });
    all
}

fn line(
    labels: Vec<(String, String)>,
    metrics: BTreeMap<String, Metric>,
    function: &str,
    at: i64,
) -> String {
    let unit = |name: &str| if name.ends_with("_seconds") { "Seconds" } else { "Count" };
    let about: Vec<Value> =
        metrics.keys().map(|name| json!({ "Name": name, "Unit": unit(name) })).collect();
    let dimensions: Vec<&str> =
        labels.iter().map(|(name, _)| name.as_str()).chain(["function"]).collect();
    let mut out = Map::new();
    let directive =
        json!({ "Namespace": "tidehook", "Dimensions": [dimensions], "Metrics": about });
    out.insert("_aws".to_owned(), json!({ "Timestamp": at, "CloudWatchMetrics": [directive] }));
    // Lambda drops lines below the function's log level, and takes one without level and time for
    // INFO. Metrics are wanted at every level:
    // <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html>.
    out.insert("level".to_owned(), json!("FATAL"));
    out.insert("timestamp".to_owned(), json!(Timestamp(at).rfc3339()));
    out.insert("message".to_owned(), json!("Metrics"));
    out.insert("function".to_owned(), json!(function));
    out.extend(labels.into_iter().map(|(name, value)| (name, Value::String(value))));
    for (name, metric) in metrics {
        let value = match metric {
            Metric::Count(count) => json!(count),
            Metric::Values(values) => {
                let values = &values[..values.len().min(VALUES_MAX)];
                let (values, counts): (Vec<f64>, Vec<f64>) = values.iter().copied().unzip();
                json!({ "Values": values, "Counts": counts })
            }
        };
        out.insert(name, value);
    }
    Value::Object(out).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a about\n# TYPE a counter\na{source=\"x\\\"y\",n=\"1\"} 3\nb \
        2\nh_bucket{le=\"0.1\"} 1\nh_bucket{le=\"0.5\"} 4\nh_bucket{le=\"+Inf\"} 5\nh_sum \
        3.5\nh_count 5\n";

    #[test]
    fn what_has_changed_is_written_once_with_its_labels() {
        let now = read(TEXT);
        let first = lines(&changes(&BTreeMap::new(), &now), "worker", 7);
        let parsed: Vec<Value> =
            first.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(parsed.len(), 2, "{first:?}");
        let (plain, labelled) = (&parsed[0], &parsed[1]);
        assert_eq!(
            (&plain["b"], &plain["function"], &plain["_aws"]["Timestamp"]),
            (&json!(2.0), &json!("worker"), &json!(7))
        );
        assert_eq!(
            (&plain["level"], &plain["timestamp"]),
            (&json!("FATAL"), &json!("1970-01-01T00:00:00.007Z"))
        );
        assert_eq!(plain["h"], json!({ "Values": [0.1, 0.5, 1.0], "Counts": [1.0, 3.0, 1.0] }));
        assert_eq!((&labelled["a"], &labelled["source"]), (&json!(3.0), &json!("x\"y")));
        assert_eq!(
            labelled["_aws"]["CloudWatchMetrics"][0]["Dimensions"],
            json!([["source", "n", "function"]])
        );
        assert!(changes(&now, &now).is_empty());
    }
}
