//! Groups statements that differ in values only.
//!
//! The normalised text: tokens separated by one space, comments and closing semicolons dropped,
//! keywords and plain names in lower case, numbers (with a sign that belongs to them) and strings
//! replaced by `?`. Parameters keep their numbers: `a = $1 or b = $1` is another statement than
//! `a = $1 or b = $2`.

use sha2::{Digest as _, Sha256};

use super::lex::{Token, TokenKind, needs_no_quotes};
use crate::statement::{Digest, Fingerprint};

/// The fingerprint of a text with these tokens.
pub(super) fn of_tokens(text: &str, tokens: &[Token]) -> Fingerprint {
    let mut normal = Vec::with_capacity(text.len() + tokens.len());
    normalise(text, tokens, &mut normal);
    Fingerprint(Digest::of(&normal))
}

/// The fingerprint of a text that has no tokens to speak of: its own bytes, marked so that it is no
/// other text's.
pub(super) fn of_bytes(bytes: &[u8]) -> Fingerprint {
    let mut hash = Sha256::new();
    hash.update(b"raw\0");
    hash.update(bytes);
    Fingerprint(Digest::from_bytes(hash.finalize().into()))
}

fn normalise(text: &str, tokens: &[Token], out: &mut Vec<u8>) {
    // As bytes: a token's ends are ends of characters, which a `str` would look at each time.
    let bytes = text.as_bytes();
    let of = |token: &Token| bytes.get(token.start as usize..token.end as usize).unwrap_or_default();
    let end = tokens.iter().rposition(|token| of(token) != b";").map_or(0, |last| last + 1);
    let tokens = tokens.get(..end).unwrap_or(tokens);
    let mut operand_before = false;
    for (place, token) in tokens.iter().enumerate() {
        let shown = of(token);
        let next = tokens.get(place + 1);
        let sign = matches!(shown, b"-" | b"+") && !operand_before;
        if sign && next.is_some_and(|next| next.kind == TokenKind::Number) {
            continue;
        }
        if !out.is_empty() {
            out.push(b' ');
        }
        operand_before = match token.kind {
            TokenKind::Number
            | TokenKind::String
            | TokenKind::EscapeString
            | TokenKind::UnicodeString
            | TokenKind::BitString
            | TokenKind::DollarString => {
                out.push(b'?');
                true
            }
            TokenKind::Word => {
                let word = out.len();
                out.extend(shown.iter().map(u8::to_ascii_lowercase));
                // After a keyword a minus is a sign; after a name it is an operator. We know no
                // keywords here, and both are written alike in each statement of a group.
                !matches!(
                    out.get(word..).unwrap_or_default(),
                    b"and"
                        | b"or"
                        | b"not"
                        | b"in"
                        | b"like"
                        | b"between"
                        | b"values"
                        | b"select"
                        | b"limit"
                        | b"offset"
                        | b"then"
                        | b"else"
                        | b"when"
                        | b"return"
                        | b"returning"
                        | b"where"
                        | b"to"
                        | b"set"
                )
            }
            TokenKind::QuotedName => {
                // "name" and name are one where quoting changes nothing.
                let inner = shown.get(1..shown.len().saturating_sub(1)).unwrap_or(shown);
                let plain = needs_no_quotes(inner);
                out.extend_from_slice(if plain { inner } else { shown });
                true
            }
            TokenKind::UnicodeName
            | TokenKind::Parameter
            | TokenKind::Operator
            | TokenKind::Punctuation
            | TokenKind::Stray => {
                // Most are one byte, and then this is no copy of a length that is not known.
                match shown {
                    [one] => out.push(*one),
                    more => out.extend_from_slice(more),
                }
                matches!(shown, b")" | b"]") || token.kind == TokenKind::Parameter
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::lex::lex;
    use super::*;

    fn normal(text: &str) -> String {
        let mut out = Vec::new();
        normalise(text, &lex(text).tokens, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_blanks_comments_and_case_do_not_count() {
        let expected = "update t set a = ? where id = ?";

        for text in [
            "UPDATE t SET a = 'x' WHERE id = 5",
            "update\tT set \"a\"=E'\\n' /* c */ where id=-5;",
            "update t set a = $$x$$ where id = +1.5e3 -- c\n;",
        ] {
            assert_eq!(normal(text), expected);
        }
    }

    #[test]
    fn names_parameters_and_operators_do() {
        assert_ne!(normal("select a"), normal("select \"A\""));
        assert_ne!(normal("select $1, $1"), normal("select $1, $2"));
        assert_eq!(normal("select a - 1, a -1"), "select a - ? , a - ?");
        assert_eq!(normal("values (-1), (- 2)"), "values ( ? ) , ( ? )");
    }
}
