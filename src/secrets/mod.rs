//! What is a secret: which names say so, which part of a connection string is one, which words of a
//! text are likely to be.
//!
//! Nothing here reads SQL: [`classify`](crate::classify) says where in a statement a secret may stand,
//! and this says what it looks like there. Two kinds of answers, for two kinds of texts:
//!
//! - Texts of a known grammar (a connection string, the name of a setting): exact, because what is
//!   hidden on the strength of it may go on to run, and must not hide anything else.
//! - Free texts (a claim of an agent, a program's arguments): a guess, on the safe side. What is hidden
//!   on the strength of it never runs.

pub mod connection;
pub mod program;
pub mod prose;

/// What stands in place of a secret.
pub const MASK: &str = "<redacted>";

/// Parts of names that say secret wherever they stand in the name.
const ANYWHERE: [&str; 25] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "passwort",
    "pwd",
    "secret",
    "token",
    "credential",
    "apikey",
    "api_key",
    "api-key",
    "privatekey",
    "private_key",
    "private-key",
    "accesskey",
    "access_key",
    "access-key",
    "accountkey",
    "account_key",
    "sharedkey",
    "signingkey",
    "encryptionkey",
    "masterkey",
    "authorization",
];

/// Words that say secret where they are a whole word of the name.
const WORDS: [&str; 9] = ["pass", "pw", "key", "keys", "jwt", "bearer", "sas", "pat", "passkey"];

/// Words of names whose values are not secrets but code, places of code, or switches: `ssl_passphrase_command`,
/// `password_encryption`, `password_required`. These are never hidden.
const NOT: [&str; 14] = [
    "command",
    "cmd",
    "script",
    "program",
    "exec",
    "hook",
    "library",
    "file",
    "keyfile",
    "passfile",
    "path",
    "required",
    "stdin",
    "tokenizer",
];

/// Whether a name (of a setting, an option, a parameter, a header) says that its value is a secret.
#[must_use]
pub fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    name != "password_encryption"
        && !words.clone().any(|word| NOT.contains(&word))
        && (ANYWHERE.iter().any(|part| name.contains(part)) || words.any(|word| WORDS.contains(&word)))
}

/// Whether a text says anywhere that there may be a secret in it. For texts that never run.
#[must_use]
pub fn mentions_a_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ANYWHERE.iter().chain(&["identified", "bearer", "://", "authid", "crypt"]).any(|part| text.contains(part))
}

/// Whether `value` is one word that cannot be a piece of code: no white space, quotes, parentheses,
/// semicolons, comments, substitutions. Most passwords, keys and tokens are.
#[must_use]
pub fn is_opaque(value: &str) -> bool {
    let strange = |c: char| c.is_whitespace() || c.is_control() || "'\"`\\;()|&<>".contains(c);
    !value.is_empty()
        && !value.contains(strange)
        && !["--", "/*", "*/", "$$", "${", "$I"].iter().any(|pair| value.contains(pair))
}

/// Whether a value is a switch rather than a secret, or nothing at all.
#[must_use]
pub fn is_switch(value: &str) -> bool {
    ["", "on", "off", "true", "false", "yes", "no", "t", "f", "0", "1", "default", "null", "none"]
        .iter()
        .any(|switch| value.eq_ignore_ascii_case(switch))
}

/// `text` with these ranges of bytes masked; they are in order and apart.
#[must_use]
pub fn masked(text: &str, ranges: &[std::ops::Range<usize>]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for range in ranges {
        out.push_str(text.get(from..range.start).unwrap_or_default());
        out.push_str(MASK);
        from = range.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whether_its_value_is_a_secret() {
        for name in [
            "password",
            "db_password",
            "sslpassword",
            "app.jwt_secret",
            "app.key",
            "app.encryption_key",
            "private_key",
            "AWS_SECRET_ACCESS_KEY",
            "app.ApiToken",
            "X-Api-Key",
            "Authorization",
            "scram_client_key",
            "oauth_client_secret",
        ] {
            assert!(names_a_secret(name), "{name}");
        }
        for name in [
            "user",
            "host",
            "sslkey",
            "passfile",
            "app.tenant_id",
            "monkey",
            "keyword",
            "ssl_passphrase_command",
            "pgsodium.getkey_script",
            "ssl_key_file",
            "password_encryption",
            "password_required",
            "compass",
        ] {
            assert!(!names_a_secret(name), "{name}");
        }
    }

    #[test]
    fn what_could_be_code_is_not_opaque() {
        for value in ["hunter2", "p@ss#w0rd!", "eyJhbGciOi.J9.abc-_", "a/b+c==", "$2a$06$abc"] {
            assert!(is_opaque(value), "{value}");
        }
        for value in
            ["", "drop table v", "drop/**/table", "f()", "a;b", "a'b", "x--y", "rm$IFS-rf", "$(id)", "a|sh"]
        {
            assert!(!is_opaque(value), "{value}");
        }
    }
}
