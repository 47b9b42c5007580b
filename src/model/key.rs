//! Makes texts from outside safe to store, index and compare as keys. All keys pass through here.

use sha2::{Digest, Sha256};

/// Longer keys are stored as their hash, so that index entries stay small.
pub const KEY_BYTES_MAX: usize = 200;

/// A text from outside as a key: unchanged, or hashed if it is too long or contains NUL, which
/// Postgres refuses.
pub fn within_limits(text: &str) -> String {
    match text.len() <= KEY_BYTES_MAX && !text.contains('\0') {
        true => text.to_owned(),
        false => format!("sha256:{}", hex::encode(Sha256::digest(text.as_bytes()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_texts_are_keys_of_their_own() {
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        let texts = ["a", "a\0", "a\0b", &long, &format!("{long}k"), "a\u{fffd}"];
        let keys: std::collections::BTreeSet<String> =
            texts.iter().map(|text| within_limits(text)).collect();
        assert_eq!(keys.len(), texts.len());
        assert!(keys.iter().all(|key| key.len() <= KEY_BYTES_MAX && !key.contains('\0')));
    }
}
