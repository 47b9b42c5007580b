//! First floor: this process at AWS. Who it is, AWS's own chain finds out: the environment, shared files with SSO, a web identity (EKS),
//! the container's endpoint (ECS, EKS), the machine's (EC2).
//!
//! - [`sdk`]: what every client is made of; [`identity`]: who signs; [`parameters`]: secrets that AWS keeps
//!
//! The chain: <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>.

pub mod parameters;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::{Builder, tls};

use crate::model::{AWS_HELP, AwsIdentity};

/// What every client of AWS is made of: region, endpoints and credentials as the environment says, and an HTTP client whose TLS is that
/// of everything else here.
///
/// Nothing is asked over the network where the environment names a region.
pub async fn sdk() -> SdkConfig {
    let http = Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)).build_https();
    aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await
}

/// Who signs for this process.
///
/// # Errors
/// No region is named anywhere.
pub fn identity(sdk: &SdkConfig) -> Result<AwsIdentity, String> {
    let region = sdk.region().map(ToString::to_string);
    let region = region.ok_or_else(|| format!("no region of AWS is known; {AWS_HELP}"))?;
    let credentials = sdk.credentials_provider().ok_or_else(|| format!("no credentials of AWS are known; {AWS_HELP}"))?;
    Ok(AwsIdentity { region, credentials })
}
