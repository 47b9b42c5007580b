//! Credentials come from wherever AWS's own tools find them: the environment, a task of ECS, a pod
//! of EKS, a machine of EC2. What needs them is the same for all: secrets by reference, the queue,
//! and the password of a database.

use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::support::functions::install::{Install, answer, http};
use crate::support::functions::runtime::Function;
use crate::support::process::{Home, binary};
use crate::support::stores::{self, Kind};

/// What everything in it that asks for credentials is given.
const ROLE: &str = "AKIDOFTHEROLE";

/// As much of AWS as is asked of it here, under one address; and who asked for what.
#[derive(Clone, Default)]
struct Cloud {
    asked: Arc<Mutex<Vec<(String, String)>>>,
    /// So many calls for a parameter are throttled first.
    throttles: Arc<Mutex<usize>>,
}

impl Cloud {
    async fn start() -> (Self, String) {
        let cloud = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().fallback(serve).with_state(cloud.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        (cloud, format!("http://{address}"))
    }

    /// The keys with which an action was asked for.
    fn keys_of(&self, action: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(what, _)| what == action).map(|(_, key)| key.clone()).collect()
    }
}

async fn serve(
    State(cloud): State<Cloud>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let ends = "2099-01-01T00:00:00Z";
    let role = json!({
        "AccessKeyId": ROLE, "SecretAccessKey": "plainly-fictional", "Token": "session",
        "Expiration": ends,
        "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
    });
    match (method.as_str(), uri.path()) {
        // ECS, and EKS with pod identities.
        ("GET", "/task") => return role.to_string().into_response(),
        // EC2.
        ("PUT", "/latest/api/token") => {
            return ([("x-aws-ec2-metadata-token-ttl-seconds", "21600")], "t").into_response();
        }
        ("GET", "/latest/meta-data/iam/security-credentials/") => return "machine".into_response(),
        ("GET", "/latest/meta-data/iam/security-credentials/machine") => {
            return role.to_string().into_response();
        }
        _ => {}
    }
    let text = String::from_utf8_lossy(&body);
    // EKS with a web identity: the Security Token Service.
    if text.contains("Action=AssumeRoleWithWebIdentity") {
        assert!(text.contains("WebIdentityToken=of-the-pod"), "{text}");
        let answer = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult>\
             <Credentials><AccessKeyId>{ROLE}</AccessKeyId><SecretAccessKey>plainly-fictional</SecretAccessKey>\
             <SessionToken>session</SessionToken><Expiration>{ends}</Expiration></Credentials>\
             </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        );
        return ([("content-type", "text/xml")], answer).into_response();
    }
    let action = headers.get("x-amz-target").map_or("", |value| value.to_str().unwrap()).to_owned();
    let signature = headers.get("authorization").map_or("", |value| value.to_str().unwrap());
    let key =
        signature.split_once("Credential=").map_or("", |(_, rest)| rest.split('/').next().unwrap());
    cloud.asked.lock().unwrap().push((action.clone(), key.to_owned()));
    let input: Value = serde_json::from_slice(&body).unwrap();
    let refused = |code: &str| {
        let answer =
            json!({ "__type": format!("com.amazonaws.ssm#{code}"), "message": "so it is" });
        (StatusCode::BAD_REQUEST, answer.to_string()).into_response()
    };
    match (action.as_str(), input["Name"].as_str().or(input["SecretId"].as_str())) {
        ("AmazonSSM.GetParameter", Some("/tide/secret")) => {
            assert_eq!(input["WithDecryption"], true);
            let mut throttles = cloud.throttles.lock().unwrap();
            if *throttles > 0 {
                *throttles -= 1;
                return refused("ThrottlingException");
            }
            json!({ "Parameter": { "Value": "plainly-fictional" } }).to_string().into_response()
        }
        ("AmazonSSM.GetParameter", _) => refused("ParameterNotFound"),
        ("secretsmanager.GetSecretValue", Some("tide/json")) => {
            json!({ "SecretString": json!({ "token": "made-up" }).to_string() })
                .to_string()
                .into_response()
        }
        _ => refused("AccessDeniedException"),
    }
}

/// The variables by which each kind of host says where its credentials are.
fn hosts(base: &str, dir: &std::path::Path) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let token = dir.join("token");
    std::fs::write(&token, "of-the-pod").unwrap();
    let token = token.display().to_string();
    vec![
        (
            "environment",
            vec![
                ("AWS_ACCESS_KEY_ID", ROLE.to_owned()),
                ("AWS_SECRET_ACCESS_KEY", "plainly-fictional".to_owned()),
            ],
        ),
        ("ECS", vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{base}/task"))]),
        (
            "EKS, web identity",
            vec![
                ("AWS_WEB_IDENTITY_TOKEN_FILE", token.clone()),
                ("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/tide".to_owned()),
            ],
        ),
        (
            "EKS, pod identity",
            vec![
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{base}/task")),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token),
            ],
        ),
        ("EC2", vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", base.to_owned())]),
    ]
}

/// `validate` with nothing in its environment but what is given: nothing of whoever runs the tests.
fn validate(text: &str, variables: &[(&str, String)]) -> (bool, String) {
    let home = Home::new(text);
    let mut command = Command::new(binary());
    command.args(["validate", "--config"]).arg(home.path()).env_clear();
    // No extension here, no shared files, and no machine that gives credentials.
    command.env("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", "1").env("HOME", home.dir.path());
    if !variables.iter().any(|(name, _)| name.starts_with("AWS_EC2")) {
        command.env("AWS_EC2_METADATA_DISABLED", "true");
    }
    let output =
        command.envs(variables.iter().map(|(name, value)| (name, value))).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

const TEXT: &str = "sources: { github: { type: webhook, verify: github, secret: \"${ssm:/tide/secret}\" } }
handlers: { h: { source: github, url: https://example.com/h, headers: { X-Token: \"${secretsmanager:tide/json#token}\" } } }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_by_reference_are_read_with_the_credentials_of_every_kind_of_host() {
    let (cloud, base) = Cloud::start().await;
    let dir = tempfile::tempdir().unwrap();
    for (host, variables) in hosts(&base, dir.path()) {
        let region = [("AWS_REGION", "eu-west-1".to_owned()), ("AWS_ENDPOINT_URL", base.clone())];
        let variables: Vec<_> = variables.into_iter().chain(region).collect();
        let (is_valid, said) =
            tokio::task::spawn_blocking(move || validate(TEXT, &variables)).await.unwrap();
        assert!(is_valid, "{host}: {said}");
        assert_eq!(cloud.keys_of("AmazonSSM.GetParameter"), [ROLE], "{host}");
        assert_eq!(cloud.keys_of("secretsmanager.GetSecretValue"), [ROLE], "{host}");
        cloud.asked.lock().unwrap().clear();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aws_is_asked_again_when_it_throttles_and_its_refusal_is_said() {
    let (cloud, base) = Cloud::start().await;
    *cloud.throttles.lock().unwrap() = 2;
    let variables = vec![
        ("AWS_REGION", "eu-west-1".to_owned()),
        ("AWS_ENDPOINT_URL", base),
        ("AWS_ACCESS_KEY_ID", ROLE.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "plainly-fictional".to_owned()),
    ];
    let ask = |text: String| {
        let variables = variables.clone();
        tokio::task::spawn_blocking(move || validate(&text, &variables))
    };
    let (is_valid, said) = ask(TEXT.to_owned()).await.unwrap();
    assert!(is_valid, "{said}");
    assert_eq!(cloud.keys_of("AmazonSSM.GetParameter").len(), 3);
    // A default never stands in for a refusal.
    let (is_valid, said) = ask(TEXT.replace("/tide/secret", "/tide/none:-made-up")).await.unwrap();
    assert!(
        !is_valid
            && said.contains("unresolved_reference")
            && said.contains("ParameterNotFound: so it is"),
        "{said}"
    );
    let (is_valid, said) = ask(TEXT.replace("tide/json#token", "tide/other")).await.unwrap();
    assert!(!is_valid && said.contains("AccessDeniedException"), "{said}");
    let (is_valid, said) = ask(TEXT.replace("json#token", "json#none")).await.unwrap();
    assert!(!is_valid && said.contains("no key `none`"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_credentials_or_a_region_a_default_serves() {
    let (cloud, base) = Cloud::start().await;
    let text = TEXT
        .replace("/tide/secret", "/tide/secret:-made-up")
        .replace("tide/json#token", "tide/json#token:-made-up");
    for variables in [
        vec![("AWS_REGION", "eu-west-1".to_owned()), ("AWS_ENDPOINT_URL", base.clone())],
        vec![
            ("AWS_ENDPOINT_URL", base.clone()),
            ("AWS_ACCESS_KEY_ID", ROLE.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "x".to_owned()),
        ],
        vec![],
    ] {
        let text = text.clone();
        let (is_valid, said) =
            tokio::task::spawn_blocking(move || validate(&text, &variables)).await.unwrap();
        assert!(is_valid, "{said}");
    }
    let (is_valid, said) = tokio::task::spawn_blocking(|| validate(TEXT, &[])).await.unwrap();
    assert!(
        !is_valid && said.contains("or add a default") && said.contains("AWS_REGION is set"),
        "{said}"
    );
    assert!(cloud.asked.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_is_asked_with_the_credentials_of_a_role() {
    let text = "server: { allow_private_urls: true }\ndatabase: { driver: postgres }\nsources: { app: { type: event } }
handlers: { h: { source: app, url: \"http://{receiver}/ok\" } }\n";
    let Some(install) = Install::new(text).await else { return };
    let (_, base) = Cloud::start().await;
    let mut variables = install.variables(true);
    variables
        .retain(|(name, _)| !name.starts_with("AWS_ACCESS") && !name.starts_with("AWS_SECRET"));
    variables.push(("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(), format!("{base}/task")));
    let ingress = Function::start("ingress", &variables, &install.log()).await;
    let worker = Function::start("worker", &variables, &install.log()).await;
    assert_eq!(
        answer(&ingress.invoke(http("POST", "/events/app/a", &[], "{}")).await.unwrap()).0,
        202
    );
    assert_eq!(
        install.queue.sent().len(),
        1,
        "{}",
        std::fs::read_to_string(install.log()).unwrap()
    );
    install.drain(&worker).await;
    assert_eq!(install.receiver.got().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_makes_its_passwords_with_the_credentials_of_a_role_or_says_that_it_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let Some(url) = stores::url(Kind::Postgres, &dir).await else { return };
    let (_, base) = Cloud::start().await;
    let text = "server: { port: {port}, bind: 127.0.0.1 }\ndatabase: \
        { driver: postgres, auth: iam, url: \"URL\" }\n";
    let home = Home::new(&text.replace("URL", &url));
    let migrate = |credentials: Option<String>| {
        let mut command = Command::new(binary());
        command
            .args(["migrate", "--config"])
            .arg(home.path())
            .env_clear()
            .env("HOME", home.dir.path());
        command.env("AWS_REGION", "eu-west-1").env("AWS_EC2_METADATA_DISABLED", "true");
        command.envs(credentials.map(|uri| ("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        async move { output.await.unwrap() }
    };
    let output = migrate(Some(format!("{base}/task"))).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = migrate(None).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success()
            && said.contains("a database password (IAM token) cannot be created:"),
        "{said}"
    );
    assert!(said.contains("no AWS credentials were found; give this process a role"), "{said}");
}
