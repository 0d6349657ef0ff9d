//! Whether a condition is one that is known to pick rows.
//!
//! `WHERE id = id`, `WHERE starts_with(code, '')`, `WHERE (percent > 0) IN (true, false)`,
//! `WHERE code IN (SELECT code FROM t)`: an UPDATE or DELETE with one of these changes the whole table, and
//! there is no end to such disguises. So this does not look for them. It knows the forms that pick rows, a
//! column compared with something that is not of the row, an `IN`, a join, a correlated `EXISTS` and so on;
//! a condition that is not made of them does not count as one.
//!
//! What a known form *means* for the rows there are nobody can tell from the text: `price < 1000000` may be
//! all of them.
//!
//! - this file: what a condition is made of, and AND, OR and NOT of it
//! - `columns`: whose a column is that is named without its table
//! - `forms`: how a condition picks, and what AND and OR make of several
//! - `compare`: comparisons and lists; `bounds`, `patterns` and `ranges`: what they compare with
//! - `sources`: subqueries, joins and WITH: whether they bring the whole table back
//! - `emptiness`: whether a subquery finds anything at all
//! - `reading`: the same question of what a query reads
//!
//! Works from the leaves to the root over a flat range of the tree: each node is summarised from its parts'
//! summaries.

mod bounds;
mod columns;
mod compare;
mod emptiness;
mod forms;
mod patterns;
mod ranges;
mod reading;
mod sources;
mod values;

use std::hash::{DefaultHasher, Hasher};

use self::columns::Made;
use self::forms::{Form, all_of, alternatives, any_of, is_or, picked};
use super::patience::Patience;
use super::sources::{Names, Source, Tables};
use crate::classify::tree::{Field, Kind, Node};

pub(super) use sources::counts;

pub(super) use reading::{MOST_SOURCES, picks_any, picks_what_is_read};

/// What is known of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    /// True of every row.
    Always,
    /// False of every row.
    Never,
    /// The same for every row, whatever that is.
    Constant,
    /// Of a form that picks rows.
    Picks(Form),
    /// Equates a column of the row with the same column of another row of its table.
    SameAsTwin,
    /// Wants a column of the row to differ from that of another row of its table. With
    /// [`Truth::SameAsTwin`] of another column it is how duplicates are told.
    OtherThanTwin,
    /// Depends on the row, perhaps in appearance only.
    Unclear,
}

use Truth::{Always, Constant, Never, OtherThanTwin, Picks, SameAsTwin, Unclear};

/// Some columns: bits of a Bloom filter. A collision can only make a condition look the same as another,
/// and so be held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Columns(u128);

impl Columns {
    const BITS: u32 = 4;
    /// Any, for all that is known.
    const ALL: Self = Self(u128::MAX);

    fn of(name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(name.as_bytes());
        let mut hash = hasher.finish();
        let mut bits = 0_u128;
        while bits.count_ones() < Self::BITS {
            bits |= 1 << (hash & 127);
            hash = hash.rotate_right(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        Self(bits)
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn overlap(self, other: Self) -> bool {
        (self.0 & other.0).count_ones() >= Self::BITS
    }
}

/// Whose columns an expression reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reads(u8);

impl Reads {
    /// The target's row.
    const OWN: Self = Self(1);
    /// The target's row or another table's: an unqualified name beside other tables.
    const EITHER: Self = Self(2);
    /// Another table's.
    const OTHER: Self = Self(4);
    /// Another row of the target's table.
    const TWIN: Self = Self(8);
    /// Rows derived from all rows of the target's table.
    const COPY: Self = Self(16);

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Depends, or may depend, on the target's row.
    fn row(self) -> bool {
        self.has(Self::OWN) || self.has(Self::EITHER)
    }
}

/// How an expression is made of the columns that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Of none.
    Constant,
    /// It is one.
    Column,
    /// In a way that says something about the row: `lower(name)`, `data->>'kind'`, `price * 2`.
    Derived,
    /// In a way that may say nothing: `pg_typeof(id)`, `left(code, 0)`.
    Vague,
}

/// Which values an expression may have, and so what a comparison says that is not an equality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scale {
    /// Whatever its column may hold.
    Wide,
    /// Something else, but in order and without end: `price * 2`, `date_trunc('day', t)`. That it is *not*
    /// equal to something says nothing: `upper(code) <> 'a'`.
    Ordered,
    /// A length: never negative, and seldom large.
    Length,
    /// The year of a date: all that anybody stores are in a few hundred of them.
    Years,
    /// Where in an order: up to some place it is a batch.
    Rank,
    /// Where among those of its kind: each may be the first.
    Turn,
    /// How often one thing goes into another: nothing, mostly.
    Quotient,
    /// Where something is found: beyond nothing, if at all.
    Place,
    /// Nobody knows: `id::text < 'a'` is true of each number.
    Computed,
    /// With something of the statement's own put in: `'x' || code LIKE 'x%'`.
    Padded,
    /// One of so many: `id % 2`, the month of a date.
    Few(u32),
    /// One of so many on a clock, of which a date has only the first.
    Clock(u32),
}

impl Scale {
    /// Whether a bound is among the values that there may be on both sides of it.
    fn reaches(self, bound: Option<f64>) -> bool {
        self != Self::Years || bound.is_none_or(|year| (1901.0..2200.0).contains(&year))
    }

    /// Of a value that is made of one with this scale by what has that one.
    fn then(self, other: Self) -> Self {
        match (self, other) {
            (Self::Few(one) | Self::Clock(one), Self::Few(other)) | (Self::Few(one), Self::Clock(other)) => {
                Self::Few(one.min(other))
            }
            _ => self.max(other),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Summary {
    truth: Truth,
    reads: Reads,
    columns: Columns,
    shape: Shape,
    scale: Scale,
    /// A comparison or another test: as a value it is true of nearly every row, or false.
    is_test: bool,
    /// A column that holds another value in each row, by its name: all but one of its values are all rows.
    is_key: bool,
    /// Cuts something off, perhaps everything, or is a digest: only to equal something says something.
    shortens: bool,
    /// Never NULL, whatever the column is.
    defaulted: bool,
    /// A test whose opposite is not known to pick anything: `NOT (upper(code) = 'a')`.
    one_way: bool,
    /// A test of what may not be there at all, so that its not being true says nothing.
    missing: bool,
    /// A value out of a document.
    is_json: bool,
    /// A subquery that returns one value.
    is_scalar_query: bool,
    /// How many bytes the column has, if it is an integer.
    integer: Option<u8>,
    /// What was added to the column.
    shift: f64,
}

const NOTHING: Summary = Summary {
    truth: Constant,
    reads: Reads(0),
    columns: Columns(0),
    shape: Shape::Constant,
    scale: Scale::Wide,
    is_test: false,
    is_key: false,
    shortens: false,
    defaulted: false,
    one_way: false,
    missing: false,
    is_json: false,
    is_scalar_query: false,
    integer: None,
    shift: 0.0,
};

impl Summary {
    fn test(self, truth: Truth) -> Self {
        Self { truth, is_test: true, ..self }
    }

    /// What is known of a test of these values, or of these tests, whatever it says.
    fn test_of(self, parts: impl IntoIterator<Item = Self>) -> Self {
        parts.into_iter().fold(self, |whole, part| Self {
            is_key: whole.is_key || part.is_key,
            one_way: whole.one_way
                || part.one_way
                || part.is_key
                || part.shortens
                || part.scale > Scale::Wide,
            missing: whole.missing || part.missing || part.is_json,
            ..whole
        })
    }

    /// A value of these columns from which one can tell rows apart.
    fn tells(self) -> bool {
        matches!(self.shape, Shape::Column | Shape::Derived) && !self.is_test
    }

    /// Together with another part of the same expression, which thereby says nothing for sure.
    fn blur(self, part: Self) -> Self {
        let reads = self.reads.and(part.reads);
        let shape = if reads.row() { Shape::Vague } else { Shape::Constant };
        let truth = if reads.row() { Unclear } else { Constant };
        Self { truth, reads, columns: self.columns.and(part.columns), shape, ..NOTHING }
    }
}

/// Whether `condition`, of the data-changing `statement`, is known to pick rows. `patience` is for all
/// questions about a text.
pub(super) fn picks_rows(
    names: Names<'_>,
    statement: Node<'_>,
    condition: Node<'_>,
    patience: &Patience,
) -> Verdict {
    let mut analysis = Analysis::of_statement(names.with(patience), statement, condition);
    match analysis.run() {
        _ if patience.is_over() => Verdict::Unclear,
        Picks(_) => Verdict::Picks,
        Always | Never | Constant => Verdict::SameForAll,
        SameAsTwin | OtherThanTwin | Unclear => Verdict::Unclear,
    }
}

/// Whether `query`, whose rows the data-changing `statement` takes, may be all rows of its target.
pub(super) fn brings_all_back(
    names: Names<'_>,
    statement: Node<'_>,
    query: Node<'_>,
    patience: &Patience,
) -> bool {
    let analysis = Analysis::of_statement(names.with(patience), statement, query);
    !analysis.restricts(query, 0) || patience.is_over()
}

/// What [`picks_rows`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It picks rows.
    Picks,
    /// It is the same for every row.
    SameForAll,
    /// It depends on the row, but is not of a form that is known to pick some.
    Unclear,
}

/// One condition, as seen from one table.
struct Analysis<'t, 'p> {
    tables: Tables<'p>,
    condition: Node<'t>,
    /// The statement or query that the table stands in, and the reference to it; none where it is not known
    /// which table it is.
    home: Option<Node<'t>>,
    target_node: Option<Node<'t>>,
    /// The other items of the same FROM.
    others: Vec<Source<'t>>,
    /// The table whose rows are to be picked: its own name, and the name that it goes by; none where a
    /// subquery hides it.
    table: Option<String>,
    target: Option<String>,
    /// Whose an unqualified column is, where tables are not known.
    unqualified: Reads,
    /// Other names for the same table.
    twins: Vec<String>,
    /// Names of what was derived from all its rows.
    copies: Vec<String>,
    /// Only what is compared with values that are of no row picks rows.
    only_values: bool,
    summaries: Vec<Summary>,
    depth: u32,
}

impl<'t> Analysis<'t, '_> {
    fn run(&mut self) -> Truth {
        let size = self.condition.end() - self.condition.index();
        if !self.tables.patience.can_afford(self.condition) {
            return Unclear;
        }
        self.summaries = vec![NOTHING; size as usize];
        // Descendants stand behind their parents, so backwards is children first.
        for node in self.condition.within().rev() {
            let summary = self.summarise(node);
            let place = (node.index() - self.condition.index()) as usize;
            if let Some(slot) = self.summaries.get_mut(place) {
                *slot = summary;
            }
        }
        self.of(self.condition).truth
    }

    fn of(&self, node: Node<'_>) -> Summary {
        let place = node.index().wrapping_sub(self.condition.index()) as usize;
        self.summaries.get(place).copied().unwrap_or(NOTHING)
    }

    fn field(&self, node: Node<'_>, field: Field) -> Option<Summary> {
        node.get(field).map(|part| self.of(part))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what has no rule of its own says nothing for sure")]
    fn summarise(&self, node: Node<'t>) -> Summary {
        match node.kind() {
            Kind::Scalar | Kind::Empty | Kind::ParamRef => NOTHING,
            Kind::AConst => constant(node),
            Kind::ColumnRef => self.column(node),
            Kind::TypeCast => self.cast(node),
            Kind::CollateClause => self.field(node, Field::Arg).unwrap_or(NOTHING),
            Kind::BoolExpr => self.boolean(node),
            Kind::AExpr => self.operator(node),
            Kind::NullTest => self.null_test(node),
            Kind::BooleanTest => self.boolean_test(node),
            Kind::SubLink => self.sublink(node),
            Kind::CaseExpr => self.case(node),
            Kind::CoalesceExpr => self.coalesce(node),
            Kind::RowExpr => self.row(node),
            Kind::FuncCall => self.call(node),
            Kind::AIndirection => self.element(node),
            Kind::CurrentOfExpr => Summary { reads: Reads::OWN, ..NOTHING }.test(Picks(Form::Equal)),
            _ => self.parts(node),
        }
    }

    /// What reads a row and has no rule says nothing for sure.
    fn parts(&self, node: Node<'t>) -> Summary {
        node.children().fold(NOTHING, |whole, part| whole.blur(self.of(part)))
    }

    fn column(&self, node: Node<'t>) -> Summary {
        let fields: Vec<_> = node.list(Field::Fields).filter_map(Node::string).collect();
        let (name, qualifier) = match fields.as_slice() {
            [.., qualifier, name] => (&**name, Some(&**qualifier)),
            [name] => (&**name, None),
            [] => ("*", None),
        };
        let is = |name: &Option<String>| name.as_deref() == qualifier.or(Some(name_of_a_row(&fields)));
        let named = |names: &[String]| qualifier.is_some_and(|name| names.iter().any(|known| known == name));
        // `t` and `t.*` are whole rows.
        let whole_row = node.list(Field::Fields).any(|field| field.kind() == Kind::AStar)
            || (qualifier.is_none() && is(&self.target));
        let reads = match qualifier {
            _ if named(&self.copies) => Reads::COPY,
            _ if named(&self.twins) => Reads::TWIN,
            Some(_) if is(&self.target) => Reads::OWN,
            Some(_) if self.only_values => Reads::COPY,
            Some(_) => Reads::OTHER,
            None if whole_row => Reads::OWN,
            None => self.whose(node, name).map_or(self.unqualified, |whose| self.reads_of(whose)),
        };
        // What the system writes into each row; most of them are the same everywhere.
        let system = matches!(name, "tableoid" | "xmin" | "xmax" | "cmin" | "cmax" | "oid");
        let shape = if whole_row || system { Shape::Vague } else { Shape::Column };
        // A flag picks the rows that have it.
        let truth = if reads == Reads::OWN && shape == Shape::Column {
            Picks(Form::Flag)
        } else if reads.row() {
            Unclear
        } else {
            Constant
        };
        let constraint = if reads == Reads::OWN { self.constraint(name) } else { None };
        let is_key = is_key(name) || constraint.is_some_and(|constraint| constraint.is_key);
        let defaulted = constraint.is_some_and(|constraint| constraint.never_null);
        let integer = constraint.and_then(|constraint| constraint.integer);
        let own = Summary {
            truth,
            reads,
            columns: Columns::of(name),
            shape,
            is_key,
            defaulted,
            integer,
            ..NOTHING
        };
        match self.made_of(reads, name) {
            // `FROM (SELECT id, 5 AS five FROM t) s WHERE s.five = 5`
            // `FROM (SELECT id, extract(month FROM at) AS m FROM t) s WHERE s.m > 0`
            Some(Made::WorkedOut) => {
                let (shape, scale) = (Shape::Derived, Scale::Computed);
                Summary { truth: Unclear, shape, scale, columns: Columns::ALL, is_key: false, ..own }
            }
            Some(Made::Up) => Summary { truth: Unclear, shape: Shape::Vague, ..own },
            Some(Made::Rank { starts_anew }) => {
                let scale = if starts_anew { Scale::Turn } else { Scale::Rank };
                Summary {
                    truth: Unclear,
                    shape: Shape::Derived,
                    scale,
                    is_key: false,
                    defaulted: true,
                    ..own
                }
            }
            // `FROM (SELECT id, id AS c FROM t) q WHERE c = id`
            Some(Made::OfTheRow) | None if reads == Reads::OWN && self.may_be_renamed(name) => {
                Summary { columns: Columns::ALL, ..own }
            }
            Some(Made::OfTheRow) | None => own,
        }
    }

    fn cast(&self, node: Node<'t>) -> Summary {
        let Some(inner) = self.field(node, Field::Arg) else { return NOTHING };
        if !inner.reads.row() {
            return inner;
        }
        if inner.is_test {
            return inner.blur(NOTHING);
        }
        // `(data->>'done')::boolean` is a flag; `id::boolean` is true of all but one.
        let flag = inner.is_json && inner.reads == Reads::OWN && inner.shape == Shape::Derived;
        let truth = if flag { Picks(Form::Flag) } else { Unclear };
        let is_boolean = node
            .get(Field::TypeName)
            .is_some_and(|of| of.names(Field::Names).last().is_some_and(|name| name == "bool"));
        let shape = match inner.shape {
            // Whatever is made of that, `id::boolean = true`, says no more.
            Shape::Column | Shape::Derived if is_boolean && !flag => Shape::Vague,
            Shape::Column => Shape::Derived,
            shape @ (Shape::Constant | Shape::Derived | Shape::Vague) => shape,
        };
        let named = node.get(Field::TypeName);
        let to = named.and_then(|of| of.names(Field::Names).last().map(|name| name.to_string()));
        // What comes out of a document is a text until it is cast.
        let scale = match to.as_deref() {
            _ if inner.is_json => inner.scale,
            Some(to) if KEEPS_ORDER.contains(&to) => inner.scale.then(Scale::Ordered),
            // `flag::int < 2`, `id::text > ''`
            _ => inner.scale.then(Scale::Computed),
        };
        // `code::varchar(1)`
        let cuts = to.as_deref() == Some("varchar") && named.is_some_and(|of| of.has(Field::Typmods));
        let says_nothing = match to.as_deref() {
            // `id::bit(1)`
            Some("bit" | "varbit" | "char" | "bpchar") => true,
            _ => cuts && inner.scale > Scale::Ordered,
        };
        let shape = if says_nothing { Shape::Vague } else { shape };
        Summary { truth, shape, scale, shortens: inner.shortens || cuts, ..inner }
    }

    fn boolean(&self, node: Node<'t>) -> Summary {
        let parts: Vec<Summary> = alternatives(node).into_iter().map(|part| self.of(part)).collect();
        let whole = parts.iter().fold(NOTHING, |whole, part| whole.blur(*part));
        let truth = match node.word(Field::Boolop) {
            // Judged with the others of what it stands in.
            "OR_EXPR" if node.holder().is_some_and(is_or) => Unclear,
            "NOT_EXPR" => match parts.first().map_or(Constant, |part| part.truth) {
                Always => Never,
                Never => Always,
                Picks(_) if parts.iter().any(|part| part.one_way) => Unclear,
                // `NOT (n < 0 OR n > 9)` is between two ends.
                Picks(Form::Negative) if node.list(Field::Args).any(is_or) => Picks(Form::Inside),
                Picks(form) => form.negated(),
                truth @ (Constant | Unclear | SameAsTwin | OtherThanTwin) => truth,
            },
            "AND_EXPR" => all_of(&parts),
            _ => any_of(&parts),
        };
        // The columns that picked are what an alternative is compared with.
        let whole = Summary { columns: picked(&parts).unwrap_or(whole.columns), ..whole };
        let whole = whole.test_of(parts);
        // Not `a = 1 AND a = 2` is `a <> 1 OR a <> 2`.
        let both = node.word(Field::Boolop) == "AND_EXPR";
        Summary { one_way: whole.one_way || both, ..whole }.test(truth)
    }

    fn null_test(&self, node: Node<'t>) -> Summary {
        let inner = self.field(node, Field::Arg).unwrap_or(NOTHING);
        let whole = inner.blur(NOTHING);
        let is_null = node.word(Field::Nulltesttype) == "IS_NULL";
        let is_row = node.get(Field::Arg).is_some_and(|arg| arg.kind() == Kind::RowExpr);
        // `(id = 5) IS NOT NULL` asks whether id is there, `id IS NOT NULL` nothing at all.
        let known = inner.reads == Reads::OWN && inner.tells() && inner.scale <= Scale::Ordered;
        let truth = match known {
            // `data->>'no such key' IS NULL`
            true if is_null && inner.is_json => Unclear,
            // `nullif(code, '') IS NULL` is `code = ''` as well.
            true if inner.scale != Scale::Wide => {
                if is_null {
                    Picks(Form::Equal)
                } else {
                    Unclear
                }
            }
            true if is_null => Picks(Form::Null),
            true if !inner.is_key && !inner.defaulted && !is_row => Picks(Form::NotNull),
            true | false if inner.reads.row() => Unclear,
            true | false => Constant,
        };
        let whole = whole.test_of([inner]);
        Summary { one_way: whole.one_way || whole.missing || inner.defaulted, ..whole }.test(truth)
    }

    fn boolean_test(&self, node: Node<'t>) -> Summary {
        let inner = self.field(node, Field::Arg).unwrap_or(NOTHING);
        let whole = inner.blur(NOTHING);
        let truth = match (inner.truth, node.word(Field::Booltesttype)) {
            (Picks(_), "IS_NOT_TRUE" | "IS_NOT_FALSE") if inner.missing || inner.is_json => Unclear,
            (Picks(_), "IS_FALSE" | "IS_NOT_TRUE") if inner.one_way => Unclear,
            (Picks(form), "IS_TRUE" | "IS_NOT_FALSE") => Picks(form),
            (Picks(form), "IS_FALSE" | "IS_NOT_TRUE") => form.negated(),
            (Picks(_), "IS_UNKNOWN") if !inner.is_test => Picks(Form::Null),
            (Picks(_), "IS_NOT_UNKNOWN") if !inner.is_test && !inner.defaulted => Picks(Form::NotNull),
            (Picks(_), "IS_NOT_UNKNOWN") => Unclear,
            _ if inner.reads.row() => Unclear,
            _ => Constant,
        };
        // What is not there is neither true nor false.
        let whole = whole.test_of([inner]);
        Summary { one_way: whole.one_way || whole.missing, ..whole }.test(truth)
    }

    /// CASE whose branches pick rows, or are false.
    fn case(&self, node: Node<'t>) -> Summary {
        let whole = self.parts(node);
        if !whole.reads.row() {
            return whole;
        }
        let mut results: Vec<Summary> =
            node.list(Field::Args).filter_map(|branch| self.field(branch, Field::Result)).collect();
        results.extend(self.field(node, Field::Defresult));
        let mut conditions = node.list(Field::Args).filter_map(|branch| self.field(branch, Field::Expr));
        let yes_or_no = |part: &Summary| matches!(part.truth, Picks(_) | Never);
        // Branches are alternatives.
        let picks_each = results.iter().all(yes_or_no) && matches!(any_of(&results), Picks(_));
        // `CASE WHEN a = 1 THEN true ELSE false END`
        let one_condition = !node.has(Field::Arg)
            && conditions.clone().count() == 1
            && conditions.all(|condition| matches!(condition.truth, Picks(_)))
            && results.first().is_some_and(|result| result.truth == Always)
            && results.get(1).is_none_or(|otherwise| otherwise.truth == Never);
        let truth = if picks_each || one_condition { Picks(Form::Negative) } else { Unclear };
        // Its opposite may be anything.
        Summary { one_way: true, missing: true, ..whole }.test(truth)
    }

    /// `coalesce(column, ..)`: the first decides, and what follows must not.
    fn coalesce(&self, node: Node<'t>) -> Summary {
        let parts: Vec<Summary> = node.list(Field::Args).map(|part| self.of(part)).collect();
        let whole = self.parts(node);
        let Some((first, rest)) = parts.split_first() else { return whole };
        if !first.reads.row() {
            // `coalesce(true, id = 1)`, `id = coalesce(NULL, id)`
            return if rest.is_empty() { *first } else { whole };
        }
        let rest_constant = rest.iter().all(|part| !part.reads.row());
        let rest_false = rest.iter().all(|part| part.truth == Never);
        if first.is_test {
            let truth = if rest_false { first.truth } else { Unclear };
            let whole = whole.test_of([*first]);
            return Summary { one_way: whole.one_way || whole.missing, ..whole }.test(truth);
        }
        if !rest_constant || !first.tells() || first.reads.has(Reads::COPY) {
            return whole;
        }
        // As a condition: `coalesce(active, false)`.
        let flag = first.shape == Shape::Column && first.truth == Picks(Form::Flag);
        let truth = if flag { first.truth } else { Unclear };
        // `coalesce(data->>'no such key', '') <> 'x'`
        let scale = if first.is_json { first.scale.then(Scale::Computed) } else { first.scale };
        Summary { truth, shape: Shape::Derived, scale, defaulted: true, is_key: false, ..*first }
    }
}

/// A row named like a column: `SELECT t FROM t`.
fn name_of_a_row<'a>(fields: &'a [std::borrow::Cow<'_, str>]) -> &'a str {
    match fields {
        [name] => name,
        _ => "",
    }
}

/// Types to which nearly nothing is cast but what is in the same order.
const KEEPS_ORDER: [&str; 10] =
    ["date", "timestamp", "timestamptz", "time", "timetz", "numeric", "float8", "float4", "int8", "interval"];

/// Names of columns that are another in each row, and never NULL.
fn is_key(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    matches!(name.as_str(), "id" | "uuid" | "guid" | "pk" | "ctid" | "key" | "rowid")
}

fn constant(node: Node<'_>) -> Summary {
    let truth = match node.get(Field::Boolval).map(|flag| flag.flag(Field::Boolval)) {
        Some(true) => Always,
        Some(false) => Never,
        None => Constant,
    };
    Summary { truth, ..NOTHING }
}
