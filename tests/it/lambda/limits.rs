//! The limits of SQS, by an emulator that enforces them: `scripts/test-lambda.sh` starts one and
//! names it.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use tidehook::model::JobId;
use tidehook::wake::sqs::queue::{Queue, sentence};
use tidehook::wake::sqs::{Hint, Sqs};
use tidehook::wake::{Wake, Wakeup};
use ulid::Ulid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_is_within_the_limits_of_the_queue() {
    if std::env::var_os("TIDEHOOK_TEST_SQS").is_none() {
        return;
    }
    let sdk = tidehook::environment::aws().await;
    let client = aws_sdk_sqs::Client::new(sdk);
    let made = client.create_queue().queue_name("limits").send().await.unwrap();
    let queue = Queue::new(made.queue_url().unwrap().to_owned(), sdk);
    // The witness does refuse what is beyond them.
    let send = |url: &str| queue.client().send_message().queue_url(url).message_body("x");
    let refused = send(queue.url()).delay_seconds(901).send().await.unwrap_err();
    assert!(sentence(&refused).contains("InvalidParameterValue"), "{refused:?}");
    let refused =
        sentence(&send(&queue.url().replace("limits", "nowhere")).send().await.unwrap_err());
    assert!(
        refused.contains("NonExistentQueue") || refused.contains("QueueDoesNotExist"),
        "{refused}"
    );
    let wake = Sqs::new(queue.clone(), Duration::from_secs(180));
    let job = |n: u128| JobId(Ulid(n));
    let due: Vec<Wakeup> = (0..137).map(|n| Wakeup::of(job(n), Duration::ZERO)).collect();
    wake.wake(&due).await;
    wake.wake(&[
        Wakeup::of(job(900), Duration::from_secs(900)),
        Wakeup::of(job(901), Duration::from_millis(900_001)),
    ])
    .await;
    let mut seen = BTreeSet::new();
    while seen.len() < 137 {
        let got = client
            .receive_message()
            .queue_url(queue.url())
            .max_number_of_messages(10)
            .send()
            .await
            .unwrap();
        for message in got.messages() {
            seen.extend(Hint::read(message.body().unwrap()).unwrap().jobs);
            let handle = message.receipt_handle().unwrap();
            client
                .delete_message()
                .queue_url(queue.url())
                .receipt_handle(handle)
                .send()
                .await
                .unwrap();
        }
    }
    assert_eq!(seen, (0..137).map(job).collect());
    let name = QueueAttributeName::ApproximateNumberOfMessagesDelayed;
    let about = client
        .get_queue_attributes()
        .queue_url(queue.url())
        .attribute_names(name.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(
        about.attributes().unwrap()[&name],
        "1",
        "what is further away than a queue can delay is left to the ticks"
    );
}
