//! Whether code holds a secret: SQL or PL/pgSQL, with what stands in its literals.
//!
//! Nothing is hidden by what is found here. It decides that a statement is refused, so it looks for what
//! is surely meant as a secret, and leaves data alone: `password = 'x'` may be any column.
#![allow(clippy::wildcard_enum_match_arm, reason = "the other kinds of tokens hold no text")]

use super::super::lex::{Token, TokenKind, lex};
use super::positions::{Takes, takes};
use crate::secrets::{connection, is_switch, mentions_a_secret, names_a_secret};

/// How deep literals inside of literals are looked into.
const DEEPEST: u8 = 6;

/// Whether there is a secret in `code`.
pub(super) fn holds_a_secret(code: &str) -> bool {
    !secrets_in(code).is_empty()
}

/// The secrets in `code`.
pub(super) fn secrets_in(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    look(code, DEEPEST, &mut found);
    found.retain(|secret| !is_switch(secret));
    found
}

fn look(code: &str, depth: u8, found: &mut Vec<String>) {
    if !mentions_a_secret(code) && !["key", "hmac", "conn"].iter().any(|word| code.contains(word)) {
        return;
    }
    let tokens = lex(code).tokens;
    let string_at = |place: usize| {
        tokens
            .get(place)
            .filter(|token| token.kind.is_string())
            .map(|token| decode(token.of(code), token.kind))
    };
    let is = |place: usize, word: &str| {
        tokens.get(place).is_some_and(|token| token.of(code).eq_ignore_ascii_case(word))
    };
    for (place, token) in tokens.iter().enumerate() {
        let shown = token.of(code);
        match token.kind {
            TokenKind::Word | TokenKind::QuotedName | TokenKind::UnicodeName => {
                let name = shown.trim_matches('"');
                if names_a_secret(name)
                    || (name.eq_ignore_ascii_case("by") && place > 0 && is(place - 1, "identified"))
                {
                    found.extend(string_at(place + 1));
                }
                if name.eq_ignore_ascii_case("set") {
                    found.extend(setting(code, &tokens, place + 1));
                }
                if is(place + 1, "(") {
                    arguments(code, &tokens, place, name, found);
                }
                // In other languages than SQL this is a string.
                if token.kind == TokenKind::QuotedName {
                    in_literal(name, found);
                }
            }
            kind if kind.is_string() => {
                let text = decode(shown, kind);
                in_literal(&text, found);
                if ends_before_a_secret(&text) {
                    // `'.. password ' || quote_literal('x')`, `format('.. password %L', 'x')`
                    let ahead = tokens.iter().skip(place + 1).take_while(|token| token.of(code) != ";");
                    let strings = ahead.filter(|token| token.kind.is_string());
                    found.extend(
                        strings
                            .map(|token| decode(token.of(code), token.kind))
                            .find(|text| text.chars().any(char::is_alphanumeric)),
                    );
                }
                if depth > 0 && text.contains(char::is_whitespace) {
                    look(&text, depth - 1, found);
                }
            }
            _ => {}
        }
    }
}

fn in_literal(text: &str, found: &mut Vec<String>) {
    let secrets = connection::secrets_of(text).unwrap_or_default();
    found.extend(secrets.into_iter().filter_map(|range| text.get(range)).map(str::to_owned));
}

/// `app.secret = 'x'`, behind SET.
fn setting(code: &str, tokens: &[Token], mut at: usize) -> Option<String> {
    let of = |at: usize| tokens.get(at).map_or("", |token| token.of(code));
    if of(at).eq_ignore_ascii_case("local") || of(at).eq_ignore_ascii_case("session") {
        at += 1;
    }
    let mut name = of(at).to_owned();
    while of(at + 1) == "." {
        name = format!("{name}.{}", of(at + 2));
        at += 2;
    }
    let assigns = of(at + 1) == "=" || of(at + 1).eq_ignore_ascii_case("to");
    if !name.contains('.') || !assigns || !names_a_secret(&name.replace('"', "")) {
        return None;
    }
    let value = tokens.get(at + 2)?;
    value.kind.is_string().then(|| decode(value.of(code), value.kind))
}

/// The literals that a call gives where the function takes a secret.
fn arguments(code: &str, tokens: &[Token], name_at: usize, name: &str, found: &mut Vec<String>) {
    let name = name.to_ascii_lowercase();
    if name != "set_config" && (0..3).all(|place| takes(&name, place) != Some(Takes::Secret)) {
        return;
    }
    /// Calls may stand in each other's arguments, and each is looked through.
    const LONGEST: usize = 512;
    let (mut depth, mut place) = (0_u32, 0_usize);
    let mut of_secret = false;
    for token in tokens.iter().skip(name_at + 1).take(LONGEST) {
        match token.of(code) {
            "(" | "[" => depth += 1,
            ")" | "]" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return;
                }
            }
            "," if depth == 1 => place += 1,
            ";" => return,
            shown if token.kind.is_string() => {
                let text = decode(shown, token.kind);
                let secret = if name == "set_config" {
                    if place == 0 {
                        of_secret = names_a_secret(&text);
                    }
                    place == 1 && of_secret
                } else {
                    takes(&name, place) == Some(Takes::Secret)
                };
                found.extend(secret.then_some(text).filter(|text| !text.is_empty()));
            }
            _ => {}
        }
    }
}

/// Whether a literal stops where a secret would begin: `password `, `password=`, `password '`, `password %L`.
fn ends_before_a_secret(text: &str) -> bool {
    let shown = text.trim_end();
    let shown = ["%L", "%s", "%I"].iter().find_map(|place| shown.strip_suffix(place)).unwrap_or(shown);
    let shown = shown.trim_end_matches(|c: char| c.is_whitespace() || "='\"".contains(c));
    let word = shown.rsplit(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
    shown.len() < text.len() && names_a_secret(word)
}

/// The text that a string token means. Good enough to look for secrets in it.
pub(super) fn decode(token: &str, kind: TokenKind) -> String {
    match kind {
        TokenKind::DollarString => {
            let tag = token.get(1..).and_then(|rest| rest.find('$')).map_or(0, |end| end + 2);
            let inside = token.get(tag..).unwrap_or_default();
            let end = inside.len().checked_sub(tag).filter(|end| inside.is_char_boundary(*end));
            let ends = token.len() >= 2 * tag && inside.ends_with(token.get(..tag).unwrap_or_default());
            end.filter(|_| ends).and_then(|end| inside.get(..end)).unwrap_or(inside).to_owned()
        }
        _ => quoted(token, kind),
    }
}

fn quoted(token: &str, kind: TokenKind) -> String {
    let mut out = String::new();
    let mut rest = token.find('\'').and_then(|quote| token.get(quote + 1..)).unwrap_or_default().chars();
    while let Some(c) = rest.next() {
        match c {
            '\'' if rest.as_str().starts_with('\'') => {
                rest.next();
                out.push('\'');
            }
            '\'' => {
                // It goes on in another line, perhaps behind comments.
                let mut behind = rest.as_str().trim_start();
                while behind.starts_with("--") {
                    behind = behind.split_once('\n').map_or("", |(_, line)| line).trim_start();
                }
                let Some(behind) = behind.strip_prefix('\'') else { break };
                rest = behind.chars();
            }
            '\\' if kind == TokenKind::EscapeString => out.extend(escaped(&mut rest)),
            '\\' if kind == TokenKind::UnicodeString => {
                let digits = if rest.as_str().starts_with('+') { rest.next().map_or(0, |_| 6) } else { 4 };
                if rest.as_str().starts_with('\\') {
                    out.extend(rest.next());
                } else {
                    out.extend(number(&mut rest, digits, 16));
                }
            }
            c => out.push(c),
        }
    }
    out
}

fn escaped(rest: &mut std::str::Chars<'_>) -> Option<char> {
    let before = rest.clone();
    match rest.next()? {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'x' => number(rest, 2, 16),
        'u' => number(rest, 4, 16),
        'U' => number(rest, 8, 16),
        '0'..='7' => {
            *rest = before;
            number(rest, 3, 8)
        }
        c => Some(c),
    }
}

fn number(rest: &mut std::str::Chars<'_>, most: usize, radix: u32) -> Option<char> {
    let text = rest.as_str();
    let digits = text.chars().take(most).take_while(|c| c.is_digit(radix)).count();
    let code = u32::from_str_radix(text.get(..digits)?, radix).ok()?;
    *rest = text.get(digits..)?.chars();
    char::from_u32(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_code_are_seen_however_they_are_quoted() {
        for code in [
            "begin alter role x password 'S3C'; end",
            "begin execute 'alter role x password ''S3C'''; end",
            "begin execute $q$alter role x password 'S3C'$q$; end",
            "begin execute E'alter role x password \\'S3C\\''; end",
            "begin execute 'alter role x password ' || quote_literal('S3C'); end",
            "begin execute format('alter role %I password %L', x, 'S3C'); end",
            "create user mapping for x server s options (user 'u', password 'S3C')",
            "grant all on t to x identified by 'S3C'",
            "perform dblink_connect('host=h password=S3C')",
            "perform dblink_connect('host=h password=' || 'S3C')",
            "perform http_get('https://u:S3C@h/')",
            "perform set_config('app.secret', 'S3C', false)",
            "set local app.api_token to 'S3C'",
            "update users set pw = crypt('S3C', gen_salt('bf'))",
            "select pgp_sym_decrypt(c, 'S3C') from t",
            "select U&'\\0061lter role x password ''S3C'''",
            "conn = psycopg2.connect(\"host=h password=S3C\")",
        ] {
            assert!(secrets_in(code).iter().any(|secret| secret == "S3C"), "{code}: {:?}", secrets_in(code));
        }
    }

    #[test]
    fn code_about_secrets_is_not_taken_for_one() {
        for code in [
            "begin update users set password = 'x' where id = 1; /* no password '*/ drop table v; /*'*/ end",
            "select password, token from users where token = 'abc'",
            "if new.password is null then raise exception 'password must be set'; end if;",
            "alter role x password null",
            "begin execute format('alter role %I password %L', who, new_password); end",
            "select crypt(given, stored) = stored from users",
            "create table t (id int primary key, password text default '')",
            "select current_setting('app.secret')",
            "comment on column users.password is 'a hash'",
            "select hmac(body, secret, 'sha256')",
            "select current_setting('app.secret') || 'x'",
        ] {
            assert!(secrets_in(code).is_empty(), "{code}: {:?}", secrets_in(code));
        }
    }
}
