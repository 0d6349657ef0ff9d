//! Values that are made of columns: which of them still tell rows apart.

use std::borrow::Cow;

use super::compare::VERY_LARGE;
use super::{Analysis, NOTHING, Picks, Scale, Shape, Summary};
use super::{Form, Reads, Unclear};
use crate::classify::tree::{Field, Kind, Node};

/// Functions whose value says something about their first argument, in the same order or another.
const ORDERED: [&str; 32] = [
    "abs",
    "age",
    "ceil",
    "ceiling",
    "date",
    "date_bin",
    "float8",
    "floor",
    "initcap",
    "int8",
    "json_extract_path",
    "json_extract_path_text",
    "jsonb_extract_path",
    "jsonb_extract_path_text",
    "justify_days",
    "lower",
    "make_date",
    "numeric",
    "reverse",
    "round",
    "text",
    "timestamp",
    "timestamptz",
    "to_date",
    "to_number",
    "to_timestamp",
    "trunc",
    "upper",
    "varchar",
    "extract",
    "date_part",
    "date_trunc",
];

/// Those that say how long or how many.
const LENGTHS: [&str; 10] = [
    "array_length",
    "array_upper",
    "bit_length",
    "cardinality",
    "char_length",
    "character_length",
    "json_array_length",
    "jsonb_array_length",
    "length",
    "octet_length",
];

/// Those that must be equal to something.
const COMPUTED: [&str; 9] =
    ["array_dims", "array_lower", "array_ndims", "ascii", "host", "int4", "mod", "network", "to_char"];

/// The same of their second: the first says which part.
const TELLING_OF_SECOND: [&str; 4] = ["age", "date_part", "date_trunc", "timezone"];

/// Those of them that leave nothing where there is nothing, and something where there is something.
const KEEPING: [&str; 6] = ["initcap", "lower", "reverse", "text", "upper", "varchar"];

/// The same, but of one length, and nearly never equal to anything.
const DIGESTS: [&str; 5] = ["md5", "sha224", "sha256", "sha384", "sha512"];

/// The same, but they cut, perhaps everything.
const CUTTING: [&str; 12] = [
    "btrim",
    "left",
    "ltrim",
    "replace",
    "right",
    "rtrim",
    "split_part",
    "substr",
    "substring",
    "translate",
    "trim",
    "array_position",
];

impl<'t> Analysis<'t, '_> {
    /// `(a, b)`
    pub(super) fn row(&self, node: Node<'t>) -> Summary {
        let parts: Vec<Summary> = node.list(Field::Args).map(|part| self.of(part)).collect();
        let whole = parts.iter().fold(NOTHING, |whole, part| whole.blur(*part));
        let of_row = || parts.iter().filter(|part| part.reads.row());
        let shape = if of_row().count() > 0 && of_row().all(|part| part.tells()) {
            Shape::Derived
        } else {
            whole.shape
        };
        let scale = parts.iter().fold(Scale::Wide, |scale, part| scale.then(part.scale));
        let shortens = parts.iter().any(|part| part.shortens);
        Summary { shape, scale, shortens, ..whole }
    }

    /// `tags[1]`, `data['kind']`
    pub(super) fn element(&self, node: Node<'t>) -> Summary {
        let whole = self.parts(node);
        let of = self.field(node, Field::Arg).unwrap_or(NOTHING);
        let index_reads = node.list(Field::Indirection).any(|part| self.of(part).reads.row());
        // `tags[1:0]` is empty.
        let slice = node.list(Field::Indirection).any(|part| part.flag(Field::IsSlice));
        let shape = if of.tells() && !index_reads && !slice { Shape::Derived } else { Shape::Vague };
        Summary { shape, is_json: of.tells(), ..whole }
    }

    pub(super) fn call(&self, node: Node<'t>) -> Summary {
        let names = node.names(Field::Funcname);
        let name = match names.as_slice() {
            [name] => &**name,
            [schema, name] if **schema == *"pg_catalog" => &**name,
            _ => "",
        };
        let arguments: Vec<(Node<'t>, Summary)> =
            node.list(Field::Args).map(|part| (part, self.of(part))).collect();
        let whole = self.parts(node);
        if !whole.reads.row() && self.calls_for_the_table(node) {
            return Summary { reads: Reads::COPY, shape: Shape::Vague, ..NOTHING };
        }
        if !whole.reads.row() {
            return whole;
        }
        let only = |place: usize| {
            arguments.iter().enumerate().all(|(at, (_, part))| at == place || !part.reads.row())
                && arguments.get(place).is_some_and(|(_, part)| part.tells() && part.reads == Reads::OWN)
        };
        let literal = |place: usize| arguments.get(place).map(|(node, _)| *node).and_then(text_of);
        let number = |place: usize| arguments.get(place).and_then(|(node, _)| number_of(*node));
        let of = |place: usize| arguments.get(place).map_or(NOTHING, |(_, part)| *part);
        let derived = |place: usize, shortens| {
            let of = of(place);
            Summary {
                truth: Unclear,
                shape: Shape::Derived,
                scale: of.scale.then(scale_of(name, literal(0), literal(1), number(1))),
                is_key: false,
                shortens: shortens || of.shortens,
                is_json: name.starts_with("json"),
                ..of
            }
        };
        let given =
            |place: usize| arguments.get(place).is_some_and(|(node, _)| node.kind() == Kind::ParamRef);
        let says_nothing = match name {
            // A number's text is as long as its format says.
            _ if LENGTHS.contains(&name) && of(0).scale > Scale::Ordered => true,
            "strpos" | "position" => of(0).scale > Scale::Ordered,
            // `left(code, 0)`
            "left" | "right" => !given(1) && number(1).is_none_or(|length| length <= 0.0),
            "substr" | "substring" if arguments.len() > 2 => {
                !given(2) && number(2).is_none_or(|length| length <= 0.0)
            }
            // `round(id, -9)`
            "round" | "trunc" => number(1).is_some_and(|digits| digits < 0.0),
            "mod" => of(0).scale > Scale::Wide || number(1).is_none_or(|number| number.abs() <= 1.0),
            "date_trunc" | "date_part" | "extract" => literal(0).is_some_and(|field| is_broad(&field)),
            "to_char" => literal(1).is_some_and(|format| !has_fields(&format)),
            // As large in each row.
            "bit_length" | "octet_length" => of(0).is_key || of(0).shortens,
            _ => is_telling(name) && of(0).shortens && !KEEPING.contains(&name),
        };
        match name {
            _ if says_nothing => whole,
            "starts_with" if only(0) && (given(1) || literal(1).is_some_and(|prefix| !prefix.is_empty())) => {
                let picks = of(0).scale <= Scale::Ordered;
                whole.test_of([of(0)]).test(if picks { Picks(Form::Equal) } else { Unclear })
            }
            // Where a text is empty it is found at once, everywhere.
            "strpos" | "position"
                if only(0) && (given(1) || literal(1).is_some_and(|part| !part.is_empty())) =>
            {
                derived(0, false)
            }
            "jsonb_typeof" | "json_typeof" if only(0) => derived(0, false),
            _ if is_telling(name) && only(0) => derived(0, false),
            // EXTRACT's field stands first in the tree.
            _ if (TELLING_OF_SECOND.contains(&name) || name == "extract") && only(1) => {
                let part = derived(1, false);
                // The year of an age, `extract(year FROM now() - born)`, is not one of a calendar.
                let calendar = part.scale != Scale::Years || of(1).shape == Shape::Column;
                Summary { scale: if calendar { part.scale } else { Scale::Ordered }, ..part }
            }
            // Without a list of characters only white space goes.
            "btrim" | "ltrim" | "rtrim" if arguments.len() == 1 && only(0) => derived(0, false),
            _ if CUTTING.contains(&name) && of(0).scale > Scale::Ordered => whole,
            _ if (CUTTING.contains(&name) || DIGESTS.contains(&name)) && only(0) => derived(0, true),
            _ => whole,
        }
    }

    /// Arithmetic, concatenation and access to documents.
    pub(super) fn calculation(
        &self,
        node: Node<'t>,
        name: &str,
        left: Option<Summary>,
        right: Summary,
    ) -> Option<Summary> {
        let Some(left) = left else {
            return matches!(name, "+" | "-").then(|| {
                if right.reads.row() && right.tells() {
                    // Most numbers are not negative, and so all of those are: `-amount < 1`.
                    let turned = if name == "-" { Scale::Computed } else { Scale::Ordered };
                    let scale = moved(right.scale, false).then(turned);
                    Summary { truth: Unclear, shape: Shape::Derived, scale, is_key: false, ..right }
                } else {
                    right.blur(NOTHING)
                }
            });
        };
        let whole = left.blur(right);
        let json = matches!(name, "->" | "->>" | "#>" | "#>>");
        if !json && !matches!(name, "+" | "-" | "*" | "/" | "%" | "||" | "&") {
            return None;
        }
        if !whole.reads.row() {
            return Some(whole);
        }
        let (of, by, by_node) = if left.reads.row() {
            (left, right, node.get(Field::Rexpr))
        } else {
            (right, left, node.get(Field::Lexpr))
        };
        // `a - a`, what is joined with other rows, and what may have been cut to nothing.
        if of.shortens || !of.tells() || by.reads != Reads::default() && (by.reads != of.reads || !by.tells())
        {
            return Some(whole);
        }
        if by.reads.row() && by.columns.overlap(of.columns) {
            return Some(whole);
        }
        let number = by_node.and_then(number_of);
        let sound = match name {
            _ if json => left.reads.row(),
            // Nothing is left of what is multiplied with nothing.
            "*" => number.is_some_and(|number| (1e-3..VERY_LARGE).contains(&number.abs())),
            "&" => {
                of.scale == Scale::Wide
                    && number.is_some_and(|number| number != 0.0 && number.abs() < VERY_LARGE)
            }
            // Beyond all numbers that there are.
            "+" | "-" => match number {
                Some(number) => number.abs() < VERY_LARGE,
                None => !by_node.is_some_and(|by| is_calculated(by) || is_an_age(by)),
            },
            "/" => {
                left.reads.row()
                    && of.scale <= Scale::Ordered
                    && number.is_some_and(|number| (1e-3..=1e6).contains(&number.abs()))
            }
            // `x % 1` is nothing, and so is `2 * x % 2`.
            "%" => {
                left.reads.row()
                    && of.scale == Scale::Wide
                    && number.is_some_and(|number| number.abs() > 1.0 && number.fract() == 0.0)
            }
            _ => true,
        };
        if !sound {
            return Some(whole);
        }
        let nothing_of_it = matches!(name, "#>" | "#>>")
            && by_node
                .and_then(text_of)
                .is_none_or(|path| !path.contains(|c: char| !matches!(c, '{' | '}' | ' ')));
        // `data #> '{}'` is all of it.
        if nothing_of_it && !by_node.is_some_and(|by| by.within().any(|node| node.kind() == Kind::ParamRef)) {
            return Some(whole);
        }
        let scale = moved(of.scale.then(by.scale), json).then(match (name, number) {
            _ if json => Scale::Wide,
            ("-", Some(_)) if !left.reads.row() => Scale::Computed,
            // `id + 1 > 1`
            ("+" | "-", Some(_)) => Scale::Ordered,
            _ if of.shift != 0.0 => Scale::Computed,
            ("/", _) => Scale::Quotient,
            ("*", Some(number)) if number.abs() < 1.0 => Scale::Quotient,
            ("||", _) => Scale::Padded,
            ("&", Some(number)) => Scale::Few(number.abs() as u32 + 1),
            ("%", Some(number)) => Scale::Few(number.abs() as u32),
            ("*", Some(number)) if number < 0.0 => Scale::Computed,
            _ => Scale::Ordered,
        });
        let shift = match (name, number) {
            ("+", Some(number)) => of.shift + number,
            ("-", Some(number)) => of.shift - number,
            _ => 0.0,
        };
        let is_key = of.is_key && shift != 0.0;
        let columns = whole.columns;
        Some(Summary {
            truth: Unclear,
            shape: Shape::Derived,
            scale,
            columns,
            is_key,
            is_json: json,
            shift,
            ..of
        })
    }
}

/// A number that is not written down but worked out of others: `1 / 1e-30`.
pub(super) fn is_calculated(node: Node<'_>) -> bool {
    let known = |part: Node<'_>| {
        matches!(part.kind(), Kind::ParamRef | Kind::SQLValueFunction | Kind::ColumnRef)
            // `interval '1 day' * 3`
            || text_of(part).is_some_and(|text| !text.is_empty() && number_of(part).is_none())
            || part.names(Field::Funcname).last().is_some_and(|name| {
                name.starts_with("make_") || matches!(&**name, "now" | "to_timestamp")
            })
    };
    number_of(node).is_none()
        && node.within().any(|part| number_of(part).is_some())
        && !node.within().any(known)
}

/// Whether an interval in it is longer than anything that people keep: `now() - interval '1000 years'`.
pub(super) fn is_an_age(node: Node<'_>) -> bool {
    let longest = |node: Node<'_>| {
        // Of years at most; of days there may be some more.
        node.names(Field::Funcname).last().is_some_and(|name| *name == "make_interval")
            && node.within().filter_map(number_of).any(|number| number.abs() > 40_000.0)
    };
    // `make_date(1, 1, 1)`, `make_interval(years => 1000)`
    let made = |node: Node<'_>| {
        let names = node.names(Field::Funcname);
        let first = || node.list(Field::Args).next().and_then(number_of);
        let years = || {
            node.list(Field::Args)
                .filter(|argument| argument.text(Field::Name).as_deref() == Some("years"))
                .filter_map(|argument| argument.get(Field::Arg))
                .chain(node.list(Field::Args).next())
                .filter_map(number_of)
                .any(|years| years.abs() >= 100.0)
        };
        match names.last().map(|name| &**name) {
            Some("make_date" | "make_timestamp" | "make_timestamptz") => {
                first().is_some_and(|year| !(1901.0..2200.0).contains(&year))
            }
            Some("make_interval") => years(),
            _ => false,
        }
    };
    // `to_timestamp(0)`
    let epoch = |node: Node<'_>| {
        node.names(Field::Funcname).last().is_some_and(|name| *name == "to_timestamp")
            && node.list(Field::Args).count() == 1
            && node.list(Field::Args).any(|at| number_of(at).is_some_and(|at| at < 1e8))
    };
    node.within().any(|part| longest(part) || made(part) || epoch(part))
        || node.within().filter_map(text_of).any(|text| years(&text) >= 100.0)
}

/// The years of an interval in words; nothing where it is none.
fn years(text: &str) -> f64 {
    let mut words = text.split_ascii_whitespace().peekable();
    let mut years = 0.0;
    while let Some(word) = words.next() {
        let end = word.trim_start_matches(|c: char| c.is_ascii_digit() || "+-.".contains(c));
        let number = word.strip_suffix(end).and_then(|number| number.parse::<f64>().ok());
        let Some(number) = number else { continue };
        let unit = if end.is_empty() { words.peek().copied().unwrap_or_default() } else { end };
        years += number.abs() * years_of(&unit.to_ascii_lowercase());
    }
    years
}

/// A unit of intervals in years (`deltatktbl` of Postgres's `datetime.c`).
fn years_of(unit: &str) -> f64 {
    let starts = |start: &str| unit.starts_with(start);
    match unit {
        _ if starts("mil") && !starts("milli") || starts("millenn") => 1000.0,
        _ if starts("cent") || unit == "c" => 100.0,
        _ if starts("dec") => 10.0,
        _ if starts("y") => 1.0,
        _ if starts("mon") => 1.0 / 12.0,
        _ if starts("w") => 7.0 / 365.0,
        _ if starts("d") => 1.0 / 365.0,
        _ if starts("h") => 1.0 / 8_766.0,
        _ => 0.0,
    }
}

/// Of what is calculated with a value of some scale, it is not known where it begins and ends.
fn moved(scale: Scale, same: bool) -> Scale {
    match scale {
        _ if same => scale,
        Scale::Few(few) | Scale::Clock(few) => Scale::Few(few.min(3)),
        // `active::int + 1 IN (1, 2)`
        Scale::Length | Scale::Years | Scale::Rank | Scale::Turn | Scale::Place | Scale::Computed => {
            Scale::Few(2)
        }
        Scale::Quotient => Scale::Computed,
        Scale::Wide | Scale::Ordered | Scale::Padded => scale,
    }
}

/// Functions whose value says something about their first argument.
fn is_telling(name: &str) -> bool {
    ORDERED.contains(&name) || LENGTHS.contains(&name) || COMPUTED.contains(&name)
}

/// What values a function with these literals as its first and second argument may have.
fn scale_of(name: &str, first: Option<Cow<'_, str>>, second: Option<Cow<'_, str>>, by: Option<f64>) -> Scale {
    match name {
        "date_part" | "extract" => parts_of(&first.unwrap_or_default()),
        "mod" => Scale::Few(by.map_or(0, |by| by.abs() as u32)),
        "jsonb_typeof" | "json_typeof" => Scale::Few(6),
        "strpos" | "position" => Scale::Place,
        "to_char" if second.is_none_or(|format| format.contains(['"', '\\'])) => Scale::Padded,
        // Neither of them is negative.
        "abs" => Scale::Length,
        _ if LENGTHS.contains(&name) => Scale::Length,
        _ if ORDERED.contains(&name) || TELLING_OF_SECOND.contains(&name) => Scale::Ordered,
        "btrim" | "ltrim" | "rtrim" | "trim" => Scale::Ordered,
        _ => Scale::Computed,
    }
}

/// What values a part of a time may have.
fn parts_of(field: &str) -> Scale {
    let field = field.trim().to_ascii_lowercase();
    let starts = |names: &[&str]| names.iter().any(|name| field.starts_with(name));
    match field.as_str() {
        _ if starts(&["year", "isoyear"]) => Scale::Years,
        "epoch" => Scale::Ordered,
        _ if starts(&["julian", "dec"]) => Scale::Computed,
        _ if starts(&["millis", "ms"]) => Scale::Clock(60_000),
        _ if starts(&["micros", "us"]) => Scale::Clock(60_000_000),
        _ if starts(&["month", "mon"]) => Scale::Few(12),
        _ if starts(&["quarter", "qtr"]) => Scale::Few(4),
        _ if starts(&["dow", "isodow"]) => Scale::Few(7),
        "day" | "days" | "d" => Scale::Few(31),
        "doy" => Scale::Few(366),
        _ if starts(&["week"]) => Scale::Few(53),
        _ if starts(&["hour", "hr"]) || field == "h" => Scale::Clock(24),
        _ => Scale::Clock(60),
    }
}

/// A part of a time that is the same for all of them that anybody stores.
fn is_broad(field: &str) -> bool {
    let field = field.trim().to_ascii_lowercase();
    ["mil", "cent", "timezone"].iter().any(|broad| field.starts_with(broad)) && !field.starts_with("millis")
        || field == "c"
}

/// Whether a format of `to_char` has anything in it but words of its own: `"x"`.
fn has_fields(format: &str) -> bool {
    let outside = format.split('"').step_by(2).map(|part| part.to_ascii_lowercase().replace("fm", ""));
    // A date is always at midnight.
    let clock = ["ms", "am", "pm", "a.m", "p.m", "hh24", "hh12", "hh", "ss", "us", "tz", "of", "ff"];
    outside.into_iter().any(|part| {
        let part = clock.iter().fold(part.replace("mi", ""), |part, field| part.replace(field, ""));
        part.bytes().any(|byte| byte.is_ascii_alphanumeric())
    })
}

/// The text of a literal, whatever it is cast to.
pub(super) fn text_of(node: Node<'_>) -> Option<Cow<'_, str>> {
    let node = uncast(node)?;
    if node.kind() != Kind::AConst {
        return None;
    }
    // `sval` of a constant is a String message of its own.
    node.get(Field::Sval).map(|text| text.text(Field::Sval).unwrap_or_default())
}

/// The number that a literal is, as what it is cast to leaves it.
pub(super) fn number_of(node: Node<'_>) -> Option<f64> {
    if node.kind() == Kind::TypeCast {
        let number = number_of(node.get(Field::Arg)?)?;
        let to = node.get(Field::TypeName)?;
        return match to.names(Field::Names).last().map(|name| &**name) {
            // `100::bit(1)::int`
            Some("bit" | "varbit" | "char" | "bpchar") => None,
            Some("varchar") if to.has(Field::Typmods) => None,
            // `0.4::numeric(3, 0)`, `5::numeric(2, -3)`
            Some("numeric") if to.has(Field::Typmods) => {
                let keeps = |digits: Node<'_>| number_of(digits).is_some_and(|digits| digits >= 0.0);
                (number.abs() >= 1.0 && to.list(Field::Typmods).all(keeps)).then_some(number)
            }
            Some("bool") => Some(f64::from(u8::from(number != 0.0))),
            Some("int2" | "int4" | "int8") => Some(number.round_ties_even()),
            _ => Some(number),
        };
    }
    if let Some(inner) = uncast(node).filter(|inner| inner.index() != node.index()) {
        return number_of(inner);
    }
    if node.kind() != Kind::AConst {
        return None;
    }
    if let Some(number) = node.get(Field::Ival) {
        return Some(number.number(Field::Ival) as f64);
    }
    if let Some(number) = node.get(Field::Fval) {
        return number.text(Field::Fval).and_then(|text| text.parse().ok());
    }
    text_of(node).and_then(|text| text.trim().parse().ok())
}

/// What is under casts, and in `(SELECT 5)`.
pub(super) fn uncast(mut node: Node<'_>) -> Option<Node<'_>> {
    loop {
        node = if matches!(node.kind(), Kind::TypeCast | Kind::CollateClause) {
            node.get(Field::Arg)?
        } else if let Some(value) = said(node) {
            value
        } else {
            return Some(node);
        };
    }
}

/// The value of a query that only says one.
fn said(sublink: Node<'_>) -> Option<Node<'_>> {
    if sublink.kind() != Kind::SubLink || sublink.word(Field::SubLinkType) != "EXPR_SUBLINK" {
        return None;
    }
    let query = sublink.get(Field::Subselect)?;
    let reads = query.has(Field::FromClause) || query.has(Field::WhereClause) || query.has(Field::WithClause);
    let mut items =
        query.list(Field::TargetList).chain(query.list(Field::ValuesLists).flat_map(|row| row.children()));
    let first = items.next()?;
    let value = if first.kind() == Kind::ResTarget { first.get(Field::Val)? } else { first };
    (!reads && items.next().is_none()).then_some(value)
}
