//! What is different from the last statement that was approved.
//!
//! The two texts are compared word by word. What they begin and end with alike is left out, so what
//! remains is shown twice: as it was, and as it is. That is coarser than an editor's diff and cannot
//! mislead: whatever changed is inside.

use super::parameter;
use super::visible::Shown;
use crate::statement::Statement;

/// What differs, in lines to show; empty when nothing does.
#[must_use]
pub(super) fn lines(before: &Statement, now: &Statement) -> Vec<Shown> {
    let mut lines = Vec::new();
    if let Some((was, is)) = text(&before.sql.to_display(), &now.sql.to_display()) {
        lines.push(Shown::after("was: ", &was));
        lines.push(Shown::after("is:  ", &is));
    } else if before.sql != now.sql {
        // Bytes that are no UTF-8 look alike once they are replaced for display.
        lines.push(Shown::line("the texts differ in bytes that are not valid UTF-8"));
    }
    let (was, is) = (parameter::show(&before.parameters), parameter::show(&now.parameters));
    for place in 0..was.len().max(is.len()) {
        let line = |of: &[parameter::ShownParameter]| {
            of.get(place).map_or_else(
                || Shown::of(&format!("${} is not there", place + 1)),
                |value| value.to_line().on_one_line(),
            )
        };
        if was.get(place) != is.get(place) {
            lines.push(Shown::after("was: ", &line(&was)));
            lines.push(Shown::after("is:  ", &line(&is)));
        }
    }
    lines
}

/// The middle in which two texts differ, with one word of what they share on either side.
fn text(before: &str, now: &str) -> Option<(Shown, Shown)> {
    if before == now {
        return None;
    }
    let (was, is) = (tokens(before), tokens(now));
    let same_start = was.iter().zip(&is).take_while(|(a, b)| a == b).count();
    let left = was.len().min(is.len()) - same_start;
    let same_end = was.iter().rev().zip(is.iter().rev()).take(left).take_while(|(a, b)| a == b).count();
    // Two tokens: a word and the blank or sign beside it.
    let start = same_start.saturating_sub(2);
    let end = same_end.saturating_sub(2);
    let middle = |tokens: &[&str]| {
        let kept = tokens.get(start..tokens.len().saturating_sub(end)).unwrap_or_default();
        let before = if start > 0 { "⟨…⟩ " } else { "" };
        let after = if end > 0 { " ⟨…⟩" } else { "" };
        Shown::between(before, &Shown::line(kept.concat().trim()), after)
    };
    Some((middle(&was), middle(&is)))
}

/// Words, and every other character by itself.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let len = if word(first) { rest.find(|c| !word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (token, after) = rest.split_at(len);
        tokens.push(token);
        rest = after;
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(sql: &str) -> Statement {
        Statement::query(sql.into())
    }

    fn difference(before: &str, now: &str) -> Vec<String> {
        lines(&query(before), &query(now)).iter().map(|line| line.as_str().to_owned()).collect()
    }

    #[test]
    fn what_changed_is_shown_as_it_was_and_as_it_is() {
        assert_eq!(
            difference("delete from t where id = 1 and x", "delete from t where id = 1 or 1 = 1 and x"),
            ["was: ⟨…⟩ 1 and ⟨…⟩", "is:  ⟨…⟩ 1 or 1 = 1 and ⟨…⟩"]
        );
        assert!(difference("select 1", "select 1").is_empty());
    }

    #[test]
    fn repeated_words_are_not_counted_twice() {
        assert_eq!(difference("a a", "a a a"), ["was: ⟨…⟩ a", "is:  ⟨…⟩ a a"]);
    }
}
