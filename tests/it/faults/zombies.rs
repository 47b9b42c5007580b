//! A process that is stopped and goes on later changes nothing that others have done meanwhile.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{config, post, until};
use crate::support::cluster::{Server, on_each_server};
use crate::support::endpoint::Endpoint;
use crate::support::process::Home;

on_each_server!(
    a_late_success_changes_nothing_after_another_success,
    a_late_failure_changes_nothing_after_a_success,
    a_late_success_changes_nothing_after_the_job_was_given_up,
);

const LEASE: &str = "worker: { stale_threshold_secs: 2 }\n";

/// A holds a delivery and is stopped; B takes over; A goes on. Answers the job and attempts
/// afterwards.
async fn overtaken(
    database: &Server,
    path: &str,
    retry: &str,
    ends: &str,
) -> (Value, Vec<Value>, Endpoint) {
    let receiver = Endpoint::start().await;
    let text = config(&database.url(), &receiver, path, LEASE)
        .replace("retry: { max: 5, interval: 200ms }", retry);
    let (a, b) = (Home::new(&text), Home::new(&text));
    let first = a.start().await;
    let event = post(&a, "/events/app/x").await.unwrap().1["event_id"].as_str().unwrap().to_owned();
    receiver.until_count(1).await;
    first.signal(Signal::STOP);
    let stopped = Instant::now();
    let _second = b.start().await;
    // Other work goes on meanwhile.
    let other = post(&b, "/events/app/x").await.unwrap().1["event_id"].as_str().unwrap().to_owned();
    let other_ends = if path.contains("/500") { ends } else { "completed" };
    until(&b, &other, other_ends).await;
    until(&b, &event, ends).await;
    assert!(
        stopped.elapsed() < Duration::from_secs(2 + 5 + 4),
        "taken over within lease + 5 s: {:?}",
        stopped.elapsed()
    );
    first.signal(Signal::CONT);
    // The late outcome leaves a row of its own, and nothing else.
    let stale = async {
        loop {
            let (job, attempts) = until(&b, &event, ends).await;
            // The line is written after the row.
            let said = a.log().contains("An outcome arrived after the lease was lost.");
            if said && attempts.iter().any(|a| a["result"] == "stale") {
                return (job, attempts);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (job, attempts) =
        tokio::time::timeout(crate::support::endpoint::PATIENCE, stale).await.unwrap();
    (job, attempts, receiver)
}

fn results(attempts: &[Value]) -> Vec<(u64, &str)> {
    attempts
        .iter()
        .map(|a| (a["attempt"].as_u64().unwrap(), a["result"].as_str().unwrap()))
        .collect()
}

async fn a_late_success_changes_nothing_after_another_success(database: Server) {
    let (job, attempts, receiver) =
        overtaken(&database, "/slowseq/1000/200,200", "retry: { max: 5 }", "completed").await;
    assert_eq!((job["status"].as_str(), job["attempt"].as_u64()), (Some("completed"), Some(2)));
    assert_eq!(results(&attempts), [(1, "stale"), (2, "delivered")]);
    assert_eq!(receiver.got().len(), 3, "one more than the two events needed");
}

async fn a_late_failure_changes_nothing_after_a_success(database: Server) {
    let (job, attempts, receiver) = overtaken(
        &database,
        "/slowseq/1000/500,200",
        "retry: { max: 5, interval: 100ms }",
        "completed",
    )
    .await;
    assert_eq!(job["attempt"], 2);
    assert_eq!(results(&attempts), [(1, "stale"), (2, "delivered")]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.got().len(), 4, "the late failure caused no further attempt");
}

async fn a_late_success_changes_nothing_after_the_job_was_given_up(database: Server) {
    let (job, attempts, _) =
        overtaken(&database, "/slowseq/1000/200,500,500,500", "retry: { max: 1 }", "dead").await;
    assert_eq!(job["status"], "dead");
    assert_eq!(results(&attempts), [(1, "stale"), (2, "failed")]);
}
