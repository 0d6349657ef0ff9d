//! Signed tokens (JWT, RFC 7519) that agents show in place of a password.
//!
//! Only what is needed, and strictly: the compact form of a signature (RFC 7515) by a public key. The
//! algorithm must be on a list that has neither `none` nor anything with a shared secret, and must fit
//! the key's own kind, so that a public key can never be used as one (RFC 8725, section 3.1). Keys
//! come from the issuer's published set (RFC 7517) and never from the token. Nothing here reads a
//! clock or a socket: keys and time are handed in (see [`super::keys`]).

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Map, Value};

use super::keys::KeyPlace;
use crate::actor::Claims;

/// A way of signing (RFC 7518, section 3.1; RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA, PKCS #1 v1.5, SHA-256
    Rs256,
    /// The same with SHA-384
    Rs384,
    /// The same with SHA-512
    Rs512,
    /// RSA, PSS, SHA-256
    Ps256,
    /// ECDSA on P-256 with SHA-256
    Es256,
    /// ECDSA on P-384 with SHA-384
    Es384,
    /// Ed25519
    EdDsa,
}

impl Algorithm {
    /// Every one that can be allowed.
    pub const ALL: [Self; 7] =
        [Self::Rs256, Self::Rs384, Self::Rs512, Self::Ps256, Self::Es256, Self::Es384, Self::EdDsa];

    /// The registered name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

/// What a token has to say, and whose signature counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRule {
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud`, or one of them.
    pub audience: String,
    /// `sub`, exactly.
    pub subject: String,
    /// Where the issuer publishes its keys.
    pub keys: KeyPlace,
    /// What it may sign with.
    pub algorithms: Vec<Algorithm>,
    /// Which of its claims tell what about the run.
    pub claims: ClaimPaths,
    /// How far the issuer's clock and ours may be apart.
    pub skew: Duration,
    /// The session ends when its token does.
    pub end_with_token: bool,
}

/// Where in a token the verified claims are, as the names that lead to them, by the claim's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPaths(pub Vec<(&'static str, Vec<String>)>);

/// The claims that a token may vouch for.
pub const CLAIMS: [&str; 5] = ["model", "version", "run", "task", "purpose"];

impl Default for ClaimPaths {
    /// Each under its own name in an object called `countersign`.
    fn default() -> Self {
        Self(CLAIMS.iter().map(|&name| (name, vec!["countersign".to_owned(), name.to_owned()])).collect())
    }
}

/// Why a token is not accepted. For the log; whoever showed it is told only that it was not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a signed token.
    #[error("not a signed token: {0}")]
    Malformed(&'static str),
    /// Signed in a way that is not allowed.
    #[error("signed with \"{0}\", which is not allowed here")]
    Algorithm(String),
    /// The key that it names is not among the issuer's.
    #[error("the issuer has no such key for this algorithm")]
    UnknownKey,
    /// The signature is not by the key.
    #[error("the signature is wrong")]
    Signature,
    /// It was good once.
    #[error("it has expired")]
    Expired,
    /// It is not good yet, or says that it was made later than now.
    #[error("it is not good yet")]
    NotYet,
    /// Somebody else's, or for something else.
    #[error("its \"{0}\" is another one than configured, or missing")]
    Claim(&'static str),
}

/// A token that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    /// What it says about the run.
    pub claims: Claims,
    /// When it expires, without regard for clocks that differ.
    pub expires: Timestamp,
}

/// A token that was taken apart and not believed yet.
pub struct Token<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    /// What was signed.
    message: &'a [u8],
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// When it is none, or signed in a way that `rule` does not allow.
    pub fn parse(text: &'a str, rule: &TokenRule) -> Result<Self, TokenError> {
        const PARTS: TokenError = TokenError::Malformed("it has not three parts in base64url");
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| PARTS);
        let (message, signature) = text.rsplit_once('.').ok_or(PARTS)?;
        let (header, payload) = message.split_once('.').ok_or(PARTS)?;
        let header: Map<String, Value> = serde_json::from_slice(&decode(header)?)
            .map_err(|_| TokenError::Malformed("its header is no JSON object"))?;
        let text = |name: &str| header.get(name).map(|value| value.as_str().unwrap_or_default());
        let name = text("alg").unwrap_or_default();
        let algorithm = Algorithm::of_name(name)
            .filter(|algorithm| rule.algorithms.contains(algorithm))
            .ok_or_else(|| TokenError::Algorithm(printable(name)))?;
        // Extensions that must be understood: we know none (RFC 7515, section 4.1.11).
        if header.contains_key("crit") {
            return Err(TokenError::Malformed("it has critical extensions"));
        }
        // Issuers sign other things with the same keys: logout tokens, security events, proofs of
        // possession. They say so (RFC 8725, section 3.11).
        let kind = text("typ").unwrap_or("JWT").to_ascii_lowercase();
        if !matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "at+jwt") {
            return Err(TokenError::Malformed("it is a token for something else, by its type"));
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(TokenError::Malformed("its key id is no text")),
        };
        Ok(Self {
            algorithm,
            key_id,
            message: message.as_bytes(),
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }

    /// Whether `keys` has a key that it may be signed with.
    #[must_use]
    pub fn has_key(&self, keys: &KeySet) -> bool {
        !keys.candidates(self.key_id.as_deref(), self.algorithm).is_empty()
    }

    /// Checks signature, times and claims.
    ///
    /// # Errors
    /// As [`TokenError`] says.
    pub fn verify(
        &self,
        keys: &KeySet,
        rule: &TokenRule,
        now: Timestamp,
    ) -> Result<VerifiedToken, TokenError> {
        let candidates = keys.candidates(self.key_id.as_deref(), self.algorithm);
        if candidates.is_empty() {
            return Err(TokenError::UnknownKey);
        }
        if !candidates.iter().any(|key| key.material.verifies(self.algorithm, self.message, &self.signature))
        {
            return Err(TokenError::Signature);
        }
        let claims: Map<String, Value> = serde_json::from_slice(&self.payload)
            .map_err(|_| TokenError::Malformed("its claims are no JSON object"))?;
        if claims.get("iss").and_then(Value::as_str) != Some(&rule.issuer) {
            return Err(TokenError::Claim("iss"));
        }
        let audience = match claims.get("aud") {
            Some(Value::String(one)) => *one == rule.audience,
            Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(&rule.audience)),
            _ => false,
        };
        if !audience {
            return Err(TokenError::Claim("aud"));
        }
        if claims.get("sub").and_then(Value::as_str) != Some(&rule.subject) {
            return Err(TokenError::Claim("sub"));
        }
        let expires = in_force(&claims, rule.skew, now)?;
        let mut verified = Claims::default();
        for (name, path) in &rule.claims.0 {
            match lookup(&claims, path) {
                Some(Value::String(text)) => _ = verified.set(name, text),
                Some(Value::Number(number)) => _ = verified.set(name, &number.to_string()),
                Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => {}
            }
        }
        Ok(VerifiedToken { claims: verified, expires })
    }
}

/// Checks `exp`, `nbf` and `iat` (RFC 7519, section 4.1); returns the first.
fn in_force(claims: &Map<String, Value>, skew: Duration, now: Timestamp) -> Result<Timestamp, TokenError> {
    // Seconds since the epoch, perhaps with a fraction. One that is there and no number is an error
    // and not an absence.
    let date = |name: &'static str| match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            value.as_f64().filter(|date| date.is_finite()).map(Some).ok_or(TokenError::Claim(name))
        }
    };
    let (now, skew) = (now.as_duration().as_secs_f64(), skew.as_secs_f64());
    let expires = date("exp")?.ok_or(TokenError::Claim("exp"))?;
    if now >= expires + skew {
        return Err(TokenError::Expired);
    }
    for name in ["nbf", "iat"] {
        if date(name)?.is_some_and(|date| date > now + skew) {
            return Err(TokenError::NotYet);
        }
    }
    // Beyond what a timestamp can say is as good as never.
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and is checked")]
    let expires = Timestamp::from_second(expires as i64).unwrap_or(Timestamp::MAX);
    Ok(expires)
}

fn lookup<'v>(claims: &'v Map<String, Value>, path: &[String]) -> Option<&'v Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(claims.get(first)?, |value, name| value.as_object()?.get(name))
}

fn printable(text: &str) -> String {
    text.chars().take(32).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// The keys that an issuer publishes (RFC 7517, section 5), those of them that we can use.
#[derive(Debug, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

#[derive(Debug, PartialEq, Eq)]
struct Key {
    id: Option<String>,
    /// The one algorithm that it is for, where it says so.
    algorithm: Option<String>,
    material: Material,
}

#[derive(PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed points.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl KeySet {
    /// Reads a set. Keys of other kinds, for other uses, or too short are left out.
    ///
    /// # Errors
    /// When it is no set of keys.
    pub fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let set: Value = serde_json::from_slice(text).map_err(|_| "is no JSON")?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("has no list of \"keys\"")?;
        Ok(Self(keys.iter().filter_map(Key::read).collect()))
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys that a token may be signed with: of the id that it names, or the only one that fits
    /// where it names none.
    fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<&Key> {
        let fitting = self.0.iter().filter(|key| key.fits(algorithm));
        match id {
            Some(id) => fitting.filter(|key| key.id.as_deref() == Some(id)).collect(),
            None => {
                let all: Vec<&Key> = fitting.collect();
                if all.len() == 1 { all } else { Vec::new() }
            }
        }
    }
}

impl Key {
    fn read(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        if let Some(operations) = value.get("key_ops")
            && !operations.as_array()?.iter().any(|operation| operation.as_str() == Some("verify"))
        {
            return None;
        }
        let point = |length: usize| -> Option<Vec<u8>> {
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == length && y.len() == length).then(|| [&[4][..], &x, &y].concat())
        };
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let n = bytes("n")?;
                let n: Vec<u8> = n.into_iter().skip_while(|byte| *byte == 0).collect();
                // Shorter than 2048 bits is refused by the verification as well; it is no key here.
                if n.len() < 256 {
                    return None;
                }
                Material::Rsa { n, e: bytes("e")? }
            }
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
            _ => return None,
        };
        Some(Self { id: text("kid").map(str::to_owned), algorithm: text("alg").map(str::to_owned), material })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let kind = match (&self.material, algorithm) {
            (
                Material::Rsa { .. },
                Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512 | Algorithm::Ps256,
            )
            | (Material::P256(_), Algorithm::Es256)
            | (Material::P384(_), Algorithm::Es384)
            | (Material::Ed25519(_), Algorithm::EdDsa) => true,
            (Material::Rsa { .. } | Material::P256(_) | Material::P384(_) | Material::Ed25519(_), _) => false,
        };
        // RFC 9864 gives Ed25519 a name of its own; a key may carry it.
        let named = |name: &String| {
            name == algorithm.as_str() || (algorithm == Algorithm::EdDsa && name == "Ed25519")
        };
        kind && self.algorithm.as_ref().is_none_or(named)
    }
}

impl Material {
    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let plain = |how: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(how, key).verify(message, signature)
        };
        let rsa = |how: &'static signature::RsaParameters, n: &[u8], e: &[u8]| {
            RsaPublicKeyComponents { n, e }.verify(how, message, signature)
        };
        let verified = match (self, algorithm) {
            (Self::Rsa { n, e }, Algorithm::Rs256) => rsa(&signature::RSA_PKCS1_2048_8192_SHA256, n, e),
            (Self::Rsa { n, e }, Algorithm::Rs384) => rsa(&signature::RSA_PKCS1_2048_8192_SHA384, n, e),
            (Self::Rsa { n, e }, Algorithm::Rs512) => rsa(&signature::RSA_PKCS1_2048_8192_SHA512, n, e),
            (Self::Rsa { n, e }, Algorithm::Ps256) => rsa(&signature::RSA_PSS_2048_8192_SHA256, n, e),
            (Self::P256(point), Algorithm::Es256) => plain(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Self::P384(point), Algorithm::Es384) => plain(&signature::ECDSA_P384_SHA384_FIXED, point),
            (Self::Ed25519(key), Algorithm::EdDsa) => plain(&signature::ED25519, key),
            (Self::Rsa { .. } | Self::P256(_) | Self::P384(_) | Self::Ed25519(_), _) => return false,
        };
        verified.is_ok()
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa { .. } => "RSA",
            Self::P256(_) => "P-256",
            Self::P384(_) => "P-384",
            Self::Ed25519(_) => "Ed25519",
        })
    }
}
