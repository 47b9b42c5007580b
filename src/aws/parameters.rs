//! Reads secrets that AWS keeps, with one call per service: `GetParameter` of Systems Manager and
//! `GetSecretValue` of Secrets Manager.
//!
//! AWS's runtime crates find credentials, sign, retry and enforce timeouts; this file only writes
//! and reads the documents.
//!
//! - <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>
//! - <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_runtime::retries::classifiers::AwsErrorCodeClassifier;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::{
    HttpStatusCodeClassifier, TransientErrorClassifier,
};
use aws_smithy_runtime_api::client::auth::AuthSchemeOptionResolverParams;
use aws_smithy_runtime_api::client::auth::static_resolver::{
    StaticAuthSchemeOptionResolver, StaticAuthSchemeOptionResolverParams,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use serde_json::Value;

use super::identity;
use crate::model::{AWS_HELP, no_credentials};

/// The time limit of one question, over all its tries.
const CALL_MAX: Duration = Duration::from_secs(8);
const TRY_MAX: Duration = Duration::from_secs(3);
/// The most tries of one question. AWS throttles many processes that start at once, so the pauses
/// between tries grow and are random.
const TRIES: u32 = 4;
/// Statuses that are worth another try, in addition to throttling.
const TRANSIENT_STATUSES: &[u16] = &[500, 502, 503, 504];

/// A service of AWS that keeps secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Systems Manager, for parameters.
    Ssm,
    /// Secrets Manager, asked with `GetSecretValue`; a secret may be JSON that holds several keys.
    SecretsManager,
}

/// The names that AWS has for one service.
struct ServiceNames {
    /// In addresses and signatures.
    address: &'static str,
    /// The prefix of `x-amz-target`.
    target: &'static str,
    /// The variable that overrides the service's endpoint.
    endpoint_variable: &'static str,
}

impl Service {
    /// The service's name in addresses and signatures, its prefix in `x-amz-target`, and the
    /// variable that overrides its endpoint.
    fn names(self) -> ServiceNames {
        match self {
            Self::Ssm => ServiceNames {
                address: "ssm",
                target: "AmazonSSM",
                endpoint_variable: "AWS_ENDPOINT_URL_SSM",
            },
            Self::SecretsManager => ServiceNames {
                address: "secretsmanager",
                target: "secretsmanager",
                endpoint_variable: "AWS_ENDPOINT_URL_SECRETS_MANAGER",
            },
        }
    }

    fn endpoint(self, sdk: &SdkConfig, region: &str) -> String {
        let ServiceNames { address, endpoint_variable, .. } = self.names();
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let own = std::env::var(endpoint_variable).ok().filter(|url| !url.is_empty());
        own.or_else(|| sdk.endpoint_url().map(str::to_owned))
            .unwrap_or_else(|| format!("https://{address}.{region}.{domain}"))
    }
}

/// Why a question to AWS has no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    /// AWS was not asked, because this process has no region or no credentials; callers treat the
    /// secret as absent.
    NoCredentials(String),
    /// AWS refused or did not answer in time: a sentence that says why. It is never replaced by a
    /// default.
    Refused(String),
}

/// Calls an action of a service and returns its output. `action` and `input` are named as in AWS's
/// API reference.
///
/// # Errors
/// There are no credentials, AWS refuses, or there is no answer in time.
pub async fn ask(
    sdk: &SdkConfig,
    service: Service,
    action: &'static str,
    input: &Value,
) -> Result<Value, Failed> {
    let who = identity(sdk).map_err(Failed::NoCredentials)?;
    let Some(http) = sdk.http_client() else {
        return Err(Failed::NoCredentials(AWS_HELP.to_owned()));
    };
    let ServiceNames { address: name, target: prefix, .. } = service.names();
    let mut layer = Layer::new("tidehook");
    layer.store_put(AuthSchemeOptionResolverParams::from(
        StaticAuthSchemeOptionResolverParams::new(),
    ));
    layer.store_put(SigV4OperationSigningConfig {
        region: Some(aws_config::Region::new(who.region.clone()).into()),
        name: Some(name.into()),
        ..SigV4OperationSigningConfig::default()
    });
    let components = RuntimeComponentsBuilder::new("tidehook")
        .with_auth_scheme(SigV4AuthScheme::new())
        .with_auth_scheme_option_resolver(Some(StaticAuthSchemeOptionResolver::new(vec![
            SCHEME_ID,
        ])))
        .with_identity_resolver(SCHEME_ID, who.credentials.clone());
    let target = format!("{prefix}.{action}");
    let mut operation = Operation::builder()
        .service_name(name)
        .operation_name(action)
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .endpoint_url(&service.endpoint(sdk, &who.region))
        .standard_retry(&RetryConfig::standard().with_max_attempts(TRIES))
        .retry_classifier(AwsErrorCodeClassifier::<Answered>::new())
        .retry_classifier(TransientErrorClassifier::<Answered>::new())
        .retry_classifier(HttpStatusCodeClassifier::new_from_codes(TRANSIENT_STATUSES))
        .timeout_config(
            TimeoutConfig::builder()
                .operation_timeout(CALL_MAX)
                .operation_attempt_timeout(TRY_MAX)
                .build(),
        )
        .runtime_plugin(
            StaticRuntimePlugin::new()
                .with_config(layer.freeze())
                .with_runtime_components(components),
        );
    if let Some(sleep) = sdk.sleep_impl() {
        operation = operation.sleep_impl(sleep);
    }
    if let Some(time) = sdk.time_source() {
        operation = operation.time_source(time);
    }
    let operation = operation
        .serializer(move |body: String| {
            let mut request = HttpRequest::new(SdkBody::from(body));
            request.set_method("POST")?;
            request.set_uri("/")?;
            request.headers_mut().insert("content-type", "application/x-amz-json-1.1");
            request.headers_mut().insert("x-amz-target", target.clone());
            Ok(request)
        })
        .deserializer(answered)
        .build();
    operation.invoke(input.to_string()).await.map_err(|error| failed(&error))
}

/// An error document that a service answered with.
#[derive(Debug)]
struct Answered(ErrorMetadata);

impl std::fmt::Display for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.code(), self.0.message()) {
            (Some(code), Some(message)) => write!(f, "{code}: {message}"),
            (code, message) => f.write_str(code.or(message).unwrap_or("no reason given")),
        }
    }
}

impl std::error::Error for Answered {}

impl ProvideErrorMetadata for Answered {
    fn meta(&self) -> &ErrorMetadata {
        &self.0
    }
}

/// Reads a response: a JSON document on success, else an error with its type and message.
fn answered(response: &HttpResponse) -> Result<Value, OrchestratorError<Answered>> {
    let document: Option<Value> =
        response.body().bytes().and_then(|bytes| serde_json::from_slice(bytes).ok());
    if response.status().is_success() {
        return document.ok_or_else(|| OrchestratorError::other("the response is not JSON"));
    }
    let document = document.unwrap_or_default();
    // `com.amazonaws.ssm#ParameterNotFound`, unless something before the service answers.
    let code = document["__type"].as_str().map(|code| code.rsplit('#').next().unwrap_or(code));
    let message = document["message"].as_str().or(document["Message"].as_str());
    let meta = ErrorMetadata::builder()
        .code(code.map_or_else(|| response.status().as_u16().to_string(), str::to_owned));
    let meta = match message {
        Some(message) => meta.message(message),
        None => meta,
    };
    Err(OrchestratorError::operation(Answered(meta.build())))
}

/// Turns an error of the SDK into a sentence, and tells missing credentials from a refusal.
fn failed(error: &SdkError<Answered, HttpResponse>) -> Failed {
    let causes =
        std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    for cause in causes {
        if let Some(why) = cause.downcast_ref::<CredentialsError>() {
            return match why {
                CredentialsError::CredentialsNotLoaded(_) => {
                    Failed::NoCredentials(no_credentials(why))
                }
                _ => Failed::Refused(no_credentials(why)),
            };
        }
    }
    match error {
        SdkError::ServiceError(answer) => Failed::Refused(format!("AWS returned {}", answer.err())),
        other => Failed::Refused(format!("the call to AWS failed: {}", DisplayErrorContext(other))),
    }
}
