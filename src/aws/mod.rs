//! How this process reaches AWS: region, endpoints, credentials, and the services that keep
//! secrets. First floor.
//!
//! AWS's own chain finds the credentials: the environment, shared files with SSO, a web identity
//! (EKS), the container endpoint (ECS, EKS) or the machine (EC2). The chain:
//! <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>.
//!
//! - [`sdk`]: the configuration that every client of AWS is built from
//! - [`identity`]: the region and the credentials that requests are signed with
//! - [`parameters`]: reads secrets from Systems Manager and Secrets Manager

pub mod parameters;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::{Builder, tls};

use crate::model::{AWS_HELP, AwsIdentity};

/// The configuration that every client of AWS in this process is built from: region, endpoints and
/// credentials from the environment, and an HTTP client with the same TLS as the rest of tidehook.
///
/// It makes no network request when the environment names a region.
pub async fn sdk() -> SdkConfig {
    let http = Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await
}

/// The region and the credentials provider that this process signs requests with.
///
/// # Errors
/// Neither the environment nor a shared file names a region, or there is no credentials provider.
pub fn identity(sdk: &SdkConfig) -> Result<AwsIdentity, String> {
    let region = sdk.region().map(ToString::to_string);
    let region = region.ok_or_else(|| format!("no AWS region is configured; {AWS_HELP}"))?;
    let credentials = sdk
        .credentials_provider()
        .ok_or_else(|| format!("no AWS credentials are configured; {AWS_HELP}"))?;
    Ok(AwsIdentity { region, credentials })
}
