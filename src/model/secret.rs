//! Text that never prints itself.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

/// A secret: no `Debug`, no `Display`, no serialisation shows it; memory is wiped on drop.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a secret, whose text can then only be read through `expose`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether `other` is the same text, in time that does not depend on where they differ.
    ///
    /// Both sides are hashed first, so that not even the length shows.
    pub fn matches(&self, other: &str) -> bool {
        use sha2::{Digest, Sha256};
        let ours = Sha256::digest(self.expose().as_bytes());
        let theirs = Sha256::digest(other.as_bytes());
        ours.ct_eq(&theirs).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.expose())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_shows_itself() {
        let secret = Secret::new("plainly-fictional");
        assert_eq!(format!("{secret:?}"), "***");
        assert!(secret.matches("plainly-fictional"));
        assert!(!secret.matches("plainly-fictional "));
        assert!(!secret.matches(""));
    }
}
