//! Third floor: what a process's environment says, the same at every door: variables and the configuration.

use crate::config::layers::{self, Variables};
use crate::config::{self, Known, Loaded, Request};
use crate::model::AwsIdentity;
use crate::{ingress, secrets};

/// A variable under its own name, else under qhook's.
pub fn variable(name: &str) -> Option<String> {
    let read = |prefix: &str| std::env::var(format!("{prefix}_{name}")).ok().filter(|v| !v.is_empty());
    read("TIDEHOOK").or_else(|| read("QHOOK"))
}

/// A variable, with what the references in it stand for.
///
/// # Errors
/// Why one of them stands for nothing.
pub fn resolved(name: &str) -> Result<Option<String>, String> {
    let Some(value) = variable(name) else { return Ok(None) };
    let references = layers::references_in(&value);
    if references.is_empty() {
        return Ok(Some(value));
    }
    let (mut found, mut failed) = (Variables::new(), Variables::new());
    layers::sort_answers(secrets::resolve(&references), &mut found, &mut failed);
    let value = layers::with_values(&value, &found, &failed);
    value.map(Some).map_err(|why| format!("TIDEHOOK_{name} has a reference that stands for nothing: {why}"))
}

/// Loads the configuration that is asked for, else the one that the environment names.
pub fn load(asked: Request) -> Loaded {
    let request = Request {
        path: asked.path.or_else(|| variable("CONFIG").map(Into::into)),
        env: asked.env.or_else(|| variable("ENV")),
        variables: variables(),
        ..asked
    };
    config::load(&request, &Known { resolve: Some(secrets::resolve), ..ingress::known() })
}

/// The variables of the process that are text. Where the database is may stand under tidehook's own name and qhook's, too.
fn variables() -> Variables {
    let all = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let mut all: Variables = all.collect();
    let set = |all: &Variables, name: &str| all.get(name).filter(|url| !url.is_empty()).cloned();
    let url =
        set(&all, "TIDEHOOK_DATABASE_URL").or_else(|| set(&all, "DATABASE_URL")).or_else(|| set(&all, "QHOOK_DATABASE_URL"));
    all.extend(url.map(|url| ("DATABASE_URL".to_owned(), url)));
    all
}

/// What every client of AWS in this process is made of, found out once.
#[cfg(feature = "lambda")]
pub async fn aws() -> &'static aws_config::SdkConfig {
    static SDK: tokio::sync::OnceCell<aws_config::SdkConfig> = tokio::sync::OnceCell::const_new();
    SDK.get_or_init(crate::aws::sdk).await
}

/// Who this process is to AWS.
///
/// # Errors
/// The environment does not say, or this build is without AWS.
#[cfg(feature = "lambda")]
pub async fn identity() -> Result<AwsIdentity, String> {
    crate::aws::identity(aws().await)
}

/// Who this process is to AWS.
///
/// # Errors
/// Always: this build is without AWS.
#[cfg(not(feature = "lambda"))]
pub async fn identity() -> Result<AwsIdentity, String> {
    Err("this build is without AWS (feature `lambda`)".to_owned())
}
