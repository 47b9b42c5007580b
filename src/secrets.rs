//! Resolves secrets by reference: the configuration names where a secret is kept and holds none
//! itself. First floor.
//!
//! - `file:/run/secrets/x`: the text of a file without its last line break
//! - `ssm:/path`: a parameter of Systems Manager
//! - `secretsmanager:name#key`: a secret, or one key of a secret that is JSON
//!
//! A function asks the AWS Parameters and Secrets extension beside it, which has its permissions
//! and a cache:
//! <https://docs.aws.amazon.com/secretsmanager/latest/userguide/retrieving-secrets_lambda.html>.
//! Other processes ask AWS itself when the environment names a region and credentials are found.
//! Without those nobody is asked, and a default serves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use rand::RngExt;
use serde_json::Value;
#[cfg(feature = "lambda")]
use serde_json::json;

#[cfg(feature = "lambda")]
use crate::aws::parameters::{self, Failed, Service};

/// The port of the extension unless `PARAMETERS_SECRETS_EXTENSION_HTTP_PORT` says otherwise.
const PORT: u16 = 2773;
/// The time limit of one answer of the extension, which may have to ask AWS itself.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How often the extension is asked. It is not ready at once, and AWS may throttle it in a burst of
/// cold starts. The pause between tries starts at `AGAIN`, doubles up to `AGAIN_MAX`, and is
/// random.
const TRIES: u32 = 12;
const AGAIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(1);
/// How many secrets are asked for at the same time.
const AT_ONCE: usize = 8;

/// The results by reference: the secret; `None` when there is nobody to ask or no such file; or a
/// sentence why there is no answer.
pub type Found = BTreeMap<String, Result<Option<String>, String>>;

/// Resolves references. It blocks the thread: a process can do nothing before it knows its
/// configuration.
pub fn resolve(references: &BTreeSet<String>) -> Found {
    let (remote, local): (Vec<_>, Vec<_>) =
        references.iter().partition(|name| !name.starts_with("file:"));
    let mut found: Found = local.into_iter().map(|name| (name.clone(), read(name))).collect();
    if !remote.is_empty() {
        found.extend(ask(remote));
    }
    found
}

fn read(reference: &str) -> Result<Option<String>, String> {
    let path = reference.trim_start_matches("file:");
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(format!("the file {path} cannot be read: {why}")),
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(Some(
        text.strip_suffix('\n')
            .map_or(text, |text| text.strip_suffix('\r').unwrap_or(text))
            .to_owned(),
    ))
}

/// Asks for the references that are no files, in a thread of its own, because a runtime may be
/// running in this one.
fn ask(references: Vec<&String>) -> Found {
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(ask_all(&references)),
                Err(why) => {
                    references.iter().map(|name| ((*name).clone(), Err(why.to_string()))).collect()
                }
            }
        });
        asking.join().unwrap_or_else(|_| {
            references
                .iter()
                .map(|name| ((*name).clone(), Err("the lookup failed".to_owned())))
                .collect()
        })
    })
}

async fn ask_all(references: &[&String]) -> Found {
    let _ = rustls::crypto::ring::default_provider().install_default();
    #[expect(
        clippy::disallowed_methods,
        reason = "asks the extension beside this process, and nobody else"
    )]
    let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_MAX).build();
    let http = &http;
    let aws = &Aws::new();
    // Several keys of one secret are one question.
    let mut places: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for reference in references {
        places.entry(reference.split('#').next().unwrap_or(reference)).or_default().push(reference);
    }
    let asked = places.into_values().map(|references| async move {
        let answer = match http {
            Ok(http) => {
                look_up(http, aws, references.first().map_or("", |reference| reference)).await
            }
            Err(why) => Err(why.to_string()),
        };
        let value = |reference: &&String| {
            let key = Place::of(reference)?.key;
            answer.clone()?.map(|answer| value_of(&answer, key)).transpose()
        };
        references
            .iter()
            .map(|reference| ((*reference).clone(), value(reference)))
            .collect::<Vec<_>>()
    });
    futures::stream::iter(asked)
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .flatten()
        .collect()
}

async fn look_up(
    http: &reqwest::Client,
    aws: &Aws,
    reference: &str,
) -> Result<Option<Value>, String> {
    let place = Place::of(reference)?;
    match ask_extension(http, &place).await? {
        Some(answer) => Ok(Some(answer)),
        None => aws.ask(&place).await,
    }
}

/// A parsed reference: which service of AWS keeps the secret, under which name and key.
struct Place<'a> {
    /// Whether it is a parameter of Systems Manager, and not a secret of Secrets Manager.
    is_parameter: bool,
    name: &'a str,
    key: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn of(reference: &'a str) -> Result<Self, String> {
        match reference.split_once(':') {
            Some(("ssm", name)) => Ok(Self { is_parameter: true, name, key: None }),
            Some(("secretsmanager", name)) => {
                let (name, key) =
                    name.split_once('#').map_or((name, None), |(name, key)| (name, Some(key)));
                Ok(Self { is_parameter: false, name, key })
            }
            _ => Err("unknown kind of reference; use ssm, secretsmanager or file".to_owned()),
        }
    }
}

/// AWS itself, for processes that have no extension beside them. The SDK's configuration is made
/// when it is first needed.
#[cfg(feature = "lambda")]
struct Aws(tokio::sync::OnceCell<aws_config::SdkConfig>);

#[cfg(feature = "lambda")]
impl Aws {
    fn new() -> Self {
        Self(tokio::sync::OnceCell::new())
    }

    async fn ask(&self, place: &Place<'_>) -> Result<Option<Value>, String> {
        let names_region =
            |name: &&str| std::env::var_os(name).is_some_and(|region| !region.is_empty());
        if !["AWS_REGION", "AWS_DEFAULT_REGION"].iter().any(names_region) {
            return Ok(None);
        }
        let sdk = self.0.get_or_init(crate::aws::sdk).await;
        let (service, action, input) = match place.is_parameter {
            true => (
                Service::Ssm,
                "GetParameter",
                json!({ "Name": place.name, "WithDecryption": true }),
            ),
            false => (Service::SecretsManager, "GetSecretValue", json!({ "SecretId": place.name })),
        };
        match parameters::ask(sdk, service, action, &input).await {
            Ok(answer) => Ok(Some(answer)),
            Err(Failed::NoCredentials(why)) => {
                tracing::debug!(
                    why,
                    "AWS credentials are not available. The secret is not looked up."
                );
                Ok(None)
            }
            Err(Failed::Refused(why)) => Err(why),
        }
    }
}

/// Stands in for AWS in a build without it: it never has an answer.
#[cfg(not(feature = "lambda"))]
struct Aws;

#[cfg(not(feature = "lambda"))]
impl Aws {
    fn new() -> Self {
        Self
    }

    async fn ask(&self, _: &Place<'_>) -> Result<Option<Value>, String> {
        Ok(None)
    }
}

/// Asks the extension for a secret; `None` where no extension runs.
async fn ask_extension(http: &reqwest::Client, place: &Place<'_>) -> Result<Option<Value>, String> {
    let port = std::env::var("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(PORT);
    let name =
        percent_encoding::utf8_percent_encode(place.name, percent_encoding::NON_ALPHANUMERIC);
    let path = match place.is_parameter {
        true => format!("systemsmanager/parameters/get?name={name}&withDecryption=true"),
        false => format!("secretsmanager/get?secretId={name}"),
    };
    let token = std::env::var("AWS_SESSION_TOKEN").unwrap_or_default();
    let url = format!("http://127.0.0.1:{port}/{path}");
    let mut last = String::new();
    for tried in 0..TRIES {
        let answer = http.get(&url).header("X-Aws-Parameters-Secrets-Token", &token).send().await;
        match answer {
            Ok(answer) if answer.status().is_success() => {
                let answer = answer.json::<Value>().await;
                return answer.map(Some).map_err(|why| {
                    format!(
                        "the response of the AWS Parameters \
                    and Secrets extension cannot be read: {why}"
                    )
                });
            }
            Ok(answer) => {
                let status = answer.status();
                last = format!(
                    "the AWS Parameters and Secrets extension returned {status}: {}",
                    answer.text().await.unwrap_or_default().trim()
                );
                // Not ready yet is 400 in some versions, and so is what AWS throttles; what is not
                // there or not allowed stays so.
                let passes = ["not ready", "Throttl", "TooManyRequests", "RequestLimitExceeded"];
                let is_passing = status == 429
                    || status.is_server_error()
                    || passes.iter().any(|word| last.contains(word));
                if !is_passing {
                    return Err(last);
                }
            }
            // Nobody listens: not yet, in a function; never, elsewhere.
            Err(why)
                if why.is_connect() && std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() =>
            {
                return Ok(None);
            }
            Err(why) => {
                last = format!("the AWS Parameters and Secrets extension does not answer: {why}")
            }
        }
        tokio::time::sleep(wait_before(tried)).await;
    }
    Err(last)
}

/// The pause after a failed try, by the number of tries before it.
#[expect(
    clippy::disallowed_methods,
    reason = "spreads processes that start at once; no decision depends on it"
)]
fn wait_before(tried: u32) -> Duration {
    (AGAIN * 2u32.saturating_pow(tried.min(8)))
        .min(AGAIN_MAX)
        .mul_f64(rand::rng().random_range(0.5..1.5))
}

/// The text of a secret in an answer of AWS; with a key, that key of the JSON it holds.
fn value_of(answer: &Value, key: Option<&str>) -> Result<String, String> {
    let text = answer["Parameter"]["Value"].as_str().or_else(|| answer["SecretString"].as_str());
    let text = text.ok_or(
        "AWS returned no text; binary secrets are not supported, store the secret as text",
    )?;
    let Some(key) = key else { return Ok(text.to_owned()) };
    let secret: Value = serde_json::from_str(text)
        .map_err(|_| format!("the secret is not JSON, so it has no key `{key}`"))?;
    match &secret[key] {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Err(format!("the secret has no key `{key}`")),
        other => Ok(other.to_string()),
    }
}
