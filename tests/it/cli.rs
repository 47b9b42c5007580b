//! The command line as scripts and people use it: exit codes, standard output, standard error.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::endpoint::Endpoint;
use crate::support::process::{Home, binary};

fn run_in(dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(dir).env_remove("DATABASE_URL").env_remove("RUST_LOG");
    command.envs(variables.iter().copied());
    command.output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn every_template_is_a_file_that_loads() {
    let names =
        std::iter::once("event").chain(tidehook::ingress::PROVIDERS.iter().map(|p| p.name()));
    for name in names {
        let dir = tempfile::tempdir().unwrap();
        let made = run_in(dir.path(), &["init", "-t", name], &[]);
        assert!(made.status.success(), "{name}: {}", err(&made));
        let variable = format!("{}_WEBHOOK_SECRET", name.to_uppercase().replace('-', "_"));
        let secret = if name == "discord" { "00".repeat(32) } else { "plainly-fictional".into() };
        let checked = run_in(
            dir.path(),
            &["validate", "--env", "local", "--strict"],
            &[(&variable, &secret)],
        );
        assert!(checked.status.success(), "{name}: {}{}", out(&checked), err(&checked));
        let schema = std::fs::read_to_string(dir.path().join("tidehook.schema.json")).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&schema).is_ok());
        let text = std::fs::read_to_string(dir.path().join("tidehook.yaml")).unwrap();
        assert!(
            text.starts_with("# yaml-language-server: $schema=tidehook.schema.json\n"),
            "{text}"
        );
        let again = run_in(dir.path(), &["init", "-t", name], &[]);
        assert_eq!(again.status.code(), Some(1), "{name} is not overwritten");
    }
    let dir = tempfile::tempdir().unwrap();
    let wrong = run_in(dir.path(), &["init", "-t", "gihub"], &[]);
    assert!(err(&wrong).contains("did you mean `github`?"), "{}", err(&wrong));
}

#[test]
fn exit_codes_tell_scripts_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(dir.path().join("tidehook.yaml"), text).unwrap();
    let code = |arguments: &[&str]| run_in(dir.path(), arguments, &[]).status.code();
    assert_eq!(code(&["validate"]), Some(2), "no file");
    write("sources: { a: { typ: event } }\n");
    assert_eq!(code(&["validate"]), Some(2), "a mistake");
    assert_eq!(code(&["start"]), Some(2));
    assert_eq!(code(&["nonsense"]), Some(2));
    write("sources: { a: { type: webhook } }\n");
    assert_eq!(code(&["check"]), Some(0), "a warning");
    assert_eq!(code(&["check", "--strict"]), Some(2));
    assert_eq!(code(&["events", "list"]), Some(1), "no database yet");
    assert_eq!(code(&["--version"]), Some(0));
    assert_eq!(code(&["send", "--version"]), Some(0));
    assert_eq!(code(&["completions", "bash"]), Some(0));
}

#[test]
fn a_file_is_checked_as_data_too() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("qhook.yaml"), "sources: { a: { typ: event } }\nqueues: {}\n")
        .unwrap();
    let checked = run_in(dir.path(), &["validate", "--json"], &[]);
    let report: Value = serde_json::from_str(&out(&checked)).unwrap();
    assert_eq!(
        (report["valid"].as_bool(), report["file"].as_str()),
        (Some(false), Some("qhook.yaml"))
    );
    let problem = &report["problems"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["code"] == "unknown_key")
        .unwrap();
    assert_eq!(problem["place"], "qhook.yaml:1:17");
    assert_eq!(problem["help"], "did you mean `type`?");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verbs_work_with_a_running_server_and_without() {
    let receiver = Endpoint::start().await;
    let text = format!(
        "database: {{ url: \"sqlite:{{dir}}/x.db\" }}
server: {{ bind: 127.0.0.1, port: {{port}}, allow_private_urls: true }}
api: {{ auth_token: plainly-fictional }}
sources:
  app: {{ type: event }}
  github: {{ type: webhook, verify: github, secret: fictional }}
  walled: {{ type: webhook, verify: hmac, secret: x, allowed_ips: [192.0.2.1] }}
handlers:
  ok: {{ source: app, url: \"{}\", filter: $.id > 1 }}
  bad: {{ source: github, url: \"{}\", retry: {{ max: 1 }} }}
",
        receiver.url("/ok"),
        receiver.url("/status/500")
    );
    let home = Home::new(&text);
    let run = |arguments: &[&str]| run_in(home.dir.path(), arguments, &[]);
    let dry = run(&["send", "app", "order.paid", "{\"id\":1}", "--dry-run"]);
    assert!(
        out(&dry).contains("no match  ok: `$.id > 1` is not true: the value is 1"),
        "{}",
        out(&dry)
    );
    assert!(out(&dry).contains("No jobs created (dry-run)."));
    let nobody = run(&["send", "app", "order.paid"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(err(&nobody).contains("is the server running?"), "{}", err(&nobody));

    let server = home.start().await;
    let sent = run(&["send", "app", "order.paid", "{\"id\":2}", "--json"]);
    let answer: Value = serde_json::from_str(&out(&sent)).unwrap();
    assert_eq!(
        (answer["status"].as_u64(), answer["body"]["jobs_created"].as_u64()),
        (Some(202), Some(1))
    );
    let event = answer["body"]["event_id"].as_str().unwrap().to_owned();
    let signed = run(&["send", "-s", "github", "-t", "push"]);
    assert!(
        out(&signed).contains("Status: 200 OK") && out(&signed).contains("Jobs created: 1"),
        "{}{}",
        out(&signed),
        err(&signed)
    );
    let refused = run(&["send", "walled", "x"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(out(&refused).contains("IP not allowed"), "{}", out(&refused));
    receiver.until_count(2).await;
    let dead = async {
        while !out(&run(&["jobs", "list", "--status", "dead"])).contains("HTTP 500") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::support::endpoint::PATIENCE, dead).await.unwrap();
    let seen = out(&run(&["inspect", &event]));
    for part in [
        event.as_str(),
        "order.paid",
        "{\"id\":2}",
        "handler ok",
        "completed",
        "delivered  HTTP 200",
    ] {
        assert!(seen.contains(part), "{part} is missing in {seen}");
    }
    assert!(out(&run(&["jobs", "retry"])).contains("1 dead job(s) queued for retry."));
    receiver.until_count(3).await;
    assert!(out(&run(&["lanes", "pause", "ok"])).is_empty());
    assert!(out(&run(&["lanes", "list"])).contains("paused"));
    assert!(out(&run(&["rejections"])).contains("address_not_allowed"));
    let why = out(&run(&["explain", "app", "order.paid", "{\"id\":1}"]));
    assert!(why.contains("no match  ok: `$.id > 1` is not true: the value is 1"), "{why}");
    assert!(out(&run(&["explain", &event])).contains("matches   ok"));
    let doctor = run(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(1), "{}", out(&doctor));
    let report = out(&doctor);
    for part in [
        "note   server.allow_private_urls",
        "ok     database: in use by a running server",
        "ok     receiver 127.0.0.1",
    ] {
        assert!(report.contains(part), "{part} is missing in\n{report}");
    }
    // Another server is asked by its URL; the configuration's own database is left alone.
    let remote = run(&["doctor", "--remote", "http://127.0.0.1:9", "--json"]);
    assert!(out(&remote).contains("server http://127.0.0.1:9"), "{}", out(&remote));
    assert!(!out(&remote).contains("database"), "{}", out(&remote));
    let unknown = run(&["tail", "--handler", "nobody"]);
    assert!(err(&unknown).contains("unknown handler; valid values: ok"), "{}", err(&unknown));
    assert_eq!(run(&["tail", "--count", "0"]).status.code(), Some(2));
    assert_eq!(run(&["tail", "--status", "done"]).status.code(), Some(2));
    let tail = std::thread::spawn({
        let dir = home.dir.path().to_owned();
        move || run_in(&dir, &["tail", "--count", "1", "--source", "github", "--json"], &[])
    });
    // Until the tail listens, what happens goes by unseen.
    while !tail.is_finished() {
        run(&["send", "github", "push"]);
    }
    let line: Value = serde_json::from_str(&out(&tail.join().unwrap())).unwrap();
    assert!(
        ["accepted", "tried"].map(Some).contains(&line["moment"].as_str())
            && line["source"] == "github",
        "{line}"
    );
    let remote = run(&["events", "list", "--remote", &home.url(""), "--token", "wrong"]);
    assert!(err(&remote).contains("Invalid token"), "{}", err(&remote));
    server.stop().await;

    // The same verbs over the database itself.
    let events: Value = serde_json::from_str(&out(&run(&["events", "list", "--json"]))).unwrap();
    assert!(events["events"].as_array().unwrap().len() > 2);
    assert!(out(&run(&["lanes", "list"])).contains("paused"));
    assert!(run(&["lanes", "resume", "ok"]).status.success());
    assert!(run(&["migrate"]).status.success());
    let missing = run(&["inspect", "01AAAAAAAAAAAAAAAAAAAAAAAA"]);
    assert_eq!((missing.status.code(), err(&missing).contains("event not found")), (Some(1), true));
}

#[test]
fn dev_shows_one_event_on_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let shown = run_in(dir.path(), &["dev", "--once", "--port", "0"], &[]);
    let text = out(&shown);
    assert!(shown.status.success(), "{text}{}", err(&shown));
    let steps = [
        "sent",
        "verified",
        "accepted",
        "routed",
        "attempt 1",
        "HTTP 503",
        "retry in 1s",
        "attempt 2",
        "HTTP 200",
        "delivered",
    ];
    let mut from = 0;
    for step in steps {
        let at = text[from..]
            .find(step)
            .unwrap_or_else(|| panic!("`{step}` is missing after {from} in\n{text}"));
        from += at;
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing behind");
}

#[test]
fn the_readme_runs() {
    let readme =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let blocks = readme
        .split("<!-- run -->\n```console\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    let lines: Vec<&str> =
        blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("$ ")).collect();
    assert!(lines.len() >= 8, "the README has commands");
    let dir = tempfile::tempdir().unwrap();
    let mut variables: Vec<(String, String)> = Vec::new();
    for line in lines {
        if let Some(set) = line.strip_prefix("export ") {
            let (name, value) = set.split_once('=').unwrap();
            variables.push((name.into(), value.into()));
            continue;
        }
        let words: Vec<&str> = line
            .strip_prefix("tidehook ")
            .unwrap_or_else(|| panic!("`{line}` is not tidehook's"))
            .split(' ')
            .collect();
        let set: Vec<(&str, &str)> =
            variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let ran = run_in(dir.path(), &words, &set);
        assert!(
            ran.status.success(),
            "`{line}` ended with {}: {}{}",
            ran.status,
            out(&ran),
            err(&ran)
        );
    }
    // The two commands that do all set-up are there as CI runs them.
    assert!(readme.contains("cargo run --release -- dev") && readme.contains("scripts/test.sh"));
    // Each YAML block loads.
    for (n, block) in
        readme.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).enumerate()
    {
        std::fs::write(dir.path().join("block.yaml"), block).unwrap();
        let checked = run_in(
            dir.path(),
            &["validate", "-c", "block.yaml"],
            &[("STRIPE_WEBHOOK_SECRET", "fictional")],
        );
        assert!(checked.status.success(), "block {n}: {}", err(&checked));
    }
}

#[test]
fn every_example_scenario_plays_and_a_wrong_one_says_what_came_instead() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<String> = std::fs::read_dir(root.join("examples/scenarios"))
        .unwrap()
        .map(|file| file.unwrap().path().display().to_string())
        .filter(|file| file.ends_with(".yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 2);
    let arguments: Vec<&str> =
        std::iter::once("test").chain(files.iter().map(String::as_str)).collect();
    let dir = tempfile::tempdir().unwrap();
    let played = run_in(dir.path(), &arguments, &[]);
    assert!(played.status.success(), "{}{}", out(&played), err(&played));
    let config = root.join("examples/order-workflow.yaml").display().to_string();
    let wrong = format!(
        "name: wrong\nconfig: {config}\nsteps:\n  - send: \
         {{ source: shop, type: order.placed, body: {{ id: 1, amount: 2, items: [] }} }}\n  - \
         expect: {{ at: refund }}\n"
    );
    std::fs::write(dir.path().join("wrong.yaml"), wrong).unwrap();
    let failed = run_in(dir.path(), &["test", "wrong.yaml"], &[]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        out(&failed)
            .contains("step 2: no matching call to `refund`; waiting calls: order/charge with"),
        "{}",
        out(&failed)
    );
}

#[test]
fn a_workflow_is_drawn_and_a_wrong_name_is_helped() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = root.join("examples/order-workflow.yaml").display().to_string();
    let dir = tempfile::tempdir().unwrap();
    let drawn = run_in(dir.path(), &["graph", "order", "--config", &config], &[]);
    assert!(out(&drawn).contains("╰┄ on all → refund"), "{}{}", out(&drawn), err(&drawn));
    let chart = run_in(dir.path(), &["graph", "order", "--mermaid", "--config", &config], &[]);
    assert!(out(&chart).starts_with("flowchart TD\n"), "{}", out(&chart));
    let wrong = run_in(dir.path(), &["graph", "ordr", "--config", &config], &[]);
    assert!(err(&wrong).contains("did you mean `order`?"), "{}", err(&wrong));
}

#[test]
fn a_step_is_tried_out_against_a_made_up_answer() {
    let dir = tempfile::tempdir().unwrap();
    let example =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/trip-rollback.yaml");
    let config = example.display().to_string();
    let payload = dir.path().join("payload.json");
    std::fs::write(&payload, r#"{"trip": 7, "hotel": {"id": "h-1"}}"#).unwrap();
    let answer = dir.path().join("answer.json");
    std::fs::write(&answer, r#"{"id": "p-1"}"#).unwrap();
    let (payload, answer) = (payload.display().to_string(), answer.display().to_string());
    let run = |more: &[&str]| {
        let args = [
            &["test-step", "book-trip", "charge", "--config", &config, "--payload", &payload],
            more,
        ]
        .concat();
        run_in(dir.path(), &args, &[])
    };
    let shown = out(&run(&["--answer", &answer]));
    for part in [
        "sends   POST https://billing.example.com/charge",
        r#"{"trip":7,"hotel":"h-1"}"#,
        "step    completed",
        r#"next    book-trip/tell with {"trip":7,"hotel":{"id":"h-1"},"payment":{"id":"p-1"}}"#,
    ] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    let failed: Value = serde_json::from_str(&out(&run(&["--times-out", "--json"]))).unwrap();
    assert_eq!(
        (&failed["step"], &failed["failed"]["class"]),
        (&Value::from("failed"), &Value::from("timeout"))
    );
    let unknown =
        run_in(dir.path(), &["test-step", "book-trip", "chrge", "--config", &config], &[]);
    assert!(err(&unknown).contains("the workflow has no step `chrge`"), "{}", err(&unknown));
}

#[test]
fn a_scenario_ends_whatever_it_leaves_unanswered() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "w.yaml",
        "sources: { app: { type: event } }\nworkflows:\n  w: \
         { source: app, events: [go], steps: [{ name: a, url: \"https://x.example.com/a\", retry: \
             { max: 2, interval: 10s, jitter: none } }] }\n",
    );
    // Nobody answers: the call times out, is tried again, and times out again.
    write(
        "unanswered.yaml",
        "name: unanswered\nconfig: w.yaml\nsteps:\n  - send: { source: app, type: go, body: {} \
         }\n  - advance: 45s\n  - expect: { at: a, attempt: 2 }\n    answer: \
         { timeout: true }\n  - run: { workflow: w, is: failed, error: timeout }\n",
    );
    let played = run_in(dir.path(), &["test", "unanswered.yaml"], &[]);
    assert!(played.status.success(), "{}{}", out(&played), err(&played));
    write(
        "nowhere.yaml",
        "name: nowhere\nconfig: w.yaml\nsteps:\n  - send: { source: nope, type: go, body: {} }\n",
    );
    let failed = run_in(dir.path(), &["test", "nowhere.yaml"], &[]);
    assert!(
        out(&failed).contains("step 1: the configuration has no source `nope`"),
        "{}",
        out(&failed)
    );
    let start =
        "config: w.yaml\nsteps:\n  - send: { source: app, type: go, body: { n: { m: 7 } } }\n";
    for (more, why) in [
        ("  - expect: { at: aa }\n", "no handler and no step named `aa`; did you mean `a`?"),
        ("  - run: { workflow: w, is: complete }\n", "`is: complete` is not a run status"),
        (
            "  - expect: { at: a, body: { n: { m: 8 } } }\n",
            "the call to `a` is not as expected: its body has 7 at `$.n.m`",
        ),
        (
            "  - expect: { at: a, attempt: 2 }\n",
            "the call to `a` is not as expected: it is attempt 1",
        ),
    ] {
        write("wrong.yaml", &format!("name: wrong\n{start}{more}"));
        let failed = run_in(dir.path(), &["test", "wrong.yaml"], &[]);
        assert!(!failed.status.success() && out(&failed).contains(why), "{}", out(&failed));
    }
}
