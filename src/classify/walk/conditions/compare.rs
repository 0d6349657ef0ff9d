//! Comparisons, lists and patterns.

use super::values::{number_of, text_of, uncast};
use super::{Always, Columns, Constant, Form, Never, OtherThanTwin, Picks, SameAsTwin, Truth, Unclear};
use super::{Analysis, NOTHING, Reads, Shape, Summary};
use crate::classify::tree::{Field, Kind, Node};

/// Numbers from which on `id < n` is taken for everything.
pub(super) const VERY_LARGE: f64 = 1e9;

impl<'t> Analysis<'t, '_> {
    pub(super) fn operator(&self, node: Node<'t>) -> Summary {
        let names = node.names(Field::Name);
        // `OPERATOR(pg_catalog.=)`
        let name = match names.as_slice() {
            [name] => &**name,
            [schema, name] if **schema == *"pg_catalog" => &**name,
            _ => "",
        };
        let left = self.field(node, Field::Lexpr);
        let right = self.field(node, Field::Rexpr).unwrap_or(NOTHING);
        let kind = node.word(Field::Kind);
        if kind == "AEXPR_OP"
            && let Some(value) = self.calculation(node, name, left, right)
        {
            return value;
        }
        let Some(left) = left else { return right.blur(NOTHING) };
        let whole = left.blur(right);
        let sides = (node.get(Field::Lexpr), node.get(Field::Rexpr));
        let (Some(left_node), Some(right_node)) = sides else { return whole };
        if kind == "AEXPR_NULLIF" {
            let kept = left.tells() && !right.reads.row() && left.reads == Reads::OWN;
            return if kept {
                Summary { truth: Unclear, shape: Shape::Derived, is_key: false, ..left }
            } else {
                whole
            };
        }
        let (l, r) = ((left, left_node), (right, right_node));
        let truth = match kind {
            "AEXPR_OP" => self.compare(name, l, r),
            "AEXPR_DISTINCT" => self.compare("<>", l, r),
            "AEXPR_NOT_DISTINCT" => self.compare("=", l, r),
            "AEXPR_LIKE" | "AEXPR_ILIKE" | "AEXPR_SIMILAR" => self.like(name, l, r),
            "AEXPR_IN" => self.in_list(name, l, right_node),
            "AEXPR_OP_ANY" => self.any_of(name, l, r),
            "AEXPR_OP_ALL" => self.all_of(name, l, r),
            "AEXPR_BETWEEN" | "AEXPR_BETWEEN_SYM" => self.between(left, right_node),
            "AEXPR_NOT_BETWEEN" | "AEXPR_NOT_BETWEEN_SYM" => match self.between(left, right_node) {
                Picks(_) => Picks(Form::Negative),
                truth @ (Always | Never | Constant | SameAsTwin | OtherThanTwin | Unclear) => truth,
            },
            _ if whole.reads.row() => Unclear,
            _ => Constant,
        };
        Summary { is_key: left.is_key || right.is_key, ..whole }.test(truth)
    }

    fn compare(&self, name: &str, left: (Summary, Node<'t>), right: (Summary, Node<'t>)) -> Truth {
        let (own, other, name) = match (left.0.reads.row(), right.0.reads.row()) {
            (true, true) => return self.both_own(name, left.0, right.0),
            (true, false) => (left, right, name),
            (false, true) => (right, left, turned(name)),
            (false, false) => return same_for_all(name, left.1, right.1),
        };
        let ((own, own_node), (other, other_node)) = (own, other);
        if own.is_test {
            // `(id = 5) = true`
            return match (name, own.truth, other.truth) {
                ("=", truth, Always) | ("<>", truth, Never) => truth,
                ("=", Picks(form), Never) | ("<>", Picks(form), Always) => {
                    if own.is_key && form == Form::Equal { Unclear } else { Picks(form.opposite()) }
                }
                _ => Unclear,
            };
        }
        if !own.tells() || !own.reads.has(Reads::OWN) && !other.reads.has(Reads::OTHER) {
            return Unclear;
        }
        // What is mixed with another row's values.
        if own.reads != Reads::OWN && own.reads != Reads::EITHER {
            return Unclear;
        }
        match other.reads {
            reads if reads.has(Reads::COPY) => {
                // `id = (SELECT max(id) FROM t)`
                if other.is_scalar_query && name == "=" { Picks(Form::Equal) } else { Unclear }
            }
            reads if reads.has(Reads::TWIN) => {
                let same = own.columns.overlap(other.columns);
                match name {
                    _ if reads != Reads::TWIN || !other.tells() => Unclear,
                    "=" if !same => Picks(Form::Equal),
                    "=" if own.shape == Shape::Column && other.shape == Shape::Column => SameAsTwin,
                    "<" | ">" | "<>" if same => OtherThanTwin,
                    _ => Unclear,
                }
            }
            reads if reads.has(Reads::OTHER) => {
                if name == "=" {
                    Picks(Form::Equal)
                } else {
                    Unclear
                }
            }
            _ => against_constant(name, own, own_node, other_node),
        }
    }

    /// Two values of the row.
    fn both_own(&self, name: &str, left: Summary, right: Summary) -> Truth {
        if self.only_values || left.columns.overlap(right.columns) || !left.tells() || !right.tells() {
            return Unclear;
        }
        let either = |part: Summary| part.reads == Reads::EITHER;
        let own = |part: Summary| part.reads == Reads::OWN;
        match (left, right) {
            // Unqualified names beside other tables: it may be the join.
            (left, right) if either(left) || either(right) => {
                let known = (either(left) || own(left)) && (either(right) || own(right));
                if known && name == "=" && self.copies.is_empty() && self.twins.is_empty() {
                    Picks(Form::Equal)
                } else {
                    Unclear
                }
            }
            (left, right) if own(left) && own(right) => match name {
                "=" => Picks(Form::Equal),
                "<>" => Picks(Form::Negative),
                "<" | "<=" => Picks(Form::Below(None)),
                ">" | ">=" => Picks(Form::Above(None)),
                _ => Unclear,
            },
            _ => Unclear,
        }
    }

    fn like(&self, name: &str, left: (Summary, Node<'t>), right: (Summary, Node<'t>)) -> Truth {
        if right.0.reads.row() || !left.0.reads.row() {
            return if right.0.reads.row() { Unclear } else { Constant };
        }
        if !picks_by(left.0) || right.0.reads != Reads::default() {
            return Unclear;
        }
        // The pattern, or the call that takes its ESCAPE clause.
        let pattern = right.1.within().find_map(text_of);
        let known = right.1.kind() == Kind::ParamRef || pattern.is_some_and(|pattern| is_selective(&pattern));
        match (name.starts_with('!'), known) {
            (true, _) => negative(left.0),
            (false, true) => Picks(Form::Equal),
            (false, false) => Unclear,
        }
    }

    /// `a IN (1, 2)`
    fn in_list(&self, name: &str, left: (Summary, Node<'t>), list: Node<'t>) -> Truth {
        let items: Vec<(Summary, Node<'t>)> =
            list.list(Field::Items).map(|item| (self.of(item), item)).collect();
        let reads = items.iter().fold(Reads::default(), |reads, (item, _)| reads.and(item.reads));
        if !left.0.reads.row() {
            // `5 IN (parent, child)`
            let columns = items.iter().all(|(item, _)| item.reads == Reads::OWN && item.tells());
            return match (reads.row(), columns && left.0.reads == Reads::default(), name) {
                (false, _, _) => Constant,
                (true, true, "=") => Picks(Form::Equal),
                _ => Unclear,
            };
        }
        if reads == Reads::OTHER && left.0.tells() && left.0.reads == Reads::OWN && name == "=" {
            return Picks(Form::Equal);
        }
        if reads != Reads::default() || !picks_by(left.0) {
            return Unclear;
        }
        // `active IN (true, false)`
        let both = [Always, Never].iter().all(|truth| items.iter().any(|(item, _)| item.truth == *truth));
        let empty = items.iter().any(|(_, item)| text_of(*item).is_some_and(|text| text.is_empty()));
        match name {
            "=" if !(both || left.0.shortens && empty) => Picks(Form::Equal),
            "<>" if left.1.kind() != Kind::RowExpr => negative(left.0),
            _ => Unclear,
        }
    }

    /// `a = ANY (..)`
    fn any_of(&self, name: &str, left: (Summary, Node<'t>), right: (Summary, Node<'t>)) -> Truth {
        match (left.0.reads.row(), right.0.reads.row()) {
            (false, false) => return Constant,
            (true, true) => return Unclear,
            // `'x' = ANY (tags)`
            (false, true) => {
                let known = picks_by(right.0) && left.0.reads == Reads::default() && name == "=";
                return if known { Picks(Form::Equal) } else { Unclear };
            }
            (true, false) => {}
        }
        if !picks_by(left.0) || right.0.reads.has(Reads::COPY) || right.0.reads.has(Reads::TWIN) {
            return Unclear;
        }
        let elements = || right.1.list(Field::Elements);
        match name {
            "=" => {
                let has = |truth| elements().any(|item| self.of(item).truth == truth);
                let may_be_empty = left.0.shortens
                    && right.1.kind() != Kind::ParamRef
                    && !(right.1.kind() == Kind::AArrayExpr
                        && elements().all(|item| text_of(item).is_some_and(|text| !text.is_empty())));
                if has(Always) && has(Never) || may_be_empty { Unclear } else { Picks(Form::Equal) }
            }
            "~~" | "~~*" => {
                let written = right.1.kind() == Kind::AArrayExpr
                    && elements().all(|item| text_of(item).is_some_and(|pattern| is_selective(&pattern)));
                if written || right.1.kind() == Kind::ParamRef { Picks(Form::Equal) } else { Unclear }
            }
            _ => Unclear,
        }
    }

    /// `a <> ALL (..)`
    fn all_of(&self, name: &str, left: (Summary, Node<'t>), right: (Summary, Node<'t>)) -> Truth {
        if !left.0.reads.row() && !right.0.reads.row() {
            return Constant;
        }
        let empty = text_of(right.1)
            .is_some_and(|text| !text.bytes().any(|byte| byte.is_ascii_alphanumeric()))
            || is_empty_array(right.1);
        if name == "<>" && picks_by(left.0) && right.0.reads == Reads::default() && !empty {
            negative(left.0)
        } else {
            Unclear
        }
    }

    fn between(&self, left: Summary, bounds: Node<'t>) -> Truth {
        let items: Vec<(Summary, Node<'t>)> =
            bounds.list(Field::Items).map(|item| (self.of(item), item)).collect();
        let constant = items.iter().all(|(item, _)| item.reads == Reads::default());
        if !left.reads.row() {
            // `now() BETWEEN starts_at AND ends_at`
            let own = items.iter().all(|(item, _)| item.reads == Reads::OWN && item.tells());
            return match (
                own && left.reads == Reads::default(),
                items.iter().any(|(item, _)| item.reads.row()),
            ) {
                (true, _) => Picks(Form::Equal),
                (false, true) => Unclear,
                (false, false) => Constant,
            };
        }
        let endless = items.iter().any(|(_, item)| text_of(*item).is_some_and(|text| is_endless(&text)));
        let place = left.columns == Columns::of("ctid");
        // `NOT BETWEEN 1 AND 0`
        let empty = match items.as_slice() {
            [(_, low), (_, high)] => match (number_of(*low), number_of(*high)) {
                (Some(low), Some(high)) => low > high,
                _ => text_of(*low).zip(text_of(*high)).is_some_and(|(low, high)| low > high),
            },
            _ => false,
        };
        if constant && picks_by(left) && !endless && !left.shortens && !place && !empty {
            Picks(Form::Equal)
        } else {
            Unclear
        }
    }
}

/// A value of the target's own row from which one can tell rows apart.
pub(super) fn picks_by(own: Summary) -> bool {
    own.tells() && own.reads == Reads::OWN
}

/// All but some: of a key, that is all.
pub(super) fn negative(own: Summary) -> Truth {
    if own.is_key || own.shortens { Unclear } else { Picks(Form::Negative) }
}

fn against_constant(name: &str, own: Summary, own_node: Node<'_>, other: Node<'_>) -> Truth {
    if !picks_by(own) {
        return Unclear;
    }
    // Of rows in parentheses only equality is understood.
    let is_row = own_node.kind() == Kind::RowExpr;
    let text = || text_of(other);
    match name {
        "=" if own.shortens && text().is_some_and(|text| text.is_empty()) => Unclear,
        "=" => Picks(Form::Equal),
        "<>" if !is_row => negative(own),
        "<" | "<=" | ">" | ">=" if !is_row && !own.shortens => range(name, own, other),
        "~" | "~*" if text().is_some_and(|pattern| is_selective_regex(&pattern)) => Picks(Form::Equal),
        "~" | "~*" if other.kind() == Kind::ParamRef => Picks(Form::Equal),
        "!~" | "!~*" => negative(own),
        "^@" if text().is_none_or(|prefix| !prefix.is_empty()) => Picks(Form::Equal),
        // Everything contains nothing.
        "@>" if text().is_none_or(|part| part.bytes().any(|byte| byte.is_ascii_alphanumeric()))
            && !is_empty_array(other) =>
        {
            Picks(Form::Equal)
        }
        // `(,)` holds everything.
        "<@" | "&&"
            if text().is_some_and(|range| !range.bytes().any(|byte| byte.is_ascii_alphanumeric())) =>
        {
            Unclear
        }
        "<@" | "&&" | "?" | "?|" | "?&" => Picks(Form::Equal),
        // A path that may be true of everything, or a search for what is not there.
        "@@" if !text().is_some_and(|query| query.contains('$') || query.trim_start().starts_with('!')) => {
            Picks(Form::Equal)
        }
        _ => Unclear,
    }
}

fn range(name: &str, own: Summary, bound: Node<'_>) -> Truth {
    if text_of(bound).is_some_and(|text| text.trim().is_empty() || is_endless(&text)) {
        return Unclear;
    }
    // Rows lie at places beyond any that one writes down.
    if own.columns == Columns::of("ctid") {
        return Unclear;
    }
    let number = number_of(bound);
    // Most numbers are not negative: `amount >= 0` is all of them.
    let all = match (name, number) {
        (_, None) => false,
        (">", Some(number)) => number < 0.0 || own.is_key && number <= 0.0,
        (">=", Some(number)) => number <= 0.0 || own.is_key && number <= 1.0,
        (_, Some(number)) => own.is_key && number >= VERY_LARGE,
    };
    match name {
        _ if all => Unclear,
        "<" | "<=" => Picks(Form::Below(number)),
        _ => Picks(Form::Above(number)),
    }
}

/// `1 = 1`, `1 = 0` and whatever else is the same for every row.
fn same_for_all(name: &str, left: Node<'_>, right: Node<'_>) -> Truth {
    if left.kind() != Kind::AConst || right.kind() != Kind::AConst || !matches!(name, "=" | "<>") {
        return Constant;
    }
    let equal = match (text_of(left), text_of(right)) {
        (Some(left), Some(right)) => left == right,
        (None, None) => match (number_of(left), number_of(right)) {
            (Some(left), Some(right)) => left == right,
            _ => return Constant,
        },
        _ => return Constant,
    };
    if equal == (name == "=") { Always } else { Never }
}

/// `ARRAY[]::text[]`
fn is_empty_array(node: Node<'_>) -> bool {
    uncast(node)
        .is_some_and(|node| node.kind() == Kind::AArrayExpr && node.list(Field::Elements).next().is_none())
}

fn turned(name: &str) -> &str {
    match name {
        "<" => ">",
        ">" => "<",
        "<=" => ">=",
        ">=" => "<=",
        "@>" => "<@",
        "<@" => "@>",
        "=" | "<>" | "&&" | "@@" => name,
        // `'%' LIKE code`
        _ => "",
    }
}

/// A LIKE or SIMILAR TO pattern that wants a character that is no wildcard.
fn is_selective(pattern: &str) -> bool {
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
fn is_selective_regex(pattern: &str) -> bool {
    // What is in a group may be optional as a whole, and a class may hold everything.
    let unread = [")?", ")*", "){", "(?", "(|", "|)", "||", "["];
    if pattern.starts_with("***") || unread.iter().any(|part| pattern.contains(part)) {
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

fn is_endless(text: &str) -> bool {
    let text = text.trim().trim_start_matches(['-', '+']).to_ascii_lowercase();
    text.starts_with("inf") || text == "nan"
}

/// A pseudo column for tests that read a row without comparing one: two of them may be opposites.
pub(super) fn existence() -> Columns {
    Columns::of("\0exists")
}
