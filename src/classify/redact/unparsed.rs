//! Texts that Postgres's grammar rejects. They never run, so that nothing is lost by hiding too much:
//! where such a text speaks of secrets, all that could be one goes.

use super::super::lex::{Token, TokenKind};
use crate::secrets::{MASK, mentions_a_secret, names_a_secret};

/// Words that stay behind the one that says secret. Others may be the secret, written without quotes.
const KEPT: [&str; 48] = [
    "add",
    "all",
    "alter",
    "and",
    "as",
    "by",
    "connection",
    "create",
    "createdb",
    "createrole",
    "database",
    "drop",
    "encrypted",
    "exists",
    "for",
    "foreign",
    "from",
    "grant",
    "identified",
    "if",
    "in",
    "inherit",
    "into",
    "limit",
    "login",
    "mapping",
    "nologin",
    "not",
    "null",
    "on",
    "options",
    "or",
    "password",
    "public",
    "role",
    "select",
    "server",
    "set",
    "subscription",
    "superuser",
    "table",
    "to",
    "until",
    "user",
    "using",
    "valid",
    "where",
    "with",
];

/// What to show of a text that the grammar rejected; `None` when it is shown as it is.
pub(in super::super) fn redact_rejected(text: &str, tokens: &[Token]) -> Option<String> {
    (mentions_a_secret(text) || is_about_an_account(text, tokens)).then(|| without_literals(text, tokens))
}

/// The text without its literals and comments, and without the words behind one that says secret.
pub(super) fn without_literals(text: &str, tokens: &[Token]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut end = 0;
    let mut behind = false;
    for token in tokens {
        let gap = text.get(end..token.start as usize).unwrap_or_default();
        // A comment may hold anything.
        out.push_str(if gap.trim().is_empty() { gap } else { " " });
        end = token.end as usize;
        let shown = token.of(text);
        let name = shown.trim_matches('"');
        let says_so = names_a_secret(name) || name.eq_ignore_ascii_case("identified");
        match token.kind {
            TokenKind::Word if !behind || KEPT.iter().any(|kept| shown.eq_ignore_ascii_case(kept)) => {
                out.push_str(shown);
                behind |= says_so;
            }
            TokenKind::QuotedName | TokenKind::UnicodeName | TokenKind::Number if !behind => {
                out.push_str(shown);
                behind |= says_so;
            }
            TokenKind::Operator | TokenKind::Punctuation | TokenKind::Parameter => {
                out.push_str(shown);
                // An URL, perhaps with a password in it.
                behind |= shown.starts_with("//");
            }
            TokenKind::Word | TokenKind::Number | TokenKind::Stray => out.push_str(MASK),
            TokenKind::QuotedName | TokenKind::UnicodeName => out.push_str(MASK),
            TokenKind::String
            | TokenKind::EscapeString
            | TokenKind::UnicodeString
            | TokenKind::BitString
            | TokenKind::DollarString => {
                out.push('\'');
                out.push_str(MASK);
                out.push('\'');
            }
        }
    }
    out
}

/// Whether it means to create or alter who may connect: a password may stand behind a mistyped word.
fn is_about_an_account(text: &str, tokens: &[Token]) -> bool {
    let word = |place: usize| tokens.get(place).map_or("", |token| token.of(text)).to_ascii_lowercase();
    matches!(word(0).as_str(), "create" | "alter" | "set" | "grant")
        && (1..4).any(|place| {
            matches!(word(place).as_str(), "user" | "role" | "group" | "login" | "server" | "subscription")
        })
}

/// Postgres's message without the piece of the text that it quotes, where that may hold a secret.
pub(in super::super) fn message_without_text(message: &str, text_is_hidden: bool) -> &str {
    let Some((said, quoted)) = message.split_once(" at or near \"") else { return message };
    // A name or a keyword is told; a literal is not.
    let literal = quoted.contains(['\'', '$']) || quoted.starts_with(|c: char| c.is_ascii_digit());
    if literal || text_is_hidden { said } else { message }
}

#[cfg(test)]
mod tests {
    use super::super::super::lex::lex;
    use super::*;

    #[test]
    fn a_secret_in_a_text_that_does_not_parse_goes_whatever_its_spelling() {
        for text in [
            "ALTER ROLE app_owner PASSWORD 'S3C",
            "ALTER ROLE app_owner PASSWORD S3C",
            "ALTER ROLE app_owner PASSWORD \"S3C\"",
            "ALTER ROLE app_owner PASSWORD = 'S3C'",
            "ALTER ROLE app_owner PASSWRD 'S3C'",
            "ALTER ROLE app_owner PASSWORD $$S3C",
            "ALTER ROLE app_owner PASSWORD E'S3C\\'",
            "CREATE USER bob IDENTIFIED BY 'S3C'",
            "CREATE USER 'bob'@'%' IDENTIFIED WITH x AS 'S3C'",
            "CREATE USER bob IDENTIFIED BY S3C",
            "SET PASSWORD FOR bob = 'S3C'",
            "SET PASSWORD FOR bob = PASSWORD('S3C')",
            "export PGPASSWORD=S3C",
            "psql postgresql://bob:S3C@h/db",
            "ALTER ROLE x PASSWORD 'a' 'S3C'",
            "selec 1 -- password S3C",
        ] {
            let shown = redact_rejected(text, &lex(text).tokens).unwrap_or_else(|| panic!("{text}"));
            assert!(!shown.contains("S3C"), "{shown}");
        }
        assert_eq!(
            redact_rejected(
                "CREATE USER bob IDENTIFIED BY 'x'",
                &lex("CREATE USER bob IDENTIFIED BY 'x'").tokens
            )
            .as_deref(),
            Some("CREATE USER bob IDENTIFIED BY '<redacted>'")
        );
    }

    #[test]
    fn other_texts_are_shown_as_they_are() {
        for text in ["selec * from t where a = 'b'", "select 'O'Brien'"] {
            assert_eq!(redact_rejected(text, &lex(text).tokens), None);
        }
    }

    #[test]
    fn the_parsers_message_tells_no_literal() {
        let told = |message| message_without_text(message, false);
        assert_eq!(told("syntax error at or near \"selec\""), "syntax error at or near \"selec\"");
        assert_eq!(told("syntax error at or near \"'secret'\""), "syntax error");
        assert_eq!(told("unterminated quoted string at or near \"'secret\""), "unterminated quoted string");
        assert_eq!(told("syntax error at or near \"$x$secret$x$\""), "syntax error");
        assert_eq!(message_without_text("syntax error at or near \"S3C\"", true), "syntax error");
    }
}
