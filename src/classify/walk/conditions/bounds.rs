//! Bounds: which are beyond all that there may be.

use super::compare::VERY_LARGE;
use super::values::{is_an_age, is_calculated, number_of, text_of, uncast};
use super::{Shape, Summary};
use crate::classify::tree::{Field, Kind, Node};

/// Numbers that nobody's are beyond.
pub(super) const BEYOND: f64 = 1e19;

/// Whether nearly all numbers are so. Most are not negative: `amount >= 0` is all of them.
pub(super) fn is_all(name: &str, number: Option<f64>, own: Summary) -> bool {
    let Some(number) = number else { return false };
    let largest = own.integer.map_or(BEYOND, |bytes| 2_f64.powi(i32::from(bytes) * 8 - 1) - 1.0);
    match name {
        _ if is_limit(number) => true,
        ">" => number < 0.0 || own.is_key && number <= 0.0,
        ">=" => number <= 0.0 || own.is_key && number <= 1.0,
        _ => number >= if own.is_key { VERY_LARGE.min(largest) } else { largest },
    }
}

/// Whether a column may hold a number: no integer is 0.5.
pub(super) fn is_possible(own: Summary, number: Option<f64>) -> bool {
    let (Some(bytes), Some(number), Shape::Column) = (own.integer, number, own.shape) else { return true };
    number.fract() == 0.0 && number.abs() <= 2_f64.powi(i32::from(bytes) * 8 - 1)
}

/// Whether a text stands before, or behind, all that there may be.
pub(super) fn is_end(text: &str, first: bool) -> bool {
    let text = text.trim();
    text.is_empty() || is_endless(text) || text.eq_ignore_ascii_case("empty") || is_first_or_last(text, first)
}

/// Functions of the present and of what is written beside them, which say when.
pub(super) const TELLING: [&str; 18] = [
    "age",
    "clock_timestamp",
    "date",
    "date_bin",
    "date_trunc",
    "int8",
    "make_date",
    "make_interval",
    "make_time",
    "make_timestamp",
    "make_timestamptz",
    "now",
    "statement_timestamp",
    "timezone",
    "to_date",
    "to_timestamp",
    "transaction_timestamp",
    "extract",
];

/// Whether it is plain where a bound lies, or nobody can tell: not `lower('')`, `'Na' || 'N'`, `B''`,
/// `10 ^ 300`, `now() - interval '1000 years'`.
#[expect(clippy::wildcard_enum_match_arm, reason = "what is made of others is what they are")]
pub(super) fn is_told(bound: Node<'_>) -> bool {
    if is_calculated(bound) || is_an_age(bound) {
        return false;
    }
    let given = bound.within().any(|node| matches!(node.kind(), Kind::ParamRef | Kind::ColumnRef));
    bound.within().all(|node| match node.kind() {
        Kind::FuncCall => {
            given || node.names(Field::Funcname).last().is_some_and(|name| TELLING.contains(&&**name))
        }
        Kind::AExpr => given || node.names(Field::Name).last().is_none_or(|name| *name != "||"),
        Kind::AConst => {
            !node.has(Field::Bsval)
                && (node.index() == bound.index() || !text_of(node).is_some_and(|text| is_endless(&text)))
        }
        _ => true,
    })
}

/// A value that no row has: `id <> random()`.
pub(super) fn is_random(value: Node<'_>) -> bool {
    const RANDOM: [&str; 7] =
        ["clock_timestamp", "gen_random_uuid", "nextval", "random", "random_normal", "uuidv4", "uuidv7"];
    value.within().any(|node| {
        node.names(Field::Funcname)
            .last()
            .is_some_and(|name| RANDOM.contains(&&**name) || name.starts_with("uuid_generate"))
    })
}

/// A column in which by its name only times stand that have been.
pub(super) fn is_of_the_past(own: Node<'_>) -> bool {
    // `date(created_at)`, `created_at AT TIME ZONE 'UTC'`
    let mut own = uncast(own);
    while let Some(call) = own.filter(|own| own.kind() == Kind::FuncCall) {
        let same = |name: &str| matches!(name, "date" | "date_trunc" | "timezone");
        let is_same = call.names(Field::Funcname).last().is_some_and(|name| same(name));
        own = call.list(Field::Args).filter(|_| is_same).last().and_then(uncast);
    }
    let name = own.and_then(|own| own.list(Field::Fields).filter_map(Node::string).last());
    name.is_some_and(|name| {
        let name = name.to_ascii_lowercase();
        ["created", "inserted", "updated", "modified", "registered"].iter().any(|past| name.starts_with(past))
    })
}

/// Whether a time, or how long ago it was, is compared with the beginning of all: `age(created_at) > '0'`.
pub(super) fn is_since_ever(own: Node<'_>, bound: Node<'_>) -> bool {
    let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).collect::<Vec<u8>>();
    let zero = text_of(bound)
        .map(|text| digits(&text))
        .is_some_and(|digits| !digits.is_empty() && digits.iter().all(|digit| *digit == b'0'))
        || number_of(bound).is_some_and(|number| number <= 0.0);
    zero && own.within().any(|part| part.kind() == Kind::ColumnRef && is_of_the_past(part))
}

/// Now, or later.
pub(super) fn is_the_present(bound: Node<'_>) -> bool {
    // What Postgres's input of times takes for such words, wherever they stand: `'tomorrow 10:00'`.
    let says_now = |text: &str| {
        text.split(|c: char| !c.is_ascii_alphabetic())
            .any(|word| ["now", "today", "tomorrow"].iter().any(|present| word.eq_ignore_ascii_case(present)))
    };
    let now = |node: Node<'_>| {
        node.kind() == Kind::SQLValueFunction
            || text_of(node).is_some_and(|text| says_now(&text))
            || node.names(Field::Funcname).last().is_some_and(|name| {
                matches!(&**name, "now" | "clock_timestamp" | "statement_timestamp" | "transaction_timestamp")
            })
    };
    let earlier = |node: Node<'_>| {
        node.names(Field::Name).last().is_some_and(|name| *name == "-")
            || node.kind() == Kind::ParamRef
            || node.names(Field::Funcname).last().is_some_and(|name| *name == "date_trunc")
            // `interval '-1 day'`, but `'now -02'` is a time zone.
            || text_of(node).is_some_and(|text| text.contains('-') && !says_now(&text))
    };
    bound.within().any(now) && !bound.within().any(earlier)
}

/// The ends of integer types.
pub(super) fn is_limit(number: f64) -> bool {
    [32_767.0, 32_768.0, 2_147_483_647.0, 2_147_483_648.0].contains(&number.abs()) || number.abs() >= 9.2e18
}

/// Whether nearly all numbers lie between these.
pub(super) fn is_wide(low: Option<f64>, high: Option<f64>) -> bool {
    let (Some(low), Some(high)) = (low, high) else { return false };
    let (low, high) = (low.min(high), low.max(high));
    low <= 1.0 && high >= VERY_LARGE / 10.0 || (is_limit(low) && is_limit(high)) || low <= -VERY_LARGE
}

/// Whether a text or date stands before, or behind, all that anybody stores.
pub(super) fn is_first_or_last(text: &str, first: bool) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let year = text.get(..digits).filter(|_| digits == 4 && text.get(4..5) == Some("-"));
    if let Some(year) = year.and_then(|year| year.parse::<u32>().ok()) {
        return if first { year <= 1900 } else { year >= 2200 };
    }
    // `'12020-01-01'`, `'epoch'`
    if digits > 4 && text.get(digits..=digits) == Some("-") && text.get(digits + 3..digits + 4) == Some("-") {
        return !first;
    }
    if let Some(year) = year_of(text).filter(|_| digits != text.len() || digits == 8) {
        return if first { year <= 1900 } else { year >= 2200 };
    }
    if first && text.eq_ignore_ascii_case("epoch") {
        return true;
    }
    // `00:00`, `00000000-0000-..`, `0/0`, `{}`, `[]`; not the numbers, of which more is known.
    let says = || text.bytes().filter(u8::is_ascii_alphanumeric);
    let is_number = text.parse::<f64>().is_ok();
    if first
        && !is_number
        && text
            .strip_prefix("\\x")
            .map_or_else(|| says().all(|byte| byte == b'0'), |rest| rest.bytes().all(|byte| byte == b'0'))
    {
        return true;
    }
    let largest = says().count() >= 4 && says().all(|byte| matches!(byte, b'f' | b'F'));
    if !first
        && (largest || text.starts_with("24:") || text.starts_with("23:59") || text == "255.255.255.255")
    {
        return true;
    }
    let starts = text.chars().next();
    if first {
        starts.is_some_and(|start| start < '0') && !is_number
    } else {
        starts.is_some_and(|start| start > 'z')
    }
}

/// The year of a date that does not begin with it: `12/31/9999`, `1 Jan 1900`, `19000101`.
fn year_of(text: &str) -> Option<u32> {
    let part = |range: std::ops::Range<usize>| text.get(range).and_then(|part| part.parse::<u32>().ok());
    if text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let is_a_day = (1..=12).contains(&part(4..6)?) && (1..=31).contains(&part(6..8)?);
        return part(0..4).filter(|_| is_a_day);
    }
    let parts: Vec<&str> = text.split(['/', '.', '-', ' ', ',']).filter(|part| !part.is_empty()).collect();
    let [one, other, year] = parts.as_slice() else { return None };
    let is_day = |part: &str| part.len() <= 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_month = |part: &str| part.len() >= 3 && part.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_a_date = is_day(one) && (is_day(other) || is_month(other)) || is_month(one) && is_day(other);
    year.parse().ok().filter(|_| is_a_date && year.len() == 4)
}

pub(super) fn is_endless(text: &str) -> bool {
    let text = text.trim().trim_start_matches(['-', '+']).to_ascii_lowercase();
    text.starts_with("inf") || text == "nan"
}
