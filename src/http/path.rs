//! Extracts the segments of a path, and refuses bad ones with the JSON of every other refusal.

use axum::extract::{FromRequestParts, Path as Segments};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The percent-decoded segments of a path, extracted by axum; 400 when they are not UTF-8.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let segments = Segments::<T>::from_request_parts(parts, state).await;
        segments
            .map(|Segments(segments)| Self(segments))
            .map_err(|_| ApiError::bad_request("the path is not UTF-8 text"))
    }
}
