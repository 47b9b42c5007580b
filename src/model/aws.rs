//! Who a process is to AWS.

use super::Secret;

/// Region and credentials, as Lambda puts them into the environment of a function.
#[derive(Debug, Clone)]
pub struct AwsIdentity {
    /// The region.
    pub region: String,
    /// The id of the access key.
    pub key: String,
    /// The access key itself.
    pub secret: Secret,
    /// The session it belongs to, if it is a passing one.
    pub session: Option<Secret>,
}
