//! Third floor: what a process's environment says, the same at every door: variables and the configuration.

use crate::config::layers::Variables;
use crate::config::{self, Known, Loaded, Request};
use crate::model::{AwsIdentity, Secret};
use crate::{ingress, secrets};

/// A variable under its own name, else under qhook's.
pub fn variable(name: &str) -> Option<String> {
    let read = |prefix: &str| std::env::var(format!("{prefix}_{name}")).ok().filter(|v| !v.is_empty());
    read("TIDEHOOK").or_else(|| read("QHOOK"))
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

/// The variables of the process that are text.
fn variables() -> Variables {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

/// Who this process is to AWS. Of the many ways that the SDK knows to find out, a function has one: its environment.
///
/// # Errors
/// It does not say.
pub fn aws() -> Result<AwsIdentity, String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let needed = |name: &str| variable(name).ok_or_else(|| format!("the environment has no {name}"));
    let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
    Ok(AwsIdentity {
        region: region.ok_or("the environment has no AWS_REGION")?,
        key: needed("AWS_ACCESS_KEY_ID")?,
        secret: Secret::new(needed("AWS_SECRET_ACCESS_KEY")?),
        session: variable("AWS_SESSION_TOKEN").map(Secret::new),
    })
}

/// Where a service of AWS is, if not where it always is: under the names that AWS's own tools read, `AWS_ENDPOINT_URL_SQS` first.
pub fn endpoint(service: &str) -> Option<String> {
    let names = [format!("AWS_ENDPOINT_URL_{service}"), "AWS_ENDPOINT_URL".to_owned()];
    names.iter().find_map(|name| std::env::var(name).ok().filter(|url| !url.is_empty()))
}
