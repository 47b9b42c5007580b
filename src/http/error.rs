//! The JSON of every refusal: `{"code","message","error"[,"details"]}`, where `error` repeats the
//! message.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rand::RngExt;
use serde_json::{Value, json};

use crate::engine::NotAccepted;
use crate::engine::operate::OperateError;
use crate::store;

/// A refusal of a request: status, stable code and message, and what its headers must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Vec<(String, String)>,
    retry_after_s: Option<u32>,
    close: bool,
}

impl ApiError {
    /// A refusal with a stable code and a sentence for people.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            details: Vec::new(),
            retry_after_s: None,
            close: false,
        }
    }

    /// 404 `not_found`, with the message that the caller reads.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 401 `unauthorized`, with one message for every cause, so that it reveals nothing.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Invalid token")
    }

    /// 400 `bad_request`, with the message that the caller reads. Most wrong values are 422
    /// instead, which names the field.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 422 `validation_error` with a fixed message; each detail names a field and what is wrong
    /// with it.
    pub fn invalid(details: impl IntoIterator<Item = (String, String)>) -> Self {
        let refusal = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "validation_error",
            "Request validation failed",
        );
        Self { details: details.into_iter().collect(), ..refusal }
    }

    /// 422 `validation_error` with one detail: the field and what is wrong with it.
    pub fn invalid_field(field: &str, message: impl Into<String>) -> Self {
        Self::invalid([(field.to_owned(), message.into())])
    }

    /// 413; the rest of the body is not read, so the connection is closed.
    pub fn too_large(bytes_max: usize) -> Self {
        let message = format!("the body is larger than {bytes_max} bytes");
        Self {
            close: true,
            ..Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
        }
    }

    /// 503 because the database is unreachable, with a random `Retry-After` so that clients do not
    /// return all at once.
    pub fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable",
            "Database temporarily unavailable",
        )
        .retry_soon()
    }

    /// 503 because the database has no room for more.
    pub fn full() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_full", "Database is full").retry_soon()
    }

    /// 500; the cause is in the log.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal error")
    }

    /// Adds a `Retry-After` of 1 to 10 seconds, drawn at random.
    #[expect(clippy::disallowed_methods, reason = "spreads clients; no decision depends on it")]
    pub fn retry_soon(self) -> Self {
        Self { retry_after_s: Some(rand::rng().random_range(1..=10)), ..self }
    }

    /// Adds a `Retry-After` of this many seconds.
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// Closes the connection after the answer.
    pub fn closing(self) -> Self {
        Self { close: true, ..self }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({ "code": self.code, "message": self.message, "error": self.message });
        if !self.details.is_empty() {
            let detail =
                |(field, message): &(String, String)| json!({ "field": field, "message": message });
            body["details"] = Value::Array(self.details.iter().map(detail).collect());
        }
        let mut response = (self.status, Json(body)).into_response();
        let mut set =
            |name: HeaderName, value: HeaderValue| response.headers_mut().insert(name, value);
        if let Some(seconds) = self.retry_after_s {
            set(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.close {
            set(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<NotAccepted> for ApiError {
    fn from(why: NotAccepted) -> Self {
        match why {
            NotAccepted::Starting => {
                let message = "tidehook is starting and the database is not ready yet; try again \
                    when /readyz returns 200";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", message)
                    .retry_soon()
            }
            NotAccepted::Stopping => {
                let message = "tidehook is shutting down; send the request again";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message)
                    .retry_soon()
                    .closing()
            }
            NotAccepted::Unavailable => Self::unavailable(),
            NotAccepted::Full => Self::full(),
            NotAccepted::Conflict(event) => Self::new(
                StatusCode::CONFLICT,
                "idempotency_conflict",
                format!(
                    "this Idempotency-Key was already used with a different body, for event \
                     {event}; use a new key"
                ),
            ),
            NotAccepted::Unstorable(_) => Self::internal(),
        }
    }
}

impl From<OperateError> for ApiError {
    fn from(why: OperateError) -> Self {
        match why {
            OperateError::Missing => Self::not_found("not found"),
            OperateError::Refused(why) => Self::new(StatusCode::CONFLICT, "conflict", why),
            OperateError::Store(error) => error.into(),
        }
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Down(_) | store::Error::ReadOnly(_) | store::Error::Conflict(_) => {
                Self::unavailable()
            }
            store::Error::Full(_) => Self::full(),
            store::Error::InUse(_)
            | store::Error::LeaseLost
            | store::Error::MovedOn
            | store::Error::Permanent(_) => {
                tracing::error!(%error, "A request failed because of a database error.");
                Self::internal()
            }
        }
    }
}
