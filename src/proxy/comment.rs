//! What an agent says of itself in a comment of its statement (sqlcommenter): claims, like any other.
//!
//! `select 1 /*model='gpt-5.2',traceparent='00-..-01'*/`: a comment at the end, `key='value'` pairs
//! separated by commas, both URL-encoded (<https://google.github.io/sqlcommenter/spec/>).

use crate::actor::Claims;

/// The longest comment that is looked at, in bytes.
const LONGEST: usize = 4096;

/// Sets what the comment at the end of `sql` claims and what is not claimed otherwise already.
pub(super) fn claims(sql: &[u8], claims: &mut Claims) {
    let Some(comment) = comment(sql) else { return };
    for pair in comment.split(',') {
        let Some((key, value)) = pair.trim().split_once('=') else { continue };
        let Some(value) = value.trim().strip_prefix('\'').and_then(|value| value.strip_suffix('\'')) else {
            continue;
        };
        let name = match key.trim() {
            "traceparent" => "run",
            key => key,
        };
        if !claims.iter().any(|(known, _)| known == name) {
            claims.set(name, &decode(value));
        }
    }
}

fn comment(sql: &[u8]) -> Option<&str> {
    let end = sql.get(sql.len().saturating_sub(LONGEST)..)?;
    let text = std::str::from_utf8(end).ok()?.trim_end().trim_end_matches(';').trim_end();
    let inside = text.strip_suffix("*/")?;
    inside.rsplit_once("/*").map(|(_, comment)| comment)
}

/// Undoes URL encoding; what does not decode stays as it is.
fn decode(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%').then(|| tail.get(..2)).flatten();
        let mut decoded = [0];
        match escaped {
            Some(digits) if hex::decode_to_slice(digits, &mut decoded).is_ok() => {
                bytes.extend_from_slice(&decoded);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Claims {
        let mut found = Claims::default();
        claims(sql.as_bytes(), &mut found);
        found
    }

    #[test]
    fn a_comment_at_the_end_is_read() {
        let found = read("drop table t /*model='gpt%205',traceparent='00-abc-01',color='red'*/;");

        assert_eq!(found.model.as_deref(), Some("gpt 5"));
        assert_eq!(found.run.as_deref(), Some("00-abc-01"));
    }

    #[test]
    fn what_was_claimed_at_start_up_stays() {
        let mut found = Claims::default();
        found.set("model", "first");

        claims(b"select 1 /*model='second'*/", &mut found);

        assert_eq!(found.model.as_deref(), Some("first"));
    }

    #[test]
    fn anything_else_claims_nothing() {
        for sql in [
            "select 1",
            "/*model='x'*/ select 1",
            "select '/*model=''x''*/'",
            "select 1 /*model=x*/",
            "*/",
            "/*",
        ] {
            assert!(read(sql).is_empty(), "{sql}");
        }
        let mut found = Claims::default();
        claims(b"select \xff /*model='x'*/", &mut found);
        assert!(found.is_empty());
    }
}
