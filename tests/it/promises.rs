//! What the docs promise, claim by claim.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::support::endpoint::PATIENCE;
use crate::support::process::{Home, binary};
use crate::support::world::World;

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn run(home: &Home, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.args(arguments).arg("--config").arg(home.path()).env_remove("DATABASE_URL");
    let output = command.output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.code(), said)
}

#[test]
fn a_server_that_is_named_and_not_located_is_no_file_on_this_machine() {
    let home = Home::new(
        "server: { port: {port}, bind: 127.0.0.1 }\ndatabase: { driver: postgres }\nsources: \
         { app: { type: event } }\n",
    );
    let (code, said) = run(&home, &["validate"]);
    assert!(code == Some(0) && said.contains("needs_database_url"), "{said}");
    assert_eq!(run(&home, &["validate", "--strict"]).0, Some(2));
    for verb in [&["start"][..], &["migrate"], &["jobs", "list"]] {
        let (code, said) = run(&home, verb);
        assert!(
            code != Some(0) && said.contains("neither `database.url` nor DATABASE_URL is set"),
            "{verb:?}: {said}"
        );
    }
    let (_, said) = run(&home, &["doctor"]);
    assert!(said.contains("neither `database.url` nor DATABASE_URL is set"), "{said}");
    assert!(!std::path::Path::new("tidehook.db").exists());
}

#[test]
fn where_the_database_is_may_stand_under_every_spelling() {
    let home = Home::new("sources: { app: { type: event } }\n");
    for name in ["DATABASE_URL", "TIDEHOOK_DATABASE_URL", "QHOOK_DATABASE_URL"] {
        let file = home.dir.path().join(format!("{name}.db"));
        let mut command = Command::new(binary());
        command
            .arg("migrate")
            .arg("--config")
            .arg(home.path())
            .env_remove("DATABASE_URL")
            .env(name, format!("sqlite:{}", file.display()));
        let output = command.output().unwrap();
        assert!(output.status.success() && file.exists(), "{name}: {output:?}");
    }
}

#[test]
fn a_log_of_json_is_json_in_its_worst_moments_too() {
    let bad = "sources: { a: { typ: event } }\nserver: { prot: 1 }\n";
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let busy = format!(
        "server: {{ port: {port}, bind: 127.0.0.1 }}\ndatabase: {{ url: \"sqlite:{{dir}}/t.db\" \
         }}\nsources: {{}}\n"
    );
    for (text, code, word) in [(bad, 2, "unknown_key"), (busy.as_str(), 1, "cannot")] {
        let home = Home::new(text);
        let mut command = Command::new(binary());
        command
            .arg("start")
            .arg("--config")
            .arg(home.path())
            .env("TIDEHOOK_LOG_FORMAT", "json")
            .env_remove("DATABASE_URL");
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        let lines: Vec<serde_json::Value> =
            said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let is_told =
            |line: &serde_json::Value| line["level"] == "ERROR" && line.to_string().contains(word);
        assert!(lines.iter().any(is_told), "{said}");
    }
}

#[test]
fn a_wrong_argument_ends_with_2() {
    let home =
        Home::new("database: { url: \"sqlite:{dir}/t.db\" }\nsources: { app: { type: event } }\n");
    assert_eq!(run(&home, &["migrate"]).0, Some(0));
    for arguments in [
        &["jobs", "list", "--status", "deed"][..],
        &["events", "list", "--since", "yesterday"],
        &["send", "nobody", "x", "{}", "--dry-run"],
        &["graph", "nothing"],
        &["jobs", "list", "--nonsense"],
    ] {
        let (code, said) = run(&home, arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_is_counted_told_and_shown_with_its_code() {
    let text = "server: { allow_private_urls: true }\ndelivery: { event_ttl: 1s }\nsources: \
        { app: { type: event } }\nhandlers: { lapses: { source: app, url: \"http://{receiver}/ok\" \
        } }\n";
    let world = World::container(text).await;
    world.post("/api/lanes/handler:lapses/pause", &[], "").await;
    let event = world.post("/events/app/x", JSON, "{}").await.event();
    let jobs = world.until_jobs(&event, "dead").await;
    assert_eq!(
        (&jobs[0]["code"], &jobs[0]["last_error"]),
        (&json!("expired"), &json!("event TTL expired")),
        "{}",
        jobs[0]
    );
    let metrics = world.get("/metrics").await.text;
    assert!(metrics.contains("tidehook_dlq_total{handler=\"lapses\"} 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_has_an_id_of_its_own() {
    let handlers: String = (0..4).map(|n| format!("  h{n}: {{ source: app, url: \"http://{{receiver}}/seq/500,500,200\", retry: {{ max: 3, interval: 10ms, jitter: 0 }} }}\n")).collect();
    let world = World::start(&format!(
        "server: {{ allow_private_urls: true }}\nsources: {{ app: {{ type: event }} \
         }}\nhandlers:\n{handlers}"
    ))
    .await;
    let event = world.post("/events/app/x", JSON, "{}").await.event();
    world.until_jobs(&event, "completed").await;
    let mut ids: Vec<String> = world
        .receiver
        .got()
        .iter()
        .map(|got| got.header("x-tidehook-attempt-id").unwrap().to_owned())
        .chain([event])
        .collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), all), (13, 13));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lane_of_a_step_is_paused_by_its_name_with_its_slash() {
    let text = "server: { allow_private_urls: true }\nsources: { app: { type: event } \
        }\nworkflows: { w: { source: app, steps: [{ name: s, url: \"http://{receiver}/ok\" }] } \
        }\n";
    let world = World::start(text).await;
    for path in ["/api/lanes/step:w/s", "/api/lanes/step%3Aw%2Fs"] {
        assert_eq!(
            world.post(&format!("{path}/pause"), &[], "").await.json()["paused"],
            true,
            "{path}"
        );
        let lanes = world.get("/api/lanes").await.json();
        assert!(
            lanes["lanes"]
                .as_array()
                .unwrap()
                .iter()
                .any(|lane| lane["id"] == "step:w/s" && lane["state"] == "paused"),
            "{lanes}"
        );
        assert_eq!(
            world.post(&format!("{path}/resume"), &[], "").await.json()["paused"],
            false,
            "{path}"
        );
    }
    assert_eq!(world.post("/api/lanes/step:w/s/stop", &[], "").await.status, 404);
    assert_eq!(world.post("/api/lanes/step:w/none/pause", &[], "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_beyond_every_id_is_refused() {
    let world = World::start("sources: { app: { type: event } }\n").await;
    for list in ["events", "jobs", "runs"] {
        for cursor in ["80000000000000000000000000", "ZZZZZZZZZZZZZZZZZZZZZZZZZZ", "x"] {
            assert_eq!(
                world.get(&format!("/api/{list}?after={cursor}")).await.status,
                422,
                "{list} {cursor}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_called_off_delivery_is_cancelled_and_not_dead() {
    let text = "server: { allow_private_urls: true }\nsources: { app: { type: event } }\nhandlers: \
        { h: { source: app, url: \"http://{receiver}/ok\" } }\n";
    let world = World::start(text).await;
    world.post("/api/lanes/handler:h/pause", &[], "").await;
    let event = world.post("/events/app/x", JSON, "{}").await.event();
    let job = world.until_jobs(&event, "available").await[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(world.post(&format!("/api/jobs/{job}/cancel"), &[], "").await.status, 200);
    let jobs = world.until_jobs(&event, "cancelled").await;
    assert_eq!(jobs[0]["code"], "cancelled");
    assert!(world.get("/api/jobs?status=dead").await.json()["jobs"].as_array().unwrap().is_empty());
    assert_eq!(
        world.get("/api/jobs?status=cancelled").await.json()["jobs"].as_array().unwrap().len(),
        1
    );
    assert_eq!(world.post("/api/jobs/retry?status=dead", &[], "").await.json()["retried"], 0);
    assert_eq!(
        world.post(&format!("/api/jobs/{job}/retry"), &[], "").await.status,
        200,
        "by its id it is taken up again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_that_hang_stop_none_that_answer_whatever_else_the_file_names() {
    let hanging: String = (0..4)
        .map(|n| format!("  bad{n}: {{ source: app, events: [bad], url: \"http://{{receiver}}/held/{n}\", timeout: 60 }}\n"))
        .collect();
    let text = format!(
        "server: {{ allow_private_urls: true }}\nworker: {{ max_concurrency: 10 }}\nsources: \
         {{ app: {{ type: event }}, other: {{ type: event }} }}\nhandlers:\n{hanging}  good: \
         {{ source: app, events: [good], url: \"http://{{receiver}}/ok\" }}\n  o: \
         {{ source: other, url: \"http://{{receiver}}/other\" }}\n"
    );
    let world = World::container(&text).await;
    for _ in 0..40 {
        world.post("/events/app/bad", JSON, "{}").await;
    }
    let good = || world.receiver.got().iter().filter(|got| got.path == "/ok").count();
    for n in 1..=20 {
        world.post("/events/app/good", JSON, "{}").await;
        let waiting = async {
            while good() < n {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE / 4, waiting)
            .await
            .unwrap_or_else(|_| panic!("{n} good deliveries while others hang"));
    }
}

#[test]
fn strict_makes_an_open_door_an_error() {
    let open = "api: API\nserver: { bind: BIND }\nsources: { app: { type: event } }\n";
    for (api, bind, code) in [
        ("{}", "0.0.0.0", 2),
        ("{}", "127.0.0.1", 0),
        ("{ auth_token: plainly-fictional }", "0.0.0.0", 0),
        ("{ open: true }", "0.0.0.0", 2),
    ] {
        let home = Home::new(&open.replace("API", api).replace("BIND", bind));
        assert_eq!(run(&home, &["validate", "--strict"]).0, Some(code), "{api} {bind}");
        let (calm, said) = run(&home, &["validate"]);
        assert_eq!((calm, said.contains("open_api")), (Some(0), code == 2), "{api} {bind}: {said}");
    }
    let signed = "sources: { s: { type: webhook, verify: github, secret: plainly-fictional } }\n";
    assert_eq!(
        run(&Home::new(signed), &["validate", "--strict"]).0,
        Some(0),
        "no route of its is open"
    );
}

#[test]
fn whatever_prints_json_prints_it_when_it_fails_too() {
    let good = "sources: { app: { type: event } }\nworkflows: { w: { source: app, steps: \
        [{ name: a, type: set, body: 1 }, { name: b, type: wait, seconds: 1 }] } }\n";
    let json = |text: &str, arguments: &[&str]| {
        let home = Home::new(&format!("database: {{ url: \"sqlite:{{dir}}/t.db\" }}\n{text}"));
        let mut command = Command::new(binary());
        let output = command
            .args(arguments)
            .arg("--json")
            .arg("--config")
            .arg(home.path())
            .env_remove("DATABASE_URL")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let value: serde_json::Value = serde_json::from_str(&said)
            .unwrap_or_else(|why| panic!("{arguments:?}: {why}: {said}"));
        (output.status.code(), value)
    };
    let (code, graph) = json(good, &["graph", "w"]);
    assert_eq!(
        (code, &graph["steps"][1]["name"], &graph["edges"][0]["to"]),
        (Some(0), &json!("b"), &json!("b")),
        "{graph}"
    );
    for (text, arguments, code, word) in [
        (good, &["jobs", "list"][..], 1, "failed"),
        (good, &["graph", "nothing"], 2, "argument"),
        (good, &["send", "nobody", "x", "{}"], 2, "argument"),
        (good, &["inspect", "evt"], 1, "failed"),
        ("sources: { app: { typ: event } }\n", &["lanes", "list"], 2, "configuration"),
    ] {
        let (ended, answer) = json(text, arguments);
        assert_eq!(
            (ended, answer["error"]["code"].as_str()),
            (Some(code), Some(word)),
            "{arguments:?}: {answer}"
        );
        assert!(
            answer["error"]["message"].as_str().is_some_and(|message| !message.is_empty()),
            "{answer}"
        );
    }
    let (_, answer) = json("sources: { app: { typ: event } }\n", &["lanes", "list"]);
    assert_eq!(answer["error"]["problems"][1]["code"], "unknown_key", "{answer}");
    let (_, answer) = json("sources: { app: { typ: event } }\n", &["validate"]);
    assert!(
        answer["valid"] == false && answer.get("error").is_none(),
        "a report is the data: {answer}"
    );
}

#[test]
fn send_says_what_it_needs_and_what_will_come_in() {
    let text = "sources:\n  s: { type: webhook, verify: stripe, secret: plainly-fictional }\n  w: \
        { type: webhook, verify: standard-webhooks, secret: \" v1,whsec_cGxhaW5seS1maWN0aW9uYWwtc2VjcmV0 \" }\n  t: { type: webhook, verify: twilio, secret: plainly-fictional }\n";
    let home = Home::new(text);
    let (_, said) = run(&home, &["send", "--help"]);
    assert!(said.contains("tidehook send [OPTIONS] SOURCE [TYPE] [PAYLOAD]"), "{said}");
    for (arguments, note) in [
        (&["send", "s", "invoice.paid", "--dry-run"][..], None),
        (
            &["send", "s", "invoice.paid", "{\"id\":1}", "--dry-run"],
            Some("it is `unknown`, not `invoice.paid`"),
        ),
        (
            &["send", "s", "invoice.paid", "{\"type\":\"a\"}", "--dry-run"],
            Some("it is `a`, not `invoice.paid`"),
        ),
        (&["send", "s", "--dry-run"], None),
        (&["send", "w", "a.b", "--dry-run"], None),
        (&["send", "t", "no.such", "--dry-run"], Some("not `no.such`")),
    ] {
        let (code, said) = run(&home, arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        match note {
            Some(note) => assert!(said.contains(note), "{arguments:?}: {said}"),
            None => assert!(!said.contains("note:"), "{arguments:?}: {said}"),
        }
    }
}
