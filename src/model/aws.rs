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

#[cfg(feature = "lambda")]
impl AwsIdentity {
    /// What signs requests.
    pub fn credentials(&self) -> aws_credential_types::Credentials {
        let session = self.session.as_ref().map(|session| session.expose().to_owned());
        aws_credential_types::Credentials::new(self.key.clone(), self.secret.expose(), session, None, "environment")
    }
}
