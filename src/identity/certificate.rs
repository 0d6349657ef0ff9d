//! Client certificates: which one is an agent's.
//!
//! That a certificate is by the configured authority, in force, and that its key is at the other end,
//! the TLS handshake has checked. What is left is whose it is. A name is compared as the sequence of
//! its parts (RFC 5280, section 4.1.2.4) and never as text: two different names may be displayed
//! alike (`CN=a,O=b` is one common name or two parts), and there are several orders and spellings of
//! one name.

use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Which certificate is an agent's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateRule {
    /// Any by the authority that is made out to this subject.
    Subject(Name),
    /// The one whose DER encoding has this SHA-256.
    Fingerprint([u8; 32]),
}

/// A distinguished name: its relative names in the order in which a certificate has them, each a
/// sorted list of attribute types (object identifiers in dotted form) and values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(Vec<Vec<(String, String)>>);

/// What RFC 4514 (section 3) and OpenSSL call the types of attributes, in upper case.
const TYPES: &[(&str, &str)] = &[
    ("CN", "2.5.4.3"),
    ("SN", "2.5.4.4"),
    ("SERIALNUMBER", "2.5.4.5"),
    ("C", "2.5.4.6"),
    ("L", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("STREET", "2.5.4.9"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("TITLE", "2.5.4.12"),
    ("GN", "2.5.4.42"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("EMAILADDRESS", "1.2.840.113549.1.9.1"),
];

impl CertificateRule {
    /// Reads `sha256:` and a fingerprint in hexadecimal digits, colons allowed between them as OpenSSL
    /// prints it, or a distinguished name in the form of RFC 4514, the most specific part first:
    /// `CN=reporting-bot,OU=agents,O=Example`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(digits) = text.strip_prefix("sha256:") {
            let mut bytes = [0; 32];
            return hex::decode_to_slice(digits.replace(':', ""), &mut bytes)
                .map(|()| Self::Fingerprint(bytes))
                .map_err(|_| "is not of the form \"sha256:\" and 64 hexadecimal digits".to_owned());
        }
        Name::parse(text).map(Self::Subject)
    }

    /// Whether a certificate (DER) is the one that is meant.
    #[must_use]
    pub fn fits(&self, certificate: &[u8]) -> bool {
        match self {
            Self::Fingerprint(wanted) => wanted[..] == Sha256::digest(certificate)[..],
            Self::Subject(wanted) => Name::of_subject(certificate).as_ref() == Some(wanted),
        }
    }
}

impl Name {
    /// The subject of a certificate; `None` when it has parts that are no plain text.
    fn of_subject(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let mut name = Vec::new();
        for part in certificate.subject().iter_rdn() {
            let mut attributes = Vec::new();
            for attribute in part.iter() {
                // Of UTF8String, PrintableString and IA5String; others have not been used for decades.
                let value = attribute.as_str().ok()?;
                attributes.push((attribute.attr_type().to_id_string(), value.to_owned()));
            }
            attributes.sort();
            name.push(attributes);
        }
        Some(Self(name))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        for part in split(text, ',')? {
            let mut attributes = Vec::new();
            for attribute in split(part, '+')? {
                attributes.push(parse_attribute(attribute)?);
            }
            attributes.sort();
            parts.push(attributes);
        }
        // Written with the most specific part first; certificates have it last.
        parts.reverse();
        Ok(Self(parts))
    }
}

/// Splits at separators that no backslash precedes.
fn split(text: &str, separator: char) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        if !escaped && c == separator {
            parts.push(text.get(start..at).unwrap_or_default());
            start = at + 1;
        }
        escaped = !escaped && c == '\\';
    }
    if escaped {
        return Err("ends with a backslash".to_owned());
    }
    parts.push(text.get(start..).unwrap_or_default());
    Ok(parts)
}

fn parse_attribute(text: &str) -> Result<(String, String), String> {
    const FORM: &str =
        "is not a name such as \"CN=reporting-bot,O=Example\", nor \"sha256:\" and a fingerprint";
    let (kind, value) = text.trim_start().split_once('=').ok_or(FORM)?;
    let kind = kind.trim().to_ascii_uppercase();
    let kind = match TYPES.iter().find(|(name, _)| *name == kind) {
        Some((_, identifier)) => (*identifier).to_owned(),
        None if kind.contains('.') && kind.split('.').all(|number| number.parse::<u64>().is_ok()) => kind,
        None => {
            let known: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "\"{kind}\" is not a type of attribute; known are {}, and object identifiers",
                known.join(", ")
            ));
        }
    };
    let value = unescape(value).ok_or_else(|| format!("the value of \"{text}\" is escaped wrongly"))?;
    if value.is_empty() { Err(FORM.to_owned()) } else { Ok((kind, value)) }
}

/// A value without its escapes (RFC 4514, section 2.4): a backslash before a special character, or
/// before two hexadecimal digits that are one byte of UTF-8. Blanks around it do not count unless
/// they are escaped; a value in BER (`#04..`) is not taken.
fn unescape(value: &str) -> Option<String> {
    let value = value.trim_start();
    if value.starts_with('#') {
        return None;
    }
    let mut bytes = Vec::new();
    // What stands before it is kept: a blank that was escaped.
    let mut kept = 0;
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (
                b'\\',
                [c @ (b' ' | b'"' | b'#' | b'+' | b',' | b';' | b'<' | b'=' | b'>' | b'\\'), tail @ ..],
            ) => {
                bytes.push(*c);
                kept = bytes.len();
                rest = tail;
            }
            (b'\\', [high, low, tail @ ..]) => {
                let mut byte = [0];
                hex::decode_to_slice([*high, *low], &mut byte).ok()?;
                bytes.extend(byte);
                kept = bytes.len();
                rest = tail;
            }
            (b'\\' | b'"' | b';' | b'<' | b'>', _) => return None,
            (other, _) => bytes.push(*other),
        }
    }
    while bytes.len() > kept && bytes.last() == Some(&b' ') {
        bytes.pop();
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn certificate(parts: Vec<(DnType, DnValue)>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind, value);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn text(value: &str) -> DnValue {
        DnValue::Utf8String(value.to_owned())
    }

    fn fits(rule: &str, certificate: &[u8]) -> bool {
        CertificateRule::parse(rule).unwrap().fits(certificate)
    }

    #[test]
    fn a_subject_is_compared_part_by_part() {
        let bot = certificate(vec![
            (DnType::OrganizationName, text("Example, Inc.")),
            (DnType::OrganizationalUnitName, text("agents")),
            (DnType::CommonName, text("bot")),
        ]);

        assert!(fits(r"CN=bot,OU=agents,O=Example\, Inc.", &bot));
        assert!(fits(r"cn=bot, ou=agents, 2.5.4.10=Example\2c Inc.", &bot));
        for other in [
            "CN=bot",
            r"CN=bot,O=Example\, Inc.",
            r"O=Example\, Inc.,OU=agents,CN=bot",
            r"CN=bot,OU=agents,O=example\, inc.",
            r"CN=bot+OU=agents,O=Example\, Inc.",
            r"CN=bot,OU=agents,O=Example\, Inc.,C=DE",
            r"CN=bot ,OU=agents,O=Example",
            r"CN=bot\ ,OU=agents,O=Example\, Inc.",
        ] {
            assert!(!fits(other, &bot), "{other}");
        }
    }

    #[test]
    fn a_name_that_is_displayed_like_another_is_not_that_other() {
        // Displayed without escapes, both read CN=bot,O=Example.
        let forged = certificate(vec![(DnType::CommonName, text("bot,O=Example"))]);
        let honest =
            certificate(vec![(DnType::OrganizationName, text("Example")), (DnType::CommonName, text("bot"))]);
        let nul = certificate(vec![
            (DnType::OrganizationName, text("Example")),
            (DnType::CommonName, text("bot\0.evil")),
        ]);

        assert!(fits("CN=bot,O=Example", &honest));
        assert!(!fits("CN=bot,O=Example", &forged));
        assert!(!fits("CN=bot,O=Example", &nul));
        assert!(fits(r"CN=bot\,O\=Example", &forged));
        assert!(!fits("CN=bot,O=Example", b"no certificate"));
    }

    #[test]
    fn the_kind_of_string_does_not_matter_and_unreadable_kinds_fit_nothing() {
        let printable = DnValue::PrintableString("bot".try_into().unwrap());
        let wide = DnValue::BmpString("bot".try_into().unwrap());

        assert!(fits("CN=bot", &certificate(vec![(DnType::CommonName, printable)])));
        assert!(!fits("CN=bot", &certificate(vec![(DnType::CommonName, wide)])));
    }

    #[test]
    fn a_fingerprint_is_of_one_certificate() {
        let one = certificate(vec![(DnType::CommonName, text("bot"))]);
        let other = certificate(vec![(DnType::CommonName, text("bot"))]);
        let digits = hex::encode_upper(Sha256::digest(&one));
        let colons: Vec<&str> = (0..32).map(|n| &digits[2 * n..2 * n + 2]).collect();

        for rule in [format!("sha256:{digits}"), format!("sha256:{}", colons.join(":"))] {
            assert!(fits(&rule, &one) && !fits(&rule, &other), "{rule}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "",
            "bot",
            "CN=",
            "CN=a,,O=b",
            "XY=a",
            r"CN=a\",
            r"CN=a\q",
            "CN=#0401",
            "CN=\"a\"",
            "sha256:ab",
            "CN=a;O=b",
        ] {
            assert!(CertificateRule::parse(text).is_err(), "{text}");
        }
    }
}
