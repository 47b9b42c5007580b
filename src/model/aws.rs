//! The identity with which this process talks to AWS.

#[cfg(feature = "lambda")]
use aws_credential_types::provider::{SharedCredentialsProvider, error::CredentialsError};

/// The advice that every message about missing credentials ends with.
#[cfg(feature = "lambda")]
pub const AWS_HELP: &str = "give this process a role (Lambda, ECS, EKS, EC2), or set AWS_REGION, \
    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";

/// A region and a source of credentials. A role's credentials expire, so they are asked for each
/// time they are needed.
#[cfg(feature = "lambda")]
#[derive(Debug, Clone)]
pub struct AwsIdentity {
    /// The region that requests are signed for.
    pub region: String,
    /// Provides credentials that are valid at the time of the call.
    pub credentials: SharedCredentialsProvider,
}

/// No identity: this build has no AWS support.
#[cfg(not(feature = "lambda"))]
#[derive(Debug, Clone)]
pub enum AwsIdentity {}

/// A sentence that says why there are no credentials, and what to do. The errors of AWS's own
/// credential chain suggest no fix.
#[cfg(feature = "lambda")]
pub fn no_credentials(why: &CredentialsError) -> String {
    if let CredentialsError::CredentialsNotLoaded(_) = why {
        return format!("no AWS credentials were found; {AWS_HELP}");
    }
    let causes = std::iter::successors(std::error::Error::source(why), |cause| cause.source());
    causes.fold(format!("AWS credentials cannot be loaded: {why}"), |text, cause| {
        format!("{text}: {cause}")
    })
}
