//! Tokens that are good, expired, forged or malformed.

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
    assert!(matches!(check(&issuer.sign(&ed(), &claims()), &keys, &narrow), Err(TokenError::Algorithm(_))));
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
            matches!(check(text, &keys, &rule()), Err(TokenError::Malformed(_) | TokenError::Algorithm(_))),
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
