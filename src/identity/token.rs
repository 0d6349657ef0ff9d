//! Signed tokens (JWT, RFC 7519) that agents show in place of a password.
//!
//! Only what is needed, and strictly: the compact form of a signature (RFC 7515) by a public key. The
//! algorithm must be on a list that has neither `none` nor anything with a shared secret, and must fit
//! the key's own kind, so that a public key can never be used as one (RFC 8725, section 3.1). Keys
//! come from the issuer's published set (RFC 7517) and never from the token. Nothing here reads a
//! clock or a socket: keys and time are handed in (see [`super::keys`]).

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

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;

    /// An issuer with one key of each of two kinds.
    struct Issuer {
        ed: Ed25519KeyPair,
        ec: EcdsaKeyPair,
    }

    const NOW: i64 = 1_800_000_000;

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    fn encode(bytes: impl AsRef<[u8]>) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    impl Issuer {
        fn new() -> Self {
            let random = SystemRandom::new();
            let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
            let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            Self {
                ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
                ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
            }
        }

        fn jwks(&self) -> Value {
            let point = self.ec.public_key().as_ref();
            json!({ "keys": [
                { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": encode(self.ed.public_key()), "use": "sig" },
                { "kty": "EC", "crv": "P-256", "kid": "ec", "x": encode(&point[1..33]), "y": encode(&point[33..]),
                  "alg": "ES256", "key_ops": ["verify"] },
                { "kty": "RSA", "kid": "for-encryption", "use": "enc", "n": encode([255; 256]), "e": "AQAB" },
                { "kty": "RSA", "kid": "short", "n": encode([255; 128]), "e": "AQAB" },
                { "kty": "oct", "kid": "shared", "k": "AAAA" },
                { "kty": "something newer", "kid": "new" },
                "not even an object",
            ] })
        }

        fn keys(&self) -> KeySet {
            KeySet::parse(self.jwks().to_string().as_bytes()).unwrap()
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
            let signature = match header["alg"].as_str() {
                Some("ES256") => {
                    let signed = self.ec.sign(&SystemRandom::new(), message.as_bytes());
                    signed.unwrap().as_ref().to_vec()
                }
                _ => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
            };
            format!("{message}.{}", encode(signature))
        }
    }

    fn rule() -> TokenRule {
        TokenRule {
            issuer: "https://id.example".to_owned(),
            audience: "countersign".to_owned(),
            subject: "bot".to_owned(),
            keys: KeyPlace::File("jwks.json".into()),
            algorithms: Algorithm::ALL.to_vec(),
            claims: ClaimPaths::default(),
            skew: Duration::from_secs(60),
            end_with_token: false,
        }
    }

    fn ed() -> Value {
        json!({ "alg": "EdDSA", "kid": "ed", "typ": "JWT" })
    }

    fn claims() -> Value {
        json!({
            "iss": "https://id.example", "aud": ["other", "countersign"], "sub": "bot",
            "exp": NOW + 300, "nbf": NOW - 10, "iat": NOW - 10,
            "countersign": { "model": "m-1", "run": 42, "task": null, "purpose": ["a"], "version": "" },
        })
    }

    fn with(mut claims: Value, name: &str, value: Value) -> Value {
        claims[name] = value;
        claims
    }

    fn check(text: &str, keys: &KeySet, rule: &TokenRule) -> Result<VerifiedToken, TokenError> {
        Token::parse(text, rule)?.verify(keys, rule, now())
    }

    #[test]
    fn a_good_token_is_believed_with_what_it_says_of_the_run() {
        let issuer = Issuer::new();
        for header in [ed(), json!({ "alg": "ES256", "kid": "ec" }), json!({ "alg": "EdDSA" })] {
            let verified = check(&issuer.sign(&header, &claims()), &issuer.keys(), &rule()).unwrap();

            let said: Vec<_> = verified.claims.iter().collect();
            assert_eq!(said, [("model", "m-1"), ("run", "42")], "texts and numbers, nothing else");
            assert_eq!(verified.expires.as_second(), NOW + 300);
        }
    }

    #[test]
    fn claims_are_found_where_the_operator_says() {
        let issuer = Issuer::new();
        let path = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let paths = vec![
            ("run", path(&["run.id"])),
            ("model", path(&["https://example.com/agent", "model"])),
            ("task", path(&["sub", "x"])),
        ];
        let claims =
            with(with(claims(), "run.id", json!("r1")), "https://example.com/agent", json!({ "model": "m" }));

        let rule = TokenRule { claims: ClaimPaths(paths), ..rule() };
        let verified = check(&issuer.sign(&ed(), &claims), &issuer.keys(), &rule).unwrap();

        assert_eq!(verified.claims.iter().collect::<Vec<_>>(), [("model", "m"), ("run", "r1")]);
    }

    #[test]
    fn a_token_for_somebody_or_something_else_is_refused() {
        let issuer = Issuer::new();
        for (name, value) in [
            ("iss", json!("https://evil.example")),
            ("iss", json!(["https://id.example"])),
            ("iss", Value::Null),
            ("aud", json!("other")),
            ("aud", json!([])),
            ("aud", json!({ "countersign": 1 })),
            ("sub", json!("bot2")),
            ("sub", json!("BOT")),
            ("sub", Value::Null),
            ("exp", Value::Null),
            ("exp", json!((NOW + 300).to_string())),
            ("nbf", json!("soon")),
            ("iat", json!([])),
        ] {
            let refused =
                check(&issuer.sign(&ed(), &with(claims(), name, value.clone())), &issuer.keys(), &rule());
            assert_eq!(refused, Err(TokenError::Claim(name)), "{name} {value}");
        }
    }

    #[test]
    fn times_hold_give_or_take_the_skew() {
        let issuer = Issuer::new();
        let told = |name: &str, at: f64| {
            check(&issuer.sign(&ed(), &with(claims(), name, json!(at))), &issuer.keys(), &rule()).map(|_| ())
        };
        let now = NOW as f64;

        assert_eq!(told("exp", now - 59.5), Ok(()));
        assert_eq!(told("exp", now - 60.0), Err(TokenError::Expired));
        assert_eq!(told("exp", -1e300), Err(TokenError::Expired));
        assert_eq!(told("exp", 1e300), Ok(()));
        assert_eq!(told("nbf", now + 60.0), Ok(()));
        assert_eq!(told("nbf", now + 61.0), Err(TokenError::NotYet));
        assert_eq!(told("iat", now + 61.0), Err(TokenError::NotYet));
        assert_eq!(told("iat", now - 1e9), Ok(()));
    }

    #[test]
    fn forged_signatures_are_refused() {
        let (issuer, other) = (Issuer::new(), Issuer::new());
        let good = issuer.sign(&ed(), &claims());
        let keys = issuer.keys();
        let mut parts: Vec<&str> = good.split('.').collect();
        let richer = encode(with(claims(), "sub", json!("admin")).to_string());
        parts[1] = &richer;

        assert_eq!(check(&parts.join("."), &keys, &rule()), Err(TokenError::Signature));
        assert_eq!(check(&other.sign(&ed(), &claims()), &keys, &rule()), Err(TokenError::Signature));
        // Signed by the one key, said to be by the other.
        let header = json!({ "alg": "EdDSA", "kid": "ec" });
        assert_eq!(check(&issuer.sign(&header, &claims()), &keys, &rule()), Err(TokenError::UnknownKey));
        for length in [0, 1, 63] {
            let cut = format!("{}.{}", good.rsplit_once('.').unwrap().0, encode(vec![0; length]));
            assert_eq!(check(&cut, &keys, &rule()), Err(TokenError::Signature));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_token_is_noticed() {
        let issuer = Issuer::new();
        let (good, keys) = (issuer.sign(&ed(), &claims()), issuer.keys());
        for place in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[place] ^= 1;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            assert!(check(&text, &keys, &rule()).is_err(), "byte {place}");
        }
    }

    #[test]
    fn no_signature_and_shared_secrets_are_no_algorithms() {
        let issuer = Issuer::new();
        let keys = issuer.keys();
        let body = encode(claims().to_string());
        for (name, signature) in
            [("none", ""), ("None", ""), ("", ""), ("HS256", "AAAA"), ("ES512", "AAAA"), ("RS1", "AAAA")]
        {
            let header = encode(json!({ "alg": name, "kid": "ed" }).to_string());
            let told = check(&format!("{header}.{body}.{signature}"), &keys, &rule());
            assert_eq!(told, Err(TokenError::Algorithm(name.to_owned())));
        }
        // The classic: the public key, which everybody knows, as the secret of an HMAC.
        let message = format!("{}.{body}", encode(json!({ "alg": "HS256", "kid": "ed" }).to_string()));
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, issuer.ed.public_key().as_ref());
        let forged = format!("{message}.{}", encode(ring::hmac::sign(&secret, message.as_bytes())));
        assert!(matches!(check(&forged, &keys, &rule()), Err(TokenError::Algorithm(_))));
        // A key is only for its own kind of algorithm, and only for those that the operator allows.
        let header = json!({ "alg": "RS256", "kid": "ed" });
        assert_eq!(check(&issuer.sign(&header, &claims()), &keys, &rule()), Err(TokenError::UnknownKey));
        let narrow = TokenRule { algorithms: vec![Algorithm::Es256], ..rule() };
        assert!(matches!(
            check(&issuer.sign(&ed(), &claims()), &keys, &narrow),
            Err(TokenError::Algorithm(_))
        ));
    }

    #[test]
    fn what_is_no_token_or_is_for_something_else_is_refused() {
        let issuer = Issuer::new();
        let keys = issuer.keys();
        let good = issuer.sign(&ed(), &claims());
        for text in [
            "",
            ".",
            "..",
            "a.b",
            "a.b.c.d.e",
            &format!("{good}="),
            &format!("{good}.x"),
            &format!(" {good}"),
            "\u{e9}.\u{e9}.\u{e9}",
        ] {
            assert!(
                matches!(
                    check(text, &keys, &rule()),
                    Err(TokenError::Malformed(_) | TokenError::Algorithm(_))
                ),
                "{text}"
            );
        }
        for (name, value) in [
            ("crit", json!(["exp"])),
            ("typ", json!("logout+jwt")),
            ("typ", json!("dpop+jwt")),
            ("typ", json!(1)),
            ("kid", json!(7)),
        ] {
            let told = check(&issuer.sign(&with(ed(), name, value), &claims()), &keys, &rule());
            assert!(matches!(told, Err(TokenError::Malformed(_))), "{name}: {told:?}");
        }
        for kind in ["jwt", "at+jwt", "application/at+jwt"] {
            assert!(check(&issuer.sign(&with(ed(), "typ", json!(kind)), &claims()), &keys, &rule()).is_ok());
        }
        // A key inside the token is nobody's.
        let header = with(with(ed(), "jwk", issuer.jwks()["keys"][0].clone()), "kid", json!("mine"));
        assert_eq!(check(&issuer.sign(&header, &claims()), &keys, &rule()), Err(TokenError::UnknownKey));
    }

    #[test]
    fn without_a_key_id_only_a_single_key_counts() {
        let (issuer, other) = (Issuer::new(), Issuer::new());
        let token = issuer.sign(&json!({ "alg": "EdDSA" }), &claims());
        let mut both = issuer.jwks();
        both["keys"].as_array_mut().unwrap().push(other.jwks()["keys"][0].clone());
        let both = KeySet::parse(both.to_string().as_bytes()).unwrap();

        assert!(check(&token, &issuer.keys(), &rule()).is_ok());
        assert_eq!(check(&token, &both, &rule()), Err(TokenError::UnknownKey));
        // Two keys of one id, as when an issuer reuses it: either may have signed.
        assert!(check(&issuer.sign(&ed(), &claims()), &both, &rule()).is_ok());
        assert!(check(&other.sign(&ed(), &claims()), &both, &rule()).is_ok());
    }

    #[test]
    fn only_keys_that_can_be_used_are_kept() {
        assert_eq!(Issuer::new().keys().len(), 2);
        assert!(KeySet::parse(b"{\"keys\": []}").unwrap().is_empty());
        for text in ["", "[]", "{}", "{\"keys\": {}}", "<html>"] {
            assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
