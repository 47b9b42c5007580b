//! The limits of SQS, by an emulator that enforces them: `scripts/test-lambda.sh` starts one and names it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tidehook::model::JobId;
use tidehook::wake::sqs::queue::Queue;
use tidehook::wake::sqs::{Hint, Sqs};
use tidehook::wake::{Wake, Wakeup};
use ulid::Ulid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_is_within_the_limits_of_the_queue() {
    if std::env::var_os("TIDEHOOK_TEST_SQS").is_none() {
        return;
    }
    let endpoint = tidehook::environment::endpoint("SQS").expect("the script names the emulator");
    let who = tidehook::environment::aws().unwrap();
    let queue = |url: &str| Queue::new(url.to_owned(), Some(&endpoint), &who, tidehook::server::tls().unwrap()).unwrap();
    let made = queue(&endpoint).call("CreateQueue", &json!({ "QueueName": "limits" })).await.unwrap();
    let queue = queue(made["QueueUrl"].as_str().unwrap());
    let of_queue = |more: Value| {
        let mut input = json!({ "QueueUrl": queue.url() });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    // The witness does refuse what is beyond them.
    let refused = queue.call("SendMessage", &of_queue(json!({ "MessageBody": "x", "DelaySeconds": 901 }))).await.unwrap_err();
    assert!(refused.contains("InvalidParameterValue"), "{refused}");
    let nowhere = json!({ "QueueUrl": queue.url().replace("limits", "nowhere"), "MessageBody": "x" });
    let refused = queue.call("SendMessage", &nowhere).await.unwrap_err();
    assert!(refused.contains("NonExistentQueue") || refused.contains("QueueDoesNotExist"), "{refused}");
    let wake = Sqs::new(queue.clone(), Duration::from_secs(180));
    let job = |n: u128| JobId(Ulid(n));
    let due: Vec<Wakeup> = (0..137).map(|n| Wakeup::of(job(n), Duration::ZERO)).collect();
    wake.wake(&due).await;
    wake.wake(&[Wakeup::of(job(900), Duration::from_secs(900)), Wakeup::of(job(901), Duration::from_millis(900_001))]).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 137 {
        let got = queue.call("ReceiveMessage", &of_queue(json!({ "MaxNumberOfMessages": 10 }))).await.unwrap();
        for message in got["Messages"].as_array().into_iter().flatten() {
            seen.extend(Hint::read(message["Body"].as_str().unwrap()).unwrap().jobs);
            queue.call("DeleteMessage", &of_queue(json!({ "ReceiptHandle": message["ReceiptHandle"] }))).await.unwrap();
        }
    }
    assert_eq!(seen, (0..137).map(job).collect());
    let name = "ApproximateNumberOfMessagesDelayed";
    let about = queue.call("GetQueueAttributes", &of_queue(json!({ "AttributeNames": [name] }))).await.unwrap();
    assert_eq!(about["Attributes"][name], "1", "what is further away than a queue can delay is left to the ticks");
}
