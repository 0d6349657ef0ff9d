//! Comparisons and lists.

use super::bounds::{
    is_all, is_end, is_endless, is_of_the_past, is_possible, is_random, is_since_ever, is_the_present,
    is_told, is_wide,
};
use super::patterns::{can_match, is_selective, is_selective_regex, pattern_of};
use super::ranges::{
    Ends, half_of, is_empty_array, is_half_open, is_nothing, is_vast, may_be_all, says_nothing,
};
use super::sources::{LARGEST_BATCH, counts};
use super::values::{number_of, text_of, uncast};
use super::{Always, Columns, Constant, Form, Never, OtherThanTwin, Picks, SameAsTwin, Truth, Unclear};
use super::{Analysis, NOTHING, Reads, Scale, Shape, Summary};
use crate::classify::tree::{Field, Kind, Node};

/// Lengths from which on `length(name) < n` is.
const LONG: f64 = 1000.0;

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
                let scale = left.scale.then(Scale::Ordered);
                Summary { truth: Unclear, shape: Shape::Derived, scale, is_key: false, missing: true, ..left }
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
            "AEXPR_BETWEEN" | "AEXPR_BETWEEN_SYM" => self.between(l, right_node),
            "AEXPR_NOT_BETWEEN" | "AEXPR_NOT_BETWEEN_SYM" => match self.between(l, right_node) {
                Picks(_) => negative(left),
                truth @ (Always | Never | Constant | SameAsTwin | OtherThanTwin | Unclear) => truth,
            },
            _ if whole.reads.row() => Unclear,
            _ => Constant,
        };
        let null = |side: Node<'t>| uncast(side).is_some_and(|side| side.flag(Field::Isnull));
        let distinct = matches!(kind, "AEXPR_DISTINCT" | "AEXPR_NOT_DISTINCT")
            && (null(left_node) || null(right_node))
            || kind == "AEXPR_DISTINCT" && (left.is_json || right.is_json);
        let truth = if distinct && matches!(truth, Picks(_)) { Unclear } else { truth };
        // `(a, 5) = (b, 6)`
        let rows = [left_node, right_node].iter().any(|side| side.kind() == Kind::RowExpr);
        let whole = whole.test_of([left, right]);
        // `NOT (data->>'no such key' IS NOT DISTINCT FROM 'x')`
        let same = kind == "AEXPR_NOT_DISTINCT" && whole.missing;
        // `NOT (code ~ '\y\Y')`
        let regex = matches!(name, "~" | "~*") || kind == "AEXPR_SIMILAR";
        let odd = regex && !right_node.within().find_map(text_of).is_some_and(|pattern| can_match(&pattern));
        Summary { one_way: whole.one_way || rows || same || odd, ..whole }.test(truth)
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
                ("=", Picks(form), Never) | ("<>", Picks(form), Always) if !own.one_way => form.negated(),
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
                    "<" | ">" if same => OtherThanTwin,
                    _ => Unclear,
                }
            }
            // `active = (u.id = 1)`
            reads if reads.has(Reads::OTHER) => {
                if name == "=" && !other.is_test {
                    Picks(Form::Equal)
                } else {
                    Unclear
                }
            }
            _ if !self.tables.patience.can_afford(other_node) => Unclear,
            // `n > (SELECT x FROM made_up)`
            _ if matches!(name, "<" | "<=" | ">" | ">=") && self.makes_up(other_node) => Unclear,
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
                // `rank() OVER w AS x, rank() OVER w AS y .. WHERE x = y`
                "=" if is_place(left.scale) && is_place(right.scale) => Unclear,
                // `left(a, 1) = left(b, 1)`, where both may be nothing.
                "=" if left.scale.max(right.scale) < Scale::Few(0) && !(left.shortens && right.shortens) => {
                    Picks(Form::Equal)
                }
                _ if left.scale.then(right.scale) > Scale::Ordered => Unclear,
                "<>" if left.scale.then(right.scale) > Scale::Wide => Unclear,
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
        let escapes = right.1.kind() == Kind::FuncCall
            && right.1.names(Field::Funcname).last().is_some_and(|name| name.ends_with("_escape"));
        let written = if escapes { right.1.list(Field::Args).next().unwrap_or(right.1) } else { right.1 };
        // `LIKE $1 || '%'`: nobody can tell what is bound.
        let given = right.1.within().any(|node| node.kind() == Kind::ParamRef);
        // SIMILAR TO `%#"a*#"%` means `%a*%`.
        let known = given
            || pattern_of(written)
                .is_some_and(|pattern| is_selective(&pattern) && !(escapes && pattern.contains('"')));
        match (name.starts_with('!'), known) {
            // `active::text LIKE '%e'`
            _ if left.0.scale > Scale::Ordered && !(given && left.0.scale == Scale::Computed) => Unclear,
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
        let both = is_every_flag(items.iter().map(|(item, node)| (item.truth, *node)));
        let empty = items.iter().any(|(_, item)| text_of(*item).is_none_or(|text| text.is_empty()));
        match name {
            "=" if !(both || left.0.shortens && empty) => {
                said_by(equal_to(left.0, items.len()), items.iter().map(|(_, item)| *item))
            }
            "<>" if left.1.kind() != Kind::RowExpr => {
                let possible = items.iter().any(|(_, item)| is_possible(left.0, number_of(*item)));
                if possible { negative(left.0) } else { Unclear }
            }
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
        if !picks_by(left.0)
            || right.0.reads.has(Reads::COPY)
            || right.0.reads.has(Reads::TWIN)
            || counts(right.1)
        {
            return Unclear;
        }
        let elements = || right.1.list(Field::Elements);
        match name {
            "=" => {
                let both = is_every_flag(elements().map(|item| (self.of(item).truth, item)));
                let listed = right.1.kind() == Kind::AArrayExpr;
                let values = if listed { elements().count() } else { usize::MAX };
                let may_be_empty = left.0.shortens
                    && right.1.kind() != Kind::ParamRef
                    && !(right.1.kind() == Kind::AArrayExpr
                        && elements().all(|item| text_of(item).is_some_and(|text| !text.is_empty())));
                // `active = ANY ('{t,f}')`
                let written = text_of(right.1).is_some_and(|text| {
                    let values = || text.trim_matches(['{', '}']).split(',');
                    [true, false].iter().all(|flag| values().any(|value| flag_of(value) == Some(*flag)))
                });
                let none = text_of(right.1).is_some_and(|text| is_nothing(&text)) || is_empty_array(right.1);
                if both || written || may_be_empty || none {
                    Unclear
                } else {
                    said_by(equal_to(left.0, values), elements())
                }
            }
            "~~" | "~~*" if left.0.scale <= Scale::Ordered => {
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
        let possible = |item: Node<'t>| is_possible(left.0, number_of(item));
        let known = match right.1.kind() == Kind::AArrayExpr {
            true => right.1.list(Field::Elements).any(possible),
            // `n <> ALL ('{0.5}')`
            false => left.0.integer.is_none() || !text_of(right.1).is_some_and(|list| list.contains('.')),
        };
        if name == "<>" && picks_by(left.0) && right.0.reads == Reads::default() && !empty && known {
            negative(left.0)
        } else {
            Unclear
        }
    }

    fn between(&self, (left, own): (Summary, Node<'t>), bounds: Node<'t>) -> Truth {
        let items: Vec<(Summary, Node<'t>)> =
            bounds.list(Field::Items).map(|item| (self.of(item), item)).collect();
        let constant = items.iter().all(|(item, _)| item.reads == Reads::default());
        // `active BETWEEN false AND true`
        let flags = is_every_flag(items.iter().map(|(item, node)| (item.truth, *node)))
            || items.iter().any(|(_, node)| is_boolean(*node));
        if !left.reads.row() {
            // `now() BETWEEN starts_at AND ends_at`
            let own = items.iter().all(|(item, _)| item.reads == Reads::OWN && item.tells());
            // `5 BETWEEN percent - 1000 AND percent + 1000`
            let same = matches!(items.as_slice(), [(low, _), (high, _)] if low.columns.overlap(high.columns));
            return match (
                own && !same && left.reads == Reads::default(),
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
        // `BETWEEN 0 AND 2147483647`
        let wide = match items.as_slice() {
            [(_, low), (_, high)] => is_wide(number_of(*low), number_of(*high)),
            _ => false,
        };
        let endless = endless || wide;
        let ordered = left.scale <= Scale::Ordered || matches!(left.scale, Scale::Years);
        let inside = match items.as_slice() {
            [(_, low), (_, high)] => {
                let ends = |end: Node<'t>, first| text_of(end).is_some_and(|text| is_end(&text, first));
                let numbers = (number_of(*low), number_of(*high));
                let least = is_all(">=", numbers.0, left) || ends(*low, true);
                let most = is_all("<=", numbers.1, left)
                    || ends(*high, false)
                    || is_of_the_past(own) && is_the_present(*high);
                [*low, *high].iter().all(|end| left.scale.reaches(number_of(*end)) && is_told(*end))
                    && !(least && most)
            }
            _ => false,
        };
        if constant
            && !flags
            && ordered
            && inside
            && picks_by(left)
            && !endless
            && !left.shortens
            && !place
            && !empty
        {
            Picks(Form::Inside)
        } else {
            Unclear
        }
    }
}

/// Where the row is among others.
fn is_place(scale: Scale) -> bool {
    matches!(scale, Scale::Rank | Scale::Turn)
}

/// A value of the target's own row from which one can tell rows apart.
pub(super) fn picks_by(own: Summary) -> bool {
    own.tells() && own.reads == Reads::OWN
}

/// All but some: of a key, that is all.
pub(super) fn negative(own: Summary) -> Truth {
    if own.is_key || own.shortens || own.scale > Scale::Wide { Unclear } else { Picks(Form::Negative) }
}

/// Equal to one of so many values.
fn equal_to(own: Summary, values: usize) -> Truth {
    match own.scale {
        // `id % 2 = 0 OR id % 2 = 1`: together with others it may be everything.
        Scale::Few(few) if values < few as usize => Picks(Form::Negative),
        Scale::Few(_) | Scale::Clock(_) | Scale::Place => Unclear,
        Scale::Wide
        | Scale::Ordered
        | Scale::Length
        | Scale::Years
        | Scale::Rank
        | Scale::Computed
        | Scale::Padded => Picks(Form::Equal),
        Scale::Quotient | Scale::Turn => Unclear,
    }
}

/// The same of a list that has a value that a flag may have: `active = true OR active::int::text IN ('0', 'x')`.
fn said_by<'t>(truth: Truth, mut values: impl Iterator<Item = Node<'t>>) -> Truth {
    match (truth, values.find_map(flag_of_node)) {
        (Picks(Form::Equal), Some(flag)) => Picks(Form::Said(flag)),
        (truth, _) => truth,
    }
}

/// Whether values are both of those that a flag may have: `active IN ('t', 'f')`, `flag::int IN (0, 1)`.
pub(super) fn is_every_flag<'t>(values: impl Iterator<Item = (Truth, Node<'t>)>) -> bool {
    let (mut yes, mut no) = (false, false);
    for (truth, node) in values {
        let flag = flag_of_node(node);
        yes |= truth == Always || flag == Some(true);
        no |= truth == Never || flag == Some(false);
    }
    yes && no
}

/// `true` or `false`
fn is_boolean(node: Node<'_>) -> bool {
    uncast(node).is_some_and(|node| node.has(Field::Boolval))
}

/// The flag that a literal may be.
fn flag_of_node(node: Node<'_>) -> Option<bool> {
    if let Some(flag) = uncast(node).and_then(|node| node.get(Field::Boolval)) {
        return Some(flag.flag(Field::Boolval));
    }
    let number = number_of(node).filter(|number| *number == 0.0 || *number == 1.0);
    number.map(|number| number == 1.0).or_else(|| text_of(node).and_then(|text| flag_of(&text)))
}

/// A flag as `boolin` reads it.
fn flag_of(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    match text.as_str() {
        "t" | "tr" | "tru" | "true" | "y" | "ye" | "yes" | "on" | "1" => Some(true),
        "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" | "of" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn against_constant(name: &str, own: Summary, own_node: Node<'_>, other: Node<'_>) -> Truth {
    if !picks_by(own) {
        return Unclear;
    }
    // Of rows in parentheses only equality is understood.
    let is_row = own_node.kind() == Kind::RowExpr;
    let text = || text_of(other);
    match name {
        // `btrim(code) = lower('')`
        "=" if own.shortens
            && other.kind() != Kind::ParamRef
            && text().is_none_or(|text| text.is_empty()) =>
        {
            Unclear
        }
        // `coalesce(data->>'no such key', 'x') = 'x'`
        "=" if own.is_json && is_its_default(own_node, other) => Unclear,
        "=" if own.scale == Scale::Turn && number_of(other).is_some_and(|turn| turn >= 2.0) => {
            Picks(Form::Equal)
        }
        // `n / 100000 = 0`
        "=" if own.scale == Scale::Quotient && number_of(other).is_some_and(|number| number != 0.0) => {
            Picks(Form::Equal)
        }
        // `strpos(name, 'x') = 0` is of most.
        "=" if own.scale == Scale::Place && number_of(other).is_some_and(|place| place >= 1.0) => {
            Picks(Form::Equal)
        }
        "<>" if own.scale == Scale::Place && number_of(other) == Some(0.0) => Picks(Form::Equal),
        // The one or the other is every flag.
        "=" if matches!(own.scale, Scale::Clock(_))
            && number_of(other).is_some_and(|number| number >= 1.0) =>
        {
            Picks(Form::Equal)
        }
        "=" if flag_of_node(other).is_some() && !is_row => match equal_to(own, 1) {
            Picks(Form::Equal) if is_boolean(other) && flag_of_node(other) == Some(true) => Picks(Form::Flag),
            Picks(Form::Equal) if is_boolean(other) => Picks(Form::NoFlag),
            Picks(Form::Equal) => Picks(Form::Said(flag_of_node(other) == Some(true))),
            Picks(form) => Picks(form),
            truth @ (Always | Never | Constant | SameAsTwin | OtherThanTwin | Unclear) => truth,
        },
        "=" => equal_to(own, 1),
        _ if own.scale > Scale::Ordered && !matches!(name, "<" | "<=" | ">" | ">=") => Unclear,
        "<>" if !is_row && (!is_possible(own, number_of(other)) || is_random(other)) => Unclear,
        "<>" if !is_row => negative(own),
        "<" | "<=" | ">" | ">=" if !is_row && !own.shortens => range(name, own, own_node, other),
        "~" | "~*" if pattern_of(other).is_some_and(|pattern| is_selective_regex(&pattern)) => {
            Picks(Form::Equal)
        }
        "~" | "~*" if other.kind() == Kind::ParamRef => Picks(Form::Equal),
        "!~" | "!~*" if text().is_some_and(|pattern| can_match(&pattern)) => negative(own),
        "^@" if is_given(other) && text().is_none_or(|prefix| !prefix.is_empty()) => Picks(Form::Equal),
        // Everything contains nothing.
        "@>" if text().is_none_or(|part| {
            part.bytes().any(|byte| byte.is_ascii_alphanumeric())
                && !part.trim().eq_ignore_ascii_case("empty")
        }) && !says_nothing(other)
            && !is_empty_array(other) =>
        {
            Picks(Form::Equal)
        }
        // `(,)` holds everything.
        "<@" | "&&" if text().is_some_and(|range| Ends::of(&range).are_open()) || says_nothing(other) => {
            Unclear
        }
        // `ip && '0.0.0.0/0'`
        "&&" if text().is_some_and(|net| net.trim_end().ends_with("/0")) => Unclear,
        // Nothing has anything in common with nothing, and so everything has not.
        "&&" | "?|" if is_empty_array(other) || text().is_some_and(|text| is_nothing(&text)) => Unclear,
        // All of no keys.
        "?&" if is_empty_array(other)
            || text().is_some_and(|keys| !keys.contains(|c: char| !matches!(c, '{' | '}' | ' '))) =>
        {
            Unclear
        }
        // `<@ box '((-1e300,-1e300),(1e300,1e300))'`
        "<@" if text().is_some_and(|area| is_vast(&area)) => Unclear,
        // `(5,)`: from there on.
        "<@" if half_of(other).is_some_and(|(name, end)| is_all(name, end, own)) => Unclear,
        "<@" | "&&" if is_half_open(other) => Picks(Form::Negative),
        "<@" => Picks(Form::Inside),
        "&&" | "?" | "?|" | "?&" => Picks(Form::Equal),
        // A path that may be true of everything, or a search for what is not there.
        "@@" if !other.within().filter_map(text_of).any(|query| may_be_all(&query)) => Picks(Form::Equal),
        _ => Unclear,
    }
}

fn range(name: &str, own: Summary, own_node: Node<'_>, bound: Node<'_>) -> Truth {
    let above = matches!(name, ">" | ">=");
    if text_of(bound).is_some_and(|text| is_end(&text, above)) || !is_told(bound) {
        return Unclear;
    }
    // `created_at < now()`
    if !above && is_of_the_past(own_node) && is_the_present(bound) || above && is_since_ever(own_node, bound)
    {
        return Unclear;
    }
    // Rows lie at places beyond any that one writes down.
    if own.columns == Columns::of("ctid") {
        return Unclear;
    }
    // `active >= false`
    let number = number_of(bound);
    if is_boolean(bound) {
        return Unclear;
    }
    match own.scale {
        Scale::Wide | Scale::Ordered | Scale::Quotient => {}
        // The first so many.
        Scale::Rank => {
            let batch = number.is_none_or(|number| number <= LARGEST_BATCH as f64);
            return match name {
                "<" | "<=" if batch => Picks(Form::Below(None)),
                ">" | ">=" if number.is_none_or(|number| number >= 2.0) => Picks(Form::Above(None)),
                _ => Unclear,
            };
        }
        Scale::Turn => {
            let later = match name {
                ">" => number.is_none_or(|number| number >= 1.0),
                ">=" => number.is_none_or(|number| number >= 2.0),
                _ => false,
            };
            return if later { Picks(Form::Equal) } else { Unclear };
        }
        Scale::Years if own.scale.reaches(number) => {}
        Scale::Years => return Unclear,
        // `length(name) > 0`
        Scale::Length => {
            let known = match name {
                ">" => number.is_some_and(|number| number >= 1.0),
                ">=" => number.is_some_and(|number| number > 1.0),
                _ => number.is_some_and(|number| number < LONG),
            };
            if !known {
                return Unclear;
            }
        }
        // A month beyond the first, and not beyond the last.
        Scale::Few(few) => {
            let inside = |number: f64| number >= 2.0 && number <= f64::from(few) - 2.0;
            return if number.is_some_and(inside) { Picks(Form::Negative) } else { Unclear };
        }
        Scale::Clock(few) => {
            let late = |number: f64| number >= 1.0 && number < f64::from(few);
            return match name {
                ">" | ">=" if number.is_some_and(late) => Picks(Form::Negative),
                _ => Unclear,
            };
        }
        Scale::Place => {
            let found = match name {
                ">" => number.is_some_and(|number| number >= 0.0),
                ">=" => number.is_some_and(|number| number >= 1.0),
                _ => false,
            };
            return if found { Picks(Form::Equal) } else { Unclear };
        }
        Scale::Computed | Scale::Padded => return Unclear,
    }
    let all = is_all(name, number.map(|number| number - own.shift), own);
    // Of what is calculated, it is not known where that is in the column's own order.
    let number = number.filter(|_| own.shape == Shape::Column);
    match name {
        _ if all => Unclear,
        "<" | "<=" => Picks(Form::Below(number)),
        _ => Picks(Form::Above(number)),
    }
}

/// Whether a value is what stands for one that is not there: `coalesce(data->>'x', 'none')`.
fn is_its_default(own: Node<'_>, other: Node<'_>) -> bool {
    let own = uncast(own).filter(|own| own.kind() == Kind::CoalesceExpr);
    own.is_some_and(|own| {
        own.list(Field::Args).skip(1).any(|default| match (text_of(default), text_of(other)) {
            (Some(default), Some(other)) => default == other,
            _ => number_of(default) == number_of(other),
        })
    })
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

/// A literal or parameter, whatever it is cast to.
fn is_given(node: Node<'_>) -> bool {
    uncast(node).is_some_and(|node| matches!(node.kind(), Kind::AConst | Kind::ParamRef))
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

/// A pseudo column for tests that read a row without comparing one: two of them may be opposites.
pub(super) fn existence() -> Columns {
    Columns::of("\0exists")
}
