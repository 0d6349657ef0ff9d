//! Free text: what an agent says about itself. Nothing of it runs, so a guess on the safe side will do.

use std::ops::Range;

use super::{MASK, connection, masked, names_a_secret, program};

/// The text without what are likely to be secrets; `None` where none is seen.
#[must_use]
pub fn without_secrets(text: &str) -> Option<String> {
    let found = likely_secrets(text);
    (!found.is_empty()).then(|| masked(text, &found))
}

/// Where the likely secrets are, in order and apart.
#[must_use]
pub fn likely_secrets(text: &str) -> Vec<Range<usize>> {
    let mut ranges = in_prose(text);
    ranges.extend(program::likely_secrets(text));
    ranges.retain(|range| text.get(range.clone()).is_some_and(|value| !value.is_empty() && value != MASK));
    ranges.sort_by_key(|range| (range.start, std::cmp::Reverse(range.end)));
    let mut apart: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match apart.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}

/// `password: x`, `password is x1`, `the token x1`; URLs with passwords; well-known forms of tokens.
fn in_prose(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    // How many more words may stand between the one that says secret and the secret.
    let mut follows = 0_u8;
    let mut surely = false;
    for word in words(text) {
        let Some(shown) = text.get(word.clone()) else { continue };
        if let Some(inside) = connection::secrets_of_url(shown) {
            found.extend(inside.into_iter().map(|range| word.start + range.start..word.start + range.end));
        }
        let before = text.get(..word.start).unwrap_or_default().trim_end_matches(['"', '\'', ' ', '\t']);
        let assigned = before.ends_with(['=', ':']);
        if follows > 0 {
            if (surely && assigned) || looks_random(shown) {
                found.push(word.clone());
                (follows, surely) = (0, false);
                continue;
            }
            follows -= 1;
            surely = false;
        }
        if is_known_form(shown) {
            found.push(word.clone());
        } else if names_a_secret(shown) || shown.eq_ignore_ascii_case("identified") {
            (follows, surely) = (4, true);
        }
    }
    found
}

/// The words: what stands between blanks, quotes, brackets and signs of assignment.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let stops = |c: char| c.is_whitespace() || "\"'`()[]{}<>,;=".contains(c);
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..)?;
        let start = at + rest.find(|c| !stops(c))?;
        let length = text.get(start..)?.find(stops).unwrap_or(text.len() - start);
        at = start + length;
        let word = text.get(start..at)?;
        // `password:x` is two words, a URL is one.
        match word.find(':') {
            Some(0) => {
                at = start + 1;
                Some(start + 1..start + 1)
            }
            Some(colon) if !word.contains("://") => {
                at = start + colon + 1;
                Some(start..start + colon)
            }
            _ => Some(start..at),
        }
    })
    .filter(|word| !word.is_empty())
}

/// Whether it is no word of a language: digits or signs among letters, or capitals behind small ones.
fn looks_random(word: &str) -> bool {
    let word = word.trim_end_matches(['.', '!', '?', ':']);
    let has = |what: fn(char) -> bool| word.contains(what);
    let capital_inside =
        word.chars().zip(word.chars().skip(1)).any(|(a, b)| a.is_lowercase() && b.is_uppercase());
    word.chars().count() >= 4
        && (has(|c| c.is_ascii_digit()) || capital_inside || has(|c| "!@#$%^&*+/\\|~".contains(c)))
}

/// Forms that issuers gave their tokens so that they are found.
fn is_known_form(word: &str) -> bool {
    const BEGINNINGS: [&str; 14] = [
        "ghp_",
        "gho_",
        "ghs_",
        "github_pat_",
        "glpat-",
        "sk-",
        "sk_live_",
        "xoxb-",
        "xoxp-",
        "xapp-",
        "AKIA",
        "ASIA",
        "eyJ",
        "AIza",
    ];
    word.len() >= 20 && BEGINNINGS.iter().any(|beginning| word.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likely_secrets_go() {
        for text in [
            "rotate, password S3C91x",
            "password=S3C91x",
            "use the password S3C91x for bob",
            "the new password is S3C91x.",
            "token: S3C91x",
            "{\"password\": \"S3C91x\"}",
            "postgresql://bob:S3C91x@h/db",
            "curl -u bob:S3C91x https://h",
            "mysql -pS3C91x",
            "PGPASSWORD=S3C91x psql",
            "Authorization: Bearer S3C91x",
            "key=S3C91x",
        ] {
            let shown = without_secrets(text).unwrap_or_else(|| panic!("{text}"));
            assert!(!shown.contains("S3C91x") && shown.contains(MASK), "{shown}");
        }
    }

    #[test]
    fn what_people_say_of_secrets_stays() {
        for text in [
            "rotate the password of bob",
            "reset forgotten passwords",
            "monthly report",
            "count tokens per model",
            "fix the primary key of orders",
            "task 4711 of run 12",
            "gpt-5.2",
        ] {
            assert_eq!(without_secrets(text), None, "{text}");
        }
    }
}
