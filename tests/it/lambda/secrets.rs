//! Secrets by reference: the same file in both modes.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::support::functions::install::{Install, answer, http};
use crate::support::functions::runtime::Function;
use crate::support::process::binary;

const TEXT: &str = "server: { allow_private_urls: true }
database: { driver: postgres }
sources: { github: { type: webhook, verify: github, secret: \"${ssm:/tidehook/github}\" } }
handlers:
  h: { source: github, url: \"http://{receiver}/ok\", headers: { X-Key: \"${file:{dir}/key}\" } }
";

type Secrets = [(&'static str, String)];

/// As much of the Parameters and Secrets extension as is asked of it, and its port.
async fn extension(secrets: &Secrets) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let routes = Router::new()
        .route("/systemsmanager/parameters/get", get(give))
        .route("/secretsmanager/get", get(give))
        .with_state(Given { secrets: secrets.to_vec(), asked: Arc::default() });
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    port
}

/// What the extension has, and how often it was asked for each.
#[derive(Clone)]
struct Given {
    secrets: Vec<(&'static str, String)>,
    asked: Arc<Mutex<HashMap<String, u32>>>,
}

async fn give(
    State(Given { secrets, asked }): State<Given>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> (StatusCode, Json<Value>) {
    assert_eq!(headers["x-aws-parameters-secrets-token"], "session");
    let query = query.unwrap();
    let pairs: Vec<(String, String)> =
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    // A burst of cold starts: AWS throttles the first question for each.
    let count = {
        let mut asked = asked.lock().unwrap();
        let count = asked.entry(pairs[0].1.clone()).or_default();
        *count += 1;
        *count
    };
    if count == 1 {
        let why = "ThrottlingException: Rate exceeded";
        return (StatusCode::BAD_REQUEST, Json(json!({ "message": why })));
    }
    assert!(count < 6, "several keys of a secret are one question");
    match secrets.iter().find(|(name, _)| *name == pairs[0].1) {
        Some((_, value)) if pairs[0].0 == "name" => {
            (StatusCode::OK, Json(json!({ "Parameter": { "Value": value } })))
        }
        Some((_, value)) => (StatusCode::OK, Json(json!({ "SecretString": value }))),
        None => (StatusCode::BAD_REQUEST, Json(json!({ "message": "there is no such secret" }))),
    }
}

fn variables(install: &Install, port: u16, database: &str) -> Vec<(String, String)> {
    let mut variables = install.variables(true);
    variables.retain(|(name, _)| name != "DATABASE_URL");
    let more = [
        ("DATABASE_URL", database),
        ("AWS_SESSION_TOKEN", "session"),
        ("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", &port.to_string()),
    ];
    variables.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
    variables
}

async fn install() -> Option<Install> {
    let install = Install::new(TEXT).await?;
    let (file, dir) =
        (install.dir.path().join("tidehook.yaml"), install.dir.path().display().to_string());
    let text = std::fs::read_to_string(&file).unwrap().replace("{dir}", &dir);
    std::fs::write(file, text).unwrap();
    std::fs::write(install.dir.path().join("key"), "k-1\n").unwrap();
    Some(install)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_takes_its_secrets_from_the_extension_and_from_files() {
    let Some(install) = install().await else { return };
    let database = json!({ "url": install.url, "user": "nobody" }).to_string();
    let port = extension(&[
        ("/tidehook/github", "It's a Secret to Everybody".to_owned()),
        ("tidehook/database", database),
    ])
    .await;
    let variables = variables(&install, port, "${secretsmanager:tidehook/database#url}");
    let (ingress, worker) = (
        Function::start("ingress", &variables, &install.log()).await,
        Function::start("worker", &variables, &install.log()).await,
    );
    // The signature of GitHub's own example.
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let headers = [("x-hub-signature-256", signature), ("x-github-event", "push")];
    assert_eq!(
        answer(
            &ingress
                .invoke(http("POST", "/webhooks/github", &headers, "Hello, World!"))
                .await
                .unwrap()
        )
        .0,
        200
    );
    install.drain(&worker).await;
    assert_eq!(install.receiver.got()[0].header("X-Key"), Some("k-1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_variable_may_be_put_together_of_references() {
    let Some(install) = install().await else { return };
    let url = url::Url::parse(&install.url).unwrap();
    let secret = json!({
        "username": url.username(),
        "password": url.password().unwrap_or("none"),
        "port": url.port().unwrap(),
    });
    let given = [
        ("/tidehook/github", "plainly-fictional".to_owned()),
        ("tidehook/database", secret.to_string()),
        ("tidehook/token", "of-16-characters".to_owned()),
    ];
    let port = extension(&given).await;
    let of = |key: &str| format!("${{secretsmanager:tidehook/database#{key}}}");
    let database = format!(
        "postgres://{}:{}@{}:{}{}",
        of("username"),
        of("password"),
        url.host_str().unwrap(),
        of("port"),
        url.path()
    );
    let config = install.dir.path().join("tidehook.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("api: {{ auth_token: \"${{API_TOKEN}}\" }}\n{text}")).unwrap();
    let mut variables = variables(&install, port, &database);
    variables.push(("API_TOKEN".to_owned(), "${secretsmanager:tidehook/token}".to_owned()));
    let ingress = Function::start("ingress", &variables, &install.log()).await;
    let status = async |headers: &[(&str, &str)]| {
        answer(&ingress.invoke(http("GET", "/api/lanes", headers, "")).await.unwrap()).0
    };
    assert_eq!(status(&[]).await, 401);
    assert_eq!(status(&[("authorization", "Bearer of-16-characters")]).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_that_stands_for_nothing_is_named_with_its_place() {
    let Some(install) = install().await else { return };
    let port = extension(&[("tidehook/database", "not json".to_owned())]).await;
    let log = install.dir.path().join("wrong.log");
    let function = Function::start("ingress", &variables(&install, port, &install.url), &log).await;
    function.invoke(http("GET", "/livez", &[], "")).await.unwrap_err();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(
        said.contains("error[unresolved_reference]: `${ssm:/tidehook/github}` cannot be resolved")
            && said.contains("there is no such secret"),
        "{said}"
    );
    // At the keyboard nobody has the extension: a default serves.
    let config = install.dir.path().join("tidehook.yaml");
    let validate = |text: &str| {
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(binary());
        command
            .arg("validate")
            .arg("--config")
            .arg(&config)
            .env("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", "1");
        command.env("DATABASE_URL", &install.url).output().unwrap()
    };
    let text = std::fs::read_to_string(&config).unwrap();
    let refused = validate(&text);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("or add a default"), "{refused:?}");
    assert!(
        validate(&text.replace("/tidehook/github}", "/tidehook/github:-made-up}")).status.success()
    );
    let missing = validate(
        &text.replace("/tidehook/github}", "/tidehook/github:-made-up}").replace("/key}", "/none}"),
    );
    assert!(String::from_utf8_lossy(&missing.stderr).contains("does not exist"), "{missing:?}");
    // Never in place of an answer that was refused: a webhook would be checked with what stands in
    // a repository.
    std::fs::write(&config, text.replace("/tidehook/github}", "/tidehook/github:-made-up}"))
        .unwrap();
    let log = install.dir.path().join("refused.log");
    let function = Function::start("ingress", &variables(&install, port, &install.url), &log).await;
    function.invoke(http("GET", "/livez", &[], "")).await.unwrap_err();
    assert!(std::fs::read_to_string(&log).unwrap().contains("there is no such secret"));
    let log = install.dir.path().join("database.log");
    let function =
        Function::start("ingress", &variables(&install, port, "${secretsmanager:nowhere}"), &log)
            .await;
    function.invoke(http("GET", "/livez", &[], "")).await.unwrap_err();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("there is no such secret"), "{said}");
}
