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

/// What stands between the brackets of a range, `[1,5)`, of several, or of a list, `{1,2}`.
pub(super) struct Ends<'r> {
    all: Vec<&'r str>,
    /// Of which none is the lower or upper one.
    are_items: bool,
}

impl<'r> Ends<'r> {
    pub(super) fn of(text: &'r str) -> Self {
        let inside = text.trim().trim_start_matches(['[', '(', '{']).trim_end_matches([']', ')', '}']);
        let all = inside.split(',').map(|end| end.trim().trim_matches('"')).collect();
        Self { all, are_items: text.trim_start().starts_with('{') && !text.contains(['[', '(']) }
    }

    /// `(,)`, `[-infinity,infinity]`, `[0,2147483647]`
    pub(super) fn are_open(&self) -> bool {
        let is_open = |end: &&str| is_endless(end) || !end.bytes().any(|byte| byte.is_ascii_alphanumeric());
        let is_all = || match self.numbers().as_slice() {
            [low, high, ..] => !self.are_items && is_wide(*low, *high),
            _ => false,
        };
        self.all.iter().all(is_open) || is_all()
    }

    /// `[5,)`
    fn is_one_open(&self) -> bool {
        !self.are_items && self.all.iter().any(|end| end.is_empty() || is_endless(end))
    }

    fn numbers(&self) -> Vec<Option<f64>> {
        self.all.iter().map(|end| end.parse().ok()).collect()
    }
}

/// The comparison that a range with one end is: `[5,)` is `>= 5`.
pub(super) fn half_of(range: Node<'_>) -> Option<(&'static str, Option<f64>)> {
    let ends = match text_of(range) {
        Some(text) => Ends::of(&text).numbers(),
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
        return Ends::of(&text).is_one_open();
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

/// `ARRAY[]::text[]`
pub(super) fn is_empty_array(node: Node<'_>) -> bool {
    uncast(node)
        .is_some_and(|node| node.kind() == Kind::AArrayExpr && node.list(Field::Elements).next().is_none())
}
