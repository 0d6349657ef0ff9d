//! The forms of conditions that pick rows, and what AND and OR make of several.

use super::compare::{VERY_LARGE, existence};
use super::{Always, Columns, Constant, Never, OtherThanTwin, Picks, SameAsTwin, Summary, Truth, Unclear};
use crate::classify::tree::{Field, Kind, Node};

/// How a condition picks. Two that are alternatives (`OR`) may be all rows together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    /// Equal to something, one of a list, like a pattern.
    Equal,
    /// Between two ends.
    Inside,
    /// Not equal to something.
    Negative,
    /// NULL.
    Null,
    /// Not NULL.
    NotNull,
    /// Below a bound; the bound where it is a number.
    Below(Option<f64>),
    /// Above a bound.
    Above(Option<f64>),
    /// A flag.
    Flag,
    /// Not that flag.
    NoFlag,
    /// Equal to a literal that a flag may have: `'t'`, `0`. Together with the other it may be all rows.
    Said(bool),
}

impl Eq for Form {}

impl Form {
    /// Few rows, whatever others there are beside them.
    pub(super) fn is_narrow(self) -> bool {
        matches!(self, Self::Equal | Self::Inside | Self::Null)
    }

    pub(super) fn opposite(self) -> Self {
        match self {
            Self::Equal | Self::Inside | Self::Said(_) => Self::Negative,
            Self::Negative => Self::Equal,
            Self::Null => Self::NotNull,
            Self::NotNull => Self::Null,
            Self::Below(bound) => Self::Above(bound),
            Self::Above(bound) => Self::Below(bound),
            Self::Flag => Self::NoFlag,
            Self::NoFlag => Self::Flag,
        }
    }

    /// What is known where it is not so: `NOT n < -5` is true of most.
    pub(super) fn negated(self) -> Truth {
        match self {
            Self::Below(Some(bound)) if bound <= 0.0 => Unclear,
            Self::Above(Some(bound)) if bound >= VERY_LARGE => Unclear,
            Self::Equal
            | Self::Inside
            | Self::Negative
            | Self::Null
            | Self::NotNull
            | Self::Below(_)
            | Self::Above(_)
            | Self::Flag
            | Self::NoFlag
            | Self::Said(_) => Picks(self.opposite()),
        }
    }

    /// Whether one *or* the other of the same column leaves rows out: between 10 and 11 there is no integer.
    pub(super) fn leaves_rows_out_with(self, other: Self) -> bool {
        match (self, other) {
            (Self::Below(Some(below)), Self::Above(Some(above)))
            | (Self::Above(Some(above)), Self::Below(Some(below))) => above - below > 1.0,
            (Self::Below(_), Self::Above(_)) | (Self::Above(_), Self::Below(_)) => false,
            // `amount < 9 OR -amount < 9`
            (Self::Below(None), Self::Below(_)) | (Self::Above(None), Self::Above(_)) => false,
            (Self::Below(_), Self::Below(None)) | (Self::Above(_), Self::Above(None)) => false,
            // `amount BETWEEN 0 AND 10 OR amount > 9`
            (Self::Below(_) | Self::Above(_), Self::Inside)
            | (Self::Inside, Self::Below(_) | Self::Above(_)) => false,
            (Self::Flag, Self::NoFlag | Self::Said(false))
            | (Self::NoFlag | Self::Said(false), Self::Flag) => false,
            (Self::NoFlag, Self::Said(true)) | (Self::Said(true), Self::NoFlag) => false,
            (Self::Said(one), Self::Said(other)) => one == other,
            (Self::Null, Self::NotNull) | (Self::NotNull, Self::Null) => false,
            (Self::Negative, Self::Null) | (Self::Null, Self::Negative) => true,
            (Self::Negative | Self::NotNull, _) | (_, Self::Negative | Self::NotNull) => false,
            _ => true,
        }
    }
}

pub(super) fn is_or(node: Node<'_>) -> bool {
    node.kind() == Kind::BoolExpr && node.word(Field::Boolop) == "OR_EXPR"
}

/// The parts of AND, OR or NOT. Those of an OR in an OR, `a OR (b OR c)`, are parts of the outer one: each has
/// to be compared with each.
pub(super) fn alternatives(node: Node<'_>) -> Vec<Node<'_>> {
    let mut parts: Vec<Node<'_>> = node.list(Field::Args).collect();
    if !is_or(node) {
        return parts;
    }
    if node.holder().is_some_and(is_or) {
        return Vec::new();
    }
    let mut place = 0;
    while let Some(part) = parts.get(place).copied() {
        if is_or(part) {
            parts.swap_remove(place);
            parts.extend(part.list(Field::Args));
        } else {
            place += 1;
        }
    }
    parts
}

/// The columns by which parts pick.
pub(super) fn picked(parts: &[Summary]) -> Option<Columns> {
    let mut columns = parts.iter().filter(|part| matches!(part.truth, Picks(_))).map(|part| part.columns);
    columns.next().map(|first| columns.fold(first, Columns::and))
}

pub(super) fn all_of(parts: &[Summary]) -> Truth {
    let any = |truth| parts.iter().any(|part| part.truth == truth);
    let forms =
        || parts.iter().filter_map(|part| if let Picks(form) = part.truth { Some(form) } else { None });
    if any(Never) {
        return Never;
    }
    // The narrowest tells what the whole is like.
    let narrow = |form: &Form| matches!(form, Form::Equal | Form::Inside | Form::Null);
    if let Some(form) = forms().find(narrow).or_else(|| forms().next()) {
        return Picks(form);
    }
    // `a.key = b.key AND a.id > b.id`: all but one of each, which is how duplicates are removed.
    if any(SameAsTwin) && any(OtherThanTwin) {
        return Picks(Form::Equal);
    }
    if any(Unclear) || any(SameAsTwin) || any(OtherThanTwin) {
        return Unclear;
    }
    if parts.iter().all(|part| part.truth == Always) { Always } else { Constant }
}

/// More alternatives that are broad are not compared with each other.
const MOST_BROAD: usize = 64;

pub(super) fn any_of(parts: &[Summary]) -> Truth {
    let any = |truth| parts.iter().any(|part| part.truth == truth);
    if any(Always) {
        return Always;
    }
    if parts.iter().all(|part| part.truth == Never) {
        return Never;
    }
    if any(Constant) {
        return Constant;
    }
    // A long list of alternatives is compared by what is broad in it; narrow ones cannot be all rows.
    let mut narrow: Vec<(Form, Columns)> = Vec::new();
    let mut broad: Vec<(Form, Columns)> = Vec::new();
    for part in parts {
        match part.truth {
            Picks(form @ (Form::Equal | Form::Inside)) => narrow.push((form, part.columns)),
            // `a = 1` once more leaves out no less.
            Picks(form @ (Form::Said(_) | Form::Flag | Form::NoFlag | Form::Null))
                if broad.contains(&(form, part.columns)) => {}
            Picks(_) if broad.len() == MOST_BROAD => return Unclear,
            Picks(form) => broad.push((form, part.columns)),
            Never => {}
            Always | Constant | SameAsTwin | OtherThanTwin | Unclear => return Unclear,
        }
    }
    let bounds = |columns: Columns| {
        // `a > 3 OR a IN (1, 2, 3) OR a < 1`: 1 is what a flag may be as well.
        let bound = |form: &Form| !matches!(form, Form::Null);
        broad.iter().filter(|(form, other)| bound(form) && other.overlap(columns)).count()
            + narrow.iter().filter(|(_, other)| other.overlap(columns)).count()
    };
    // `a <> 1 OR b <> 2` leaves out only what is both.
    let is = |wanted: Form| broad.iter().filter(move |(form, _)| *form == wanted).count();
    let others = broad.len() - is(Form::Null) - is(Form::Said(true)) - is(Form::Said(false));
    if is(Form::Negative) > 0 && others > 1 {
        return Unclear;
    }
    // `(SELECT max(u.id) FROM u WHERE u.t_id = t.id) IS NULL OR EXISTS (..)`, `(SELECT count(*) ..) = 0 OR ..`
    let all = || broad.iter().chain(&narrow).filter(|(_, columns)| columns.overlap(existence()));
    let of_nothing = |form: Form| matches!(form, Form::Null | Form::Said(false) | Form::Below(_));
    if all().any(|(form, _)| of_nothing(*form)) && all().count() > 1 {
        return Unclear;
    }
    for (place, (form, columns)) in broad.iter().enumerate() {
        let mut others = broad.iter().skip(place + 1).chain(&narrow);
        if others.any(|(other, theirs)| columns.overlap(*theirs) && !form.leaves_rows_out_with(*other)) {
            return Unclear;
        }
        // `a < 3 OR a > 5 OR a BETWEEN 3 AND 5`
        let two_sided = |(other, theirs): &(Form, Columns)| {
            columns.overlap(*theirs)
                && matches!(
                    (form, other),
                    (Form::Below(_), Form::Above(_)) | (Form::Above(_), Form::Below(_))
                )
        };
        if broad.iter().any(two_sided) && bounds(*columns) > 2 {
            return Unclear;
        }
    }
    // What it is beside others of `(a OR b) IS TRUE`.
    let forms = || broad.iter().chain(&narrow).map(|(form, _)| *form);
    let first = forms().next().unwrap_or(Form::Equal);
    Picks(match forms().all(|form| form == first) {
        true => first,
        false if broad.is_empty() => Form::Inside,
        false => Form::Negative,
    })
}
