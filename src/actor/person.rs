//! Who two names denote: the same person, perhaps the same, or different people.
//!
//! An owner is written in an agent's entry and a reviewer in an entry of their own, by different people
//! and at different times. Two spellings of one mailbox are one person, otherwise an owner could
//! approve for their own agent ([`person_key`]). What only looks the same cannot be decided here; it is
//! reported ([`may_be_one_person`]).

use std::collections::BTreeSet;

use unicode_normalization::UnicodeNormalization as _;
use unicode_security::skeleton;

/// What is compared of a person's name: the mailbox that it names, in one spelling.
///
/// Left out are what surrounds an address (`Alice <alice@example.com>`, `mailto:`, quotes, comments), a
/// sub-address (`alice+reviews@..`, RFC 5233), case, characters that are not seen, and the dot at the end
/// of a domain. Unicode's several spellings of a letter are one (NFKC), and so are those of a domain
/// (IDNA).
#[must_use]
pub fn person_key(name: &str) -> String {
    if is_plain(name) {
        return name.to_ascii_lowercase();
    }
    let visible: String = name.nfkc().filter(|c| !is_unseen(*c)).collect();
    // Case is folded by way of capital letters: that makes one of `ß` and `ss`, of `ı` and `i`.
    let folded: String = visible.to_uppercase().to_lowercase().nfkc().collect();
    let bare = without_comments(inside_brackets(&folded));
    let bare = without_scheme(bare.trim());
    let Some((local, domain)) = bare.rsplit_once('@') else {
        return bare.trim_matches(is_around).to_owned();
    };
    let local: String = local.trim_matches(is_around).chars().filter(|c| !c.is_whitespace()).collect();
    let tagless = match local.split_once('+') {
        Some((before, _)) if !before.is_empty() => before,
        Some(_) | None => &*local,
    };
    let domain: String = domain.chars().filter(|c| !c.is_whitespace()).collect();
    let domain = domain.trim_matches(is_around);
    let domain = url::Host::parse(domain).map_or_else(|_| domain.to_owned(), |host| host.to_string());
    format!("{tagless}@{}", domain.trim_end_matches('.'))
}

/// Whether two names are perhaps one person's, though they are not the same: they are drawn alike
/// (Unicode Technical Standard 39), or are the same words in front of another domain, or of none.
#[must_use]
pub fn may_be_one_person(one: &str, other: &str) -> bool {
    let (one, other) = (person_key(one), person_key(other));
    // Letters are compared small and capital: a Cyrillic `\u{442}` passes for a Latin one as a capital only.
    [one.as_str(), other.as_str()].iter().all(|name| !name.is_empty())
        && [str::to_owned as fn(&str) -> String, str::to_uppercase].iter().any(|case| {
            let (one, other) = (case(&one), case(&other));
            drawn(&one) == drawn(&other) || same_words(&one, &other)
        })
}

fn same_words(one: &str, other: &str) -> bool {
    let (mine, theirs) = (words(one), words(other));
    if mine.is_empty() || theirs.is_empty() {
        return false;
    }
    // Who is called by a name without an address is perhaps not called by all of it.
    let bare = !one.contains('@') || !other.contains('@');
    let in_part = bare && (mine.is_subset(&theirs) || theirs.is_subset(&mine));
    // `r.ita` is `rita` for some providers, and `Smith, Rita` is `rita.smith`.
    let joined =
        |words: &str| drawn(&local(words).chars().filter(|c| c.is_alphanumeric()).collect::<String>());
    in_part || mine == theirs || joined(one) == joined(other)
}

/// An address that is written as plainly as can be; most are.
fn is_plain(name: &str) -> bool {
    let is_usual = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'@' | b'.' | b'-' | b'_');
    name.bytes().all(is_usual)
        && !name.ends_with('.')
        && name.matches('@').count() <= 1
        // Another spelling of a domain in other letters.
        && !name.to_ascii_lowercase().contains("xn--")
}

/// Characters that a screen shows nothing of (those that Unicode lets programs ignore, and controls).
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}' | '\u{180B}'..='\u{180F}'
                | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}'
                | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}'
                | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}'
        )
}

/// What people write around a name.
fn is_around(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ';' | '.' | '<' | '>' | '[' | ']')
}

/// `alice@example.com` of `Alice <alice@example.com>`.
fn inside_brackets(name: &str) -> &str {
    let inside = name.rsplit_once('<').map(|(_, rest)| rest.split('>').next().unwrap_or(rest));
    inside.filter(|inside| !inside.trim().is_empty()).unwrap_or(name)
}

/// Without `(..)`, which addresses may have anywhere (RFC 5322, section 3.2.2).
fn without_comments(name: &str) -> String {
    let mut depth = 0_usize;
    let mut kept = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '(' => depth += 1,
            ')' if depth > 0 => depth -= 1,
            _ if depth == 0 => kept.push(c),
            _ => {}
        }
    }
    // What stands in brackets only is the name.
    if kept.trim().is_empty() { name.trim_matches(['(', ')']).to_owned() } else { kept }
}

/// Without `mailto:` and the like, and without what such an address may carry behind a question mark.
fn without_scheme(name: &str) -> String {
    let mut rest = name.trim_matches(is_around);
    let mut is_uri = false;
    while let Some(after) =
        ["mailto:", "acct:", "smtp:", "email:", "e-mail:"].iter().find_map(|scheme| rest.strip_prefix(scheme))
    {
        rest = after.trim_start_matches(|c| c == '/' || is_around(c));
        is_uri = true;
    }
    if !is_uri {
        return rest.to_owned();
    }
    let address = rest.split('?').next().unwrap_or(rest);
    let mut bytes = Vec::with_capacity(address.len());
    let mut left = address.as_bytes();
    while let Some((first, after)) = left.split_first() {
        let coded = (*first == b'%').then(|| after.get(..2).and_then(|two| hex::decode(two).ok())).flatten();
        match coded {
            Some(decoded) => {
                bytes.extend(decoded);
                left = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                left = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).to_lowercase()
}

/// What a name looks like: the same for names that are drawn alike.
fn drawn(name: &str) -> String {
    skeleton(name).collect()
}

/// The words of a name without its domain, in no order, as they are drawn.
fn words(key: &str) -> BTreeSet<String> {
    let apart = local(key).split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    apart.map(drawn).collect()
}

fn local(key: &str) -> &str {
    key.rsplit_once('@').map_or(key, |(local, _)| local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_mailbox_is_the_same_person_however_it_is_written() {
        for name in [
            "RITA@EXAMPLE.COM",
            " rita@example.com\t",
            "rita@example.com.",
            "mailto:rita@example.com",
            "MAILTO: <rita@example.com>",
            "mailto:rita%40example.com?subject=x",
            "<rita@example.com>",
            "Rita <rita@example.com>",
            "\"Rita, the DBA\" <Rita@Example.com>",
            "Rita (on call) <rita@example.com>",
            "rita(comment)@example.com",
            "\"rita\"@example.com",
            "'rita@example.com'",
            "rita @ example.com",
            "rita+approvals@example.com",
            "rita\u{200b}@example.com",
            "rita@exam\u{ad}ple.com",
            "\u{feff}rita@example.com",
            "\u{202e}rita@example.com",
            "\u{ff52}\u{ff49}\u{ff54}\u{ff41}@example.com",
            "rita\u{ff20}example\u{ff0e}com",
            "rita@example\u{3002}com",
            "r\u{131}ta@example.com",
            "rita@example.com,",
        ] {
            assert_eq!(person_key(name), "rita@example.com", "{name:?}");
        }
        assert_eq!(person_key("jose\u{301}@x.example"), person_key("JOS\u{c9}@X.example"));
        assert_eq!(person_key("anna@xn--bcher-kva.example"), person_key("anna@B\u{dc}CHER.example"));
        assert_eq!(person_key("stra\u{df}e"), person_key("STRASSE"));
    }

    #[test]
    fn different_people_are_different() {
        for (one, other) in [
            ("rita@example.com", "rita@example.org"),
            ("rita@example.com", "brita@example.com"),
            ("rita@example.com", "rita"),
            ("+rita@example.com", "rita@example.com"),
            ("team/rita", "team/sam"),
            ("bot+1", "bot+2"),
        ] {
            assert_ne!(person_key(one), person_key(other));
        }
    }

    #[test]
    fn names_that_may_be_one_person_are_found_and_others_are_not() {
        for other in [
            "r\u{456}ta@example.com",
            "ri\u{442}\u{430}@example.com",
            "Rita Smith",
            "rita and sam",
            "rita@\u{435}xample.com",
            "rita@corp.example",
            "rita",
            "Rita",
            "r.ita@example.com",
            "rit\u{3b1}@example.com",
        ] {
            assert!(may_be_one_person("rita@example.com", other), "{other:?}");
        }
        assert!(may_be_one_person("rita.smith@example.com", "Smith, Rita"));
        assert!(may_be_one_person("rita.smith@example.com", "smith_rita@corp.example"));
        assert!(may_be_one_person("alice@example.com", "a1ice@example.com"), "one for ell");
        assert!(may_be_one_person("bob@example.com", "b0b@example.com"), "zero for O");
        for other in
            ["owner@example.com", "rita.smith@example.com", "sam@example.com", "r@example.com", "brita", ""]
        {
            assert!(!may_be_one_person("rita@example.com", other), "{other:?}");
        }
    }
}
