//! Who a process is to AWS.

#[cfg(feature = "lambda")]
use aws_credential_types::provider::{SharedCredentialsProvider, error::CredentialsError};

/// What a process needs that AWS shall know: said wherever there are no credentials.
#[cfg(feature = "lambda")]
pub const AWS_HELP: &str =
    "give this process a role (Lambda, ECS, EKS, EC2), or set AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";

/// A region, and where credentials come from. Those of a role grow old: whoever needs some asks each time.
#[cfg(feature = "lambda")]
#[derive(Debug, Clone)]
pub struct AwsIdentity {
    /// The region that requests are signed for.
    pub region: String,
    /// Answers credentials that are good now.
    pub credentials: SharedCredentialsProvider,
}

/// Nobody: this build is without AWS.
#[cfg(not(feature = "lambda"))]
#[derive(Debug, Clone)]
pub enum AwsIdentity {}

/// Why there are no credentials, and what to do. The words of the chain that looks for them name no remedy.
#[cfg(feature = "lambda")]
pub fn no_credentials(why: &CredentialsError) -> String {
    if let CredentialsError::CredentialsNotLoaded(_) = why {
        return format!("no credentials of AWS were found; {AWS_HELP}");
    }
    let causes = std::iter::successors(std::error::Error::source(why), |cause| cause.source());
    causes.fold(format!("credentials of AWS cannot be had: {why}"), |text, cause| format!("{text}: {cause}"))
}
