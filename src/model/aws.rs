//! Who a process is to AWS.

#[cfg(feature = "lambda")]
use std::time::{Duration, SystemTime};

#[cfg(feature = "lambda")]
use aws_credential_types::Credentials;
#[cfg(feature = "lambda")]
use aws_sigv4::http_request::{SignableRequest, SigningInstructions, SigningSettings, sign};
#[cfg(feature = "lambda")]
use aws_sigv4::sign::v4;

use super::Secret;
#[cfg(feature = "lambda")]
use super::Timestamp;

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
    /// Signs a request to a service as made at a time, in its headers or in its query as the settings say.
    ///
    /// The signature: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>.
    ///
    /// # Errors
    /// The request is none that can be signed.
    pub fn sign(
        &self,
        service: &str,
        at: Timestamp,
        settings: SigningSettings,
        request: SignableRequest<'_>,
    ) -> Result<SigningInstructions, String> {
        let session = self.session.as_ref().map(|session| session.expose().to_owned());
        let identity = Credentials::new(self.key.clone(), self.secret.expose(), session, None, "environment").into();
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0));
        let parameters = v4::SigningParams::builder().identity(&identity).region(&self.region).name(service).time(time);
        let parameters = parameters.settings(settings).build().map_err(|error| error.to_string())?.into();
        Ok(sign(request, &parameters).map_err(|error| error.to_string())?.into_parts().0)
    }
}
