//! SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677) in the spelling of Postgres's `pg_authid`.
//!
//! The exchange itself is the session's; what it is checked against comes from here. Nobody can tell
//! an unknown agent from a wrong password: a name that is not configured gets a verifier of its own,
//! with the same number of iterations and a salt that is always the same for that name.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What a password is checked against. Whoever has it cannot log in with it.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    /// How often the password is hashed.
    pub iterations: u32,
    /// The salt.
    pub salt: Vec<u8>,
    /// SHA-256 of the client key.
    pub stored_key: [u8; 32],
    /// The server key.
    pub server_key: [u8; 32],
}

/// The iterations of the verifiers that we make (RFC 7677 asks for no fewer). Our passwords are 256
/// random bits; more iterations would slow every connection and protect nothing.
pub const ITERATIONS: u32 = 4096;

impl ScramVerifier {
    /// Reads `SCRAM-SHA-256$iterations:salt$stored:server`, the last three in base64.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "is not of the form SCRAM-SHA-256$iterations:salt$stored:server";
        let rest = text.strip_prefix("SCRAM-SHA-256$").ok_or(FORM)?;
        let (first, keys) = rest.split_once('$').ok_or(FORM)?;
        let (iterations, salt) = first.split_once(':').ok_or(FORM)?;
        let (stored, server) = keys.split_once(':').ok_or(FORM)?;
        let key = |text: &str| -> Option<[u8; 32]> { STANDARD.decode(text).ok()?.try_into().ok() };
        let iterations = iterations.parse().map_err(|_| FORM)?;
        if !(ITERATIONS..=1_000_000).contains(&iterations) {
            return Err("has fewer than 4096 or more than 1000000 iterations");
        }
        let salt = STANDARD.decode(salt).map_err(|_| FORM)?;
        if salt.len() < 8 {
            return Err("has a salt of fewer than 8 bytes");
        }
        Ok(Self {
            iterations,
            salt,
            stored_key: key(stored).ok_or(FORM)?,
            server_key: key(server).ok_or(FORM)?,
        })
    }

    /// A verifier for `password`, with a fresh salt.
    #[must_use]
    pub fn of_password(password: &str) -> Self {
        Self::derive(password, super::secret::random::<16>().to_vec(), ITERATIONS)
    }

    /// The verifier for an agent that does not exist. No password fits it: its keys are not derived
    /// from one.
    #[must_use]
    pub fn mock(secret: &[u8; 32], name: &str, iterations: u32) -> Self {
        let part =
            |what: &str| hmac(secret, &[b"countersign/mock/v1\0", what.as_bytes(), b"\0", name.as_bytes()]);
        let [salt @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = part("salt");
        Self { iterations, salt: salt.to_vec(), stored_key: part("stored"), server_key: part("server") }
    }

    /// Whether `password` fits. Slow by design; for tests and for checking that nobody was given a
    /// secret twice.
    #[must_use]
    pub fn fits(&self, password: &str) -> bool {
        let derived = Self::derive(password, self.salt.clone(), self.iterations);
        derived.stored_key.ct_eq(&self.stored_key).into()
    }

    fn derive(password: &str, salt: Vec<u8>, iterations: u32) -> Self {
        // SASLprep (RFC 4013); what it rejects is used as it is, as Postgres does.
        let prepared = stringprep::saslprep(password).unwrap_or(password.into());
        let salted = pbkdf2(prepared.as_bytes(), &salt, iterations);
        let client_key = hmac(&salted, &[b"Client Key"]);
        Self {
            iterations,
            salt,
            stored_key: Sha256::digest(client_key).into(),
            server_key: hmac(&salted, &[b"Server Key"]),
        }
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// PBKDF2 (RFC 8018) for one block, which is what SCRAM's `Hi` is.
fn pbkdf2(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let keyed = Hmac::<Sha256>::new_from_slice(password).expect("any length");
    let step = |parts: &[&[u8]]| -> [u8; 32] {
        let mut mac = keyed.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    };
    let mut block = step(&[salt, &1u32.to_be_bytes()]);
    let mut result = block;
    for _ in 1..iterations {
        block = step(&[&block]);
        for (sum, byte) in result.iter_mut().zip(block) {
            *sum ^= byte;
        }
    }
    result
}

impl fmt::Display for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(self.stored_key),
            STANDARD.encode(self.server_key)
        )
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramVerifier {{ iterations: {}, .. }}", self.iterations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_made_by_postgres_code_is_understood() {
        let text = postgres_protocol::password::scram_sha_256(b"csa_secret");
        let verifier = ScramVerifier::parse(&text).unwrap();

        assert!(verifier.fits("csa_secret"));
        assert!(!verifier.fits("csa_secreT"));
        assert_eq!(verifier.to_string(), text);
    }

    #[test]
    fn a_verifier_we_make_survives_the_file() {
        let verifier = ScramVerifier::of_password("csa_x");

        assert_eq!(ScramVerifier::parse(&verifier.to_string()), Ok(verifier.clone()));
        assert!(!format!("{verifier:?}").contains(&STANDARD.encode(verifier.stored_key)));
    }

    #[test]
    fn an_unknown_agent_always_gets_the_same_salt_and_never_in() {
        let mock = ScramVerifier::mock(&[7; 32], "ghost", ITERATIONS);

        assert_eq!(mock, ScramVerifier::mock(&[7; 32], "ghost", ITERATIONS));
        assert_ne!(mock.salt, ScramVerifier::mock(&[7; 32], "ghosu", ITERATIONS).salt);
        assert_ne!(mock.salt, ScramVerifier::mock(&[8; 32], "ghost", ITERATIONS).salt);
        assert_eq!(mock.salt.len(), ScramVerifier::of_password("x").salt.len());
        assert!(!mock.fits("") && !mock.fits("ghost"));
    }

    #[test]
    fn weak_or_broken_verifiers_are_refused() {
        let salt = STANDARD.encode([1; 16]);
        let key = STANDARD.encode([2; 32]);
        assert!(ScramVerifier::parse(&format!("SCRAM-SHA-256$1:{salt}${key}:{key}")).is_err());
        assert!(ScramVerifier::parse(&format!("SCRAM-SHA-256$4096:AA==${key}:{key}")).is_err());
        assert!(ScramVerifier::parse(&format!("SCRAM-SHA-256$4096:{salt}${key}")).is_err());
        assert!(ScramVerifier::parse("md5abcdef").is_err());
    }
}
