//! Keys and signatures of Standard Webhooks, used for inbound and outbound requests.
//!
//! Source: the Standard Webhooks specification 1.0, "Signature scheme".

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Base64 with or without its padding: the official libraries read secrets of both kinds.
pub const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The key bytes of a shared secret: the decoded base64 after `whsec_`, or else the text itself.
///
/// # Errors
/// The text after `whsec_` is empty or not base64.
pub fn key(secret: &str) -> Result<Vec<u8>, String> {
    match secret.strip_prefix("whsec_") {
        None => Ok(secret.as_bytes().to_vec()),
        Some(rest) => match LENIENT.decode(rest) {
            Ok(key) if !key.is_empty() => Ok(key),
            _ => Err("a secret that starts with whsec_ must continue with base64".to_owned()),
        },
    }
}

/// `v1,…` for a message: HMAC-SHA256 in base64 over `id.timestamp.body`.
pub fn signature(key: &[u8], id: &str, timestamp: &str, body: &[u8]) -> String {
    // HMAC takes keys of every length, so this cannot fail.
    let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(key) else { return String::new() };
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vector_is_met() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = signature(
            &key,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(super::key("whsec_!").is_err());
        assert_eq!(super::key("whsec_YWI=").unwrap(), super::key("whsec_YWI").unwrap());
        assert_eq!(super::key("plain").unwrap(), b"plain");
    }
}
