//! Random secrets: made, recognised by their prefix, kept as hashes.
//!
//! Every secret begins with four characters that say what it is, so that a leaked one is found by
//! scanners, and one that was pasted into the wrong place is refused for what it is.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

/// What a secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An agent's password.
    Agent,
    /// A reviewer's personal token.
    Reviewer,
    /// A one-time sign-in link.
    Link,
    /// A console session.
    Session,
}

impl Kind {
    /// The first four characters.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Agent => "csa_",
            Self::Reviewer => "csr_",
            Self::Link => "csl_",
            Self::Session => "css_",
        }
    }
}

/// `N` bytes from the operating system.
///
/// # Panics
///
/// When the operating system has no randomness to give: then nothing that follows would be secret.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::expect_used, reason = "without randomness there are no secrets")]
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// A new secret: its prefix and 256 random bits. All of its characters may stand in a URL.
#[must_use]
pub fn generate(kind: Kind) -> Zeroizing<String> {
    let bytes = Zeroizing::new(random::<32>());
    Zeroizing::new(format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(*bytes)))
}

/// A segment of a URL's path that nobody can guess: 192 random bits.
#[must_use]
pub fn path_segment() -> Zeroizing<String> {
    let bytes = Zeroizing::new(random::<24>());
    Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes))
}

/// SHA-256 of a secret. A slow hash would add nothing: there are 256 random bits to guess.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Hashes a secret.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Reads `sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.strip_prefix("sha256:")?, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// Whether two hashes are equal, in a time that does not depend on where they differ.
    #[must_use]
    pub fn same(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_says_what_it_is_and_never_repeats() {
        let (one, other) = (generate(Kind::Reviewer), generate(Kind::Reviewer));

        assert!(one.starts_with("csr_") && one.len() == 47, "{}", one.len());
        assert_ne!(*one, *other);
    }

    #[test]
    fn a_hash_survives_the_file() {
        let hash = SecretHash::of("csr_x");

        assert_eq!(SecretHash::parse(&hash.to_string()), Some(hash));
        assert_eq!(SecretHash::parse("sha256:00"), None);
        assert_eq!(format!("{hash:?}"), "SecretHash(..)");
    }
}
