//! Ranges, arrays, searches and areas: which hold, or ask for, nothing in particular.

use super::bounds::{is_endless, is_wide};
use super::compare::VERY_LARGE;
use super::values::{number_of, text_of, uncast};
use crate::classify::tree::{Field, Kind, Node};

/// `int4range(NULL, NULL)`, and whatever else a function makes of nothing.
pub(super) fn says_nothing(node: Node<'_>) -> bool {
    let Some(call) = uncast(node).filter(|node| node.kind() == Kind::FuncCall) else { return false };
    let bounds: Vec<_> = call.list(Field::Args).take(2).collect();
    let open = |bound: Node<'_>| {
        let Some(bound) = uncast(bound) else { return true };
        let calculated = bound.kind() == Kind::AExpr && bound.word(Field::Kind) == "AEXPR_OP";
        let written = text_of(bound).is_some_and(|text| !text.is_empty() && !is_endless(&text));
        let given = matches!(bound.kind(), Kind::FuncCall | Kind::SQLValueFunction) && !says_nothing(bound);
        !(calculated || written || given || number_of(bound).is_some_and(f64::is_finite))
    };
    if let [low, high] = bounds.as_slice()
        && is_wide(number_of(*low), number_of(*high))
    {
        return true;
    }
    !call.list(Field::Args).any(|argument| argument.kind() == Kind::ParamRef)
        && !bounds.is_empty()
        && bounds.into_iter().all(open)
}

/// A figure of geometry with numbers that nobody's are beyond.
pub(super) fn is_vast(area: &str) -> bool {
    area.contains("((")
        && area
            .split(['(', ')', ',', '<', '>', ' '])
            .filter_map(|part| part.parse::<f64>().ok())
            .any(|part| part.abs() >= VERY_LARGE)
}

/// The comparison that a range with one end is: `[5,)` is `>= 5`.
pub(super) fn half_of(range: Node<'_>) -> Option<(&'static str, Option<f64>)> {
    let text = text_of(range);
    let ends: Vec<Option<f64>> = match &text {
        Some(text) => {
            let inside = text.trim().trim_start_matches(['[', '(']).trim_end_matches([']', ')']);
            inside.split(',').map(|end| end.trim().parse().ok()).collect()
        }
        None => uncast(range)?.list(Field::Args).take(2).map(number_of).collect(),
    };
    match ends.as_slice() {
        [Some(low), None] => Some((">=", Some(*low))),
        [None, Some(high)] => Some(("<=", Some(*high))),
        _ => None,
    }
}

/// A range without an end, or one of which nobody can tell.
pub(super) fn is_half_open(range: Node<'_>) -> bool {
    let Some(range) = uncast(range) else { return true };
    if let Some(text) = text_of(range) {
        let inside = text.trim().trim_start_matches(['[', '(', '{']).trim_end_matches([']', ')', '}']);
        let open = |end: &str| end.trim().is_empty() || is_endless(end.trim().trim_matches('"'));
        // A list, `{1,2}`, has no end either way.
        return !text.trim_start().starts_with('{') && inside.split(',').any(open);
    }
    range.kind() == Kind::FuncCall
        && range.list(Field::Args).take(2).any(|end| {
            uncast(end).is_none_or(|end| {
                end.flag(Field::Isnull)
                    || text_of(end).is_some_and(|text| text.is_empty() || is_endless(&text))
            })
        })
}

/// Whether a search in texts or a path in documents may be true of everything: `!zz`, `true`, `1 == 1`.
pub(super) fn may_be_all(query: &str) -> bool {
    query.contains(['$', '!', '-', '=', '>', '<', '"'])
        || !query.bytes().any(|byte| byte.is_ascii_alphabetic() || byte >= 0x80)
        || matches!(query.trim().trim_matches(['(', ')']).trim(), "true" | "false" | "null")
}

/// `{}`, `empty`
pub(super) fn is_nothing(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("empty")
        || !text.contains(|c: char| !matches!(c, '{' | '}' | '[' | ']' | ' '))
}

/// `(,)`, `[-infinity,infinity]`
pub(super) fn is_endless_range(text: &str) -> bool {
    let numbers = text.trim().trim_start_matches(['[', '(']).trim_end_matches([']', ')']);
    if let Some((low, high)) = numbers.split_once(',')
        && is_wide(low.trim().parse().ok(), high.trim().parse().ok())
    {
        return true;
    }
    let bounds = text.trim().trim_start_matches(['[', '(', '{']).trim_end_matches([']', ')', '}']);
    bounds.split(',').all(|bound| {
        let bound = bound.trim().trim_matches('"');
        is_endless(bound) || !bound.bytes().any(|byte| byte.is_ascii_alphanumeric())
    })
}

/// `ARRAY[]::text[]`
pub(super) fn is_empty_array(node: Node<'_>) -> bool {
    uncast(node)
        .is_some_and(|node| node.kind() == Kind::AArrayExpr && node.list(Field::Elements).next().is_none())
}
