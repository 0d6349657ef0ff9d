//! Patterns of LIKE, SIMILAR TO and regular expressions: which want something of a text.

use super::values::text_of;
use crate::classify::tree::{Field, Kind, Node};

/// So many alternatives may be single letters.
pub(super) const FEW_ALTERNATIVES: usize = 4;

/// The text of a pattern where nothing was cut off it.
#[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is written down")]
pub(super) fn pattern_of(node: Node<'_>) -> Option<String> {
    match node.kind() {
        Kind::TypeCast => {
            let to = node.get(Field::TypeName)?;
            let keeps =
                to.names(Field::Names).last().is_some_and(|name| matches!(&**name, "text" | "varchar"));
            pattern_of(node.get(Field::Arg)?).filter(|_| keeps && !to.has(Field::Typmods))
        }
        Kind::AExpr if node.names(Field::Name).last().is_some_and(|name| *name == "||") => {
            let (left, right) = (node.get(Field::Lexpr)?, node.get(Field::Rexpr)?);
            Some(pattern_of(left)? + &pattern_of(right)?)
        }
        Kind::AConst => text_of(node).map(std::borrow::Cow::into_owned),
        _ => None,
    }
}

/// A regular expression of which it is plain that something matches it.
pub(super) fn can_match(pattern: &str) -> bool {
    let inside = pattern.strip_prefix('^').unwrap_or(pattern);
    let inside = inside.strip_suffix('$').unwrap_or(inside);
    !inside.is_empty() && inside.chars().all(|c| c.is_alphanumeric() || " _-@/:,%.*".contains(c))
}

/// A LIKE or SIMILAR TO pattern that wants a character that is no wildcard.
pub(super) fn is_selective(pattern: &str) -> bool {
    // SIMILAR TO has alternatives and repetition as well.
    pattern.split('|').all(|part| {
        let mut characters = part.chars().peekable();
        let mut wants = false;
        while let Some(character) = characters.next() {
            if character == '{' {
                // How often, which may be never.
                characters.by_ref().take_while(|c| *c != '}').for_each(drop);
                continue;
            }
            if character == '\\' {
                let escaped = characters.next().is_some();
                wants |= escaped && !matches!(characters.peek(), Some('*' | '?' | '{'));
                continue;
            }
            let optional = matches!(characters.peek(), Some('*' | '?' | '{'));
            wants |=
                !optional && !matches!(character, '%' | '_' | '(' | ')' | '[' | ']' | '*' | '+' | '?' | '^');
        }
        wants && !part.contains(['[', '('])
    }) || (!pattern.contains('|')
        && pattern.chars().any(char::is_alphanumeric)
        && !pattern.contains(['*', '?', '{']))
}

/// A regular expression that wants a letter or digit.
pub(super) fn is_selective_regex(pattern: &str) -> bool {
    // What is in a group may be optional as a whole, and a class may hold everything.
    let unread = [")?", ")*", "){", "(?", "(|", "|)", "||", "["];
    if pattern.starts_with("***") || unread.iter().any(|part| pattern.contains(part)) {
        return false;
    }
    // Each letter of the alphabet is in some text or other.
    let alternatives = pattern.split('|').count();
    if alternatives > FEW_ALTERNATIVES && pattern.len() < 4 * alternatives {
        return false;
    }
    pattern.split('|').all(|part| {
        let mut characters = part.chars().peekable();
        let mut wants = false;
        while let Some(character) = characters.next() {
            if character == '\\' {
                let escaped = characters.next();
                // `\.` is a dot; `\w` is a class.
                let optional = matches!(characters.peek(), Some('*' | '?' | '{'));
                wants |= !optional && escaped.is_some_and(|escaped| !escaped.is_alphanumeric());
                continue;
            }
            if character == '{' {
                characters.by_ref().take_while(|c| *c != '}').for_each(drop);
                continue;
            }
            let optional = matches!(characters.peek(), Some('*' | '?' | '{'));
            wants |= !optional && (character.is_alphanumeric() || "-_@/:, ".contains(character));
        }
        wants
    })
}
