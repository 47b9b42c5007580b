//! Counters and histograms of this process.
//!
//! They are updated as the work happens and never computed from tables. Label values come from the
//! configuration, so their number is bounded.

use std::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{counter, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// The duration of the longest attempt since the start, in microseconds.
static LONGEST: AtomicU64 = AtomicU64::new(0);

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// The bucket bounds of all histograms of time, in seconds.
const SECONDS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// The bucket bounds of `commit_items`: how many items share one commit.
const ITEMS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 150.0, 200.0];

/// Every metric with its kind and meaning: `c` counter, `h` histogram, `g` gauge. Gauges are
/// computed when `/metrics` is read.
pub const METRICS: [(&str, char, &str); 32] = [
    ("events_received_total", 'c', "Accepted events, including duplicates"),
    ("events_by_source_total", 'c', "Accepted events, including duplicates, by source"),
    ("events_duplicated_total", 'c', "Duplicate events: accepted before"),
    ("jobs_created_total", 'c', "Created deliveries"),
    ("requests_rejected_total", 'c', "Refused requests, by source and reason"),
    (
        "verification_failures_total",
        'c',
        "Requests with a missing, malformed, wrong or stale signature, by source",
    ),
    (
        "bodies_unreadable_total",
        'c',
        "Bodies that could not be parsed when a filter or template needed them, by source and \
         reason",
    ),
    (
        "near_misses_total",
        'c',
        "Events that a handler of their source did not get, by handler and the kind of clause that \
         did not match",
    ),
    ("deliveries_total", 'c', "Attempts, by result"),
    ("deliveries_by_handler_total", 'c', "Attempts, by handler and result"),
    ("delivery_errors_by_type_total", 'c', "Failed attempts, by failure code"),
    ("queue_messages_total", 'c', "Messages of pull queues, by queue and action"),
    ("dlq_total", 'c', "Deliveries that became dead, by handler"),
    ("stale_results_total", 'c', "Outcomes that arrived after their lease was lost, by handler"),
    (
        "db_errors_total",
        'c',
        "Database operations that failed because the database was unavailable or full",
    ),
    (
        "workflow_runs_total",
        'c',
        "Runs, by workflow and status: started, paused, completed, failed, cancelled",
    ),
    ("hints_sent_total", 'c', "Hints (messages about due work) sent to the queue"),
    (
        "hints_failed_total",
        'c',
        "Hints that could not be sent; the next tick announces the work again",
    ),
    ("hints_refused_total", 'c', "Queue messages that are not valid hints of this version"),
    ("ingest_seconds", 'h', "Time from routing an event to its commit"),
    (
        "queue_wait_seconds",
        'h',
        "Time from the commit of a delivery to the start of its first attempt",
    ),
    ("delivery_duration_seconds", 'h', "Duration of an attempt"),
    (
        "delivery_duration_seconds_max",
        'g',
        "Duration of the longest attempt since the process started",
    ),
    ("commit_items", 'h', "Items per commit, by operation"),
    ("queue_depth", 'g', "Open deliveries"),
    ("dead_jobs", 'g', "Dead deliveries"),
    ("parked_jobs", 'g', "Open jobs whose handler or workflow is missing in the configuration"),
    (
        "lane_oldest_due_seconds",
        'g',
        "How long the oldest due delivery of a lane has been waiting, by lane",
    ),
    (
        "lane_open",
        'g',
        "1 if the lane is open, 0 if it is paused or its circuit breaker is open, by lane",
    ),
    (
        "lane_failures",
        'g',
        "Consecutive failures counted by the circuit breaker of a lane, by lane; it opens at \
         `breaker.failures` (5)",
    ),
    ("slots_in_use", 'g', "In-flight deliveries of this process"),
    ("pool_connections", 'g', "Database connections of this process, by state"),
];

/// Starts the metrics of this process and describes them. Further calls change nothing.
pub fn start() {
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        let builder = METRICS.iter().filter(|(_, kind, _)| *kind == 'h').try_fold(
            builder,
            |builder, (name, _, _)| {
                let buckets: &[f64] = if *name == "commit_items" { &ITEMS } else { &SECONDS };
                builder.set_buckets_for_metric(Matcher::Full(format!("tidehook_{name}")), buckets)
            },
        );
        let recorder = builder.map(PrometheusBuilder::build_recorder);
        let Ok(recorder) = recorder else { return None };
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        for (name, kind, about) in METRICS {
            match kind {
                'c' => metrics::describe_counter!(format!("tidehook_{name}"), about),
                'h' => metrics::describe_histogram!(format!("tidehook_{name}"), about),
                _ => {}
            }
        }
        Some(handle)
    });
}

/// The names whose counters start at 0. Without that, a query sees no increase when a counter first
/// appears.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The names of the sources, and whether requests to them are verified.
    pub sources: &'a [(&'a str, bool)],
    /// The names of the handlers, and of calling steps as `workflow/step`.
    pub handlers: &'a [String],
    /// The names of the configured queues.
    pub queues: &'a [&'a str],
    /// The names of the configured workflows.
    pub workflows: &'a [&'a str],
}

/// Creates the counters of what is configured, at 0.
pub fn init_counters(expected: Expected<'_>) {
    for name in [
        "events_received_total",
        "events_duplicated_total",
        "jobs_created_total",
        "db_errors_total",
    ] {
        counter!(format!("tidehook_{name}")).increment(0);
    }
    for result in ["success", "failure"] {
        counter!("tidehook_deliveries_total", "result" => result).increment(0);
    }
    for (source, is_verified) in expected.sources {
        counter!("tidehook_events_by_source_total", "source" => (*source).to_owned()).increment(0);
        if *is_verified {
            counter!("tidehook_verification_failures_total", "source" => (*source).to_owned())
                .increment(0);
        }
    }
    for handler in expected.handlers {
        for result in ["success", "failure"] {
            counter!(
                "tidehook_deliveries_by_handler_total", "handler" => handler.clone(),
                "result" => result,
            )
            .increment(0);
        }
        counter!("tidehook_dlq_total", "handler" => handler.clone()).increment(0);
        counter!("tidehook_stale_results_total", "handler" => handler.clone()).increment(0);
    }
    for queue in expected.queues {
        for action in ["received", "acked", "nacked"] {
            counter!(
                "tidehook_queue_messages_total", "queue" => (*queue).to_owned(), "action" => action,
            )
            .increment(0);
        }
        counter!("tidehook_dlq_total", "handler" => (*queue).to_owned()).increment(0);
    }
    for workflow in expected.workflows {
        for status in ["started", "paused", "completed", "failed", "cancelled"] {
            counter!(
                "tidehook_workflow_runs_total", "workflow" => (*workflow).to_owned(),
                "status" => status,
            )
            .increment(0);
        }
    }
}

/// Counts an event that was answered, duplicates included, with its jobs and the time from routing
/// to commit.
pub fn accepted(source: &str, duplicate: bool, jobs: usize, took: Duration) {
    counter!("tidehook_events_received_total").increment(1);
    counter!("tidehook_events_by_source_total", "source" => source.to_owned()).increment(1);
    if duplicate {
        counter!("tidehook_events_duplicated_total").increment(1);
    }
    counter!("tidehook_jobs_created_total").increment(u64::try_from(jobs).unwrap_or(u64::MAX));
    histogram!("tidehook_ingest_seconds").record(took.as_secs_f64());
}

/// Counts a refused request by source and reason; reasons that begin with `signature_` count as
/// failed verification, too.
pub fn rejected(source: &str, reason: &'static str) {
    counter!("tidehook_requests_rejected_total", "source" => source.to_owned(), "reason" => reason)
        .increment(1);
    if reason.starts_with("signature_") {
        counter!("tidehook_verification_failures_total", "source" => source.to_owned())
            .increment(1);
    }
}

/// Counts a body that something needed to read and could not, by source and reason.
pub fn unreadable(source: &str, reason: &'static str) {
    counter!("tidehook_bodies_unreadable_total", "source" => source.to_owned(), "reason" => reason)
        .increment(1);
}

/// Counts an event that a handler of its source did not get. `clause` is `events` or `filter`: the
/// one that said no.
pub fn near_miss(handler: &str, clause: &'static str) {
    counter!("tidehook_near_misses_total", "handler" => handler.to_owned(), "clause" => clause)
        .increment(1);
}

/// Records how long a delivery waited from its commit to its first attempt.
pub fn waited(wait: Duration) {
    histogram!("tidehook_queue_wait_seconds").record(wait.as_secs_f64());
}

/// Counts an attempt and its duration. `code` is the failure's, `None` for a success.
pub fn tried(handler: &str, code: Option<&str>, took: Duration) {
    let result = if code.is_none() { "success" } else { "failure" };
    counter!("tidehook_deliveries_total", "result" => result).increment(1);
    counter!(
        "tidehook_deliveries_by_handler_total", "handler" => handler.to_owned(), "result" => result,
    )
    .increment(1);
    if let Some(code) = code {
        counter!("tidehook_delivery_errors_by_type_total", "type" => code.to_owned()).increment(1);
    }
    histogram!("tidehook_delivery_duration_seconds").record(took.as_secs_f64());
    LONGEST.fetch_max(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Duration of the longest attempt since the process started.
pub fn longest() -> Duration {
    Duration::from_micros(LONGEST.load(Ordering::Relaxed))
}

/// Counts a delivery that was given up (dead).
pub fn dead(handler: &str) {
    counter!("tidehook_dlq_total", "handler" => handler.to_owned()).increment(1);
}

/// Counts messages of a pull queue that were `received`, `acked` or `nacked`.
pub fn messages(queue: &str, what: &'static str, count: usize) {
    if count > 0 {
        counter!("tidehook_queue_messages_total", "queue" => queue.to_owned(), "action" => what)
            .increment(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

/// Counts a run that got this status: started, paused, completed, failed or cancelled.
pub fn run(workflow: &str, status: &'static str) {
    counter!("tidehook_workflow_runs_total", "workflow" => workflow.to_owned(), "status" => status)
        .increment(1);
}

/// Counts an outcome that came after its lease was lost, and changed nothing.
pub fn stale(handler: &str) {
    counter!("tidehook_stale_results_total", "handler" => handler.to_owned()).increment(1);
}

/// Counts a store operation that failed because the database was unreachable, full or read-only.
pub fn database_error() {
    counter!("tidehook_db_errors_total").increment(1);
}

/// Counts messages that the queue accepted; each tells workers of due jobs.
pub fn hints_sent(count: usize) {
    counter!("tidehook_hints_sent_total").increment(u64::try_from(count).unwrap_or(u64::MAX));
}

/// Counts messages that the queue did not take; the next tick announces their jobs again.
pub fn hints_failed(count: usize) {
    counter!("tidehook_hints_failed_total").increment(u64::try_from(count).unwrap_or(u64::MAX));
}

/// Counts a message of the queue that is no hint this version can read; it is dropped.
pub fn hint_refused() {
    counter!("tidehook_hints_refused_total").increment(1);
}

/// Records how many items shared one commit of a store verb.
pub fn committed(verb: &'static str, items: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a slice holds a few hundred items")]
    histogram!("tidehook_commit_items", "verb" => verb).record(items as f64);
}

/// A value that is computed when `/metrics` is read, most of them from the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// The name without the prefix `tidehook_`, as in [`METRICS`].
    pub name: &'static str,
    /// One label with its value, if the gauge has one.
    pub label: Option<(&'static str, String)>,
    /// The current value, as Prometheus shows it.
    pub value: f64,
}

/// Folds the samples of histograms into their buckets.
///
/// Until then each sample is kept, so a process that nobody scrapes would grow without end.
/// Housekeeping calls this.
pub fn compact_histograms() {
    if let Some(Some(handle)) = HANDLE.get() {
        handle.run_upkeep();
    }
}

/// All metrics in Prometheus's text format. `with_qhook_names` repeats them as `qhook_*`.
pub fn render(gauges: &[Gauge], with_qhook_names: bool) -> String {
    let mut out = match HANDLE.get() {
        Some(Some(handle)) => handle.render(),
        _ => String::new(),
    };
    let mut last = "";
    for gauge in gauges {
        let about = METRICS
            .iter()
            .find(|(name, _, _)| *name == gauge.name)
            .map_or("", |(_, _, about)| about);
        if gauge.name != last {
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "# HELP tidehook_{} {about}\n# TYPE tidehook_{} gauge",
                gauge.name, gauge.name
            );
            last = gauge.name;
        }
        let label = gauge
            .label
            .as_ref()
            .map_or(String::new(), |(name, value)| format!("{{{name}=\"{}\"}}", escaped(value)));
        let _ = writeln!(out, "tidehook_{}{label} {}", gauge.name, gauge.value);
    }
    if with_qhook_names {
        let renamed: String = out.lines().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{}", line.replacen("tidehook_", "qhook_", 1));
            text
        });
        out.push_str(&renamed);
    }
    out
}

/// A label's value, escaped as the format requires.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_are_rendered_once_described_and_escaped() {
        let gauge = |lane: &str, value| Gauge {
            name: "lane_open",
            label: Some(("lane", lane.to_owned())),
            value,
        };
        let text = render(&[gauge("a\"b", 1.0), gauge("c", 0.0)], true);
        assert_eq!(text.matches("# HELP tidehook_lane_open").count(), 1);
        assert!(text.contains("tidehook_lane_open{lane=\"a\\\"b\"} 1\n"), "{text}");
        assert!(text.contains("qhook_lane_open{lane=\"c\"} 0\n"), "{text}");
    }
}
