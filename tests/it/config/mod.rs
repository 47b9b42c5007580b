//! Configurations as people write them: each file of `bad` is a mistake with its message, each of
//! `good` loads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tidehook::config::{Config, Loaded, Request, load};
use tidehook::ingress;

use crate::support::shared;

fn here(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/config").join(part)
}

fn variables() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("TRICKY".to_owned(), "a: b #c\n\"${TRICKY}\" *&!@% {{x}}".to_owned()),
        ("EVENTS".to_owned(), "[\"order.*\", \"x ${TRICKY}\"]".to_owned()),
    ])
}

fn read(path: PathBuf, request: Request) -> Loaded {
    load(&Request { path: Some(path), ..request }, &ingress::known())
}

fn good(path: PathBuf, variables: &[(&str, &str)], env: Option<&str>) -> Config {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let loaded =
        read(path, Request { variables, env: env.map(str::to_owned), ..Request::default() });
    loaded.config.unwrap_or_else(|| panic!("{}", loaded.problems.render(false)))
}

/// The directory is not part of a message that must be the same everywhere.
fn without_directory(text: &str, directory: &Path) -> String {
    text.replace(&format!("{}/", directory.display()), "")
}

#[test]
fn each_mistake_is_told_with_its_place_reason_and_remedy() {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(here("bad")).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    assert!(files.len() > 15, "the mistakes are there");
    for path in files {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let loaded = read(
            path.clone(),
            Request { variables: variables(), strict: name == "cron", ..Request::default() },
        );
        assert!(loaded.config.is_none(), "{name} loads");
        let text = without_directory(&loaded.problems.render(false), path.parent().unwrap());
        insta::with_settings!({
            snapshot_path => "snapshots",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(name, text);
        });
    }
}

#[test]
fn a_configuration_with_every_key_loads() {
    let config = good(here("good/everything.yaml"), &[], None);
    assert_eq!(config.server.port, 8888);
    assert_eq!(config.handlers[0].retry[0].max, 8);
    assert_eq!(
        config.handlers[0].retry[0].interval.as_secs(),
        5,
        "members left out come from delivery.default_retry"
    );
    assert_eq!(config.handlers[0].timeout.as_secs(), 5);
    assert_eq!(config.handlers[1].timeout.as_secs(), 10);
    assert_eq!(config.sources[0].secrets.len(), 2);
    assert!(config.cannot_run().is_empty(), "{:?}", config.cannot_run());
}

#[test]
fn a_variable_is_data_and_never_yaml() {
    let pairs = variables();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let mut with_line = pairs.clone();
    // A header cannot hold a line break, so this one variable comes without.
    let tricky = "a: b #c \"${TRICKY}\" *&!@% {{x}}";
    with_line.iter_mut().filter(|(k, _)| *k == "TRICKY").for_each(|(_, v)| *v = tricky);
    let config = good(here("good/quoted_values.yaml"), &with_line, None);
    assert_eq!(config.api.auth_token.unwrap().expose(), tricky);
    let handler = &config.handlers[0];
    let events: Vec<&str> = handler.events.iter().map(|e| e.text()).collect();
    assert_eq!(events, ["order.*", "x ${TRICKY}"]);
    let header = |name: &str| handler.headers.iter().find(|(n, _)| n == name).unwrap().1.as_str();
    assert_eq!(
        (header("X-Plain"), header("X-Escaped"), header("X-Tricky")),
        ("0123", "${NOT_A_VARIABLE}", tricky)
    );
}

#[test]
fn an_empty_configuration_loads() {
    assert!(good(here("good/nothing.yaml"), &[], None).handlers.is_empty());
}

#[test]
fn hostile_texts_are_refused_quickly_and_with_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let deep = format!("sources: {}", "[".repeat(20_000));
    let large = format!("sources:\n{}", "  x: y\n".repeat(1_500_000));
    let anchors: String = (0..10_000).map(|n| format!("k{n}: &a{n} x\n")).collect();
    for (name, text) in [("deep", deep), ("large", large), ("anchors", anchors)] {
        let path = dir.path().join(format!("{name}.yaml"));
        std::fs::write(&path, text).unwrap();
        let loaded = read(path, Request::default());
        assert!(loaded.config.is_none() && loaded.problems.has_errors(), "{name}");
        // Rendering is part of the answer, and as bounded as the reading.
        assert!(loaded.problems.render(false).len() < 20_000_000, "{name}");
    }
}

#[test]
fn an_overlay_and_its_env_file_merge_over_the_base() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "tidehook.yaml",
        "sources:\n  app: { type: event }\nhandlers:\n  a: \
         { source: app, url: \"http://a:1/\", events: [x] }\n",
    );
    write(
        "tidehook.prod.yaml",
        "handlers:\n  a: { url: \"${A_URL}\" }\napi: { auth_token: \"${TOKEN}\" }\n",
    );
    write(".env.prod", "# comment\nA_URL=https://a.example.com/prod\nTOKEN='from the file'\n");
    let config =
        good(dir.path().join("tidehook.yaml"), &[("TOKEN", "from the environment")], Some("prod"));
    assert_eq!(config.handlers[0].url.as_str(), "https://a.example.com/prod");
    assert_eq!(config.handlers[0].events.len(), 1);
    assert_eq!(config.api.auth_token.unwrap().expose(), "from the environment");
    // A problem in the overlay names the overlay's file and line.
    write("tidehook.prod.yaml", "\nhandlers:\n  a: { urll: x }\n");
    let loaded = read(
        dir.path().join("tidehook.yaml"),
        Request { env: Some("prod".into()), ..Request::default() },
    );
    assert!(
        loaded.problems.render(false).contains("tidehook.prod.yaml:3:8"),
        "{}",
        loaded.problems.render(false)
    );
}

#[test]
fn unknown_keys_are_warnings_when_asked_for() {
    let loaded =
        read(here("bad/unknown_keys.yaml"), Request { lenient: true, ..Request::default() });
    assert!(loaded.config.is_some());
    assert_eq!(loaded.problems.list.iter().filter(|p| p.code == "unknown_key").count(), 5);
}

#[test]
fn the_editor_schema_agrees_with_the_reader() {
    let schema = tidehook::config::schema::schema();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    // The third one holds `${…}` where only tidehook's reader takes it.
    for name in ["everything", "nothing"] {
        let text = std::fs::read_to_string(here("good").join(format!("{name}.yaml"))).unwrap();
        let value: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
    for name in ["unknown_keys", "several_at_once", "wrong_shapes", "events_as_text"] {
        let text = std::fs::read_to_string(here("bad").join(format!("{name}.yaml"))).unwrap();
        let value: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert!(!validator.is_valid(&value), "{name}");
    }
    let written = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tidehook.schema.json"),
    )
    .unwrap();
    let written: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert!(
        written == schema,
        "docs/tidehook.schema.json is old: `cargo run -- schema > docs/tidehook.schema.json`"
    );
}

#[test]
fn the_reference_is_the_list_of_keys() {
    let written = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md"),
    )
    .unwrap();
    let is_new = written.trim_end() == tidehook::config::reference::reference().trim_end();
    assert!(
        is_new,
        "docs/configuration.md is old: `cargo run -- schema --reference > docs/configuration.md`"
    );
}

/// The codes that the sources of a folder use.
fn codes(folder: &str, marks: &[&str]) -> std::collections::BTreeSet<String> {
    let mut found = std::collections::BTreeSet::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
            continue;
        }
        let text: String =
            std::fs::read_to_string(path).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        for mark in marks {
            for (at, _) in text.match_indices(mark) {
                let rest = text[at + mark.len()..].trim_start();
                let Some(rest) = rest.strip_prefix('"') else { continue };
                let code: String = rest
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
                    .collect();
                if rest[code.len()..].starts_with('"') {
                    found.insert(code);
                }
            }
        }
    }
    found
}

#[test]
fn every_code_is_explained() {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md"))
            .unwrap();
    let of_files = codes(
        "src/config",
        &[".error(", ".warn(", "code:", "problem(", "Severity::Error,", "Severity::Warning,"],
    );
    let of_requests = codes(
        "src/http",
        &[
            "StatusCode::UNAUTHORIZED,",
            "StatusCode::NOT_FOUND,",
            "StatusCode::BAD_REQUEST,",
            "StatusCode::UNPROCESSABLE_ENTITY,",
            "StatusCode::PAYLOAD_TOO_LARGE,",
            "StatusCode::SERVICE_UNAVAILABLE,",
            "StatusCode::INTERNAL_SERVER_ERROR,",
            "StatusCode::CONFLICT,",
            "StatusCode::FORBIDDEN,",
            "StatusCode::METHOD_NOT_ALLOWED,",
            "StatusCode::REQUEST_TIMEOUT,",
            "StatusCode::TOO_MANY_REQUESTS,",
            "StatusCode::UNSUPPORTED_MEDIA_TYPE,",
        ],
    );
    assert!(of_files.len() > 30 && of_requests.len() > 10, "{of_files:?} {of_requests:?}");
    let of_deliveries = [
        "dns",
        "connect",
        "blocked_address",
        "tls",
        "timeout",
        "protocol",
        "redirect_not_followed",
        "status",
        "compose",
        "crash_suspect",
        "expired",
        "interrupted",
        "response_too_large",
    ];
    let of_rejections = [
        "signature_missing",
        "signature_malformed",
        "signature_wrong",
        "signature_stale",
        "address_not_allowed",
        "not_utf8",
        "schema",
    ];
    let all = of_files
        .iter()
        .chain(&of_requests)
        .map(String::as_str)
        .chain(of_deliveries)
        .chain(of_rejections);
    let missing: Vec<&str> = all.filter(|code| !page.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "docs/errors.md does not explain {missing:?}");
}

#[test]
fn every_function_and_provider_is_documented() {
    let read = |page: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap()
    };
    let (expressions, providers) = (read("docs/expressions.md"), read("docs/providers.md"));
    for function in tidehook::decide::function::FUNCTIONS {
        assert!(
            expressions.contains(&format!("`{}(", function.name)),
            "docs/expressions.md lacks {}",
            function.name
        );
    }
    for provider in tidehook::ingress::PROVIDERS {
        assert!(
            providers.contains(&format!("`{}`", provider.name())),
            "docs/providers.md lacks {}",
            provider.name()
        );
    }
}

#[test]
fn every_example_loads_without_a_warning() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut count = 0;
    for file in std::fs::read_dir(dir)
        .unwrap()
        .map(|f| f.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
    {
        let variables = [
            "STRIPE_WEBHOOK_SECRET",
            "GITHUB_WEBHOOK_SECRET",
            "API_TOKEN",
            "DELIVERY_SECRET",
            "PARTNER_SECRET",
            "PARTNER_SECRET_OLD",
            "QUEUE_KEY",
        ];
        let variables =
            variables.iter().map(|v| ((*v).to_owned(), "plainly-fictional".to_owned())).collect();
        let loaded = read(file.clone(), Request { variables, strict: true, ..Request::default() });
        assert!(loaded.problems.list.is_empty(), "{}", loaded.problems.render(false));
        assert!(loaded.config.unwrap().cannot_run().is_empty());
        count += 1;
    }
    assert!(count >= 4, "the examples are there");
}

/// The variables of `../shared/seed-configs`, plainly fictional.
const SEED_VARIABLES: [(&str, &str); 13] = [
    ("STRIPE_WEBHOOK_SECRET", "fictional"),
    ("GITHUB_WEBHOOK_SECRET", "fictional"),
    ("PAGERDUTY_WEBHOOK_SECRET", "fictional"),
    ("PAGERDUTY_API_KEY", "fictional"),
    ("TF_API_TOKEN", "fictional"),
    ("TF_NOTIFICATION_SECRET", "fictional"),
    ("DATABASE_URL", "postgres://db.example.com/x"),
    ("QHOOK_API_TOKEN", "fictional"),
    ("QHOOK_METRICS_TOKEN", "fictional"),
    ("QHOOK_SIGNING_SECRET", "whsec_not_base64!"),
    ("SLACK_WEBHOOK_URL", "https://chat.example.com/hook"),
    ("API_TOKEN", "fictional"),
    ("ORDERS_QUEUE_API_KEY", "fictional"),
];

#[test]
fn explain_says_for_every_seed_configuration_why_an_event_does_not_match() {
    let Some(seeds) = shared("seed-configs") else { return };
    for (name, source, wanted, other) in [
        ("01-webhook-fanout", "stripe", "invoice.paid", "invoice.voided"),
        ("02-tenant-provision", "platform", "tenant.create", "tenant.delete"),
        ("03-deploy", "github", "push", "ping"),
        ("03-deploy.templates", "github", "push", "ping"),
        ("04-alert-remediation", "pagerduty", "incident.triggered", "incident.resolved"),
        ("05-terraform-post-apply", "terraform", "run:completed", "run:created"),
    ] {
        let config = good(seeds.join(format!("{name}.yaml")), &SEED_VARIABLES[..6], None);
        let routes = config.routes();
        let inbound = |kind: &str| tidehook::model::Inbound {
            source: source.into(),
            kind: kind.into(),
            type_aliases: Vec::new(),
            headers: Vec::new(),
            body: tidehook::model::Body::new("{}"),
            dedupe_key: None,
            idempotency_key: None,
        };
        let matches = tidehook::http::api::explain::answer(&config, &routes, &inbound(wanted));
        assert!(matches["handlers"][0]["matches"].as_bool().unwrap(), "{name}: {matches}");
        let misses = tidehook::http::api::explain::answer(&config, &routes, &inbound(other));
        let why =
            misses["handlers"][0]["why_not"].as_str().unwrap_or_else(|| panic!("{name}: {misses}"));
        assert!(why.contains(other), "{name}: {why}");
    }
}

#[test]
fn every_seed_configuration_loads_unchanged() {
    let Some(seeds) = shared("seed-configs") else { return };
    for name in [
        "01-webhook-fanout",
        "02-tenant-provision",
        "03-deploy",
        "03-deploy.templates",
        "04-alert-remediation",
        "05-terraform-post-apply",
    ] {
        let config = good(seeds.join(format!("{name}.yaml")), &SEED_VARIABLES[..6], None);
        assert!(config.cannot_run().is_empty(), "{name}: {:?}", config.cannot_run());
        // A secret that is not set stops the load.
        let loaded = read(seeds.join(format!("{name}.yaml")), Request::default());
        assert_eq!(
            loaded.config.is_none(),
            name != "02-tenant-provision",
            "{name} without its variables"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("qhook.yaml");
    std::fs::copy(seeds.join("01-webhook-fanout.yaml"), &base).unwrap();
    let mut overlays: Vec<PathBuf> =
        std::fs::read_dir(&seeds).unwrap().map(|f| f.unwrap().path()).collect();
    let name = |p: &PathBuf| p.file_name().unwrap().to_string_lossy().into_owned();
    // A compose file of a user is no configuration.
    overlays.retain(|p| {
        name(p).ends_with(".yaml") && !name(p).starts_with('0') && !name(p).starts_with("compose")
    });
    assert!(overlays.len() > 8);
    for overlay in overlays {
        std::fs::copy(&overlay, dir.path().join("qhook.over.yaml")).unwrap();
        let mysql = overlay.to_string_lossy().contains("mysql");
        let mut variables = SEED_VARIABLES.to_vec();
        if mysql {
            variables.retain(|(k, _)| *k != "DATABASE_URL");
            variables.push(("DATABASE_URL", "mysql://db.example.com/x"));
        }
        let config = good(base.clone(), &variables, Some("over"));
        assert_eq!(config.handlers.len(), 2, "{}", overlay.display());
    }
}
