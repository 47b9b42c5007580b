//! First floor: secrets by reference. A configuration names where a secret lies and holds none itself, so the same file serves
//! the container and the functions.
//!
//! - `file:/run/secrets/x`: a file, its last line break left out
//! - `ssm:/path`: a parameter; `secretsmanager:name#key`: a secret, or a key of one that is JSON. Both are asked of the AWS
//!   Parameters and Secrets extension beside the process, which has the permissions of the function and a cache:
//!   <https://docs.aws.amazon.com/secretsmanager/latest/userguide/retrieving-secrets_lambda.html>

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

/// Where the extension listens unless `PARAMETERS_SECRETS_EXTENSION_HTTP_PORT` says otherwise.
const PORT: u16 = 2773;
/// An answer of the extension, which may ask AWS itself.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// It is not ready from the first moment on: it is asked so often, with this in between.
const TRIES: u32 = 20;
const AGAIN: Duration = Duration::from_millis(100);

/// What references stand for: nothing, where there is nobody to ask and no file; or a sentence why there is no answer.
pub type Found = BTreeMap<String, Result<Option<String>, String>>;

/// Looks references up. It blocks: a process has nothing else to do before it knows its configuration.
pub fn resolve(references: &BTreeSet<String>) -> Found {
    let (remote, local): (Vec<_>, Vec<_>) = references.iter().partition(|name| !name.starts_with("file:"));
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
        Err(why) => return Err(format!("{path} cannot be read: {why}")),
    };
    Ok(Some(text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text)).to_owned()))
}

/// In a thread of its own, because a runtime may be running in this one.
fn ask(references: Vec<&String>) -> Found {
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(ask_all(&references)),
                Err(why) => references.iter().map(|name| ((*name).clone(), Err(why.to_string()))).collect(),
            }
        });
        asking.join().unwrap_or_else(|_| {
            references.iter().map(|name| ((*name).clone(), Err("looking it up has failed".to_owned()))).collect()
        })
    })
}

async fn ask_all(references: &[&String]) -> Found {
    let _ = rustls::crypto::ring::default_provider().install_default();
    #[expect(clippy::disallowed_methods, reason = "asks the extension beside this process, and nobody else")]
    let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_MAX).build();
    let mut found = Found::new();
    for name in references {
        let value = match &http {
            Ok(http) => ask_one(http, name).await,
            Err(why) => Err(why.to_string()),
        };
        found.insert((*name).clone(), value);
    }
    found
}

async fn ask_one(http: &reqwest::Client, reference: &str) -> Result<Option<String>, String> {
    let port = std::env::var("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT").ok().and_then(|text| text.parse().ok()).unwrap_or(PORT);
    let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let (path, key) = match reference.split_once(':') {
        Some(("ssm", name)) => (format!("systemsmanager/parameters/get?name={}&withDecryption=true", encode(name)), None),
        Some(("secretsmanager", name)) => {
            let (name, key) = name.split_once('#').map_or((name, None), |(name, key)| (name, Some(key)));
            (format!("secretsmanager/get?secretId={}", encode(name)), key)
        }
        _ => return Err("there is no such kind of reference; there are ssm, secretsmanager and file".to_owned()),
    };
    let token = std::env::var("AWS_SESSION_TOKEN").unwrap_or_default();
    let url = format!("http://127.0.0.1:{port}/{path}");
    let mut last = String::new();
    for _ in 0..TRIES {
        let answer = http.get(&url).header("X-Aws-Parameters-Secrets-Token", &token).send().await;
        match answer {
            Ok(answer) if answer.status().is_success() => {
                let answer =
                    answer.json::<Value>().await.map_err(|why| format!("the extension's answer cannot be read: {why}"))?;
                return value_of(&answer, key).map(Some);
            }
            Ok(answer) => {
                let status = answer.status();
                last = format!("the extension answers {status}: {}", answer.text().await.unwrap_or_default().trim());
                // Not ready yet is 400 in some versions; what is not there or not allowed stays so.
                if !last.contains("not ready") {
                    return Err(last);
                }
            }
            // Nobody listens: not yet, in a function; never, elsewhere.
            Err(why) if why.is_connect() && std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() => return Ok(None),
            Err(why) => last = format!("the AWS Parameters and Secrets extension does not answer: {why}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
    Err(last)
}

/// The text in an answer; of JSON, the key's.
fn value_of(answer: &Value, key: Option<&str>) -> Result<String, String> {
    let text = answer["Parameter"]["Value"].as_str().or_else(|| answer["SecretString"].as_str());
    let text = text.ok_or("the extension's answer has no text")?;
    let Some(key) = key else { return Ok(text.to_owned()) };
    let secret: Value = serde_json::from_str(text).map_err(|_| format!("the secret is not JSON, so it has no key `{key}`"))?;
    match &secret[key] {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Err(format!("the secret has no key `{key}`")),
        other => Ok(other.to_string()),
    }
}
