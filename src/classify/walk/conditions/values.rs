//! Values that are made of columns: which of them still tell rows apart.

use super::compare::VERY_LARGE;
use super::{Analysis, NOTHING, Picks, Shape, Summary};
use super::{Form, Reads, Unclear};
use crate::classify::tree::{Field, Kind, Node};

/// Functions whose value says something about their first argument.
const TELLING: [&str; 52] = [
    "abs",
    "age",
    "array_dims",
    "array_length",
    "array_lower",
    "array_ndims",
    "array_upper",
    "ascii",
    "bit_length",
    "cardinality",
    "ceil",
    "ceiling",
    "char_length",
    "character_length",
    "date",
    "date_bin",
    "extract",
    "floor",
    "float8",
    "host",
    "initcap",
    "int4",
    "int8",
    "json_array_length",
    "json_extract_path",
    "json_extract_path_text",
    "jsonb_array_length",
    "jsonb_extract_path",
    "jsonb_extract_path_text",
    "jsonb_typeof",
    "json_typeof",
    "justify_days",
    "length",
    "lower",
    "make_date",
    "mod",
    "network",
    "numeric",
    "octet_length",
    "pg_column_size",
    "reverse",
    "round",
    "text",
    "timestamp",
    "timestamptz",
    "to_char",
    "to_date",
    "to_number",
    "to_timestamp",
    "trunc",
    "upper",
    "varchar",
];

/// The same of their second: the first says which part.
const TELLING_OF_SECOND: [&str; 3] = ["date_part", "date_trunc", "timezone"];

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
        Summary { shape, ..whole }
    }

    /// `tags[1]`, `data['kind']`
    pub(super) fn element(&self, node: Node<'t>) -> Summary {
        let whole = self.parts(node);
        let of = self.field(node, Field::Arg).unwrap_or(NOTHING);
        let index_reads = node.list(Field::Indirection).any(|part| self.of(part).reads.row());
        let shape = if of.tells() && !index_reads { Shape::Derived } else { whole.shape };
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
        if !whole.reads.row() {
            return whole;
        }
        let only = |place: usize| {
            arguments.iter().enumerate().all(|(at, (_, part))| at == place || !part.reads.row())
                && arguments.get(place).is_some_and(|(_, part)| part.tells() && part.reads == Reads::OWN)
        };
        let literal = |place: usize| arguments.get(place).map(|(node, _)| *node).and_then(text_of);
        let of = |place: usize| arguments.get(place).map_or(NOTHING, |(_, part)| *part);
        let derived = |place: usize, shortens| {
            let of = of(place);
            Summary {
                truth: Unclear,
                shape: Shape::Derived,
                is_key: false,
                shortens: shortens || of.shortens,
                is_json: name.starts_with("json"),
                ..of
            }
        };
        let number = |place: usize| arguments.get(place).and_then(|(node, _)| number_of(*node));
        let given =
            |place: usize| arguments.get(place).is_some_and(|(node, _)| node.kind() == Kind::ParamRef);
        let says_nothing = match name {
            // `left(code, 0)`
            "left" | "right" => !given(1) && number(1).is_none_or(|length| length <= 0.0),
            "substr" | "substring" if arguments.len() > 2 => {
                !given(2) && number(2).is_none_or(|length| length <= 0.0)
            }
            // `round(id, -9)`
            "round" | "trunc" => number(1).is_some_and(|digits| digits < 0.0),
            "mod" => number(1).is_none_or(|number| number.abs() == 1.0),
            "date_trunc" | "date_part" | "extract" => literal(0).is_some_and(|field| is_broad(&field)),
            "to_char" => literal(1).is_some_and(|format| !has_fields(&format)),
            // As large in each row.
            "bit_length" | "octet_length" | "pg_column_size" => of(0).is_key || of(0).shortens,
            _ => TELLING.contains(&name) && of(0).shortens && !KEEPING.contains(&name),
        };
        match name {
            _ if says_nothing => whole,
            "starts_with" if only(0) && literal(1).is_none_or(|prefix| !prefix.is_empty()) => {
                whole.test(Picks(Form::Equal))
            }
            // Where a text is empty it is found at once, everywhere.
            "strpos" | "position" if only(0) && literal(1).is_none_or(|part| !part.is_empty()) => {
                derived(0, false)
            }
            _ if TELLING.contains(&name) && only(0) => derived(0, false),
            // EXTRACT's field stands first in the tree.
            _ if (TELLING_OF_SECOND.contains(&name) || name == "extract") && only(1) => derived(1, false),
            // Without a list of characters only white space goes.
            "btrim" | "ltrim" | "rtrim" if arguments.len() == 1 && only(0) => derived(0, false),
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
                    Summary { truth: Unclear, shape: Shape::Derived, is_key: false, ..right }
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
        let derived = Summary {
            truth: Unclear,
            shape: Shape::Derived,
            columns: whole.columns,
            is_key: false,
            is_json: json,
            ..of
        };
        let number = || by_node.and_then(number_of);
        Some(match name {
            _ if json && !left.reads.row() => whole,
            // Nothing is left of what is multiplied with nothing; `x % 1` is nothing.
            "*" | "&" => match number() {
                Some(number) if number != 0.0 && (name == "*" || number.abs() < VERY_LARGE) => derived,
                _ => whole,
            },
            "/" | "%" if left.reads.row() => match number() {
                Some(number) if name == "/" && number.abs() < VERY_LARGE => derived,
                Some(number) if name == "%" && number.abs() != 1.0 => derived,
                _ => whole,
            },
            "/" | "%" => whole,
            _ => derived,
        })
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
    format.split('"').step_by(2).any(|part| part.bytes().any(|byte| byte.is_ascii_alphanumeric()))
}

/// The text of a literal, whatever it is cast to.
pub(super) fn text_of(node: Node<'_>) -> Option<std::borrow::Cow<'_, str>> {
    let node = uncast(node)?;
    if node.kind() != Kind::AConst {
        return None;
    }
    // `sval` of a constant is a String message of its own.
    node.get(Field::Sval).map(|text| text.text(Field::Sval).unwrap_or_default())
}

/// The number that a literal is.
pub(super) fn number_of(node: Node<'_>) -> Option<f64> {
    let node = uncast(node)?;
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

/// What is under casts.
pub(super) fn uncast(mut node: Node<'_>) -> Option<Node<'_>> {
    while matches!(node.kind(), Kind::TypeCast | Kind::CollateClause) {
        node = node.get(Field::Arg)?;
    }
    Some(node)
}
