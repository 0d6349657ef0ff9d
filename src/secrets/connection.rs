//! Connection strings, as libpq reads them (PostgreSQL documentation, 32.1.1): where their secrets are.

use std::ops::Range;

use super::names_a_secret;

/// The secret values of a connection string, in order, without their quotes. `None` where the whole
/// text is no connection string: libpq would refuse it, and it may be something else, code for instance.
#[must_use]
pub fn secrets_of(text: &str) -> Option<Vec<Range<usize>>> {
    if let Some(found) = secrets_of_url(text) {
        return Some(found);
    }
    let mut secrets = Vec::new();
    let mut pairs = 0;
    let mut at = skip(text, 0, is_space);
    while at < text.len() {
        let name_end = until(text, at, |c| c == '=' || is_space(c));
        let name = text.get(at..name_end)?;
        let equals = skip(text, name_end, is_space);
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return None;
        }
        if text.as_bytes().get(equals) != Some(&b'=') {
            return None;
        }
        let value = skip(text, equals + 1, is_space);
        let (range, end) = value_at(text, value)?;
        if names_a_secret(name) && !range.is_empty() {
            secrets.push(range);
        }
        pairs += 1;
        at = skip(text, end, is_space);
    }
    (pairs > 0).then_some(secrets)
}

/// The secrets of a URL: the password in front of its host, and the values of parameters that are
/// called so. `None` where the text is no URL.
#[must_use]
pub fn secrets_of_url(text: &str) -> Option<Vec<Range<usize>>> {
    let (scheme, rest) = text.split_once("://")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte);
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(plain) {
        return None;
    }
    let mut secrets = Vec::new();
    let start = text.len() - rest.len();
    let authority = until(text, start, |c| matches!(c, '/' | '?' | '#'));
    let user = text.get(start..authority)?;
    // libpq ends the password at the first `@`, others at the last: what is between is shown.
    if let Some(at) = user.find('@')
        && let Some(colon) = user.get(..at).and_then(|user| user.find(':'))
        && colon + 1 < at
    {
        secrets.push(start + colon + 1..start + at);
    }
    let query = until(text, authority, |c| matches!(c, '?' | '#'));
    let mut at = query + 1;
    while at < text.len() {
        let end = until(text, at, |c| matches!(c, '&' | '#'));
        if let Some((name, value)) = text.get(at..end).and_then(|pair| pair.split_once('='))
            && names_a_secret(name)
            && !value.is_empty()
        {
            secrets.push(end - value.len()..end);
        }
        at = end + 1;
    }
    Some(secrets)
}

/// The value that begins at `at`, without its quotes, and where it ends.
fn value_at(text: &str, at: usize) -> Option<(Range<usize>, usize)> {
    let bytes = text.as_bytes();
    let quoted = bytes.get(at) == Some(&b'\'');
    let start = at + usize::from(quoted);
    let mut end = start;
    loop {
        match bytes.get(end) {
            Some(b'\\') => {
                end += 1 + text.get(end + 1..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8)
            }
            Some(b'\'') if quoted => return Some((start..end, end + 1)),
            Some(byte) if !quoted && is_space(char::from(*byte)) => return Some((start..end, end)),
            Some(_) => end += 1,
            None if quoted => return None,
            None => return Some((start..end, end)),
        }
    }
}

/// C's `isspace`.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn until(text: &str, from: usize, stop: impl Fn(char) -> bool) -> usize {
    text.get(from..).and_then(|rest| rest.find(stop)).map_or(text.len(), |found| from + found)
}

fn skip(text: &str, from: usize, over: impl Fn(char) -> bool) -> usize {
    until(text, from, |c| !over(c))
}

#[cfg(test)]
mod tests {
    use super::super::masked;
    use super::*;

    fn hidden(text: &str) -> Option<String> {
        secrets_of(text).map(|ranges| masked(text, &ranges))
    }

    #[test]
    fn passwords_go_and_the_rest_stays() {
        for (text, expected) in [
            ("host=h password=s user=u", "host=h password=<redacted> user=u"),
            ("password = 's p' host=h", "password = '<redacted>' host=h"),
            (r"password='s\' p' host=h", "password='<redacted>' host=h"),
            (r"password=s\ p host=h", "password=<redacted> host=h"),
            ("host=h sslpassword=s\tdbname=d", "host=h sslpassword=<redacted>\tdbname=d"),
            ("host=h", "host=h"),
            ("postgresql://u:s@h:1/db?x=1", "postgresql://u:<redacted>@h:1/db?x=1"),
            ("postgres://h/db?user=u&password=s&x=1", "postgres://h/db?user=u&password=<redacted>&x=1"),
            ("https://u:s@h?token=t#f", "https://u:<redacted>@h?token=<redacted>#f"),
            ("https://h/a@b:c", "https://h/a@b:c"),
        ] {
            assert_eq!(hidden(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_connection_string_is_told_so() {
        for text in
            ["", "  ", "drop table v; -- password=s", "select 1", "password", "password='s", "a b=c", "-x=1"]
        {
            assert_eq!(secrets_of(text), None, "{text}");
        }
    }
}
