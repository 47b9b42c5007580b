//! Segments of a path, refused in the one shape of every refusal.

use axum::extract::{FromRequestParts, Path as Segments};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The decoded segments of a path.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let segments = Segments::<T>::from_request_parts(parts, state).await;
        segments.map(|Segments(segments)| Self(segments)).map_err(|_| ApiError::bad_request("the path is not UTF-8 text"))
    }
}
