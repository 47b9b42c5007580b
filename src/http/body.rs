//! Reading a request's body: bounded in bytes and in time.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::error::Refusal;

/// A body that takes longer is given up.
const TIME_MAX: Duration = Duration::from_secs(12);

/// Refuses by the headers alone what would be refused after reading.
///
/// # Errors
/// 413 for a length over the limit, 415 for an encoded body: the signature is over the bytes as sent, and
/// nothing is decompressed.
pub fn judge(headers: &HeaderMap, bytes_max: usize) -> Result<(), Refusal> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if length.is_some_and(|length| length > bytes_max as u64) {
        return Err(Refusal::too_large(bytes_max));
    }
    let encoding = headers.get(header::CONTENT_ENCODING).map(|v| v.as_bytes().to_ascii_lowercase());
    if encoding.is_some_and(|e| !e.is_empty() && e != b"identity") {
        let message = "send the body without Content-Encoding";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message).closing());
    }
    Ok(())
}

/// Reads the whole body.
///
/// # Errors
/// 413, 400 for a body that breaks off, 408 for one that takes too long.
pub async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Refusal> {
    let reading = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(TIME_MAX, reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::too_large(bytes_max)),
        Ok(Err(_)) => Err(Refusal::bad_request("the body broke off").closing()),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body took too long").closing()),
    }
}
