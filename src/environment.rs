//! Reads the settings of a process from its environment, for every way to run it: variables and the
//! configuration. Third floor.

use crate::config::layers::{self, Variables};
use crate::config::{self, External, Loaded, Request};
use crate::model::AwsIdentity;
use crate::{ingress, secrets};

/// The variable `TIDEHOOK_<name>`, else `QHOOK_<name>`; an empty one counts as absent.
pub fn variable(name: &str) -> Option<String> {
    let read =
        |prefix: &str| std::env::var(format!("{prefix}_{name}")).ok().filter(|v| !v.is_empty());
    read("TIDEHOOK").or_else(|| read("QHOOK"))
}

/// A variable like [`variable`], with the secrets that its references stand for.
///
/// # Errors
/// A reference cannot be resolved; the message says why.
pub fn resolved(name: &str) -> Result<Option<String>, String> {
    let Some(value) = variable(name) else { return Ok(None) };
    let references = layers::references_in(&value);
    if references.is_empty() {
        return Ok(Some(value));
    }
    let (mut found, mut failed) = (Variables::new(), Variables::new());
    layers::sort_answers(secrets::resolve(&references), &mut found, &mut failed);
    let value = layers::with_values(&value, &found, &failed);
    value
        .map(Some)
        .map_err(|why| format!("a reference in TIDEHOOK_{name} cannot be resolved: {why}"))
}

/// Loads the configuration that is asked for. What the request leaves open (`path`, `env`) comes
/// from `TIDEHOOK_CONFIG` and `TIDEHOOK_ENV`.
pub fn load(asked: Request) -> Loaded {
    let request = Request {
        path: asked.path.or_else(|| variable("CONFIG").map(Into::into)),
        env: asked.env.or_else(|| variable("ENV")),
        variables: variables(),
        ..asked
    };
    config::load(&request, &External { resolve: Some(secrets::resolve), ..ingress::known() })
}

/// The process's variables that are valid text. `DATABASE_URL` may also be given as
/// `TIDEHOOK_DATABASE_URL`, which wins, or as `QHOOK_DATABASE_URL`.
fn variables() -> Variables {
    let all = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let mut all: Variables = all.collect();
    let set = |all: &Variables, name: &str| all.get(name).filter(|url| !url.is_empty()).cloned();
    let url = set(&all, "TIDEHOOK_DATABASE_URL")
        .or_else(|| set(&all, "DATABASE_URL"))
        .or_else(|| set(&all, "QHOOK_DATABASE_URL"));
    all.extend(url.map(|url| ("DATABASE_URL".to_owned(), url)));
    all
}

/// The configuration that every client of AWS in this process is built from; it is made once.
#[cfg(feature = "lambda")]
pub async fn aws() -> &'static aws_config::SdkConfig {
    static SDK: tokio::sync::OnceCell<aws_config::SdkConfig> = tokio::sync::OnceCell::const_new();
    SDK.get_or_init(crate::aws::sdk).await
}

/// The AWS identity of this process: its region and its credentials.
///
/// # Errors
/// No region or no credentials are known.
#[cfg(feature = "lambda")]
pub async fn identity() -> Result<AwsIdentity, String> {
    crate::aws::identity(aws().await)
}

/// The AWS identity of this process: its region and its credentials.
///
/// # Errors
/// Always: this build is without AWS.
#[cfg(not(feature = "lambda"))]
pub async fn identity() -> Result<AwsIdentity, String> {
    Err("this build does not support AWS; use a build with the feature `lambda`".to_owned())
}
