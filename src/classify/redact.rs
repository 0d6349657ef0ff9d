//! Takes secrets out of a text before it is shown or stored.
//!
//! Replaced are the literal behind PASSWORD in role statements, the values of options that hold
//! passwords, and passwords inside connection strings and URLs; the rest of the text stays as it was,
//! because a reviewer must see the statement. Only literals are replaced, and only in statements of
//! the kinds that carry such secrets.

use super::lex::Token;
use super::{StatementClass, StatementPart};

const MASK: &str = "<redacted>";

/// Options of user mappings, servers and subscriptions that hold secrets.
const OPTIONS: [&str; 8] =
    ["password", "passwd", "pwd", "sslpassword", "secret", "secret_key", "token", "access_key"];

/// The text without its secrets; `None` when it has none.
pub(super) fn redact(text: &str, tokens: &[Token], parts: &[StatementPart]) -> Option<String> {
    let mut masks: Vec<(u32, u32, String)> = Vec::new();
    // Reads and row writes carry data, which is the agent's own business.
    for part in parts.iter().filter(|part| part.class > StatementClass::Export) {
        let first = tokens.partition_point(|token| token.start < part.span.start);
        let last = tokens.partition_point(|token| token.end <= part.span.end);
        let inside = tokens.get(first..last).unwrap_or(&[]);
        for (place, token) in inside.iter().enumerate().filter(|(_, token)| token.kind.is_string()) {
            let before = place.checked_sub(1).and_then(|place| inside.get(place));
            let shown = token.of(text);
            let replaced = if before.is_some_and(|before| names_a_secret(before.of(text))) {
                Some(format!("'{MASK}'"))
            } else {
                without_passwords(shown)
            };
            if let Some(replaced) = replaced {
                masks.push((token.start, token.end, replaced));
            }
        }
    }
    if masks.is_empty() {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for (start, end, replaced) in masks {
        out.push_str(text.get(from..start as usize)?);
        out.push_str(&replaced);
        from = end as usize;
    }
    out.push_str(text.get(from..)?);
    Some(out)
}

/// Redacts a text that has no parts: one that could not be parsed, where any word PASSWORD counts.
pub(super) fn redact_unparsed(text: &str, tokens: &[Token]) -> Option<String> {
    if !contains(text, "password") && !text.contains("://") {
        return None;
    }
    let whole = StatementPart { kind: "".into(), class: StatementClass::Invalid, span: 0..text.len() as u32 };
    redact(text, tokens, &[whole])
}

fn names_a_secret(word: &str) -> bool {
    let word = word.trim_matches('"');
    OPTIONS.iter().any(|option| word.eq_ignore_ascii_case(option))
}

fn contains(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

/// A literal with the passwords of connection strings (`password=x`), URLs (`//user:x@host`) and inner
/// statements (`PASSWORD 'x'`) masked.
fn without_passwords(literal: &str) -> Option<String> {
    let bytes = literal.as_bytes();
    let mut out = String::new();
    let (mut at, mut kept) = (0, 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let secret = if rest.get(..8).is_some_and(|word| word.eq_ignore_ascii_case(b"password")) {
            at += 8;
            value_of(literal, at)
        } else if rest.starts_with(b"://") {
            at += 3;
            url_password(literal, at)
        } else {
            at += 1;
            None
        };
        if let Some((start, end)) = secret {
            out.push_str(literal.get(kept..start)?);
            out.push_str(MASK);
            (at, kept) = (end, end);
        }
    }
    out.push_str(literal.get(kept..)?);
    (kept > 0).then_some(out)
}

/// The extent of the value behind `password`, with or without `=` and quotes (doubled ones, where it
/// stands in a literal).
fn value_of(text: &str, after: usize) -> Option<(usize, usize)> {
    let rest = text.get(after..)?;
    let lead = rest.find(|c: char| !(c.is_ascii_whitespace() || matches!(c, '=' | '\'' | '\\')))?;
    let quoted = rest.get(..lead)?.contains('\'');
    if lead == 0 {
        return None;
    }
    let value = rest.get(lead..)?;
    let length = value.find(|c: char| c == '\'' || (!quoted && (c.is_ascii_whitespace() || c == '&')));
    let length = length.unwrap_or(value.len());
    (length > 0 && !value.starts_with(MASK)).then_some((after + lead, after + lead + length))
}

/// The extent of the password in `user:password@host`.
fn url_password(text: &str, after: usize) -> Option<(usize, usize)> {
    let rest = text.get(after..)?;
    let end =
        rest.find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '\'' | '?')).unwrap_or(rest.len());
    let authority = rest.get(..end)?;
    let at = authority.rfind('@')?;
    let colon = authority.get(..at)?.find(':')?;
    let secret = authority.get(colon + 1..at)?;
    (!secret.is_empty() && secret != MASK).then_some((after + colon + 1, after + at))
}

#[cfg(test)]
mod tests {
    use super::super::lex::lex;
    use super::*;

    fn redacted(text: &str) -> Option<String> {
        let part =
            StatementPart { kind: "".into(), class: StatementClass::Grant, span: 0..text.len() as u32 };
        redact(text, &lex(text).tokens, &[part])
    }

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let cases = [
            ("ALTER ROLE bob PASSWORD 'hunter2' LOGIN", "ALTER ROLE bob PASSWORD '<redacted>' LOGIN"),
            (
                "create user u encrypted password $x$hunter2$x$",
                "create user u encrypted password '<redacted>'",
            ),
            (
                "create user mapping for x server s options (user 'u', password 'hunter2')",
                "create user mapping for x server s options (user 'u', password '<redacted>')",
            ),
            (
                "select dblink('host=h password=hunter2 user=u', 'select 1')",
                "select dblink('host=h password=<redacted> user=u', 'select 1')",
            ),
            (
                "create subscription s connection 'postgresql://u:hunter2@h/db?x=1' publication p",
                "create subscription s connection 'postgresql://u:<redacted>@h/db?x=1' publication p",
            ),
            (
                "select dblink_connect('password=''hunter 2'' host=h')",
                "select dblink_connect('password=''<redacted>'' host=h')",
            ),
            (
                "do $$ begin alter role x password 'hunter2'; end $$",
                "do $$ begin alter role x password '<redacted>'; end $$",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(redacted(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_text_without_secrets_is_left_alone() {
        for text in [
            "ALTER ROLE bob PASSWORD NULL",
            "create table t (password text)",
            "select 'a://b'",
            "drop role 'x'",
        ] {
            assert_eq!(redacted(text), None, "{text}");
        }
    }

    #[test]
    fn it_always_ends() {
        for text in
            ["password=", "password password password", "://:@://:@", "password='<redacted>' password=x"]
        {
            let _ = without_passwords(text);
        }
    }
}
