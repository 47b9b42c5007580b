//! The end in good order.

use std::time::Duration;

use serde_json::json;

use super::{SQLITE, config, get, post};
use crate::support::endpoint::Endpoint;
use crate::support::process::Home;
use crate::support::world::client;

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_puts_hanging_deliveries_on_record_as_interrupted_attempts() {
    let receiver = Endpoint::start().await;
    let more = "worker: { drain_timeout_secs: 2, max_concurrency: 30 }\n";
    let home = Home::new(&config(SQLITE, &receiver, "/hang", more));
    let server = home.start().await;
    for _ in 0..20 {
        assert_eq!(post(&home, "/events/app/x").await.unwrap().0, 202);
    }
    receiver.until_count(20).await;
    // Fifty connections that wait for nothing in particular.
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(tokio::net::TcpStream::connect(("127.0.0.1", home.port)).await.unwrap());
    }
    let draining = tokio::spawn({
        let url = home.url("/readyz");
        async move {
            loop {
                match client().get(&url).send().await {
                    Ok(response) if response.status() == 503 => {
                        return response.text().await.unwrap();
                    }
                    Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                    Err(error) => return error.to_string(),
                }
            }
        }
    });
    let (status, took) = server.stop().await;
    assert!(status.success(), "{status}");
    assert!(took <= Duration::from_secs(2 + 2), "grace + 2 s: {took:?}");
    assert!(draining.await.unwrap().contains("shutting down"));
    assert_eq!(receiver.got().len(), 20);
    // The next process makes the second attempt of each: the first one may have arrived.
    home.write(&config(SQLITE, &receiver, "/ok", ""));
    let second = home.start().await;
    let got = receiver.until_count(40).await;
    assert!(got[20..].iter().all(|g| g.header("x-tidehook-attempt") == Some("2")));
    let jobs = get(&home, "/api/jobs?limit=100").await;
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 20);
    let job = jobs["jobs"][0]["id"].as_str().unwrap();
    let attempts = get(&home, &format!("/api/jobs/{job}/attempts")).await;
    assert_eq!(
        (&attempts["attempts"][0]["code"], &attempts["attempts"][0]["attempt"]),
        (&json!("interrupted"), &json!(1)),
        "{attempts}"
    );
    second.stop().await;
}

/// A step that may be called only once, and one that is called when nobody knows what came of it.
fn once(path: &str) -> String {
    format!(
        "workflows:
  w:
    source: app
    events: [run]
    steps:
      - {{ name: a, url: \"http://RECEIVER{path}\", delivery: at_most_once, catch: [{{ errors: [unknown_outcome], goto: caught }}] }}
      - {{ name: b, url: \"http://RECEIVER/ok/b\", end: true }}
      - {{ name: caught, url: \"http://RECEIVER/ok/caught\" }}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_sent_only_once_is_not_sent_again_by_any_stop() {
    // A drain that is over, and a second signal.
    for (more, signals) in [("worker: { drain_timeout_secs: 1 }\n", 1), ("", 2)] {
        let receiver = Endpoint::start().await;
        let address = receiver.address.to_string();
        let file = |path: &str| {
            config(
                SQLITE,
                &receiver,
                "/ok",
                &format!("{more}{}", once(path).replace("RECEIVER", &address)),
            )
        };
        let home = Home::new(&file("/hang"));
        let server = home.start().await;
        assert_eq!(post(&home, "/events/app/run").await.unwrap().0, 202);
        let called = |path: &str| receiver.got().iter().filter(|got| got.path == path).count();
        let until = async |path: &str| {
            let waiting = async {
                while called(path) == 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(crate::support::endpoint::PATIENCE, waiting)
                .await
                .unwrap_or_else(|_| panic!("{path}"));
        };
        until("/hang").await;
        if signals == 2 {
            server.signal(rustix::process::Signal::TERM);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let (status, took) = server.stop().await;
        assert!(status.success() && took < Duration::from_secs(10), "{status} after {took:?}");
        let second = home.start().await;
        until("/ok/caught").await;
        assert_eq!((called("/hang"), called("/ok/b")), (1, 0));
        let runs = get(&home, "/api/runs").await;
        let run =
            get(&home, &format!("/api/runs/{}", runs["runs"][0]["id"].as_str().unwrap())).await;
        assert!(run["history"].to_string().contains("unknown_outcome"), "{run}");
        let jobs = get(&home, "/api/jobs?limit=100").await;
        let job = jobs["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .find(|job| job["handler"] == "w/a")
            .unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let attempts = get(&home, &format!("/api/jobs/{job}/attempts")).await;
        assert_eq!(
            (attempts["attempts"].as_array().unwrap().len(), &attempts["attempts"][0]["code"]),
            (1, &json!("interrupted")),
            "{attempts}"
        );
        second.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_deliveries_under_way_end() {
    let receiver = Endpoint::start().await;
    let home = Home::new(&config(SQLITE, &receiver, "/slow/1000", ""));
    let server = home.start().await;
    let event =
        post(&home, "/events/app/x").await.unwrap().1["event_id"].as_str().unwrap().to_owned();
    receiver.until_count(1).await;
    let (status, took) = server.stop().await;
    assert!(status.success() && took >= Duration::from_millis(500), "{status} after {took:?}");
    let second = home.start().await;
    let jobs = get(&home, &format!("/api/events/{event}/jobs")).await;
    assert_eq!((jobs["jobs"][0]["status"].as_str(), receiver.got().len()), (Some("completed"), 1));
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_named_section_by_section_and_never_shown() {
    let receiver = Endpoint::start().await;
    let text = config(SQLITE, &receiver, "/ok", "");
    let home = Home::new(&text);
    let server = home.start().await;
    let told = async |words: &str| {
        let waiting = async {
            while !home.log().contains(words) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(crate::support::endpoint::PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("{words}: {}", home.log()));
    };
    server.signal(rustix::process::Signal::HUP);
    told("The configuration is unchanged.").await;
    home.write(&text.replace("plainly-fictional", "another-secret").replace("max: 5", "max: 6"));
    server.signal(rustix::process::Signal::HUP);
    told("delivery changed; handlers.h changed").await;
    home.write(&text.replace(
        "signing_secret: plainly-fictional",
        "signing_secret: another-secret, nonsense: 1",
    ));
    server.signal(rustix::process::Signal::HUP);
    told("The changed configuration has errors.").await;
    told("unknown key `delivery.nonsense`").await;
    assert!(!home.log().contains("another-secret"), "{}", home.log());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_version_cannot_run_is_named_in_one_line() {
    let receiver = Endpoint::start().await;
    let file = config(SQLITE, &receiver, "/ok", "")
        .replace("{ app: ", "{ customers: { type: outbound }, app: ");
    let home = Home::new(&file);
    let status = home.spawn().ended().await;
    assert_eq!(status.code(), Some(2));
    assert!(
        home.log().contains("this version cannot run: outbound source `customers`"),
        "{}",
        home.log()
    );
}
