//! Whether a subquery finds anything: where it cannot, by its own words, `NOT EXISTS` and `NOT IN` are true of
//! every row.

use std::collections::HashSet;

use super::columns::{Made, worked_out};
use super::ranges::is_empty_array;
use super::sources::is_around;
use super::values::{number_of, text_of};
use super::{Always, Analysis, Columns, Never, Summary};
use crate::classify::tree::{Field, Kind, Node};
use crate::classify::walk::sources::{DEEPEST, From};

impl<'t> Analysis<'t, '_> {
    /// Whether some row may come out of a query, as far as is plain: where none can, `NOT EXISTS` is all rows. Not
    /// of `(VALUES (-1)) v`, `unnest('{}')`, `u JOIN v ON false`, `(SELECT .. LIMIT 0) u`.
    pub(super) fn may_bring(&self, query: Node<'t>, depth: u32) -> bool {
        self.may_be_true(query, depth) && self.finds_something(query, depth)
    }

    /// Whether some row may be what a query asks for, as far as that is plain: not `o.id = t.id AND o.id <> o.id`.
    fn may_be_true(&self, query: Node<'t>, depth: u32) -> bool {
        let Some(condition) = query.get(Field::WhereClause) else { return true };
        self.may_be_so(condition, depth) && !self.asks_again(query, condition)
    }

    /// Whether a condition names a column about which a query in the same FROM says something itself:
    /// `(SELECT * FROM u WHERE k = 1) u WHERE u.k > 2`, `(SELECT id, 0 AS x FROM u) u WHERE u.x = 1`; or
    /// two that may be the same: `(SELECT a AS x, a AS y FROM u) u WHERE u.x > u.y`.
    fn asks_again(&self, query: Node<'t>, condition: Node<'t>) -> bool {
        let named = |column: Node<'t>| column.list(Field::Fields).filter_map(Node::string).last();
        // What is said of a column, and columns that may be the same.
        let (mut said, mut alike) = (HashSet::new(), HashSet::new());
        for source in From::of(query.list(Field::FromClause)).sources {
            let with = self.tables.with_clause(source.node);
            let Some(query) =
                source.node.get(Field::Subquery).or(with.and_then(|with| with.get(Field::Ctequery)))
            else {
                continue;
            };
            if is_around(query, source.node) {
                continue;
            }
            if !self.tables.patience.can_afford(query) {
                return true;
            }
            let mut end = 0;
            for node in query.within() {
                if node.field() == Field::WhereClause {
                    end = end.max(node.end());
                }
                if node.kind() == Kind::ColumnRef && node.index() < end {
                    said.extend(named(node));
                }
            }
            let items = || query.list(Field::TargetList);
            // `SELECT a AS x, a AS y`
            let (mut once, mut twice) = (HashSet::new(), HashSet::new());
            let of = |item: Node<'t>| -> HashSet<_> {
                item.within().filter(|node| node.kind() == Kind::ColumnRef).filter_map(named).collect()
            };
            for name in items().flat_map(of) {
                if !once.insert(name.clone()) {
                    twice.insert(name);
                }
            }
            for item in items().filter(|item| !of(*item).is_disjoint(&twice)) {
                alike.extend(item.text(Field::Name).or_else(|| item.get(Field::Val).and_then(named)));
            }
            // `SELECT 0 AS x`, `SELECT b AS x .. WHERE b < 5`
            let is_said = |value: Node<'t>| match value.kind() == Kind::ColumnRef {
                true => named(value).is_some_and(|name| said.contains(&name)),
                false => worked_out(value) == Made::Up,
            };
            let told: Vec<Node<'t>> =
                items().filter(|item| item.get(Field::Val).is_some_and(is_said)).collect();
            let alias = source.node.get(Field::Alias);
            let renamed = || {
                let names = alias.into_iter().flat_map(|alias| alias.names(Field::Colnames));
                names.chain(with.into_iter().flat_map(|with| with.names(Field::Aliascolnames)))
            };
            if !told.is_empty() {
                said.extend(renamed());
            }
            if !twice.is_empty() {
                alike.extend(renamed());
            }
            said.extend(told.into_iter().filter_map(|item| item.text(Field::Name)));
        }
        let columns = condition.within().filter(|node| node.kind() == Kind::ColumnRef);
        let asked: HashSet<_> = columns.filter_map(named).collect();
        !said.is_disjoint(&asked) || alike.intersection(&asked).count() > 1
    }

    /// The same, whatever its WHERE.
    pub(super) fn finds_something(&self, query: Node<'t>, depth: u32) -> bool {
        let items = || query.list(Field::FromClause);
        if depth > DEEPEST || !self.tables.patience.can_afford(query) {
            return false;
        }
        let limited = [Field::LimitOffset, Field::HavingClause].into_iter().any(|field| query.has(field))
            || query.get(Field::LimitCount).is_some_and(|rows| number_of(rows).is_none_or(|rows| rows < 1.0));
        let sampled = || items().flat_map(Node::within).any(|item| item.kind() == Kind::RangeTableSample);
        if limited || sampled() || matches!(query.word(Field::Op), "SETOP_INTERSECT" | "SETOP_EXCEPT") {
            return false;
        }
        if let Some(leg) = query.get(Field::Larg) {
            return self.may_bring(leg, depth + 1);
        }
        let from = From::of(items());
        // A join by a name, `JOIN v USING (id)`, has no condition of its own.
        from.joins.iter().all(|condition| self.may_be_so(*condition, depth))
            && !from.sources.is_empty()
            && from.sources.iter().all(|source| self.may_bring_rows(source.node, depth))
    }

    fn may_be_so(&self, condition: Node<'t>, depth: u32) -> bool {
        let (mut seen, mut seen_last) = (HashSet::new(), HashSet::new());
        let mut open = vec![condition];
        let mut bounds: Vec<Bound<'_>> = Vec::new();
        while let Some(part) = open.pop() {
            if part.kind() == Kind::BoolExpr && part.word(Field::Boolop) == "AND_EXPR" {
                open.extend(part.list(Field::Args));
                continue;
            }
            // `o.at >= '2024-01-01' AND o.at < '2025-01-01'`
            if let Some(bound) = Bound::of(part) {
                if bounds.iter().any(|other| !bound.agrees(other)) || bounds.len() > MOST_BOUNDS {
                    return false;
                }
                bounds.push(bound);
                continue;
            }
            // `JOIN v ON v.id = u.id WHERE NOT EXISTS (SELECT FROM v WHERE v.id = u.id)`
            let negated = part.kind() == Kind::BoolExpr && part.word(Field::Boolop) == "NOT_EXPR";
            if negated && part.within().any(|node| node.kind() == Kind::SubLink) {
                return false;
            }
            let alternatives: Vec<Node<'_>> =
                match part.kind() == Kind::BoolExpr && part.word(Field::Boolop) == "OR_EXPR" {
                    true => part.list(Field::Args).collect(),
                    false => vec![part],
                };
            let mut of_part = HashSet::new();
            for alternative in alternatives {
                let mut own = HashSet::new();
                for node in alternative.within() {
                    if node.kind() == Kind::AConst && node.flag(Field::Isnull) {
                        return false;
                    }
                    if self.is_nothing(node, depth) {
                        return false;
                    }
                    let names = node.list(Field::Fields).filter_map(Node::string);
                    let names: Vec<String> = names.map(|name| name.into_owned()).collect();
                    if node.kind() == Kind::ColumnRef && !own.insert(names) {
                        return false;
                    }
                }
                if own.is_empty() {
                    return false;
                }
                of_part.extend(own);
            }
            // `k = 1 AND u.k > 2`
            let again = |column: &Vec<String>| {
                seen.contains(column)
                    || column.last().is_some_and(|name| match column.len() {
                        1 => seen_last.contains(name),
                        _ => seen.contains(std::slice::from_ref(name)),
                    })
            };
            if of_part.iter().any(again) {
                return false;
            }
            seen_last.extend(of_part.iter().filter_map(|column| column.last().cloned()));
            seen.extend(of_part);
        }
        !bounds.iter().any(|bound| seen.iter().any(|column| may_be_one(column, &bound.column)))
    }

    /// With which nothing is equal: `u.id = ANY ('{}')`, `u.id IN (SELECT 1 WHERE false)`.
    fn is_nothing(&self, node: Node<'t>, depth: u32) -> bool {
        let asks = |query: Node<'t>| {
            asks_for_nothing(query) || query.has(Field::FromClause) && !self.finds_something(query, depth + 1)
        };
        is_empty_array(node)
            || node.kind() == Kind::AConst && text_of(node).is_some_and(|text| text.trim() == "{}")
            || node.kind() == Kind::SubLink && node.get(Field::Subselect).is_some_and(asks)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "functions and their like")]
    fn may_bring_rows(&self, source: Node<'t>, depth: u32) -> bool {
        let query = match source.kind() {
            Kind::RangeVar => match self.with_query(source) {
                Some(query) if is_around(query, source) => return true,
                Some(query) => query,
                None => return true,
            },
            Kind::RangeSubselect => match source.get(Field::Subquery) {
                Some(query) => query,
                None => return false,
            },
            // Under an alias of its own.
            Kind::JoinExpr => return false,
            // Of a parameter or a column nobody can tell.
            _ => return source.within().any(|part| matches!(part.kind(), Kind::ParamRef | Kind::ColumnRef)),
        };
        // `(SELECT id, dense_rank() OVER (PARTITION BY id) AS x FROM t) q WHERE q.x = 2`
        let ranks = || query.list(Field::TargetList).flat_map(Node::within).any(|part| part.has(Field::Over));
        // What changes rows is judged by itself.
        query.kind() != Kind::SelectStmt || self.may_bring(query, depth + 1) && !ranks()
    }

    /// Whether a query is not empty by what it says: `SELECT 1 WHERE false`, `SELECT id FROM u LIMIT 0`.
    pub(super) fn brings_something(&self, query: Node<'t>) -> bool {
        let limited = query.has(Field::LimitCount) || query.has(Field::LimitOffset);
        let nothing_asked = |condition: Node<'t>| {
            !condition.within().any(|node| matches!(node.kind(), Kind::ColumnRef | Kind::FuncCall))
        };
        let reads = query.has(Field::FromClause) || query.has(Field::ValuesLists);
        if limited || !reads || query.get(Field::HavingClause).is_some_and(nothing_asked) {
            return false;
        }
        let finds = || query.has(Field::ValuesLists) || self.finds_something(query, self.depth);
        let Some(condition) = query.get(Field::WhereClause) else { return finds() };
        let from = From::of(query.list(Field::FromClause));
        let constant = self.depth >= DEEPEST
            || matches!(self.inside(condition, &from.sources).run(), Always | Never)
            || nothing_asked(condition)
            || !self.may_be_true(query, self.depth);
        !constant && finds()
    }
}

/// Whether a query asks for what the tested columns are, or are not: `name NOT IN (SELECT u.s FROM u WHERE u.s <> t.name)`.
pub(super) fn compares_with(query: Node<'_>, tested: Summary) -> bool {
    let condition = query.get(Field::WhereClause);
    condition.into_iter().flat_map(Node::within).any(|part| {
        let name = part.list(Field::Fields).filter_map(Node::string).last();
        part.kind() == Kind::ColumnRef && name.is_some_and(|name| Columns::of(&name).overlap(tested.columns))
    })
}

/// `SELECT 1 WHERE false`, `SELECT id FROM u LIMIT 0`
fn asks_for_nothing(query: Node<'_>) -> bool {
    !query.has(Field::FromClause)
        || query.has(Field::LimitCount)
        || query.get(Field::WhereClause).is_some_and(|condition| {
            !condition.within().any(|part| matches!(part.kind(), Kind::ColumnRef | Kind::ParamRef))
        })
}

/// Whether two names may be of one column: `k` and `u.k`.
fn may_be_one(one: &[String], other: &[String]) -> bool {
    one.last() == other.last() && (one.len() == 1 || other.len() == 1 || one == other)
}

/// More comparisons with a constant are not compared with each other.
const MOST_BOUNDS: usize = 64;

/// A column compared with a constant.
struct Bound<'t> {
    column: Vec<String>,
    name: String,
    constant: Node<'t>,
}

impl<'t> Bound<'t> {
    fn of(part: Node<'t>) -> Option<Self> {
        if part.kind() != Kind::AExpr || part.word(Field::Kind) != "AEXPR_OP" {
            return None;
        }
        let (column, constant) = (part.get(Field::Lexpr)?, part.get(Field::Rexpr)?);
        let name = part.names(Field::Name).last()?.to_string();
        let is_plain = column.kind() == Kind::ColumnRef
            && matches!(name.as_str(), "<" | "<=" | ">" | ">=" | "<>")
            && !constant.within().any(|node| {
                matches!(node.kind(), Kind::ColumnRef | Kind::SubLink)
                    || node.kind() == Kind::AConst && node.flag(Field::Isnull)
            });
        let column =
            column.list(Field::Fields).filter_map(Node::string).map(|name| name.into_owned()).collect();
        is_plain.then_some(Self { column, name, constant })
    }

    /// Whether both may be so, as far as is plain.
    fn agrees(&self, other: &Self) -> bool {
        let below = |bound: &Self| bound.name.starts_with('<') && bound.name != "<>";
        let above = |bound: &Self| bound.name.starts_with('>');
        let (low, high) = match (above(self) && below(other), below(self) && above(other)) {
            _ if !may_be_one(&self.column, &other.column) => return true,
            (true, _) => (self.constant, other.constant),
            (_, true) => (other.constant, self.constant),
            (false, false) => return true,
        };
        match (number_of(low), number_of(high)) {
            (Some(low), Some(high)) => low < high,
            _ => match (text_of(low), text_of(high)) {
                (Some(low), Some(high)) => low < high,
                // Parameters and times.
                _ => true,
            },
        }
    }
}
