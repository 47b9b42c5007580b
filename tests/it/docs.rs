//! What the documentation lists is what the program has, and everything it names is provoked by a
//! test.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tidehook::observe::metrics::METRICS;

use crate::support::endpoint::PATIENCE;
use crate::support::process::{Home, binary};
use crate::support::world::World;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// The texts of all files below a folder that end so.
fn texts(folder: &str, endings: &[&str]) -> String {
    let (mut open, mut all) = (vec![root().join(folder)], String::new());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
            all.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    all
}

/// What stands in `backticks` and is a word of a closed list.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_word = |word: &&str| {
        !word.is_empty()
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    text.split('`').skip(1).step_by(2).filter(is_word)
}

fn holds_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part)
    })
}

/// Every code of docs/errors.md: the codes of its tables, and those that its sentences list.
fn codes() -> BTreeSet<String> {
    let page = page("docs/errors.md");
    let mut codes = BTreeSet::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').collect();
        let listed = match cells.as_slice() {
            // By status, the codes stand in the second column.
            [_, status, of_status, ..]
                if status.trim().starts_with(|c: char| c.is_ascii_digit()) =>
            {
                of_status
            }
            [_, first, _, ..] => first,
            _ if line.contains("these reasons:") => line,
            _ => continue,
        };
        codes.extend(words(listed).map(str::to_owned));
    }
    let warnings =
        page.split("\n\n").find(|paragraph| paragraph.starts_with("Warnings, which")).unwrap();
    codes.extend(words(warnings).map(str::to_owned));
    // Keys and parts of answers that the sentences speak of.
    let others = ["details", "verify", "allowed_ips", "events"];
    codes.retain(|code| !code.starts_with("tidehook_") && !others.contains(&code.as_str()));
    codes
}

#[test]
fn every_code_and_metric_that_is_documented_exists_and_is_provoked_by_a_test() {
    let (sources, tests) = (texts("src", &[".rs"]), texts("tests", &[".rs", ".snap"]));
    let codes = codes();
    assert!(codes.len() > 120, "{codes:?}");
    let absent = |text: &str| {
        codes.iter().filter(|code| !holds_word(text, code)).cloned().collect::<Vec<_>>()
    };
    assert_eq!(
        absent(&sources),
        Vec::<String>::new(),
        "docs/errors.md names what the program does not have"
    );
    assert_eq!(absent(&tests), Vec::<String>::new(), "no test provokes");
    let documented = page("docs/metrics.md");
    let listed: BTreeSet<&str> = documented
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| words(line).next())
        .collect();
    let known: BTreeSet<&str> = METRICS.iter().map(|(name, _, _)| *name).collect();
    assert_eq!(listed, known, "docs/metrics.md and the program's own list");
    let untested: Vec<&&str> = METRICS
        .iter()
        .filter(|(name, kind, _)| {
            // A histogram is seen by its parts, too.
            let parts: &[&str] =
                if *kind == 'h' { &["", "_bucket", "_sum", "_count"] } else { &[""] };
            !parts.iter().any(|part| holds_word(&tests, &format!("tidehook_{name}{part}")))
        })
        .map(|(name, _, _)| name)
        .collect();
    assert!(untested.is_empty(), "no test provokes {untested:?}");
}

/// A route without the names of its parameters.
fn shape(route: &str) -> String {
    let path = route.split(['?', ' ', '#']).next().unwrap().trim_end_matches(['.', ',', ';', ':']);
    let part = |part: &str| {
        if part.starts_with('{') || part.chars().all(|c| c.is_ascii_uppercase()) && !part.is_empty()
        {
            "{}"
        } else {
            part
        }
        .to_owned()
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[test]
fn every_route_is_documented_and_every_documented_route_exists() {
    let router = page("src/http/router.rs");
    let of_router: BTreeSet<String> = router
        .split(".route(\"")
        .skip(1)
        .map(|rest| shape(rest.split('"').next().unwrap()))
        .collect();
    assert!(of_router.len() > 35);
    let pages: String = [
        "docs/api.md",
        "docs/callbacks.md",
        "docs/metrics.md",
        "docs/operations.md",
        "docs/alerts.md",
        "docs/queues.md",
    ]
    .iter()
    .map(|name| page(name))
    .collect();
    let spans = || pages.split('`').skip(1).step_by(2);
    let routes = || {
        spans().flat_map(|span| {
            span.split([' ', ','])
                .filter(|word| word.starts_with('/'))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
    };
    // Short forms of a table's row: `POST /api/runs/{id}/cancel`, `/kill`.
    let documented: BTreeSet<String> = routes().map(|route| shape(&route)).collect();
    let runs = ["kill", "pause", "resume"].map(|verb| format!("/api/runs/{{}}/{verb}"));
    let steps = ["/api/runs/{}/steps/{}/reject".to_owned()];
    let is_documented = |route: &String| {
        let lane = route.replace("/api/lanes/{}", "/api/lanes/{}/pause");
        documented.contains(route)
            || documented.contains(&lane)
            || runs.contains(route) && documented.contains("/kill")
            || steps.contains(route) && documented.contains("/reject")
            || route.starts_with("/api/workflow-runs") && documented.contains("/api/workflow-runs")
    };
    let missing: Vec<&String> = of_router.iter().filter(|route| !is_documented(route)).collect();
    assert!(missing.is_empty(), "the docs lack {missing:?}; they have {documented:?}");
    let roots = [
        "/api/",
        "/events",
        "/webhooks",
        "/callback",
        "/approve",
        "/livez",
        "/healthz",
        "/readyz",
        "/health",
        "/metrics",
        "/_echo",
    ];
    let exists = |route: &String| {
        of_router.contains(route)
            || ["/api/lanes/{}/pause", "/api/lanes/{}/resume"].contains(&route.as_str())
            || ["/events", "/api", "/webhooks"].contains(&route.as_str())
    };
    let invented: Vec<&String> = documented
        .iter()
        .filter(|route| roots.iter().any(|root| route.starts_with(root)) && !exists(route))
        .collect();
    assert!(invented.is_empty(), "the docs name {invented:?}");
}

/// The verbs and flags of the program, from its own help.
fn help(verb: &[&str]) -> String {
    let output = Command::new(binary()).args(verb).arg("--help").output().unwrap();
    assert!(output.status.success(), "{verb:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn verbs_in(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or("").split("\n\n").next().unwrap_or("");
    list.lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned))
        .filter(|verb| !verb.is_empty() && verb != "help")
        .collect()
}

#[test]
fn every_command_line_in_the_docs_has_the_verbs_and_flags_that_the_program_has() {
    let pages = [
        "README.md",
        "docs/api.md",
        "docs/callbacks.md",
        "docs/operations.md",
        "docs/rollback.md",
        "docs/serverless.md",
        "docs/workflows.md",
        "docs/expressions.md",
        "docs/metrics.md",
        "docs/errors.md",
        "docs/providers.md",
        "docs/queues.md",
        "docs/schedules.md",
        "docs/alerts.md",
    ];
    let top = verbs_in(&help(&[]));
    assert!(top.len() > 20, "{top:?}");
    let mut seen = 0;
    for name in pages {
        let text = page(name);
        let spans = text
            .split('`')
            .skip(1)
            .step_by(2)
            .chain(text.lines().filter_map(|line| line.strip_prefix("$ ")));
        for span in spans.filter_map(|span| span.strip_prefix("tidehook ")) {
            let words: Vec<&str> = span.split('#').next().unwrap().split_whitespace().collect();
            let Some(verb) = words.iter().find(|word| !word.starts_with('-')) else { continue };
            if !verb.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
                continue;
            }
            assert!(
                top.contains(&(*verb).to_owned()),
                "{name}: `tidehook {span}`: no verb `{verb}` in {top:?}"
            );
            let below = verbs_in(&help(&[verb]));
            let second = words
                .iter()
                .skip_while(|word| word != &verb)
                .nth(1)
                .filter(|word| below.contains(&(**word).to_owned()));
            let known = match second {
                Some(second) => help(&[verb, second]),
                None => help(&[verb]),
            };
            for flag in words.iter().filter(|word| word.starts_with('-')) {
                let flag = flag.split('=').next().unwrap();
                assert!(known.contains(flag), "{name}: `tidehook {span}`: no flag `{flag}`");
            }
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen} command lines were looked at");
    let all: String = pages.iter().map(|name| page(name)).collect();
    let unannounced: Vec<&String> = top
        .iter()
        .filter(|verb| {
            !all.contains(&format!("tidehook {verb}")) && !all.contains(&format!("`{verb}`"))
        })
        .collect();
    assert!(unannounced.is_empty(), "no page speaks of {unannounced:?}");
}

#[test]
fn the_defaults_of_the_reference_are_those_of_an_empty_file() {
    let config = crate::support::world::config(
        "sources: { app: { type: event } }\nhandlers: { h: \
         { source: app, url: \"https://a.example.com/\" } }\n",
    );
    let (handler, worker, delivery, server) =
        (&config.handlers[0], &config.worker, &config.delivery, &config.server);
    let retry = &handler.retry[0];
    let seconds = |time: std::time::Duration| format!("{}s", time.as_secs());
    let hours = |time: std::time::Duration| format!("{}h", time.as_secs() / 3600);
    let reference = page("docs/configuration.md");
    for (key, value) in [
        ("server.port", server.port.to_string()),
        ("server.max_body_size", server.body_bytes_max.to_string()),
        ("server.max_inbound", server.inbound_max.to_string()),
        ("server.bind", server.bind.to_string()),
        ("database.max_connections", config.database.max_connections.to_string()),
        ("delivery.default_retry.max", retry.max.to_string()),
        ("delivery.default_retry.interval", seconds(retry.interval)),
        ("delivery.default_retry.max_delay", hours(retry.max_delay)),
        ("delivery.timeout", seconds(delivery.timeout)),
        ("worker.max_concurrency", worker.concurrency.to_string()),
        ("worker.batch_size", worker.batch.to_string()),
        ("worker.drain_timeout_secs", worker.drain.as_secs().to_string()),
        ("worker.retention_hours", (worker.retention.shortest().as_secs() / 3600).to_string()),
        ("handlers.<name>.breaker.failures", handler.breaker.failures.to_string()),
        ("handlers.<name>.breaker.open_for", format!("{}s", handler.breaker.open_for_ms / 1000)),
        ("handlers.<name>.breaker.probes", handler.breaker.probes.to_string()),
    ] {
        let (section, name) = key.rsplit_once('.').unwrap();
        let heading = format!("# `{section}`");
        let table = reference
            .split_once(&heading)
            .unwrap_or_else(|| panic!("docs/configuration.md lacks {section}"))
            .1;
        let table = table.split("\n#").next().unwrap();
        let line = table
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` ")))
            .unwrap_or_else(|| panic!("{key}: {table}"));
        assert!(line.contains(&format!("({value})")), "{key} is {value}: {line}");
    }
}

/// Codes of a file, its problems as data.
fn problems(text: &str, arguments: &[&str]) -> Vec<String> {
    let home = Home::new(text);
    let output = Command::new(binary())
        .args(["validate", "--json"])
        .args(arguments)
        .arg("--config")
        .arg(home.path())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| problem["code"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_problem_of_a_file_has_its_code() {
    let handler = |more: &str| {
        format!(
            "sources: {{ app: {{ type: event }} }}\nhandlers: {{ h: \
             {{ source: app, url: \"https://a.example.com/\"{more} }} }}\n"
        )
    };
    let flow = |steps: &str| {
        format!(
            "sources: {{ app: {{ type: event }} }}\nworkflows: {{ w: \
             {{ source: app, steps: [{steps}] }} }}\n"
        )
    };
    let deep = format!("sources: {}{}\n", "[".repeat(80), "]".repeat(80));
    for (code, text) in [
        ("bad_breaker", handler(", breaker: { open_for: 60s, max_open: 1s }")),
        ("bad_rename", handler(", was: h")),
        (
            "bad_status",
            flow("{ name: s, url: \"https://a.example.com/\", expect: { status: [many] } }"),
        ),
        ("bad_variable", handler(", headers: { X: \"${a-b}\" }")),
        (
            "endless_circle",
            flow("{ name: a, type: choice, choices: [{ when: $.x, goto: a }], default: a }"),
        ),
        ("new_reading", handler(", filter: $.a == null")),
        ("no_topics", "sources: { s: { type: sns } }\n".to_owned()),
        ("not_json", handler(", transform: \"{ a: {{ $.a }}\"")),
        (
            "secret_whitespace",
            "sources: { s: { type: webhook, verify: github, secret: \" made-up\" } }\n".to_owned(),
        ),
        ("stored_variable", flow("{ name: s, type: set, body: { a: \"${PATH}\" } }")),
        ("too_deep", deep),
        (
            "called_and_listening",
            "sources: { app: { type: event } }\nworkflows: { w: \
             { source: app, callable: true, steps: [{ name: s, type: set, body: 1 }] } }\n"
                .to_owned(),
        ),
    ] {
        let found = problems(&text, &[]);
        assert!(found.iter().any(|found| found == code), "{code}: {found:?}");
    }
    assert!(
        problems(&handler(""), &["--env", "nowhere"]).contains(&"empty_environment".to_owned())
    );
}

async fn ended_run(world: &World, event: &str) -> Value {
    let look = async {
        loop {
            let runs = world.get(&format!("/api/runs?event={event}&status=failed")).await.json();
            if let Some(id) = runs["runs"][0]["id"].as_str() {
                return world.get(&format!("/api/runs/{id}")).await.json();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("it fails")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_and_reason_is_counted_under_its_word() {
    let text = "server: { allow_private_urls: true }
sources: { docs: { type: event }, hooks: { type: webhook, verify: none } }
handlers:
  docs_read: { source: docs, url: \"http://{receiver}/seq/500,200\", filter: $.wanted, retry: { max: 2, interval: 10ms, jitter: 0 } }
  docs_other: { source: docs, events: [never.*], url: \"http://{receiver}/ok\" }
workflows:
  polls: { source: docs, events: [poll], steps: [{ name: p, url: \"http://{receiver}/ok\", poll: { until: $.never, every: 1s, max: 1 } }] }
";
    let world = World::container(text).await;
    let keys: &[(&str, &str)] = &[("idempotency-key", "a"), ("idempotency-key", "b")];
    assert_eq!(world.post("/events/docs/x", keys, "{}").await.code(), "bad_request");
    let batch: &[(&str, &str)] = &[("content-type", "application/cloudevents-batch+json")];
    assert_eq!(world.post("/events/docs/x", batch, "[1]").await.code(), "validation_error");
    let event = world
        .post("/events/docs/x", &[("idempotency-key", "k")], "{\"wanted\": true}")
        .await
        .event();
    world.until_jobs(&event, "completed").await;
    assert_eq!(
        world
            .post("/events/docs/x", &[("idempotency-key", "k")], "{\"wanted\": true}")
            .await
            .json()["duplicate"],
        true
    );
    let job = world.until_jobs(&event, "completed").await[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(world.post(&format!("/api/jobs/{job}/cancel"), &[], "").await.code(), "conflict");
    let json: &[(&str, &str)] = &[("content-type", "application/json")];
    let form: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded")];
    let many = (0..10_001).map(|n| format!("f{n}=1")).collect::<Vec<_>>().join("&");
    for (headers, body) in [
        (json, format!("{}{}", "[".repeat(600), "]".repeat(600))),
        (json, "{\"$serde_json::private::Number\": \"1\"}".to_owned()),
        (form, many),
    ] {
        assert_eq!(
            world.post("/events/docs/x", headers, body).await.status,
            202,
            "what cannot be read is stored all the same"
        );
    }
    let run = world.post("/events/docs/poll", json, "{}").await.event();
    let ended = ended_run(&world, &run).await;
    assert_eq!(ended["error"]["class"], "poll_timeout", "{ended}");
    let metrics = world.get("/metrics").await.text;
    for line in [
        "tidehook_requests_rejected_total{source=\"docs\",reason=\"many_keys\"} 1",
        "tidehook_requests_rejected_total{source=\"docs\",reason=\"bad_batch\"} 1",
        "tidehook_bodies_unreadable_total{source=\"docs\",reason=\"too_deep\"}",
        "tidehook_bodies_unreadable_total{source=\"docs\",reason=\"reserved_key\"}",
        "tidehook_bodies_unreadable_total{source=\"docs\",reason=\"too_many_fields\"}",
        "tidehook_near_misses_total{handler=\"docs_other\",clause=\"events\"}",
        "tidehook_delivery_errors_by_type_total{type=\"status\"}",
        "tidehook_deliveries_total{result=\"failure\"}",
        "tidehook_events_received_total ",
        "tidehook_events_duplicated_total ",
        "tidehook_jobs_created_total ",
        "tidehook_queue_depth 0",
        "tidehook_slots_in_use ",
        "tidehook_lane_oldest_due_seconds{lane=\"handler:docs_read\"} 0",
        "tidehook_stale_results_total{handler=\"docs_read\"} 0",
        "tidehook_db_errors_total ",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    // Whoever is refused learns why; what is counted by every process is nobody's name.
    assert_eq!(
        world.get("/api/rejections").await.json()["rejections"].as_array().map(Vec::len),
        Some(2),
        "{}",
        json!("by source and reason")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_in_the_last_moment_is_sent_elsewhere() {
    let world = World::container("sources: { app: { type: event } }\n").await;
    world.close();
    let refused = world.post("/events/app/x", &[], "{}").await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "shutting_down"));
    assert!(
        refused.headers.contains_key("retry-after") && refused.headers["connection"] == "close",
        "{:?}",
        refused.headers
    );
}
