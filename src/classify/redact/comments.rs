//! Secrets in comments: an agent's task, as sqlcommenter writes it, may hold one.
//!
//! A comment does not run. That this is one is not left to our own lexer: what would be hidden is
//! overwritten, and Postgres's grammar must read the very same statement, position for position.

use std::ops::Range;

use super::super::lex::Token;
use super::super::parser::parse;
use crate::secrets::prose;

/// The bytes of likely secrets in the comments of `text`, which was parsed.
pub(super) fn secrets(text: &str, tokens: &[Token]) -> Vec<Range<usize>> {
    if !text.contains("/*") && !text.contains("--") {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut end = 0;
    let starts = tokens.iter().map(|token| token.start as usize).chain(std::iter::once(text.len()));
    let ends = tokens.iter().map(|token| token.end as usize);
    for (start, next_end) in starts.zip(ends.chain(std::iter::once(text.len()))) {
        let gap = text.get(end..start).unwrap_or_default();
        if !gap.trim().is_empty() {
            let inside = prose::likely_secrets(gap);
            let encoded = gap.contains('%') && prose::without_secrets(&unescaped(gap)).is_some();
            if encoded && inside.is_empty() {
                found.extend(words(gap).map(|word| end + word.start..end + word.end));
            } else {
                found.extend(inside.into_iter().map(|range| end + range.start..end + range.end));
            }
        }
        end = next_end;
    }
    if found.is_empty() || !mean_nothing(text, &found) { Vec::new() } else { found }
}

/// What is between blanks and the signs of a comment.
fn words(gap: &str) -> impl Iterator<Item = Range<usize>> {
    let stops = |c: char| c.is_whitespace() || "/*-'".contains(c);
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + gap.get(at..)?.find(|c| !stops(c))?;
        at = start + gap.get(start..)?.find(stops).unwrap_or(gap.len() - start);
        Some(start..at)
    })
}

/// `%3D` as `=`. Good enough to look for secrets in it.
fn unescaped(gap: &str) -> String {
    let mut out = String::with_capacity(gap.len());
    let mut rest = gap;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let code = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => {
                out.push(char::from(code));
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Whether the statement is the same whatever stands there.
fn mean_nothing(text: &str, ranges: &[Range<usize>]) -> bool {
    let mut bytes = text.as_bytes().to_vec();
    for range in ranges {
        bytes.get_mut(range.clone()).unwrap_or_default().fill(b'x');
    }
    let Ok(overwritten) = String::from_utf8(bytes) else { return false };
    match (parse(text), parse(&overwritten)) {
        (Ok(one), Ok(other)) => one.as_bytes() == other.as_bytes(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::lex::lex;
    use super::*;

    fn hidden(text: &str) -> Vec<&str> {
        secrets(text, &lex(text).tokens).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn likely_secrets_in_comments_are_found_and_nothing_else() {
        assert_eq!(hidden("drop table t /* password: S3C */"), ["S3C"]);
        assert_eq!(hidden("-- token=S3C\ndrop table t"), ["S3C"]);
        assert_eq!(
            hidden("drop table t /*task='use%20password%3DS3C'*/").concat(),
            "task=use%20password%3DS3C"
        );
        for text in [
            "drop table t /* no password */",
            "/* password ' */ drop table t /* ' */",
            "select '/* password: S3C */'",
            "do $$ begin /* password: S3C */ drop table t; end $$",
            "drop table t",
        ] {
            assert!(hidden(text).is_empty(), "{text}: {:?}", hidden(text));
        }
    }
}
