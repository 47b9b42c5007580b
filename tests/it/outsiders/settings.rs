//! Settings that people get wrong, and what is shown of a configuration: said where it is met, and
//! without its secrets.

use std::process::Command;

use tidehook::config::{Loaded, Request, load};
use tidehook::ingress;

use crate::support::process::{Home, binary};
use crate::support::stores::{self, Kind};
use crate::support::world::World;

fn loaded(text: &str, variables: &[(&str, &str)]) -> Loaded {
    let home = Home::new(text);
    let variables =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(&Request { path: Some(home.path()), variables, ..Request::default() }, &ingress::known())
}

fn run(home: &Home, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .arg("--config")
        .arg(home.path())
        .env("HOOK_URL", "http://127.0.0.1:9/services/of-a-chat");
    let output = command.output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.success(), said)
}

#[tokio::test]
async fn a_url_that_is_a_secret_is_shown_nowhere() {
    let secret = "madeUpMadeUpMadeUp9x7";
    let text = format!(
        "server: {{ allow_private_urls: true }}\nsources: {{ app: {{ type: event }} \
         }}\nhandlers:\n  h: {{ source: app, url: \"http://{{receiver}}/ok/{secret}\", retry: \
         {{ max: 0 }} }}\n"
    );
    let world = World::start(&text).await;
    let answer =
        world.post("/events/app/x", &[("content-type", "application/json")], "{}".to_owned()).await;
    let id = answer.event();
    let jobs = world.until_jobs(&id, "completed").await;
    let job = jobs[0]["id"].as_str().unwrap();
    for path in [
        format!("/api/events/{id}"),
        format!("/api/jobs/{job}"),
        "/api/jobs".to_owned(),
        "/api/events".to_owned(),
    ] {
        let shown = world.get(&path).await.json().to_string();
        assert!(!shown.contains(secret), "{path}: {shown}");
    }
    assert!(world.get(&format!("/api/events/{id}")).await.json().to_string().contains("/ok/***"));
}

#[test]
fn what_a_variable_holds_is_starred_wherever_a_url_is_shown() {
    let text = "server: { allow_private_urls: true }\nsources: { app: { type: event } }
handlers: { h: { source: app, url: \"${HOOK_URL}\" } }
workflows: { w: { source: app, steps: [{ name: a, url: \"${HOOK_URL}/a\" }] } }\n";
    let home = Home::new(text);
    for verb in [&["validate"][..], &["graph", "w"]] {
        let (is_well, said) = run(&home, verb);
        assert!(
            is_well && said.contains("http://127.0.0.1:9/***") && !said.contains("of-a-chat"),
            "{verb:?}: {said}"
        );
    }
    // And in what is wrong about one.
    home.write(&text.replace("allow_private_urls: true", "port: 8888"));
    let (is_well, said) = run(&home, &["validate"]);
    assert!(!is_well && said.contains("private_url") && !said.contains("of-a-chat"), "{said}");
}

#[test]
fn a_credential_that_a_definition_would_store_is_warned_of() {
    let text = |headers: &str| {
        format!(
            "server: {{ bind: 127.0.0.1 }}\nsources: {{ app: {{ type: event }} }}\nworkflows: \
             {{ w: {{ source: app, steps: [{{ name: a, url: https://example.com/, headers: {{ {headers} }} }}] }} }}\n"
        )
    };
    let codes = |headers: &str| {
        let loaded = loaded(&text(headers), &[("KEY", "made-up")]);
        loaded.problems.list.iter().map(|problem| problem.code).collect::<Vec<_>>()
    };
    assert_eq!(codes("Authorization: Bearer made-up"), ["literal_secret"]);
    assert_eq!(codes("X-Api-Key: made-up"), ["literal_secret"]);
    for fine in [
        "Authorization: \"Bearer ${KEY}\"",
        "X-Api-Key: \"{{ $.key }}\"",
        "Idempotency-Key: made-up",
        "Accept: text/plain",
    ] {
        assert!(codes(fine).is_empty(), "{fine}: {:?}", codes(fine));
    }
}

#[test]
fn whoever_forgets_the_environment_is_told_of_it() {
    let home = Home::new(
        "sources: { app: { type: event } }\nhandlers: { h: \
         { source: app, url: http://127.0.0.1:9/ } }\n",
    );
    let overlay = home.dir.path().join("tidehook.local.yaml");
    let (_, said) = run(&home, &["validate"]);
    assert!(said.contains("private_url") && !said.contains("--env local"), "{said}");
    std::fs::write(&overlay, "server: { allow_private_urls: true }\n").unwrap();
    let (is_well, said) = run(&home, &["validate"]);
    assert!(
        !is_well
            && said.contains("to merge tidehook.local.yaml over this file, use `--env local` or"),
        "{said}"
    );
    assert!(run(&home, &["validate", "--env", "local"]).0);
}

#[test]
fn a_proxy_that_anybody_may_claim_to_be_is_a_finding() {
    let text = "server: { bind: 0.0.0.0, trust_proxy: true, trusted_proxies: LIST }\ndatabase: \
        { url: \"sqlite:{dir}/t.db\" }\nsources: { app: { type: event } }\n";
    let home = Home::new(&text.replace(", trusted_proxies: LIST", ""));
    assert!(run(&home, &["doctor"]).1.contains("server.trusted_proxies"));
    home.write(&text.replace("LIST", "[10.0.0.0/8]"));
    assert!(!run(&home, &["doctor"]).1.contains("server.trusted_proxies"));
}

#[tokio::test]
async fn a_schema_of_a_newer_version_is_named_with_both_versions() {
    use tidehook::store::sql::driver::Driver;
    let newest = sqlx::Sqlite::migrator().iter().map(|migration| migration.version).max().unwrap();
    for kind in [Kind::Sqlite, Kind::Postgres, Kind::Mariadb] {
        let dir = tempfile::tempdir().unwrap();
        let Some(url) = stores::url(kind, &dir).await else { continue };
        let store = stores::open(&url, None).await;
        store.migrate().await.unwrap();
        assert!(
            store.weaknesses().await.unwrap().iter().all(|why| !why.contains("schema version")),
            "{kind:?}"
        );
        store.close().await;
        drop(store);
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, \
            execution_time) VALUES (99, 'later', true, 'x', 0)";
        stores::execute(&url, newer).await;
        let store = stores::open(&url, None).await;
        let weaknesses = store.weaknesses().await.unwrap().join("\n");
        assert!(
            weaknesses.contains("schema version 99")
                && weaknesses.contains(&format!("supports version {newest}")),
            "{kind:?}: {weaknesses}"
        );
        assert_eq!(store.missing_migrations().await.unwrap(), 0);
        store.close().await;
    }
}

#[test]
fn an_overlay_without_anything_in_it_changes_nothing() {
    let text = "api: { auth_token: plainly-fictional }\nsources: { app: { type: event } \
        }\nhandlers: { h: { source: app, url: https://example.com/h } }\n";
    let home = Home::new(text);
    for overlay in
        ["", "# server: { port: 1 }\n", "~\n", "---\n", "handlers:\n", "api:\nsources:\n"]
    {
        std::fs::write(home.dir.path().join("tidehook.local.yaml"), overlay).unwrap();
        let request = Request {
            path: Some(home.path()),
            env: Some("local".to_owned()),
            ..Request::default()
        };
        let loaded = load(&request, &ingress::known());
        let config = loaded
            .config
            .unwrap_or_else(|| panic!("{overlay:?}: {}", loaded.problems.render(false)));
        assert_eq!(
            (config.handlers.len(), config.sources.len(), config.api.auth_token.is_some()),
            (1, 1, true),
            "{overlay:?}"
        );
    }
}

#[test]
fn what_takes_a_path_takes_nothing_else() {
    let handler = |key: &str, value: &str| {
        format!(
            "sources: {{ app: {{ type: event }} }}\nhandlers: {{ h: \
             {{ source: app, url: https://example.com/h, {key}: '{value}' }} }}\n"
        )
    };
    for wrong in [
        "$.a, $.b",
        "$.a + $.b",
        "$.a || $.b",
        "$.a ?? $.b",
        "$.a == 1",
        "$.a $.b",
        "hash($.a)",
        "now()",
        "\"x\"",
        "$$.event.id",
        "{{ $.id }}",
        "/id",
        "$id",
        "2027-01-01T00:00:00Z",
        "5m",
        ".id",
        "@.id",
    ] {
        assert!(loaded(&handler("idempotency_key", wrong), &[]).config.is_none(), "{wrong}");
    }
    for fine in ["$.id", "id", "$.order.detail-type", "$['a b']", "order.id", "$.a b"] {
        let loaded = loaded(&handler("idempotency_key", &fine.replace('\'', "''")), &[]);
        assert!(loaded.config.is_some(), "{fine}: {}", loaded.problems.render(false));
    }
    let step = |keys: &str| {
        format!(
            "sources: {{ app: {{ type: event }} }}\nworkflows: {{ w: {{ source: app, steps: \
             [{{ name: a, url: https://example.com/, {keys} }}] }} }}\n"
        )
    };
    for wrong in
        ["{{ $.card }}", "$.card, $.x", "$.card || $.y", "/card", "$card", "$.*", "$.l[*].card"]
    {
        assert!(loaded(&step(&format!("redact: [\"{wrong}\"]")), &[]).config.is_none(), "{wrong}");
    }
    assert!(loaded(&step("redact: [$.card.number, card]"), &[]).config.is_some());
    for wrong in [
        "type: map, items_path: $.l, tolerated_failures: 2, on_item_failure: collect",
        "type: map, items_path: $.l, tolerated_failure_percent: 20, on_item_failure: collect",
        "type: map, items_path: \"$.l, $.k\"",
        "type: map, items_path: unique($.l)",
        "type: approval, approvers: [\"{{ $.boss }}\"]",
    ] {
        let text = step(wrong);
        assert!(loaded(&text, &[]).config.is_none(), "{wrong}");
    }
    let workflow = "sources: { app: { type: event } }\nworkflows: { w: \
        { source: app, concurrency: { key: KEY }, steps: [{ name: a, url: https://example.com/ }] \
        } }\n";
    assert!(loaded(&workflow.replace("KEY", "$.repo"), &[]).config.is_none());
    assert!(loaded(&workflow.replace("KEY", "\"{{ $.repo }}\""), &[]).config.is_some());
    assert!(loaded(&workflow.replace("KEY", "deploys"), &[]).config.is_some(), "one gate for all");
    let headers = "sources: { app: { type: event } }\nhandlers: { h: \
        { source: app, url: https://example.com/h, headers: { X-Id: \"{{ $.id }}\" } } }\n";
    assert!(loaded(headers, &[]).config.is_none());
}

#[test]
fn what_has_no_effect_and_what_does_not_exist_is_told() {
    let text = "server: { bind: 127.0.0.1 }\nsources: { app: { type: event } }\nhandlers:\n  h: \
        { source: app, url: \"https://a.example.com/\", filter: \"$$.run.id == 1 || $$.event.type \
            == 'x'\", transform: { a: \"{{ $$.event.id }}\", b: \"{{ $$.event.kind }}\", c: \
            \"{{ $$.vars.x }}\" } }\nworkflows:\n  w: \
            { source: app, filter: \"$$.event.id == 1\", steps: \
                [{ name: s, url: \"https://a.example.com/\", method: GET, body: { a: 1 } }] }\n";
    let home = Home::new(text);
    let output = std::process::Command::new(binary())
        .args(["validate", "--json", "--config"])
        .arg(home.path())
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found: Vec<(&str, &str)> = report["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| (problem["code"].as_str().unwrap(), problem["message"].as_str().unwrap()))
        .collect();
    for (code, word) in [
        ("unknown_context", "`$$.run.id`"),
        ("unknown_context", "`$$.event.kind`"),
        ("unknown_context", "`$$.vars.x`"),
        ("unknown_context", "`$$.event.id`"),
        ("no_effect", "sends GET"),
    ] {
        assert!(
            found.iter().any(|(found, message)| *found == code && message.contains(word)),
            "{code} {word}: {found:?}"
        );
    }
    assert_eq!(found.len(), 5, "{found:?}");
}

fn codes_of(text: &str) -> Vec<(String, String)> {
    let home = Home::new(text);
    let output = std::process::Command::new(binary())
        .args(["validate", "--json", "--config"])
        .arg(home.path())
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = report["problems"].as_array().unwrap().iter();
    problems
        .map(|problem| {
            (
                problem["code"].as_str().unwrap().to_owned(),
                problem["message"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

#[test]
fn what_would_be_sent_as_it_is_written_does_not_load() {
    let step = |step: &str| {
        format!("workflows: {{ w: {{ source: app, steps: [{{ name: s, {step} }}] }} }}")
    };
    let url = "url: \"https://a.example.com/\"";
    for (text, code, word) in [
        (
            step(&format!("{url}, body: {{ \"{{{{ $.k }}}}\": 1 }}")),
            "bad_template",
            "body.{{ $.k }}",
        ),
        (
            step(&format!("{url}, query: {{ \"{{{{ $.k }}}}\": v }}")),
            "bad_template",
            "contains a placeholder",
        ),
        (
            step(&format!("{url}, body: {{ a: {{ b: $.order.id }} }}")),
            "bare_path",
            "`workflows.w.steps[0].body.a.b`",
        ),
        (
            step(&format!("{url}, catch: [{{ errors: [\"app:{{{{ $.k }}}}\"], goto: s }}]")),
            "unknown_word",
            "app:",
        ),
        (step("type: fail, error: \"{{ $.k }}\""), "bad_template", "support placeholders"),
        (step("type: wait, seconds: 1, timestamp_path: $.at"), "twice", "`seconds`"),
        (
            step(&format!("type: map, items_path: $.a, items: \"{{{{ $.b }}}}\", {url}")),
            "twice",
            "`items_path`",
        ),
        (
            "handlers: { h: { source: app, url: \"https://a.example.com/\", events: \
             [\"{{ $.type }}\"] } }"
                .to_owned(),
            "bad_template",
            "`events`",
        ),
        (
            "handlers: { h: \
             { source: app, url: \"https://a.example.com/\", events: [\"order|invoice\"] } }"
                .to_owned(),
            "odd_pattern",
            "order|invoice",
        ),
        (
            "handlers: { h: \
             { source: app, url: \"https://a.example.com/\", events: [\"!order.*\"] } }"
                .to_owned(),
            "odd_pattern",
            "!order.*",
        ),
        (
            "handlers: { h: { source: app, url: \"https://a.example.com/\", events: [\"\"] } }"
                .to_owned(),
            "odd_pattern",
            "``",
        ),
        (
            "handlers: { h: { source: app, url: \"https://a.example.com/\", transform: { \
             \"{{ $.k }}\": 1 } } }"
                .to_owned(),
            "bad_template",
            "transform",
        ),
        (
            "workflows: { w: { source: app, params: [{ name: $.order.id }], steps: \
             [{ name: s, type: set, body: 1 }] } }"
                .to_owned(),
            "bad_path",
            "$.order.id",
        ),
    ] {
        let found = codes_of(&format!(
            "server: {{ bind: 127.0.0.1 }}\nsources: {{ app: {{ type: event }} }}\n{text}\n"
        ));
        assert!(
            found.iter().any(|(found, message)| found == code && message.contains(word)),
            "{text}: {found:?}",
        );
    }
    let fine = step("type: set, body: \"hi {{ $.n }}\", result_path: $.s");
    let found = codes_of(&format!(
        "server: {{ bind: 127.0.0.1 }}\nsources: {{ app: {{ type: event }} }}\n{fine}\n"
    ));
    assert!(found.is_empty(), "what is not sent need not be JSON: {found:?}");
}

#[test]
fn a_credential_is_told_of_wherever_it_stands_and_never_shown() {
    let text = "server: { bind: 127.0.0.1 }\nsources: { app: { type: event } }\nworkflows:\n  w: \
        { source: app, steps: [{ name: s, method: GET, url: \"https://a.example.com/?api_key=plainly-made-up\", headers: { X-Token: also-made-up }, body: { password: made-up-too } }] }\n";
    let found = codes_of(text);
    for what in ["URL parameter `api_key`", "header `X-Token`", "key `password`"] {
        assert!(
            found.iter().any(|(code, message)| code == "literal_secret" && message.contains(what)),
            "{what}: {found:?}"
        );
    }
    let (_, said) = run(&Home::new(text), &["validate"]);
    assert!(!said.contains("made-up") && said.contains("no_effect"), "{said}");
}
